"""What a home holds, as a list shows it: stored answers by words and kind, each with the one before
it about the same subject, and studies whose cells are stored without a report. Knows no network.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unseen.document import Document
from unseen.runs.answers import Answers, StoredAnswer
from unseen.serve.changes import Side, document_of_changes

KINDS = {
    "audit": "audits",
    "compare": "comparisons",
    "run": "studies",
    "explain": "explanations",
    "influence": "influence",
    "measure": "measures",
    "dense": "dense predictions",
}
"""What the answers of a command are called."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the list."""

    answer: StoredAnswer
    before: str = ""
    """Key of the answer before it about the same subject; empty if there is none."""

    @property
    def rerun(self) -> str:
        """What to type to ask again."""
        folder, command = self.answer.folder, self.answer.command
        return f"cd {shlex.quote(folder)}\n{command}" if folder else command

    @property
    def when(self) -> str:
        return self.answer.date[:16].replace("T", " ")

    @property
    def is_comparable(self) -> bool:
        return self.answer.question in ("audit", "compare", "run")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The entries that a filter leaves, and what there is without it."""

    entries: Sequence[Entry]
    total: int
    kinds: Mapping[str, int]
    """Answers by command, unfiltered."""
    damaged: int
    unreported: Mapping[str, int]
    """Studies with stored cells and no stored report, with the number of cells."""


def subject_of(answer: StoredAnswer) -> str:
    """What two answers have in common that are worth comparing: the file that was asked about, or
    the title where there is none.
    """
    data = answer.facts.get("data", "").split(", SHA-256")[0]
    if answer.question == "run":  # of a study, its scale, too
        data = answer.facts.get("command", "")
    return f"{answer.question} {data or answer.title}"


def listing(home: Path, words: str = "", question: str = "") -> Listing:
    """The stored answers that hold all words (in title, answer, command, codes or date) and are of
    the command, newest first.
    """
    answers = Answers(home)
    found = answers.listing()
    latest: dict[str, str] = {}
    entries = []
    for one in reversed(found):  # oldest first
        entries.append(Entry(answer=one, before=latest.get(subject_of(one), "")))
        latest[subject_of(one)] = one.key
    kinds = {name: sum(one.question == name for one in found) for name in KINDS}
    known = {one.title for one in found if one.question == "run"}
    wanted = words.lower().split()
    chosen = [
        entry
        for entry in reversed(entries)
        if (not question or entry.answer.question == question)
        and all(word in _text(entry.answer) for word in wanted)
    ]
    return Listing(
        entries=chosen,
        total=len(found),
        kinds={name: count for name, count in kinds.items() if count},
        damaged=answers.count_damaged(),
        unreported=studies_without_report(home, known),
    )


def studies_without_report(home: Path, known: set[str]) -> dict[str, int]:
    """Studies in the store of which no report is stored."""
    found = {}
    for folder in sorted((home / "runs").glob("*")):
        cells = sum(1 for _ in folder.glob("*/run.json"))
        if cells and folder.name not in known:
            found[folder.name] = cells
    return found


def changes(home: Path, keys: Sequence[str]) -> Document:
    """What changed between two stored answers."""
    answers = Answers(home)
    before, after = (Side(answers.get(key), answers.results(key)) for key in keys)
    return document_of_changes(before, after)


def _text(answer: StoredAnswer) -> str:
    parts = [answer.title, answer.kicker, answer.lead, answer.command, answer.date, *answer.codes]
    parts += [answer.facts.get("data", ""), answer.question]
    return " ".join(parts).lower()
