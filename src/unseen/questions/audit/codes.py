"""Findings by a stable code, so that a pipeline can mute one or fail on it, and a reader can see
what was looked at.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from unseen.document import Document, Note, Tone
from unseen.errors import InvalidConfig
from unseen.questions.audit.results import Findings


@dataclass(frozen=True)
class Check:
    """One thing that every audit looks at; `docs/findings.md` has a section for each."""

    code: str
    what: str
    part: str = ""
    """The part of the audit that looks; it can be skipped with a reason."""
    is_good_news: bool = False
    """Whether good news is a finding, too."""


CHECKS = (
    Check("U101", "a feature gives the target away", "leaks"),
    Check("U102", "evaluation examples that also stand in the training data", "overlap of splits"),
    Check("U103", "suspected training labels", "suspected labels"),
    Check("U104", "cells, columns or sites that were read with a caveat"),
    Check("U201", "no better than one answer for everyone", "comparison models"),
    Check("U202", "worse at a site than at known ones", "scores"),
    Check("U203", "too few examples to tell whether it holds at a site", "scores"),
    Check("U204", "overfitting: worse on new examples of known sites than in training", "scores"),
    Check("U205", "a simpler model does as well, or better", "comparison models"),
    Check("U301", "outputs that are no probabilities at a site", "calibration"),
    Check("U401", "remedies that help or do harm", is_good_news=True),
)
BY_CODE = {check.code: check for check in CHECKS}


def parse_codes(text: str | Sequence[str]) -> frozenset[str]:
    """Codes from "U101,U202" or a list; an unknown one is refused with the known."""
    parts = text.split(",") if isinstance(text, str) else text
    codes = {part.strip().upper() for part in parts if part.strip()}
    if unknown := sorted(codes - BY_CODE.keys()):
        raise InvalidConfig(
            f"There is no finding {', '.join(unknown)}.",
            why=f"the findings are {', '.join(BY_CODE)}.",
            fix="see docs/findings.md for what each means.",
        )
    return frozenset(codes)


def with_code(code: str, notes: Iterable[Note]) -> list[Note]:
    return [replace(note, code=code) for note in notes]


def is_raised(note: Note) -> bool:
    """Whether a pipeline that asked for its code should stop: at whatever is no good news."""
    return note.tone is not Tone.GOOD


def coded_notes(document: Document) -> list[dict[str, str]]:
    """Every finding of the document by code, tone and words, for machines."""
    notes = [b for section in document.sections for b in section.blocks if isinstance(b, Note)]
    return [
        {"code": note.code, "tone": note.tone.value, "text": note.text, "detail": note.detail}
        for note in notes
        if note.code
    ]


def alarms(document: Document, codes: Collection[str]) -> list[str]:
    """Which of the codes the document raises."""
    notes = [b for section in document.sections for b in section.blocks if isinstance(b, Note)]
    return sorted({note.code for note in notes if note.code in codes and is_raised(note)})


def state(check: Check, notes: Sequence[Note], findings: Sequence[Findings]) -> str:
    """Found, fine, or why it does not apply."""
    mine = [
        note
        for note in notes
        if note.code == check.code and (is_raised(note) or check.is_good_news)
    ]
    if any(note.tone in (Tone.BAD, Tone.CAUTION) for note in mine):
        return "found"
    reasons = {one.skipped[check.part] for one in findings if check.part in one.skipped}
    if reasons:
        return f"not applicable: {'; '.join(sorted(reasons))}"
    return "noted" if mine else "fine"
