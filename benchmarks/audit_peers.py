"""Planted faults: which are found, named and answered by `unseen audit`, skore, cleanlab and
deepchecks on the same files, and how often each raises an alarm where nothing is planted.

    python benchmarks/audit_peers.py --draws 10 --nulls 5
    python benchmarks/audit_peers.py --only "concept shift" --draws 3 --no-peers --json
    python benchmarks/audit_peers.py --table

Faults and null tables are those of `peers/planted_faults.py`; their strengths were written before
the first run. An audit is `unseen.audit(table, remedies={}, seeds=1)`. A fault counts as

* found: a finding with its code is raised (of flipped labels also: at least 20 of the 30 are among
  the listed suspects, and at least 40 % of the listed are flipped);
* named: one such finding has the feature, the site and the level in its words;
* action: that finding also says what to do.

A false alarm is a red or amber finding of any code on a null table; grey notes with the code of a
planted fault are counted beside them, and the rate is also given without the codes that speak of
the trained model and not of the data (`ABOUT_MODEL`), which can be right on null data. Each peer
runs in an environment of its own, made on demand under the cache and never into the one that runs
this file. Every result is cached under `UNSEEN_HOME`, by table, draw and source of the package (of
a peer: its version), so that an interrupted run goes on where it stopped; `--table` prints what
there is.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from peers.planted_faults import FAULTS, NULLS, ODD, SITES, Fault, PlantedTable, table

import unseen
from unseen.document import Tone
from unseen.errors import UnseenError
from unseen.runs.store import home, write_atomic

HERE = Path(__file__).parent
WARNING_TONES = (Tone.BAD.value, Tone.CAUTION.value)
FEWEST_FLIPPED, LEAST_PRECISION = 20, 0.4
PLANTED_CODES = {code for fault in FAULTS.values() for code in fault.codes}
ABOUT_MODEL = ("U201", "U204", "U205", "U301")
"""Useless, overfitted, worse than a simpler model, miscalibrated."""
PEER_SECONDS = 1_800
"""By the clock; what is slower counts as not asked, since the machine may be busy."""


@dataclass(frozen=True)
class Peer:
    """Another tool: what to install, and which of its checks would show which fault."""

    name: str
    packages: Sequence[str]
    checks: Mapping[str, Sequence[str]]
    knows_site: bool
    """It is given the rows of the odd site apart, so that it need not name the site."""


LABEL_CORRELATION = (
    "Feature Label Correlation",
    "Feature Label Correlation Change",
    "Identifier Label Correlation",
)
DRIFT = ("Feature Drift", "Multivariate Drift")
PEERS = (
    Peer(
        "skore",
        ["skore==0.28.0"],
        {
            "leak everywhere": ["SKD011"],
            "leak at one site": ["SKD011", "SKD003"],
            "leak by missingness": ["SKD011"],
            "covariate shift": ["SKD003"],
            "prevalence shift": ["SKD003"],
            "concept shift": ["SKD003"],
            "time drift": ["SKD001"],
            "units × 1000": ["SKD003"],
            "sentinel": ["SKD003"],
        },
        knows_site=False,
    ),
    Peer(
        "cleanlab",
        ["cleanlab[datalab]==2.9.0"],
        {
            "flipped labels": ["label"],
            "copied rows": ["near_duplicate"],
            "bad subgroup, named": ["underperforming_group"],
            "bad subgroup, unnamed": ["underperforming_group"],
            "time drift": ["non_iid"],
            "units × 1000": ["outlier"],
            "sentinel": ["outlier"],
        },
        knows_site=False,
    ),
    Peer(
        "deepchecks",
        ["deepchecks==0.19.1", "scikit-learn<1.5", "pandas<2.2", "numpy<2", "setuptools<81"],
        {
            "leak everywhere": LABEL_CORRELATION,
            "leak at one site": LABEL_CORRELATION,
            "leak by missingness": [*LABEL_CORRELATION, "Feature Feature Correlation"],
            "flipped labels": ["Conflicting Labels"],
            "copied rows": ["Train Test Samples Mix", "Data Duplicates"],
            "covariate shift": DRIFT,
            "prevalence shift": ["Label Drift"],
            "concept shift": ["Feature Label Correlation Change"],
            "bad subgroup, named": ["Weak Segments Performance"],
            "bad subgroup, unnamed": ["Weak Segments Performance"],
            "time drift": ["Feature Label Correlation Change"],
            "units × 1000": DRIFT,
            "sentinel": [*DRIFT, "Outlier Sample Detection"],
        },
        knows_site=True,
    ),
)
"""Which checks count was read from the peers' documentation, before they ran."""


# results ----------------------------------------------------------------------------------------

