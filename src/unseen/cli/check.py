"""`unseen check`: whether the verdicts in results/ still hold.

A ledger file *holds* if every claim of the study is in it, the recorded interval gives the recorded verdict under the
margins of today, and the stored rows of this code, where they are present, give the same verdict with an effect inside
the recorded interval. It is *stale* if the code of its cells has changed since and no rows of the new code are stored.

Exit codes: 0 all hold, 1 something does not hold, 2 usage or input error, 3 something is stale or missing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import isfinite, nan
from pathlib import Path
from typing import Any

from unseen.cli.arguments import Arguments
from unseen.errors import MissingFile, UnknownName
from unseen.reading import Reading
from unseen.runs import catalog, ledger, runner
from unseen.runs.store import Store, home
from unseen.study import Claim, Judgement, Scale, Study


class Standing(StrEnum):
    """What a ledger file is worth today."""

    HOLDS = "holds"
    BROKEN = "does not hold"
    STALE = "stale"
    MISSING = "missing"

    @property
    def sign(self) -> str:
        return {"holds": "✓", "does not hold": "✗", "stale": "?", "missing": "–"}[self.value]


@dataclass(frozen=True)
class Checked:
    """A ledger file with its standing and the reasons."""

    study: str
    standing: Standing
    reasons: tuple[str, ...] = ()
    from_rows: bool = False
    """Whether stored rows of this code took part."""


def main(argv: Sequence[str]) -> int:
    p = Arguments(
        "unseen check", "Whether the verdicts in results/ still hold for this code.", __doc__.split("\n\n")[-1]
    )
    p.add_argument("names", nargs="*", help="studies (default: all with a ledger file)")
    p.add_argument("--results", type=Path, default=Path("results"), help="folder of the ledger (default results)")
    p.add_argument("--home", type=Path, help="where results are kept")
    options = p.parse_args(argv)
    store = Store(home(options.home))
    names = options.names or sorted(path.stem for path in options.results.glob("*.json"))
    if not names:
        raise MissingFile(
            f"{options.results} holds no ledger file.",
            why="there is nothing to compare with.",
            fix="unseen run NAME --scale laptop --ledger, or --results DIR.",
        )
    found = [checked(catalog.load(name), options.results / f"{name}.json", store) for name in names]
    if options.json:
        print(json.dumps({"checked": [asdict(one) for one in found]}, ensure_ascii=False, indent=1))
    else:
        for one in found:
            print(f"{one.standing.sign} {one.study}: {one.standing}" + (", from stored rows" if one.from_rows else ""))
            for reason in one.reasons:
                print(f"    {reason}")
    standings = {one.standing for one in found}
    return 1 if Standing.BROKEN in standings else 3 if standings & {Standing.STALE, Standing.MISSING} else 0


def checked(study: Study[Any, Any], path: Path, store: Store) -> Checked:
    """Compares one ledger file with the study's claims and, where they are stored, its rows."""
    if not path.exists():
        return Checked(study.name, Standing.MISSING, (f"unseen run {study.name} --scale laptop --ledger",))
    told = ledger.read(path)
    if told["scale"] not in set(Scale):
        raise UnknownName.near(f"scale in {path}", str(told["scale"]), list(Scale))
    scale = Scale(told["scale"])
    lines = {line["says"]: line for line in told["claims"]}
    wrong = [f"the ledger has no claim “{c.says}”" for c in study.claims if c.says not in lines]
    wrong += [f"the study no longer claims “{says}”" for says in lines if says not in {c.says for c in study.claims}]
    shared = [(claim, lines[claim.says]) for claim in study.claims if claim.says in lines]
    wrong += [reason for claim, line in shared if (reason := _margin(claim, line, scale))]
    result = runner.stored(study, study.scales[scale], store)
    complete = bool(result.total) and len(result.runs) == result.total
    if complete:
        judged = [(claim.judge(result.rows, scale), line) for claim, line in shared]
        wrong += [reason for judgement, line in judged if (reason := _moved(judgement, line))]
    if wrong:
        return Checked(study.name, Standing.BROKEN, tuple(wrong), complete)
    jobs = runner.jobs_of(study, study.scales[scale], store)
    if not complete and told.get("code") != ledger.digest(job.key for job in jobs):
        reason = f"the code of its cells has changed: unseen run {study.name} --scale {scale} --ledger"
        return Checked(study.name, Standing.STALE, (reason,))
    return Checked(study.name, Standing.HOLDS, (), complete)


def _margin(claim: Claim, line: dict[str, Any], scale: Scale) -> str:
    """Whether the recorded interval gives the recorded verdict under the margins of today."""
    if line["value"] is None:
        return ""
    low, high = (nan if line[end] is None else float(line[end]) for end in ("low", "high"))
    recorded = Reading(float(line["value"]), low, high, int(line["n"]))
    verdict = Claim(
        says=claim.says, effect=lambda _: recorded, above=claim.above, below=claim.below, needs=claim.needs
    ).judge([], scale)
    if verdict.verdict.value == line["verdict"]:
        return ""
    return f"“{claim.says}” is recorded as {line['verdict']}; its margin today makes it {verdict.verdict}"


def _moved(judgement: Judgement, line: dict[str, Any]) -> str:
    """Whether rows of this code give another verdict, or an effect beyond the recorded interval."""
    if judgement.verdict.value != line["verdict"]:
        return f"“{judgement.says}” was {line['verdict']}, is {judgement.verdict}: {judgement.because}"
    low, high, reading = line["low"], line["high"], judgement.reading
    if reading is None or low is None or high is None or not isfinite(reading.value):
        return ""
    slack = 1e-5 * max(abs(low), abs(high))  # the ledger keeps six digits
    if low - slack <= reading.value <= high + slack:
        return ""
    return f"“{judgement.says}”: the effect {reading.value:.4g} left its recorded interval [{low:.4g}, {high:.4g}]"
