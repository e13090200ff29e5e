"""Names that are written in several ways."""

import unicodedata
from collections.abc import Mapping, Sequence

from unseen.errors import InvalidData
from unseen.text import join_words


def refuse_spellings(what: str, counts: Mapping[str, int], letters: int = 1) -> None:
    """Raises where names of at least so many letters differ in capitals, blanks or the form of a
    number only: whether they mean the same is asked, not guessed.
    """
    for same in spellings(list(counts)):
        if max(map(len, same)) >= letters:
            ways = join_words([f"`{name}` ({counts[name]})" for name in same])
            raise InvalidData(
                f"{what} writes what may be one value in {len(same)} ways: {ways}.",
                why="taken for different ones, their rows would count as others' rows.",
                fix="write it in one way if it is one value; else give them names that differ in "
                "more than that.",
            )


def spellings(names: Sequence[str]) -> list[list[str]]:
    """Names that are equal but for capitals, blanks and the form of a number, together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_plain_form(name), []).append(name)
    return [same for same in groups.values() if len(same) > 1]


def _plain_form(name: str) -> str:
    try:
        return repr(float(name)) if "_" not in name else name
    except ValueError:
        return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
