"""How values become words: the same digits, signs and dashes in HTML, Markdown and the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

from unseen.characters import clean
from unseen.document import Note, Table, Tone, Value
from unseen.reading import Reading

MISSING = "–"
PAGE_ROWS = 400
"""A page cuts longer tables, and says so: the machine-readable report has all rows."""
SILENT_UNITS = ("", "fraction")
"""Units that a reader needs not be told."""
SIGNS = {Tone.GOOD: "✓", Tone.NEUTRAL: "•", Tone.CAUTION: "!", Tone.BAD: "✗"}


@dataclass(frozen=True)
class Words:
    """A value as its main text and, for a reading, the interval and unit in small print."""

    main: str
    interval: str = ""
    unit: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.main, self.interval, self.unit) if part)


def words(value: Value, unit: str | None = None, digits: int | None = None) -> Words:
    """A cell's value; `unit` is what the column's head already says, `digits` the decimals of the
    column's readings.
    """
    if value is None:
        return Words(MISSING)
    if isinstance(value, Reading):
        return _reading(value, unit, digits)
    if isinstance(value, bool):
        return Words("yes" if value else "no")
    if isinstance(value, int | float):
        return Words(number(value))
    return Words(clean(value))


def number(x: float, decimals: int | None = None) -> str:
    """Three significant digits (or so many decimals), thousands separated, a true minus; NaN is a
    missing value.
    """
    if x != x:
        return MISSING
    if not isfinite(x):
        return "∞" if x > 0 else "−∞"
    if isinstance(x, int) and decimals is None:
        text = f"{x:,}"
    elif x == 0:
        text = f"{0:.{decimals or 0}f}"
    elif decimals is None and not 1e-4 <= abs(x) < 1e7:
        text = f"{x:.2e}"
    else:
        places = max(0, 2 - floor(log10(abs(x)))) if decimals is None else decimals
        text = f"{x:,.{places}f}"
        if decimals is None and x == int(x):
            text = f"{x:,.0f}"
    if text.startswith("-"):
        text = text[1:] if not text.strip("-0.,") else "−" + text[1:]
    return text


def _reading(reading: Reading, told: str | None, digits: int | None) -> Words:
    unit = "" if reading.unit in SILENT_UNITS or reading.unit == told else clean(reading.unit)
    digits = decimals(reading) if digits is None else digits
    if reading.low != reading.low or reading.high != reading.high:
        return Words(number(reading.value, digits), "", unit)
    return Words(
        number(reading.value, digits),
        f"[{number(reading.low, digits)}, {number(reading.high, digits)}]",
        unit,
    )


def decimals(reading: Reading) -> int | None:
    """So many decimals that the interval's width has two digits; None where it is unknown, zero or
    extreme.
    """
    width = reading.high - reading.low
    if not isfinite(width) or width <= 0 or not isfinite(reading.value):
        return None
    places = 1 - floor(log10(width))
    return None if places > 6 else max(0, places)


def column_decimals(values: Sequence[Value]) -> int | None:
    """The middle one of the decimals of a column's readings, where their intervals are similar
    enough to share it.
    """
    known = sorted(
        d for value in values if isinstance(value, Reading) and (d := decimals(value)) is not None
    )
    return known[len(known) // 2] if known and known[-1] - known[0] <= 2 else None


def decimals_by_column(table: Table, cells: Mapping[str, Sequence[Value]]) -> dict[str, int | None]:
    """`column_decimals` of every column; where each row has its own quantity it has its own
    decimals, too.
    """
    return {
        name: column_decimals(values) if table.comparable else None
        for name, values in cells.items()
    }


def shared_decimals(values: Sequence[float]) -> int | None:
    """So many decimals that the largest of the numbers has three digits; None where that would hide
    the smallest.
    """
    sizes = [abs(value) for value in values if isfinite(value) and value]
    if not sizes or max(sizes) / min(sizes) > 1e4 or not 1e-4 <= max(sizes) < 1e7:
        return None
    places = max(0, 2 - floor(log10(max(sizes))))
    return 0 if all(value == int(value) for value in values if isfinite(value)) else places


def superscript(mark: int | None) -> str:
    """The number of a footnote in superscript digits."""
    return "" if mark is None else str(mark).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def columns(table: Table) -> list[str]:
    """The table's columns: as given, else every key in the order of first appearance."""
    return list(table.columns) or list(dict.fromkeys(name for row in table.rows for name in row))


def transpose(table: Table, most: int = 10) -> Table | None:
    """A table of few rows and more than `most` columns with its columns as rows; None where it
    reads well as it is.
    """
    names = columns(table)
    if len(names) <= most or not 0 < len(table.rows) <= 3:
        return None
    labels = [str(words(row.get(names[0]))) for row in table.rows]
    if len({names[0], *labels}) <= len(labels):
        return None

    def line(name: str) -> dict[str, Value]:
        return {
            names[0]: name,
            **{label: row.get(name) for label, row in zip(labels, table.rows, strict=True)},
        }

    def transpose_mark(cell: tuple[int, str]) -> tuple[int, str]:
        return names.index(cell[1]) - 1, labels[cell[0]]

    return Table(
        rows=[line(name) for name in names[1:]],
        caption=table.caption,
        footnotes=table.footnotes,
        strong=[transpose_mark(cell) for cell in table.strong],
        marks={transpose_mark(cell): number for cell, number in table.marks.items()},
    )


def is_numeric(values: Sequence[Value]) -> bool:
    """Whether a column holds numbers or readings only (missing and blank values aside)."""
    known = [value for value in values if value is not None and value != ""]
    return bool(known) and all(
        isinstance(v, int | float | Reading) and not isinstance(v, bool) for v in known
    )


def shared_unit(values: Sequence[Value]) -> str:
    """The unit that all readings of a column share; otherwise nothing."""
    units = {value.unit for value in values if isinstance(value, Reading)}
    only = units.pop() if len(units) == 1 else ""
    return "" if only in SILENT_UNITS else clean(only)


def head_unit(name: str, unit: str) -> str:
    """The unit to print in a column's head: not where the name says it already ("AUC")."""
    return "" if unit.lower() in name.lower() else unit


def sign(note: Note) -> str:
    """One character that says the tone without colour."""
    return note.sign or SIGNS[note.tone]
