"""Characters that must not reach a page or a terminal as they are."""

import re

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe"
    r"\uffff]"
)


def clean(text: object) -> str:
    """The text with characters shown as � that HTML, SVG and terminals refuse (control, lone
    surrogates) or that reorder what a reader sees (bidirectional controls).
    """
    return _CONTROL.sub("�", str(text))
