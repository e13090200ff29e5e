"""Wiring diagrams as inline SVG: boxes from left to right; wires that lead back run below them,
wires past a box above.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from unseen.figure import Diagram
from unseen.report.canvas import (
    DASHES,
    INK,
    MUTED,
    _empty_remark,
    _legend,
    _page_svg,
    _plot,
    _series,
    _short,
    _turn,
)

WIDE, GAP, ROW, LANE = 2.9, 1.7, 0.62, 0.34
"""Width of a box, between columns, per port, and between wires that lead back."""


@dataclass(frozen=True)
class Slab:
    """Where a box lies; `y` is its middle."""

    x: float
    y: float
    height: float


def draw_diagram(figure: Diagram) -> Markup:
    """The diagram, one colour and dash per kind of thing that flows."""
    if not figure.boxes:
        return _empty_remark()
    slabs = arrange(figure)
    ports = locate_ports(figure, slabs)
    kinds = list(dict.fromkeys(wire.kind for wire in figure.wires))
    low = min(slab.y - slab.height / 2 for slab in slabs.values())
    high = max(slab.y + slab.height / 2 for slab in slabs.values())
    ends = [(ports["from", wire.source], ports["to", wire.sink]) for wire in figure.wires]
    lanes = choose_lanes([(start[0], end[0]) for start, end in ends], low, high)
    low, high = min([low, *lanes.values()]) - LANE, max([high, *lanes.values()]) + LANE
    with _plot(26 * (high - low)) as (canvas, axes):
        for k, (wire, (start, end)) in enumerate(zip(figure.wires, ends, strict=True)):
            _wire(axes, start, end, lanes.get(k), kinds.index(wire.kind))
        for name, slab in slabs.items():
            _box(axes, name, slab, figure.boxes[name])
        right = max(slab.x for slab in slabs.values()) + WIDE
        _frame(axes, figure, ports)
        axes.set_xlim(-GAP - 1.9, right + GAP + 1.9)
        axes.set_ylim(low, high)
        axes.set_axis_off()
        svg = _page_svg(canvas, figure.title)
    return svg + _legend(
        [kind or "wire" for kind in kinds],
        lambda k: f'<path d="M0 6h24" stroke-dasharray="{_turn(DASHES, k)}"/>',
    )


def arrange(figure: Diagram) -> dict[str, Slab]:
    """Boxes in columns: one further to the right than the farthest that feeds it from before."""
    order = {name: k for k, name in enumerate(figure.boxes)}
    column = dict.fromkeys(figure.boxes, 0)
    for name in figure.boxes:
        feeding = [
            source
            for wire in figure.wires
            if (source := _box_of(wire.source)) in order and _box_of(wire.sink) == name
        ]
        before = [column[source] + 1 for source in feeding if order[source] < order[name]]
        column[name] = max(before, default=0)
    slabs: dict[str, Slab] = {}
    for k in sorted(set(column.values())):
        stack = [name for name in figure.boxes if column[name] == k]
        heights = [ROW * (max(map(len, figure.boxes[name])) + 1) for name in stack]
        top = (sum(heights) + ROW * (len(stack) - 1)) / 2
        for name, height in zip(stack, heights, strict=True):
            slabs[name] = Slab(k * (WIDE + GAP), top - height / 2, height)
            top -= height + ROW
    return slabs


def choose_lanes(spans: Sequence[tuple[float, float]], low: float, high: float) -> dict[int, float]:
    """Heights for the wires (start and end along x) that do not lead to the next column."""
    lanes: dict[int, float] = {}
    for k, (start, end) in enumerate(spans):
        if end <= start:
            low -= LANE
            lanes[k] = low
        elif end - start > GAP + 1e-9:
            high += LANE
            lanes[k] = high
    return lanes


def locate_ports(
    figure: Diagram, slabs: Mapping[str, Slab]
) -> dict[tuple[str, str], tuple[float, float]]:
    """Where wires start (`from`) and end (`to`), by the port's name."""
    right = max(slab.x for slab in slabs.values()) + WIDE
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for name, slab in slabs.items():
        inputs, outputs = figure.boxes[name]
        found |= _spread("to", name, inputs, slab.x, slab)
        found |= _spread("from", name, outputs, slab.x + WIDE, slab)
    middle = Slab(0, 0, max(slab.height for slab in slabs.values()))
    found |= _spread("from", "", figure.frame[0], -GAP, middle)
    found |= _spread("to", "", figure.frame[1], right + GAP, middle)
    return found


def _spread(
    end: str, box: str, ports: Sequence[str], x: float, slab: Slab
) -> dict[tuple[str, str], tuple[float, float]]:
    """Ports evenly along a side."""
    top = slab.y + ROW * (len(ports) - 1) / 2 - (ROW / 4 if box else 0)
    return {
        (end, f"{box}.{port}" if box else port): (x, top - k * ROW) for k, port in enumerate(ports)
    }


def _box_of(end: str) -> str:
    return end.rsplit(".", 1)[0] if "." in end else ""


def _box(axes: Axes, name: str, slab: Slab, ports: tuple[Sequence[str], Sequence[str]]) -> None:
    bottom = slab.y - slab.height / 2
    axes.add_patch(
        FancyBboxPatch(
            (slab.x, bottom), WIDE, slab.height, boxstyle="round,pad=0,rounding_size=0.12",
            facecolor="none", edgecolor=INK, linewidth=1.1,
        )
    )  # fmt: skip
    top = bottom + slab.height
    axes.text(
        slab.x + WIDE / 2, top - 0.12, _short(name, 15), ha="center", va="top", color=INK,
        fontsize=8.5,
    )  # fmt: skip
    for side, x, align in ((0, slab.x + 0.12, "left"), (1, slab.x + WIDE - 0.12, "right")):
        for at in _spread("", "box", ports[side], x, slab).items():
            (_, port), (_, y) = at
            label = _short(port.rsplit(".", 1)[1], 12)
            axes.text(x, y, label, ha=align, va="center", color=INK, fontsize=8)


def _frame(
    axes: Axes, figure: Diagram, ports: Mapping[tuple[str, str], tuple[float, float]]
) -> None:
    for end, names, align, shift in (
        ("from", figure.frame[0], "right", -0.15), ("to", figure.frame[1], "left", 0.15)
    ):  # fmt: skip
        for name in names:
            x, y = ports[end, name]
            axes.text(x + shift, y, _short(name, 14), ha=align, va="center", color=INK)
            axes.plot([x], [y], marker="o", markersize=3, color=MUTED)


def _wire(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    lane: float | None,
    kind: int,
) -> None:
    """A curve to the right, or, with a lane, to it, along it and from it."""
    (x0, y0), (x1, y1) = start, end
    # a wire that leads back turns round, one past a box goes on in its direction
    bend, turn = GAP * 0.5, GAP * 0.9 if x1 > x0 else 0.0
    move, curve = Path.MOVETO, Path.CURVE4
    points = [(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)]
    codes = [move, curve, curve, curve]
    if lane is not None:
        points = [
            (x0, y0), (x0 + bend, y0), (x0 + bend, lane), (x0 + turn, lane),
            (x1 - turn, lane), (x1 - bend, lane), (x1 - bend, y1), (x1, y1),
        ]  # fmt: skip
        codes = [move, curve, curve, curve, Path.LINETO, curve, curve, curve]
    dashes = [float(length) for length in _turn(DASHES, kind).split()]
    axes.add_patch(
        PathPatch(
            Path(points, codes), facecolor="none", edgecolor=_series(kind), linewidth=1.3,
            linestyle=(0, dashes) if dashes else "-",
        )
    )  # fmt: skip
