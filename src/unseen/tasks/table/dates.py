"""Dates in the ways that people write them, as days since 1970.

Formats are those of `strptime`, read by pandas; ISO 8601 with time zones and offsets (in UTC) and
quarters ("2020Q1") come on top.
"""

import re
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ISO, QUARTER = "ISO8601", "quarter"
_DAYS = (
    ISO,
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m-%d-%Y",
    "%d-%m-%Y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%d. %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d%b%Y",
    "%d-%b-%y",
    "%b %Y",
    "%B %Y",
    "%b-%Y",
    "%Y-%b",
    "%m/%Y",
    "%m.%Y",
    "%d.%m.%y",
    "%m/%d/%y",
    "%d/%m/%y",
)
_TIMES = (
    "",
    " %H:%M",
    " %H:%M:%S",
    " %H:%M:%S.%f",
    " %I:%M %p",
    " %I:%M:%S %p",
    "T%H:%M:%S",
    ", %H:%M",
)
FORMATS = (*(day + time for day in _DAYS for time in (_TIMES if day != ISO else ("",))), QUARTER)
_QUARTERS = (
    re.compile(r"(?P<year>\d{4})[-/ ]?Q(?P<quarter>[1-4])", re.I),
    re.compile(r"Q(?P<quarter>[1-4])[-/ ]?(?P<year>\d{4})", re.I),
)
_DATED = re.compile(r"\d[-/.]\d|\d{8}|[A-Za-z]{3}.*\d{2}|\d ?[A-Za-z]{3}|Q[1-4]|\dQ", re.I)
SAMPLE, LONGEST = 50, 40
NO_END = 9999
"""The year that stands for "until further notice"."""


def looks_like_date(word: str) -> bool:
    """Whether a word has the outward form of a date."""
    return len(word) <= LONGEST and bool(_DATED.search(word)) and any(c.isdigit() for c in word)


def formats_of(words: Sequence[str], mistakes: int = 0) -> tuple[str, ...]:
    """The format that reads all words but for so many mistakes; two where some are written in
    another one; none.
    """
    if sum(not looks_like_date(word) for word in words) > mistakes:
        return ()
    sample = words[:: max(1, len(words) // SAMPLE)]
    lost: dict[str, int] = {}
    for form in FORMATS:
        if _suits_any(words[: mistakes + 1], form) and _count_unread(sample, form) <= mistakes:
            lost[form] = _count_unread(words, form)
            if lost[form] == 0:
                break
    best = min(lost, key=lambda form: lost[form]) if lost else ""
    if lost and lost[best] <= mistakes:
        return (best,)
    return _two_formats(words, sample) if not mistakes else ()


def _suits_any(words: Sequence[str], form: str) -> bool:
    """Whether a format suits one of few words: a cheap look before pandas reads all."""
    if form in (ISO, QUARTER):
        return True
    for word in words:
        try:
            datetime.strptime(word, form)
        except ValueError:
            continue
        return True
    return False


def _two_formats(words: Sequence[str], sample: Sequence[str]) -> tuple[str, ...]:
    """ISO dates beside one other format, whose order of day and month is then shown by the words
    that only it reads.
    """
    if _count_unread(sample, ISO) == len(sample):
        return ()
    is_other = np.isnan(read_dates(words, (ISO,)))
    rest = [word for word, other in zip(words, is_other, strict=True) if other]
    for form in FORMATS[1:]:
        if _suits_any(rest[:1], form) and not _count_unread(rest, form):
            return (ISO, form)
    return ()


def _count_unread(words: Sequence[str], form: str) -> int:
    """How many words the format does not read."""
    return int(np.isnan(read_dates(words, (form,))).sum())


def read_dates(words: Sequence[str], forms: tuple[str, ...]) -> NDArray[np.float64]:
    """Days since 1970 of each word, by the first of the formats that reads it; NaN where none
    does.
    """
    found = np.full(len(words), np.nan)
    for form in forms or (ISO,):
        rest = np.flatnonzero(np.isnan(found))
        texts = [words[int(k)] for k in rest]
        found[rest] = _quarters(texts) if form == QUARTER else _parse(texts, form)
    return found


def _parse(words: Sequence[str], form: str) -> NDArray[np.float64]:
    if not words:
        return np.zeros(0)
    read = pd.to_datetime(
        pd.Series(list(words), dtype=object), format=form, errors="coerce", utc=True
    )
    return days(read)


def _quarters(words: Sequence[str]) -> NDArray[np.float64]:
    matches = [next((m for p in _QUARTERS if (m := p.fullmatch(word))), None) for word in words]
    starts = [f"{m['year']}-{3 * int(m['quarter']) - 2:02}-01" if m else "" for m in matches]
    return _parse(starts, ISO)


def days(column: pd.Series) -> NDArray[np.float64]:
    """A column of datetimes as days since 1970 (UTC)."""
    plain = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz is not None else column
    # microseconds reach every year; nanoseconds end in 2262
    moments = plain.to_numpy("datetime64[us]")
    found = moments.astype(np.int64) / 86_400e6
    return np.where(np.isnat(moments), np.nan, found)


def without_no_end(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN instead of dates in the year 9999."""
    start = np.datetime64(f"{NO_END}-01-01", "D").astype(int)
    return np.where(found >= start, np.nan, found)


def other_order(words: Sequence[str], forms: tuple[str, ...]) -> str:
    """A format with day and month the other way round that reads all words as well, and as other
    days; "" where the words leave no doubt.
    """
    for form in forms:
        swapped = form.replace("%d", "%@").replace("%m", "%d").replace("%@", "%m")
        if form in FORMATS and swapped != form and "%m" in form and "%d" in form:
            there = read_dates(words, tuple(swapped if one == form else one for one in forms))
            here = read_dates(words, forms)
            if not np.isnan(there[~np.isnan(here)]).any() and (there != here).any():
                return swapped
    return ""
