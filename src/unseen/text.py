"""Numbers and lists inside sentences: the words of advice that follows from readings."""

from collections.abc import Sequence
from math import floor, isfinite, log10

from unseen.reading import Reading


def decimals_of(reading: Reading) -> int:
    """So many decimals that the interval's width has two digits."""
    width = reading.high - reading.low
    return min(6, max(0, 1 - floor(log10(width)))) if isfinite(width) and width > 0 else 2


def format_reading(reading: Reading, sign: str = "") -> str:
    """Value and interval; `sign="+"` for changes."""
    value = format_value(reading, sign)
    if isfinite(reading.low) and isfinite(reading.high):
        return f"{value} {format_interval(reading, sign)}"
    return value


def format_value(reading: Reading, sign: str = "") -> str:
    """The value alone, with the digits that its interval allows."""
    form = f"{sign}z.{decimals_of(reading)}f"  # z: zero has no minus sign
    return f"{reading.value:{form}}".replace("-", "−")


def format_interval(reading: Reading, sign: str = "") -> str:
    """The interval alone."""
    form = f"{sign}z.{decimals_of(reading)}f"
    return f"[{reading.low:{form}}, {reading.high:{form}}]".replace("-", "−")


def count_noun(count: int, noun: str) -> str:
    """ "1 label", "2 labels"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def count_intervals(count: int) -> str:
    """How many intervals a table holds, and how many of them miss their value by chance."""
    missed = f"about {max(1, round(0.05 * count))}" if count >= 10 else "1 in 20 such intervals"
    return f"{count_noun(count, 'interval')} of 95 %, not widened: {missed} will miss by chance."


def join_words(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
