"""`unseen check`: whether the verdicts in results/ still hold.

A ledger *holds* if every claim of the study is in it, the recorded interval gives the recorded
verdict under the margins of today, and the rows, judged again, agree: kept rows give the same
verdict; rows of this code, where they are stored, an effect inside the recorded interval and not
the opposite verdict (another processor moves what is trained). It is *stale* if the code of its
cells has changed since and no rows of the new code are stored. --smoke computes the smoke scale of
stale ledgers and restamps those whose smoke rows are as before, if the smoke scale runs every
definition that changed; --one-seed computes one seed of the laptop scale instead and compares its
rows with the kept ones. --fresh runs the studies again with seeds nobody used (`fresh.py`).

Exit codes: 0 all hold, 1 something does not hold, 2 usage or input error, 3 something is stale or
missing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from math import isfinite
from typing import Any

from unseen.cli.fresh import check_fresh
from unseen.cli.study_options import check_parser
from unseen.errors import MissingFile, UnknownName
from unseen.runs import catalog, ledger, runner
from unseen.runs.ledger import Files
from unseen.runs.overview import write_table
from unseen.runs.seeds import count_seeds, decide_with_more_seeds
from unseen.runs.settle import settle_by_seed, settle_by_smoke
from unseen.runs.store import Store, home
from unseen.study import Claim, Judgement, Scale, Study, Verdict


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
class LedgerStatus:
    """A ledger file with its standing and the reasons."""

    study: str
    standing: Standing
    reasons: tuple[str, ...] = ()
    rows: str = ""
    """Which rows were judged again."""


def main(argv: Sequence[str]) -> int:
    options = check_parser().parse_args(argv)
    store = Store(home(options.home))
    names = options.names or sorted(path.stem for path in options.results.glob("*.json"))
    if not names:
        raise MissingFile(
            f"{options.results} holds no ledger file.",
            why="there is nothing to compare with.",
            fix="unseen run NAME --scale laptop --ledger, or --results DIR.",
        )
    if options.fresh:
        return check_fresh(names, options, store)
    found, changed = [], []
    for name in names:
        study, files = catalog.load(name), Files(options.results, name)
        if options.rejudge:
            changed += rejudge(study, files)
        one = check_ledger(study, files, store)
        found.append(
            settle_ledger(study, files, one, options.one_seed)
            if (options.smoke or options.one_seed) and one.standing is Standing.STALE
            else one
        )
    if options.table:
        write_table(options.table, options.results)
    if not options.json:
        print("".join(f"{line}\n" for line in changed), end="")
    if options.json:
        print(
            json.dumps(
                {"checked": [asdict(one) for one in found], "changed": changed},
                ensure_ascii=False,
                indent=1,
            )
        )
    else:
        for one in found:
            print(
                f"{one.standing.sign} {one.study}: {one.standing}"
                + (f", from {one.rows}" if one.rows else "")
            )
            for reason in one.reasons:
                print(f"    {reason}")
    standings = {one.standing for one in found}
    return (
        1
        if Standing.BROKEN in standings
        else 3
        if standings & {Standing.STALE, Standing.MISSING}
        else 0
    )


def check_ledger(study: Study[Any, Any], files: Files, store: Store) -> LedgerStatus:
    """Compares a ledger with the study's claims, with its rows, and with the code of today."""
    if not files.claims.exists():
        return LedgerStatus(
            study.name, Standing.MISSING, (f"unseen run {study.name} --scale laptop --ledger",)
        )
    text = ledger.read(files.claims)
    if text["scale"] not in set(Scale):
        raise UnknownName.near(f"scale in {files.claims}", str(text["scale"]), list(Scale))
    scale = Scale(text["scale"])
    lines = {line["says"]: line for line in text["claims"]}
    wrong = [f"the ledger has no claim “{c.says}”" for c in study.claims if c.says not in lines]
    wrong += [
        f"the study no longer claims “{says}”"
        for says in lines
        if says not in {c.says for c in study.claims}
    ]
    shared = [(claim, lines[claim.says]) for claim in study.claims if claim.says in lines]
    wrong += [reason for claim, line in shared if (reason := _margin(claim, line, scale))]
    result = runner.load_result(study, study.scales[scale], store)
    judgements, origin = _judge_again(study, scale, files, text, result, store)
    wrong += [
        reason
        for judgement in judgements
        if judgement.says in lines and (reason := _change(judgement, lines[judgement.says], origin))
    ]
    if wrong:
        return LedgerStatus(study.name, Standing.BROKEN, tuple(wrong), origin)
    if origin != STORED and text.get("code") != ledger.digest(result.keys):
        reason = (
            f"the code of its cells has changed: unseen run {study.name} --scale {scale} --ledger"
        )
        return LedgerStatus(study.name, Standing.STALE, (reason,), origin)
    return LedgerStatus(study.name, Standing.HOLDS, (), origin)


STORED, KEPT = "stored rows", "kept rows"


