"""Figures as data: what to draw, not how. The report draws them and prints the numbers behind
each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from unseen.reading import Reading

Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Lines over a shared axis: `y[name][k]` at `x[k]`, optionally within a band."""

    title: str
    x: Sequence[float]
    y: Mapping[str, Sequence[float]]
    band: Mapping[str, Sequence[Interval]] | None = None
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One value per name, with intervals where known."""

    title: str
    values: Mapping[str, float]
    intervals: Mapping[str, Interval] | None = None
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Dots:
    """Readings of several series side by side: `values[series][k]` belongs to `rows[k]`."""

    title: str
    rows: Sequence[str]
    values: Mapping[str, Sequence[Reading | None]]
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Points:
    """A scatter of named groups: `groups[name]` is a sequence of (x, y)."""

    title: str
    groups: Mapping[str, Sequence[tuple[float, float]]]
    x_label: str = ""
    y_label: str = ""
    diagonal: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A matrix of numbers with row and column names."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Small grey images [height, width] with values in [0, 1], each with a caption."""

    title: str
    pixels: Sequence[Sequence[Sequence[float]]]
    captions: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Wire:
    """From a port to a port, `"box.port"` or, of the frame, `"port"`; `kind` names what flows."""

    source: str
    sink: str
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Diagram:
    """Boxes with input and output ports in a frame that has ports itself, and the wires between
    them.

    A wire from a box to one named before it leads back. Kinds are told apart by line and colour.
    """

    title: str
    boxes: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    frame: tuple[Sequence[str], Sequence[str]]
    wires: Sequence[Wire]


Figure: TypeAlias = Curves | Bars | Dots | Points | Grid | Images | Diagram
