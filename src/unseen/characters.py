"""Characters that must not reach a page or a terminal as they are."""

import re

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe"
    r"\uffff]"
)

_HALF = re.compile(r"[\ud800-\udfff]")


def clean(text: object) -> str:
    """The text with characters shown as � that HTML, SVG and terminals refuse (control, lone
    surrogates) or that reorder what a reader sees (bidirectional controls).
    """
    return _CONTROL.sub("�", str(text))


def find_half(text: str) -> str | None:
    """The first half of a character of two (a lone surrogate), as `\\ud83d`, where the text holds
    one: it was cut through an emoji or another such sign, and has no bytes.
    """
    found = _HALF.search(text)
    return None if found is None else f"\\u{ord(found[0]):04x}"