Result = dict[str, Any]


@cache
def source() -> str:
    """A hash of the package's files, without those that no audit reads."""
    root, found = Path(unseen.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if name.parts[0] not in ("studies", "cli", "report"):
            found.update(str(name).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def folder(tool: str) -> Path:
    return home() / "audit_peers" / tool


def result_path(tool: str, kind: str, draw: int) -> Path:
    return folder(tool) / f"{re.sub('[^a-z0-9]+', '-', kind.lower()).strip('-')}.{draw}.json"


def read_result(tool: str, kind: str, draw: int) -> Result | None:
    path = result_path(tool, kind, draw)
    return json.loads(path.read_text()) if path.exists() else None


def cached(tool: str, kind: str, draw: int, make: Callable[[PlantedTable], Result]) -> Result:
    found = read_result(tool, kind, draw)
    if found is None:
        found = make(table(kind, draw))
        if found.get("is_passing"):
            return found
        path = result_path(tool, kind, draw)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(found, ensure_ascii=False, indent=1))
    return found


def audit(planted: PlantedTable) -> Result:
    """The findings of an audit, and the rows that it lists as suspected."""
    began = time.process_time()
    try:
        answer = unseen.audit(
            planted.frame,
            remedies={},
            seeds=1,
            measures={},  # sharpness has no finding
            progress=False,
            **planted.columns,  # type: ignore[arg-type]
        )
    except UnseenError as error:
        return {"error": str(error), "notes": [], "suspects": [], "seconds": 0.0}
    # the merged list where the audit has one, else what each held-out site lists
    each = [e for one in answer.results for e in getattr(one, "suspects", ())]
    suspects = {e.row for e in answer.machine.get("suspected_labels", each) if e.row is not None}
    parts = Counter[str]()
    for one in answer.results:
        parts.update(one.seconds)  # type: ignore[arg-type]
    skipped = {part: why for one in answer.results for part, why in one.skipped.items()}
    return {
        "notes": answer.machine["notes"],
        "suspects": sorted(suspects),
        "skipped": skipped,
        "parts": parts,
        "seconds": time.process_time() - began,
    }


# what counts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """Of one table with a planted fault."""

    is_found: bool
    is_named: bool
    has_action: bool
    others: Sequence[str]
    """Codes of further warnings; consequences of the fault among them."""


def has_word(text: str, word: str) -> bool:
    """As a word of its own: "age" is not in "average"."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text.replace("−", "-")) is not None


def has_words(text: str, words: Sequence[str]) -> bool:
    return all(has_word(text, word) for word in words)


def lists_flipped(planted: PlantedTable, suspects: Sequence[int]) -> bool:
    hits = len(set(planted.flipped) & set(suspects))
    return hits >= FEWEST_FLIPPED and hits >= LEAST_PRECISION * len(suspects)


def judge(fault: Fault, planted: PlantedTable, result: Result) -> Judgement:
    notes = [note for note in result["notes"] if note["tone"] != Tone.GOOD.value]
    mine = {f"{n['text']} {n['detail']}" for n in notes if n["code"] in fault.codes}
    is_found = bool(mine)
    if planted.flipped:
        is_found = is_found and lists_flipped(planted, result["suspects"])
    naming = {text for text in mine if has_words(text, fault.words)}
    acting = {text for text in naming if any(action in text for action in fault.actions)}
    others = [n["code"] for n in warnings_of(result) if n["code"] not in fault.codes]
    others += ["error"] if result.get("error") else []
    return Judgement(is_found, bool(naming), bool(acting), others)


def warnings_of(result: Result) -> list[dict[str, str]]:
    return [note for note in result["notes"] if note["tone"] in WARNING_TONES]


def grey_notes(result: Result) -> list[dict[str, str]]:
    """Notes that are no warning, with the code of a planted fault."""
    grey = [note for note in result["notes"] if note["tone"] == Tone.NEUTRAL.value]
    return [note for note in grey if note["code"] in PLANTED_CODES]


# peers ------------------------------------------------------------------------------------------


def environment(peer: Peer) -> Path | str:
    """Its interpreter, installed on the first call; or why there is none."""
    place = folder("environments") / peer.name
    python, done, log = place / "bin" / "python", place / "installed", place.with_suffix(".log")
    if done.exists() and done.read_text() == " ".join(peer.packages):
        return python
    print(f"installing {peer.name} into {place}", file=sys.stderr, flush=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(place)],
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", *peer.packages],
        [str(python), str(script(peer)), "--import"],
    ]
    for step in steps:
        ran = subprocess.run(step, capture_output=True, text=True, check=False)
        log.write_text(ran.stdout + ran.stderr)
        if ran.returncode:
            return f"{' '.join(step[1:4])}: {last_line(ran.stderr)} ({log})"
    done.write_text(" ".join(peer.packages))
    return python


def script(peer: Peer) -> Path:
    return HERE / "peers" / f"{peer.name}_peer.py"


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def ask(peer: Peer, python: Path, planted: PlantedTable) -> Result:
    """What the peer says of the table, in a process of its own environment."""
    with tempfile.TemporaryDirectory() as place:
        data, answer = Path(place) / "table.csv", Path(place) / "answer.json"
        planted.frame.to_csv(data, index=False)
        command = [str(python), str(script(peer)), str(data), str(answer), ODD]
        try:
            ran = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=PEER_SECONDS
            )
        except subprocess.TimeoutExpired:
            said = f"no answer in {PEER_SECONDS} s"
            return {"error": said, "is_passing": True, "alarms": [], "suspects": []}
        if ran.returncode or not answer.exists():
            return {"error": last_line(ran.stderr), "alarms": [], "suspects": []}
        return json.loads(answer.read_text())


def issues(result: Result) -> list[dict[str, Any]]:
    """Without what the peer itself calls a tip."""
    return [alarm for alarm in result["alarms"] if alarm["is_warning"]]


def check_name(alarm: Mapping[str, Any]) -> str:
    """Without the part of the data that deepchecks adds: "Data Duplicates - Test Dataset"."""
    return str(alarm["check"]).split(" - ")[0]


def judge_peer(
    peer: Peer, kind: str, fault: Fault, planted: PlantedTable, result: Result
) -> Judgement:
    """As an audit is judged; a check stands for a code, and any advice for the action."""
    checks = peer.checks.get(kind, ())
    mine = [alarm for alarm in result["alarms"] if check_name(alarm) in checks]
    words = [w for w in fault.words if not (peer.knows_site and w in (*SITES, "future"))]
    is_found = lists_flipped(planted, result["suspects"]) if planted.flipped else bool(mine)
    naming = [alarm for alarm in mine if has_words(alarm["text"], words)]
    others = [alarm["check"] for alarm in issues(result) if check_name(alarm) not in checks]
    others += ["error"] if result.get("error") else []
    return Judgement(is_found, bool(naming), any(alarm["advice"] for alarm in naming), others)


# tables -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FaultRow:
    """Over the draws of one fault that are done."""

    tool: str
    fault: str
    draws: int
    found: int
    named: int
    action: int
    others: Mapping[str, int]


@dataclass(frozen=True)
class NullRow:
    """Over the draws of one null kind that are done."""

    tool: str
    kind: str
    draws: int
    alarms: int
    codes: Mapping[str, int]
    grey: Mapping[str, int]


def fault_row(tool: str, fault: str, judged: Sequence[Judgement]) -> FaultRow:
    others = Counter(code for one in judged for code in one.others)
    return FaultRow(
        tool=tool,
        fault=fault,
        draws=len(judged),
        found=sum(one.is_found for one in judged),
        named=sum(one.is_named for one in judged),
        action=sum(one.has_action for one in judged),
        others=dict(sorted(others.items())),
    )


def counts(names: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def results_of(tool: str, kind: str, draws: int) -> list[tuple[int, Result]]:
    """Of the draws that are done; one that ended in an error found nothing."""
    found = [(draw, read_result(tool, kind, draw)) for draw in range(draws)]
    return [(draw, one) for draw, one in found if one is not None]


def rows_of_audit(draws: int, nulls: int, version: str) -> Iterator[FaultRow | NullRow]:
    for name, fault in FAULTS.items():
        results = results_of(version, name, draws)
        yield fault_row(
            "unseen", name, [judge(fault, table(name, draw), one) for draw, one in results]
        )
    for name in NULLS:
        found = [one for _, one in results_of(version, name, nulls)]
        alarms = counts(note["code"] for one in found for note in warnings_of(one))
        grey = counts(note["code"] for one in found for note in grey_notes(one))
        yield NullRow("unseen", name, len(found), sum(alarms.values()), alarms, grey)


def rows_of_peer(peer: Peer, draws: int, nulls: int) -> Iterator[FaultRow | NullRow]:
    for name, fault in FAULTS.items():
        judged = [
            judge_peer(peer, name, fault, table(name, draw), one)
            for draw, one in results_of(peer.name, name, draws)
        ]
        yield fault_row(peer.name, name, judged)
    for name in NULLS:
        found = [one for _, one in results_of(peer.name, name, nulls)]
        alarms = counts(alarm["check"] for one in found for alarm in issues(one))
        yield NullRow(peer.name, name, len(found), sum(alarms.values()), alarms, {})


def show(rows: Sequence[FaultRow | NullRow]) -> None:
    """As text."""
    faults = [row for row in rows if isinstance(row, FaultRow) and row.draws]
    nulls = [row for row in rows if isinstance(row, NullRow) and row.draws]
    for tool in dict.fromkeys(row.tool for row in rows):
        print(f"\n{tool:24s}{'draws':>6}{'found':>6}{'named':>6}{'action':>7}  other warnings")
        for row in (row for row in faults if row.tool == tool):
            print(
                f"{row.fault:24s}{row.draws:6d}{row.found:6d}{row.named:6d}{row.action:7d}  "
                f"{in_words(row.others)}"
            )
        mine = [row for row in nulls if row.tool == tool]
        for null in mine:
            grey = f"; grey {in_words(null.grey)}" if null.grey else ""
            print(
                f"{null.kind:24s}{null.draws:6d}  {null.alarms} false alarms  "
                f"{in_words(null.codes)}{grey}"
            )
        if mine:
            audits = sum(row.draws for row in mine)
            every = sum(row.alarms for row in mine) / audits
            of_data = sum(alarms_about_data(row) for row in mine) / audits
            said = f"; {of_data:.2f} without what is said of the model" if tool == "unseen" else ""
            print(f"{'false alarms per table':24s}{every:6.2f}{said}")


def alarms_about_data(row: NullRow) -> int:
    return sum(count for code, count in row.codes.items() if code not in ABOUT_MODEL)


def in_words(of: Mapping[str, int]) -> str:
    return ", ".join(f"{name} × {count}" for name, count in of.items())


# run --------------------------------------------------------------------------------------------


def files(options: argparse.Namespace, draws: int, nulls: int) -> Iterator[tuple[str, int]]:
    """Tables to look at, a draw of every kind before the next draw."""
    kinds = dict.fromkeys(FAULTS, draws) | dict.fromkeys(NULLS, nulls)
    for draw in range(max(draws, nulls)):
        for name, most in kinds.items():
            if draw < most and (not options.only or name in options.only):
                yield name, draw


def run_audits(options: argparse.Namespace) -> None:
    began = time.process_time()
    for name, draw in files(options, options.draws, options.nulls):
        if options.limit and time.process_time() - began > options.limit:
            print(f"stopped after {options.limit:g} CPU seconds", file=sys.stderr)
            return
        is_new = not result_path(source(), name, draw).exists()
        found = cached(source(), name, draw, audit)
        if is_new and not options.json:
            took = f"{found['seconds']:.1f} CPU s" if not found.get("error") else found["error"]
            print(f"{name}, draw {draw}: {took}", flush=True)


def run_peers(options: argparse.Namespace) -> dict[str, str]:
    """The peers that could not be asked, with the reason."""
    skipped = {}
    for peer in PEERS:
        if options.peer and peer.name not in options.peer:
            continue
        python = environment(peer)
        if isinstance(python, str):
            skipped[peer.name] = python
            continue
        draws = options.draws if options.peer_draws is None else options.peer_draws
        nulls = options.nulls if options.peer_draws is None else min(options.nulls, draws)
        for name, draw in files(options, draws, nulls):
            found = cached(
                peer.name, name, draw, lambda planted, p=peer, at=python: ask(p, at, planted)
            )
            if found.get("error"):
                print(f"{peer.name}, {name}: {found['error']}", file=sys.stderr)
    return skipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--draws", type=int, default=10, help="tables per fault")
    parser.add_argument("--nulls", type=int, default=5, help="tables per null kind")
    parser.add_argument("--only", action="append", choices=[*FAULTS, *NULLS])
    parser.add_argument("--no-peers", action="store_true")
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peer", action="append", choices=names, help="these, and no audit")
    parser.add_argument("--peer-draws", type=int, help="tables per fault for each peer")
    parser.add_argument("--limit", type=float, help="CPU seconds of audits in this call")
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    parser.add_argument("--source", help="with --table: results of another state of the package")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    skipped: dict[str, str] = {}
    if not options.table:
        if not options.peer:
            run_audits(options)
        skipped = {} if options.no_peers else run_peers(options)
    version = options.source or source()
    rows = list(rows_of_audit(options.draws, options.nulls, version))
    for peer in () if options.no_peers else PEERS:
        rows += rows_of_peer(peer, options.draws, options.nulls)
    if options.json:
        plain = [{"tool": row.tool, **vars(row)} for row in rows if row.draws]
        print(json.dumps({"source": version, "rows": plain, "skipped": skipped}, indent=1))
        return
    print(f"package {unseen.__version__}, source {version}")
    show(rows)
    for name, why in skipped.items():
        print(f"{name} skipped: {why}")


if __name__ == "__main__":
    main()
