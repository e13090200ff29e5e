"""`unseen check --fresh`: the studies again, with seeds nobody used.

A correct 95 % interval holds an equally large repetition in about 83 % (more with few seeds), since
the repetition varies, too. The same command goes on where it was stopped.

Exit codes: 0 as many inside as expected, 1 fewer, 3 cells are missing.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unseen.errors import InvalidConfig
from unseen.runs import catalog, ledger, progress, repeat, runner
from unseen.runs.executors import InProcess
from unseen.runs.ledger import Files
from unseen.runs.repeat import Coverage, Repetition
from unseen.runs.store import Store
from unseen.study import Scale, Study


@dataclass(frozen=True)
class FreshStudy:
    """What became of one study."""

    name: str
    first: int
    found: list[Repetition] | None
    """Nothing while cells are missing."""
    seconds: float


def check_fresh(names: Sequence[str], options: argparse.Namespace, store: Store) -> int:
    """Runs the named studies again and says how many effects the ledger's intervals hold."""
    until = None if options.seconds is None else time.monotonic() + options.seconds
    studies = []
    for name in names:
        study, text = catalog.load(name), ledger.read(Files(options.results, name).claims)
        if claims := repeat.repeatable_claims(study, text, options.claims):
            first = options.first_seed or repeat.first_fresh_seed(text)
            studies.append(_run(study, text, first, claims, bool(options.claims), store, until))
    if not studies:
        raise InvalidConfig(
            "No claim of these ledgers can be repeated.",
            why="it must be about something trained, and have an interval"
            + (f" and contain {' or '.join(map(repr, options.claims))}." * bool(options.claims)),
            fix="name other studies or claims.",
        )
    found = [one for study in studies for one in study.found or ()]
    coverage = Coverage.of(found) if found else None
    if options.json:
        print(json.dumps(as_json(studies, coverage), ensure_ascii=False, indent=1))
    else:
        print("\n".join(describe(studies, coverage)))
    if any(study.found is None for study in studies):
        return 3
    return 1 if coverage and coverage.share.high < coverage.expected else 0


def _run(
    study: Study[Any, Any],
    text: dict[str, Any],
    first: int,
    claims: Sequence[Any],
    is_part: bool,
    store: Store,
    until: float | None,
) -> FreshStudy:
    config, spent = study.scales[Scale(text["scale"])], dict[str, float]()

    def compute(part: Study[Any, Any]) -> runner.Result:
        choices = runner.Choices(until=until)
        result = runner.run(part, config, store, InProcess, choices, progress.watcher())
        if result.interrupted:
            raise KeyboardInterrupt
        spent.update({run.key: float(run.facts.get("seconds", 0.0)) for run in result.runs})
        return result

    found = repeat.run_again(study, text, first, claims, is_part, compute)
    return FreshStudy(study.name, first, found, sum(spent.values()))


def describe(studies: Sequence[FreshStudy], coverage: Coverage | None) -> list[str]:
    """A line per study, the effects outside, and the share over all."""
    lines = []
    for study in studies:
        head = f"{study.name}, seeds from {study.first:,}"
        if study.found is None:
            lines.append(f"? {head}: cells are missing; the same command goes on")
            continue
        mine = Coverage.of(study.found)
        lines.append(
            f"  {head}: {mine.inside} of {mine.total} inside, intervals {mine.width_ratio:.2f} "
            f"times as wide, {study.seconds:.0f} CPU s"
        )
        lines += [f"    outside: {outside(one)}" for one in study.found if not one.is_inside]
    if coverage:
        share = coverage.share
        lines.append(
            f"{coverage.inside} of {coverage.total} effects lie inside the recorded intervals: "
            f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]; {coverage.expected:.0%} is "
            f"right for so many seeds (83 % for many). Intervals are {coverage.width_ratio:.2f} "
            "times as wide as before."
        )
    return lines


def outside(one: Repetition) -> str:
    """An effect that left its interval, in words."""
    group = f" ({one.group})" if one.group else ""
    return (
        f"“{one.says}”{group}: {one.fresh.value:.4g} [{one.fresh.low:.4g}, {one.fresh.high:.4g}], "
        f"recorded {one.recorded.value:.4g} [{one.recorded.low:.4g}, {one.recorded.high:.4g}]"
    )


def as_json(studies: Sequence[FreshStudy], coverage: Coverage | None) -> dict[str, Any]:
    """Every effect, and the share over all."""
    return {
        "studies": [
            {
                "study": study.name,
                "first_seed": study.first,
                "finished": study.found is not None,
                "seconds": round(study.seconds, 1),
                "effects": [
                    {
                        "says": one.says,
                        "group": one.group,
                        "inside": one.is_inside,
                        "recorded": ledger.numbers(one.recorded),
                        "fresh": ledger.numbers(one.fresh),
                    }
                    for one in study.found or ()
                ],
            }
            for study in studies
        ],
        "inside": coverage and coverage.inside,
        "effects": coverage and coverage.total,
        "share": coverage and ledger.numbers(coverage.share),
        "expected": coverage and round(coverage.expected, 3),
        "width_ratio": coverage and ledger.number(coverage.width_ratio),
    }