def _judge_again(
    study: Study[Any, Any],
    scale: Scale,
    files: Files,
    text: dict[str, Any],
    result: runner.Result,
    store: Store,
) -> tuple[Sequence[Judgement], str]:
    """The claims on rows of this code where all are stored, else on those of the ledger, if any."""
    if result.total and len(result.runs) == result.total:
        config = study.scales[scale]
        verdicts = decide_with_more_seeds(
            study,
            scale,
            [job.cell for job in runner.jobs_of(study, config, store)],
            result,
            [claim.judge(result.rows, scale) for claim in study.claims],
            lambda part: runner.load_result(part, config, store),
        )
        if "rows" not in text or all(len(one.runs) == one.total for one in verdicts.extra):
            return verdicts.judgements, STORED
    if "rows" not in text:
        return [], ""
    return ledger.decide_claims(study, files, text), KEPT


def settle_ledger(
    study: Study[Any, Any], files: Files, stale: LedgerStatus, one_seed: bool
) -> LedgerStatus:
    """What the smoke scale, or one seed of the ledger's own, says about a stale ledger."""
    by = settle_by_seed if one_seed else settle_by_smoke
    reason = by(study, files, ledger.read(files.claims))
    if not reason:
        said = ledger.read(files.claims)["compared"].split(" at ")[0]
        return LedgerStatus(
            study.name, Standing.HOLDS, (f"restamped: {said} as before",), stale.rows
        )
    return replace(stale, reasons=(reason, *stale.reasons))


def rejudge(study: Study[Any, Any], files: Files) -> list[str]:
    """Writes the claims anew, as the formulas of today judge the kept rows; lists what changed.
    Claims whose words have changed keep their doublings.
    """
    text = ledger.read(files.claims)
    if "rows" not in text:
        return [f"{study.name}: no rows are kept, so nothing is judged again"]
    says = [line["says"] for line in text["claims"]]
    text = {**text, "claims": rename_claims(study, text["claims"])}
    renamed = [
        f"{study.name}: “{old}” now says “{line['says']}”"
        for old, line in zip(says, text["claims"], strict=True)
        if old != line["says"]
    ]
    judgements = ledger.decide_claims(study, files, text)
    before = {line["says"]: line["verdict"] for line in text["claims"]}
    seeds = text.get("seeds") or count_seeds(ledger.read_rows(files.rows, text["rows"]))
    claims = ledger.lines(judgements, ledger.doublings(text))
    ledger.write_text(files, {**text, "claims": claims, "seeds": seeds})
    return renamed + [
        f"{study.name}: “{one.says}” was {before.get(one.says, 'not claimed')}, is {one.verdict}: "
        f"{one.because}"
        for one in judgements
        if before.get(one.says) != one.verdict.value
    ]


def rename_claims(study: Study[Any, Any], lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a ledger under the words of today: a claim that it does not know is the one at
    its place, if the study has as many. Otherwise its verdict and the doublings of its seeds, which
    are kept by what it says, would be lost.
    """
    today, kept = [claim.says for claim in study.claims], {line["says"] for line in lines}
    if len(today) != len(lines):
        return [*lines]
    return [
        line if line["says"] in today or says in kept else {**line, "says": says}
        for line, says in zip(lines, today, strict=True)
    ]


def _margin(claim: Claim, line: dict[str, Any], scale: Scale) -> str:
    """Whether the recorded interval gives the recorded verdict under the margins of today."""
    recorded = ledger.recorded_reading(line)
    if recorded is None:
        return ""
    verdict = replace(claim, effect=lambda _: recorded).judge([], scale)
    if verdict.verdict.value == line["verdict"]:
        return ""
    return (
        f"“{claim.says}” is recorded as {line['verdict']}; its margin today makes it "
        f"{verdict.verdict}"
    )


def _change(judgement: Judgement, line: dict[str, Any], origin: str) -> str:
    """Whether the claim comes out otherwise.

    Kept rows give the same verdict. Rows of another run, on another processor perhaps, give an
    effect inside the recorded interval, and at least not the opposite verdict.
    """
    verdicts = {judgement.verdict.value, line["verdict"]}
    reading, change = judgement.reading, ""
    if len(verdicts) > 1:
        change = (
            f"“{judgement.says}” was {line['verdict']}, is {judgement.verdict}: {judgement.because}"
        )
    is_opposite = verdicts == {Verdict.SUPPORTED.value, Verdict.REFUTED.value}
    if change and (origin == KEPT or is_opposite or reading is None):
        return change
    low, high = line["low"], line["high"]
    if reading is None or low is None or high is None or not isfinite(reading.value):
        return change
    slack = 1e-5 * max(abs(low), abs(high))  # the ledger keeps six digits
    if low - slack <= reading.value <= high + slack:
        return ""
    return (
        f"“{judgement.says}”: the effect {reading.value:.4g} left its recorded interval "
        f"[{low:.4g}, {high:.4g}]"
    )
