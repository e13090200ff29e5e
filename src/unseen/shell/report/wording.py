"""How values become words: the same digits, signs and dashes in HTML, Markdown and the terminal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

from unseen.document import Note, Table, Tone, Value
from unseen.measure import Reading

MISSING = "–"
SILENT_UNITS = ("", "fraction")
"""Units that a reader needs not be told."""
SIGNS = {Tone.GOOD: "✓", Tone.NEUTRAL: "•", Tone.CAUTION: "!", Tone.BAD: "✗"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Words:
    """A value as its main text and, for a reading, the interval and unit in small print."""

    main: str
    interval: str = ""
    unit: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.main, self.interval, self.unit) if part)


def clean(text: object) -> str:
    """The text with characters that HTML, SVG and terminals refuse (control, lone surrogates) shown as �."""
    return _CONTROL.sub("�", str(text))


def words(value: Value, unit: str | None = None) -> Words:
    """A cell's value; `unit` is what the column's head already says."""
    if value is None:
        return Words(MISSING)
    if isinstance(value, Reading):
        return _reading(value, unit)
    if isinstance(value, bool):
        return Words("yes" if value else "no")
    if isinstance(value, int | float):
        return Words(number(value))
    return Words(clean(value))


def number(x: float, decimals: int | None = None) -> str:
    """Three significant digits (or so many decimals), thousands separated, a true minus; NaN is a missing value."""
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


def _reading(reading: Reading, told: str | None) -> Words:
    unit = "" if reading.unit in SILENT_UNITS or reading.unit == told else clean(reading.unit)
    limits = [limit for limit in (reading.low, reading.high) if limit == limit]
    if len(limits) < 2:
        return Words(number(reading.value), "", unit)
    digits = decimals(reading)
    low, high = (number(limit, digits) for limit in limits)
    return Words(number(reading.value, digits), f"[{low}, {high}]", unit)


def decimals(reading: Reading) -> int | None:
    """So many decimals that half the interval has two digits; None where its width is zero, infinite or extreme."""
    half = (reading.high - reading.low) / 2
    if not isfinite(half) or half <= 0 or not isfinite(reading.value):
        return None
    places = 1 - floor(log10(half))
    return None if places > 6 else max(0, places)


def shared_decimals(values: Sequence[float]) -> int | None:
    """So many decimals that the largest of the numbers has three digits; None where that would hide the smallest."""
    sizes = [abs(value) for value in values if isfinite(value) and value]
    if not sizes or max(sizes) / min(sizes) > 1e4 or not 1e-4 <= max(sizes) < 1e7:
        return None
    places = max(0, 2 - floor(log10(max(sizes))))
    return 0 if all(value == int(value) for value in values if isfinite(value)) else places


def columns(table: Table) -> list[str]:
    """The table's columns: as given, else every key in the order of first appearance."""
    return list(table.columns) or list(dict.fromkeys(name for row in table.rows for name in row))


def is_numeric(values: Sequence[Value]) -> bool:
    """Whether a column holds numbers or readings only (missing values aside)."""
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(v, int | float | Reading) and not isinstance(v, bool) for v in known)


def shared_unit(values: Sequence[Value]) -> str:
    """The unit that all readings of a column share, for its head; otherwise nothing."""
    units = {value.unit for value in values if isinstance(value, Reading)}
    only = units.pop() if len(units) == 1 else ""
    return "" if only in SILENT_UNITS else clean(only)


def sign(note: Note) -> str:
    """One character that says the tone without colour."""
    return note.sign or SIGNS[note.tone]
