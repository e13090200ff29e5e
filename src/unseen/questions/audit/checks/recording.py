"""Columns that a site records in another unit, with a code for "unknown", or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unseen.document import Block, Note, Table, Tone
from unseen.errors import InvalidData
from unseen.measures.site_shift.recording import Kind, RecordingChange, recording_changes
from unseen.questions.audit.check import CheckResult, Code
from unseen.questions.audit.leave_out import ways_to_leave_out
from unseen.subjects.session import Session
from unseen.text import count_noun, format_reading, join_words

RECORDED = Code(
    "U105", "a column that a site records otherwise", "columns recorded otherwise", rank=15
)
MOST_NAMED = 3
MOSTLY_EMPTY = 0.9
"""Share of empty cells from which on a column counts as not recorded."""


@dataclass(frozen=True)
class SiteRecording:
    """The columns that one site records otherwise."""

    site: str
    changes: Sequence[RecordingChange]
    only_other: str = ""
    """Of two sites the other one: which of them is the odd one cannot be known."""


class RecordingCheck:
    """The numbers of each column at the held-out site against those of the other sites."""

    part = RECORDED.part
    codes = (RECORDED,)
    section = "What the model relies on, and what shifts"

    def find(self, session: Session) -> list[SiteRecording]:
        """In the table's own numbers, which a subject of a table knows."""
        rows = session.site_rows
        if not rows.columns:
            raise InvalidData(
                "The subject does not say which numbers its inputs were made from.",
                why="units and codes for “unknown” are told from them.",
                fix="audit a table, or give Subject(columns=…).",
            )
        return [
            SiteRecording(
                str(session.task.splits[name].at or name),
                recording_changes(rows.columns, rows.site, code),
                _counterpart(session, code),
            )
            for name, code in rows.unseen.items()
        ]

    def notes(self, found: Sequence[CheckResult[list[SiteRecording]]]) -> list[Note]:
        """One per kind of change."""
        return recording_notes([at for one in found for at in one.result])

    def evidence(self, found: Sequence[CheckResult[list[SiteRecording]]]) -> list[Block]:
        """All changes as a table."""
        rows = [
            {
                "site": at.site,
                "column": change.feature,
                "change": change.kind.value,
                "value": None if change.kind is Kind.MISSING else change.value,
                "there": change.size,
                "elsewhere": change.elsewhere,
            }
            for one in found
            for at in one.result
            for change in at.changes
        ]
        caption = (
            "Columns that a site records otherwise. Unit: the factor to the values elsewhere, if "
            "the distributions agree after a known conversion and their quartiles lay four "
            "standard deviations apart before. Repeated value, missing: the share of rows "
            "(Fisher's test, Bonferroni over columns and sites)."
        )
        return [Table(rows=rows, caption=caption)] if rows else []


def recording_notes(sites: Sequence[SiteRecording]) -> list[Note]:
    """One per kind of change."""
    every = [(at.site, change) for at in sites for change in at.changes]
    notes = _of_units(sites)
    notes += [_of_value(site, change) for site, change in every if change.kind is Kind.REPEATED]
    missing = [(site, change) for site, change in every if change.kind is Kind.MISSING]
    return notes + ([_of_missing(missing)] if missing else [])


def _counterpart(session: Session, there: int) -> str:
    """The name of the other site where a table has two."""
    others = np.unique(session.site_rows.site[session.site_rows.site != there])
    names = session.subject.site_names
    is_one = len(others) == 1 and 0 <= int(others[0]) < len(names)
    return str(names[int(others[0])]) if is_one else ""


def _of_units(sites: Sequence[SiteRecording]) -> list[Note]:
    """One per column and site; of two sites one per column, not one for each with the contrary."""
    notes, pairs = list[Note](), set[tuple[str, frozenset[str]]]()
    units = [(at, c) for at in sites for c in at.changes if c.kind is Kind.UNIT]
    for at, change in sorted(units, key=lambda unit: bool(unit[0].only_other) * -unit[1].value):
        pair = (change.feature, frozenset((at.site, at.only_other)))
        if at.only_other and pair in pairs:
            continue
        pairs.add(pair)
        notes.append(_of_pair(at, change) if at.only_other else _of_unit(at.site, change))
    return notes


