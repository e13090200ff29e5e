"""The settings of influence functions as they are meant, or what is wrong with them, by name."""

import math
import operator
from collections.abc import Iterable
from enum import StrEnum
from numbers import Real
from typing import TypeVar

from unseen.errors import InvalidConfig

Member = TypeVar("Member", bound=StrEnum)


def member(kind: type[Member], name: str, value: str) -> Member:
    """The member of that value: what was given as a string means the same."""
    if value not in list(kind):
        raise InvalidConfig(
            f"There is no {name}={value!r}.",
            why=f"{len(kind)} are known here.",
            fix=f"choose from {', '.join(kind)}.",
        )
    return kind(value)


def layer_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """Patterns of layer names; a single string would be read letter by letter."""
    if isinstance(patterns, str):
        raise InvalidConfig(
            f"layers={patterns!r} is one string.",
            why="several patterns may be given, and each letter would be one.",
            fix=f"use layers=({patterns!r},).",
        )
    found = tuple(patterns)
    if not all(isinstance(one, str) for one in found):
        raise InvalidConfig(
            f"layers={patterns!r}.",
            why="layers are named by patterns of their names.",
            fix='use strings, for example layers=("*.mlp.*",).',
        )
    return found


def whole_number(name: str, value: object, least: int, default: int) -> int:
    """The value as an int: numpy's and 2e9 are whole numbers, 2.5 and True are not meant as one."""
    try:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise InvalidConfig(
            f"Influence({name}={value}) is out of range.",
            why=f"{name} is a whole number, at least {least}.",
            fix=f"correct the value; {name}={default} is the default.",
        )
    return number


def damping_number(value: float, default: float) -> float:
    """A damping as a float; True and strings are not meant as one."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise InvalidConfig(
            f"Influence(damping={value}) is out of range.",
            why="damping is a number from 0.",
            fix=f"correct the value; damping={default} is the default.",
        )
    return float(value)
