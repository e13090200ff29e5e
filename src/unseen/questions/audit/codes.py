"""Findings by a stable code, so that a pipeline can mute one or fail on it, and a reader can see
what was looked at.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from unseen.document import Document, Note, Tone
from unseen.errors import InvalidConfig
from unseen.questions.audit.check import Code
from unseen.questions.audit.checks import checks
from unseen.questions.audit.results import Findings, evaluation_sites

OF_PARTS = (
    Code("U104", "cells, columns or sites that were read with a caveat", rank=80),
    Code("U201", "no better than one answer for everyone", "comparison models", rank=20),
    Code("U202", "worse at a site than at known ones", "scores", rank=30),
    Code("U203", "too few examples to tell whether it holds at a site", "scores", rank=30),
    Code(
        "U204",
        "overfitting: worse on new examples of known sites than in training",
        "scores",
        rank=40,
    ),
    Code("U205", "a simpler model does as well, or better", "comparison models", rank=100),
    Code("U301", "outputs that are no probabilities at a site", "calibration"),
    Code("U401", "remedies that help or do harm", is_good_news=True, rank=90),
)


@dataclass(frozen=True)
class Missing:
    """What a code needs and nobody gave, so that silence is no good news."""

    why: str
    of: Callable[[Sequence[Findings]], bool]


def has_gap(findings: Sequence[Findings]) -> bool:
    return any(gap.split in evaluation_sites(one) for one in findings for gap in one.gaps)


MISSING = {
    "U202": Missing("no site could be compared with known ones", lambda f: not has_gap(f)),
    "U203": Missing("no site could be compared with known ones", lambda f: not has_gap(f)),
    "U209": Missing(
        "every site has labels", lambda f: not any(one.checked.get("new site") for one in f)
    ),
    "U210": Missing(
        "no group was named (--group)", lambda f: not any(s.group for one in f for s in one.scores)
    ),
    "U401": Missing("no remedy was tried", lambda f: not any(one.outcomes for one in f)),
}


@functools.cache
def codes() -> dict[str, Code]:
    """Every code with what it stands for, in order."""
    found = [*OF_PARTS, *(code for check in checks() for code in check.codes)]
    return {code.code: code for code in sorted(found, key=lambda code: code.code)}


def parse_codes(text: str | Sequence[str]) -> frozenset[str]:
    """Codes from "U101,U202" or a list; an unknown one is refused with the known."""
    parts = text.split(",") if isinstance(text, str) else text
    asked = {part.strip().upper() for part in parts if part.strip()}
    if unknown := sorted(asked - codes().keys()):
        raise InvalidConfig(
            f"There is no finding {', '.join(unknown)}.",
            why=f"the findings are {', '.join(codes())}.",
            fix="see docs/findings.md for what each means.",
        )
    return frozenset(asked)


def refuse_muted(fatal: Collection[str], muted: Collection[str]) -> None:
    """Refuses codes that are to fail and not to be heard: the command would succeed in silence."""
    if both := sorted(set(fatal) & set(muted)):
        raise InvalidConfig(
            f"{', '.join(both)} stands in --fail-on and in --ignore.",
            why="a muted finding is never raised, so that nothing could fail on it.",
            fix="leave it out of one of the two.",
        )


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


def state(code: Code, notes: Sequence[Note], findings: Sequence[Findings]) -> str:
    """Found, fine, or why it does not apply."""
    mine = [
        note for note in notes if note.code == code.code and (is_raised(note) or code.is_good_news)
    ]
    if any(note.tone in (Tone.BAD, Tone.CAUTION) for note in mine):
        return "found"
    reasons = {one.skipped[code.part] for one in findings if code.part in one.skipped}
    if reasons:
        return f"not applicable: {'; '.join(sorted(reasons))}"
    if mine:
        return "noted"
    missing = MISSING.get(code.code)
    return f"not applicable: {missing.why}" if missing and missing.of(findings) else "fine"
