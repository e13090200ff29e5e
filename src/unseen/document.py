"""A report as a value: title, lead and sections of paragraphs, notes, tables and figures.

A finished study and the findings of an audit both become a `Document`; `shell/report/` writes it as
HTML or Markdown. All text is plain text: the writers escape it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from unseen.figure import Figure
from unseen.reading import Reading

Value: TypeAlias = str | int | float | bool | Reading | None


class Tone(StrEnum):
    """How urgent a note is; a sign carries it beside the colour."""

    GOOD = "good"
    NEUTRAL = "neutral"
    CAUTION = "caution"
    BAD = "bad"


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Note:
    """One finding: a sentence with a tone, and an optional longer explanation."""

    text: str
    tone: Tone = Tone.NEUTRAL
    detail: str = ""
    sign: str = ""
    """One character instead of the tone's own; a study uses the verdict's."""
    code: str = ""
    """A stable name for findings of its kind."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows by column name; a `Reading` is written as value and interval. Missing cells are written
    as –.
    """

    rows: Sequence[Mapping[str, Value]]
    columns: Sequence[str] = ()
    """Order of the columns; empty: as in the first row."""
    caption: str = ""
    footnotes: Sequence[str] = ()
    strong: Sequence[tuple[int, str]] = ()
    """Cells (row, column) that are printed bold."""
    marks: Mapping[tuple[int, str], int] = field(default_factory=dict)
    """Cells with a raised number that a footnote explains."""
    comparable: bool = True
    """Whether the readings of a column can be drawn on one scale: not where each row has its own
    quantity.
    """


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A text in pieces, each coloured by a signed weight: strongest where the passage's largest
    |weight| is.
    """

    title: str
    pieces: Sequence[str]
    weights: Sequence[float] = ()
    """One per piece; empty: plain text."""
    unit: str = ""


Block: TypeAlias = Paragraph | Note | Table | Passage | Figure


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block] = ()
    folded: bool = False
    """Behind its title until it is opened: evidence that the first page does not need."""


@dataclass(frozen=True, kw_only=True)
class Document:
    title: str
    kicker: str = ""
    """A few words over the title: what kind of report this is."""
    lead: str = ""
    """The answer in a few sentences."""
    sections: Sequence[Section] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    """Versions, commit, seconds, device: printed small at the end."""
