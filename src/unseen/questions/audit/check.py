"""What one check of an audit is: a question about a trained model and its data, in one file.

A file of `checks/` computes a result of its own type from a session, says what follows from it over
all held-out sites, and draws its evidence. `checks()` finds it; nothing else names it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from unseen.document import Block, Note
from unseen.questions.audit.results import Findings
from unseen.subjects.session import Session

T = TypeVar("T")


@dataclass(frozen=True)
class Code:
    """A kind of finding by a stable name; `docs/findings.md` has a section for each."""

    code: str
    what: str
    part: str = ""
    """The part of the audit that looks; it can be skipped with a reason."""
    is_good_news: bool = False
    """Whether good news is a finding, too."""
    rank: int = 50
    """Where it stands among findings of the same tone: lower first."""


@dataclass(frozen=True)
class CheckResult(Generic[T]):
    """What a check found for one held-out site, beside everything else that is known there."""

    findings: Findings
    result: T
    margin: float | None = None
    """How much worse a site may be and still hold, where the user says so."""


@runtime_checkable
class Check(Protocol[T]):
    """One question of the audit. A result that cannot be had is an `UnseenError` from `find`: the
    report then lists the part as skipped, with the reason.
    """

    part: str
    """Its name in progress, `seconds`, `skipped` and `Findings.checked`."""
    codes: Sequence[Code]
    section: str
    """Title of the section its evidence stands in: one of the report's, or a new one."""

    def find(self, session: Session) -> T:
        """The result for one held-out site (or for splits that a subject names)."""
        ...

    def notes(self, found: Sequence[CheckResult[T]]) -> list[Note]:
        """Sentences for the first page, over all sites, each with one of the codes."""
        ...

    def evidence(self, found: Sequence[CheckResult[T]]) -> list[Block]:
        """Tables and figures for the fold."""
        ...


def results_of(
    check: Check[Any], findings: Sequence[Findings], margin: float | None = None
) -> list[CheckResult[Any]]:
    """What a check found at the sites where it could be done."""
    return [
        CheckResult(one, one.checked[check.part], margin)
        for one in findings
        if check.part in one.checked
    ]


def with_code(code: str, notes: Iterable[Note]) -> list[Note]:
    return [replace(note, code=code) for note in notes]
