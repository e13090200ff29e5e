"""Sizes and ages as people write them: 20GB, 500 MB, 30d, 12h."""

import os
import re

from unseen.errors import InvalidConfig

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
AGES = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
LIMIT = "UNSEEN_CACHE_LIMIT"


def parse_size(text: str) -> int:
    """Bytes: a number with a unit, or without one."""
    found = re.fullmatch(r"\s*(\d{1,20}(?:\.\d*)?)\s*([a-zA-Z]*)\s*", text)
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise InvalidConfig(
            f"`{text}` is no size.",
            why="a size is a number with B, KB, MB, GB or TB.",
            fix="20GB",
        )
    return int(float(found[1]) * unit)


def parse_age(text: str) -> float:
    """Seconds: a number with s, min, h, d or w."""
    found = re.fullmatch(r"\s*(\d{1,20}(?:\.\d*)?)\s*([a-z]+)\s*", text)
    unit = AGES.get(found[2]) if found else None
    if found is None or unit is None:
        raise InvalidConfig(
            f"`{text}` is no age.", why="an age is a number with s, min, h, d or w.", fix="30d"
        )
    return float(found[1]) * unit


def format_size(size: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def format_age(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def factor_limit() -> int | None:
    """Bytes that factor files may take in the home (`UNSEEN_CACHE_LIMIT`); None: any."""
    given = os.environ.get(LIMIT, "").strip()
    try:
        return parse_size(given) if given else None
    except InvalidConfig as error:
        raise InvalidConfig(f"{LIMIT}: {error.what}", why=error.why, fix=f"{LIMIT}=20GB") from None
