"""Figures by name, in groups, as lines of a table."""

from collections.abc import Iterator, Mapping
from typing import Any


def lines(found: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A line per figure; a list stands behind its name, a group is indented below it."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}"
            yield from lines(value, indent + "  ")
        else:
            shown = value if isinstance(value, list) else [value]
            yield f"{indent}{name:34} " + " ".join(f"{one:.4g}" for one in shown)