def _factors(change: RecordingChange) -> str:
    known = [f"{change.meaning}: {change.value:.5g}" if change.meaning else f"{change.value:.5g}"]
    return " or ".join([*known, *(f"{factor:.5g}" for factor in change.alternatives)])


def _of_pair(at: SiteRecording, change: RecordingChange) -> Note:
    """Of two sites either may be the odd one."""
    words = f"differ by {format_reading(change.size)} ×"
    if "°" in change.meaning:
        words = f"differ as °C and °F ({change.meaning} at {at.site})"
    text = f"`{change.feature}` at {at.site} and {at.only_other} {words}"
    factor = f"(factor {_factors(change)} at {at.site})"
    if change.is_sure:
        return Note(
            f"{text}: one of them is recorded in another unit.",
            Tone.BAD,
            f"A change of unit explains this {factor}: after it the values are distributed alike. "
            "Two sites do not tell which of them is the odd one. Convert the column at one of them "
            "and audit again.",
            code=RECORDED.code,
        )
    return Note(
        f"{text}: check the unit of both.",
        Tone.CAUTION,
        f"A change of unit would explain this {factor}, and so would other values of the same "
        "shape. If the unit is another at one of them, convert the column there and audit again.",
        code=RECORDED.code,
    )


def _of_unit(site: str, change: RecordingChange) -> Note:
    words = f"its values are {format_reading(change.size)} × those elsewhere"
    if "°" in change.meaning:
        words = f"its values are {change.meaning}"
    if not change.is_sure:
        return Note(
            f"Check the unit of `{change.feature}` at {site}: {words}.",
            Tone.CAUTION,
            f"A change of unit would explain this (factor {_factors(change)}), and so would other "
            "values of the same shape. If the unit is another, every prediction there is wrong: "
            "convert the column and audit again.",
            code=RECORDED.code,
        )
    return Note(
        f"Convert `{change.feature}` at {site}: {words}.",
        Tone.BAD,
        f"A change of unit explains this (factor {_factors(change)}): after it the values look "
        "like those of the other sites. As they are, every prediction there is wrong. Convert the "
        "column and audit again.",
        code=RECORDED.code,
    )


def _of_value(site: str, change: RecordingChange) -> Note:
    return Note(
        f"`{change.feature}` is {change.value:g} in {change.size.value:.0%} of rows at {site}, and "
        f"in {change.elsewhere:.1%} elsewhere: probably a code for “unknown”.",
        Tone.CAUTION,
        f"Empty these cells if so ({change.value:g} is then no number to the model), and audit "
        "again.",
        code=RECORDED.code,
    )


def _of_missing(changes: Sequence[tuple[str, RecordingChange]]) -> Note:
    columns = list(dict.fromkeys(change.feature for _, change in changes))
    names = join_words([f"`{name}`" for name in columns[:MOST_NAMED]])
    if others := len(columns) - MOST_NAMED:
        names += f" and {count_noun(others, 'more column')}" if others > 0 else ""
    shares = [
        f"`{change.feature}` at {site} {change.size.value:.0%} (elsewhere {change.elsewhere:.0%})"
        for site, change in sorted(changes, key=lambda pair: -_difference(pair[1]))
    ]
    more = len(shares) - 2 * MOST_NAMED
    rest = f"; {more} more in the section on shifts" if more > 0 else ""
    drop = ways_to_leave_out(columns[:MOST_NAMED])
    if others > 0:
        drop += f" and so on: the section on shifts lists all {len(columns)}"
    is_absent = all(max(c.size.value, c.elsewhere) >= MOSTLY_EMPTY for _, c in changes)
    how = "recorded at some sites only" if is_absent else "empty more often at some sites"
    return Note(
        f"{names} {'is' if len(columns) == 1 else 'are'} {how}.",
        Tone.CAUTION,
        f"Empty cells: {'; '.join(shares[: 2 * MOST_NAMED])}{rest}. What a model learns from such "
        f"a column, or from its being empty, does not carry over; audit again without ({drop}), or "
        "record it at every site.",
        code=RECORDED.code,
    )


def _difference(change: RecordingChange) -> float:
    return abs(change.size.value - change.elsewhere)


check = RecordingCheck()
