"""Figures as inline SVG: text stays text, colours are the page's CSS variables, equal values give
equal bytes.

matplotlib lays the plot out in placeholder colours; `_page_svg` then replaces them by
`currentColor` and variables, so that one drawing serves light, dark and print. Legends are HTML:
they wrap on narrow screens.
"""

import base64
import hashlib
import pickle
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from math import isfinite, nan

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from unseen.figure import Bars, Curves, Diagram, Dots, Figure, Grid, Images, Points
from unseen.report.canvas import (
    DASHES,
    INK,
    MARKERS,
    MUTED,
    SHAPES,
    _axes,
    _empty_remark,
    _legend,
    _page_svg,
    _plot,
    _remark,
    _series,
    _short,
    _turn,
)
from unseen.report.diagram import draw_diagram
from unseen.wording import clean, number, shared_decimals

MOST_POINTS, MOST_CELLS, MOST_BARS, MOST_IMAGES = 1_500, 400, 40, 64


class _Content:
    """A figure, equal to another one where both hold the same."""

    def __init__(self, figure: Figure, pickled: bytes) -> None:
        self.figure: Figure | None = figure
        # of what it holds now: its values may be lists, and those can change
        self.digest = hashlib.sha256(pickled).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def draw(figure: Figure) -> Markup:
    """The figure as markup for an HTML page; without finite values, a sentence that says so.

    The last 64 drawings are remembered: a page is often written twice, where the user asked for it
    and beside the stored answer.
    """
    try:
        pickled = pickle.dumps(figure)
    except (TypeError, AttributeError, pickle.PicklingError):  # a view of a dictionary, for one
        return _drawing(figure)
    return _markup_of(_Content(figure, pickled))


@lru_cache(maxsize=64)
def _markup_of(content: _Content) -> Markup:
    figure, content.figure = content.figure, None  # only the digest is kept
    assert figure is not None
    return _drawing(figure)


def _drawing(figure: Figure) -> Markup:
    match figure:
        case Curves():
            return _curves(figure)
        case Bars():
            return _bars(figure)
        case Dots():
            return _dots(figure)
        case Points():
            return _points(figure)
        case Grid():
            return _grid(figure)
        case Images():
            return _images(figure)
        case Diagram():
            return draw_diagram(figure)


def _curves(figure: Curves) -> Markup:
    lines = {name: _pairs(figure.x, y, figure.log_x, figure.log_y) for name, y in figure.y.items()}
    if not any(len(line) for line in lines.values()):
        return _empty_remark()
    with _plot(210) as (canvas, axes):
        for k, (name, line) in enumerate(lines.items()):
            if figure.band and name in figure.band:
                low, high = (
                    _pairs(figure.x, limit, figure.log_x)
                    for limit in zip(*figure.band[name], strict=True)
                )
                axes.fill_between(
                    low[:, 0], low[:, 1], high[:, 1], color=_series(k), alpha=0.16, linewidth=0
                )
            dashes = [float(x) for x in _turn(DASHES, k).split()]
            marker = _turn(MARKERS, k) if len(line) < 13 else ""
            style = (0, dashes) if dashes else "-"
            axes.plot(
                *line.T,
                color=_series(k),
                linestyle=style,
                linewidth=1.6,
                marker=marker,
                markersize=3.5,
            )
        for scaled, log, axis in (
            (axes.set_xscale, figure.log_x, axes.xaxis),
            (axes.set_yscale, figure.log_y, axes.yaxis),
        ):
            if log:
                scaled("log", nonpositive="mask")
                axis.set_minor_formatter(NullFormatter())
                axis.set_major_locator(LogLocator(numticks=7))
        _axes(axes, figure.x_label, figure.y_label)
        svg = _page_svg(canvas, figure.title)
    return svg + _legend(
        list(figure.y), lambda k: f'<path d="M0 6h24" stroke-dasharray="{_turn(DASHES, k)}"/>'
    )


def _bars(figure: Bars) -> Markup:
    names = [name for name, value in figure.values.items() if isfinite(value)]
    if not names:
        return _empty_remark()
    shown, left_out = names[:MOST_BARS], len(names) - MOST_BARS
    known = {n: i for n, i in (figure.intervals or {}).items() if all(map(isfinite, i))}
    digits = shared_decimals([figure.values[name] for name in shown])
    with _plot(34 + 19 * len(shown)) as (canvas, axes):
        for k, name in enumerate(shown):
            value = figure.values[name]
            axes.barh(k, value, height=0.62, color=_series(0), alpha=0.38, linewidth=0)
            low, high = known.get(name, (value, value))
            axes.plot([low, high], [k, k], color=INK, linewidth=1.3, solid_capstyle="butt")
            axes.plot([value], [k], color=_series(0), marker="o", markersize=4.5, linestyle="")
            axes.annotate(
                number(value, digits), (1, k), xycoords=("axes fraction", "data"), xytext=(5, 0),
                textcoords="offset points", va="center", color=INK,
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), [_short(name) for name in shown])
        axes.set_ylim(len(shown) - 0.45, -0.55)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        _axes(axes, figure.label, "", named_rows=True)
        svg = _page_svg(canvas, figure.title)
    return svg + (
        _remark(f"The first {MOST_BARS} of {len(names)} are drawn.") if left_out > 0 else Markup()
    )


def _dots(figure: Dots) -> Markup:
    """One line per row and series, with the value beside its dot."""
    shown, left_out = figure.rows[:MOST_BARS], len(figure.rows) - MOST_BARS
    drawn = [
        (row, series, reading)
        for series, readings in enumerate(figure.values.values())
        for row, reading in enumerate(readings[: len(shown)])
        if reading is not None and isfinite(reading.value)
    ]
    if not drawn:
        return _empty_remark()
    digits = shared_decimals([reading.value for *_, reading in drawn])
    several = len(figure.values)
    with _plot(34 + 15 * len(shown) * several + 8 * len(shown)) as (canvas, axes):
        for row, series, reading in drawn:
            at = row + 0.72 * ((series + 0.5) / several - 0.5)
            known = isfinite(reading.low) and isfinite(reading.high)
            low, high = (reading.low, reading.high) if known else (reading.value, reading.value)
            colour = _series(series)
            axes.plot([low, high], [at, at], color=colour, linewidth=1.5, solid_capstyle="butt")
            axes.plot(
                [reading.value],
                [at],
                color=colour,
                marker=_turn(MARKERS, series),
                markersize=5,
                linestyle="",
            )
            axes.annotate(
                number(reading.value, digits), (1, at), xycoords=("axes fraction", "data"),
                xytext=(5, 0), textcoords="offset points", va="center", color=INK, fontsize=8.5,
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), [_short(name) for name in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        _axes(axes, figure.label, "", named_rows=True)
        svg = _page_svg(canvas, figure.title)
    legend = _legend(list(figure.values), lambda k: SHAPES[_turn(MARKERS, k)], filled=True)
    told = f"The first {MOST_BARS} of {len(figure.rows)} are drawn."
    return svg + legend + (_remark(told) if left_out > 0 else Markup())


def _points(figure: Points) -> Markup:
    groups = {
        name: _pairs([p[0] for p in group], [p[1] for p in group])
        for name, group in figure.groups.items()
    }
    n = sum(len(group) for group in groups.values())
    if not n:
        return _empty_remark()
    step = -(-n // MOST_POINTS)
    with _plot(260) as (canvas, axes):
        for k, group in enumerate(groups.values()):
            drawn = group[::step]
            axes.plot(
                *drawn.T,
                color=_series(k),
                marker=_turn(MARKERS, k),
                linestyle="",
                markersize=4 if n > 40 else 5.5,
                alpha=0.75 if n < 200 else 0.45,
                markeredgewidth=0,
            )
        if figure.diagonal:
            low, high = (f(np.concatenate(list(groups.values()))) for f in (np.min, np.max))
            axes.plot(
                [low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1
            )
        _axes(axes, figure.x_label, figure.y_label)
        svg = _page_svg(canvas, figure.title)
    told = _remark(f"Every {step}th of {n:,} points is drawn.") if step > 1 else Markup()
    return svg + _legend(list(groups), lambda k: SHAPES[_turn(MARKERS, k)], filled=True) + told


def _grid(figure: Grid) -> Markup:
    values = np.array(figure.values, dtype=np.float64).reshape(
        len(figure.rows), len(figure.columns)
    )
    if not np.isfinite(values).any():
        return _empty_remark()
    strength = _strength(values)
    printed = values.size <= MOST_CELLS and len(figure.columns) <= 14
    with _plot(56 + min(340, max(18, 240 // len(figure.rows)) * len(figure.rows))) as (
        canvas,
        axes,
    ):
        if printed:
            _cells(axes, values, strength)
        else:
            axes.imshow(_shades(values, strength), aspect="auto", interpolation="none")
        for ticks, names in ((axes.set_xticks, figure.columns), (axes.set_yticks, figure.rows)):
            at = range(0, len(names), -(-len(names) // 20))
            ticks(list(at), [_short(names[k], 16) for k in at])
        widest = max(len(_short(name, 16)) for name in figure.columns)
        if widest * min(20, len(figure.columns)) > 52:
            axes.tick_params(axis="x", labelrotation=35)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")
        axes.set_xlim(-0.5, len(figure.columns) - 0.5)
        axes.set_ylim(len(figure.rows) - 0.5, -0.5)
        _axes(axes, figure.label, "", frame=False)
        return _page_svg(canvas, figure.title)


def _cells(axes: Axes, values: NDArray[np.float64], strength: NDArray[np.float64]) -> None:
    size = 9 if values.shape[1] <= 8 else 7
    digits = shared_decimals(values.ravel().tolist())
    for (r, c), value in np.ndenumerate(values):
        if isfinite(value):
            colour = _series(1 if value < 0 else 0)
            axes.fill_between(
                [c - 0.48, c + 0.48],
                r - 0.46,
                r + 0.46,
                color=colour,
                alpha=strength[r, c],
                linewidth=0,
            )
        axes.text(
            c, r, number(float(value), digits), ha="center", va="center", color=INK, fontsize=size
        )


def _shades(values: NDArray[np.float64], strength: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A large grid as a translucent picture: an image cannot follow the page's colours, so both
    hues are mid-tones.
    """
    image = np.zeros((*values.shape, 4))
    image[..., :3] = np.where(values[..., None] < 0, (213, 94, 0), (40, 130, 200))
    image[..., 3] = np.where(np.isfinite(values), 255 * np.clip(strength / 0.5, 0, 1), 0)
    return image.round().astype(np.uint8)


def _strength(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Opacity 0.03 … 0.5: from the smallest to the largest value, or from zero where signs
    differ.
    """
    known = values[np.isfinite(values)]
    low = 0.0 if known.min() < 0 else known.min()
    span = np.abs(known).max() - low
    share = (np.abs(values) - low) / span if span > 0 else np.full(values.shape, 0.5)
    return np.nan_to_num(0.03 + 0.47 * share.clip(0, 1))


def _images(figure: Images) -> Markup:
    if not len(figure.pixels):
        return _empty_remark()
    shown = figure.pixels[:MOST_IMAGES]

    def tile(k: int) -> Markup:
        caption = clean(figure.captions[k]) if k < len(figure.captions) else ""
        uri = "data:image/png;base64," + base64.b64encode(_png(shown[k])).decode()
        return Markup('<figure class="tile"><img src="{}" alt="{}">{}</figure>').format(
            uri,
            caption or f"image {k + 1}",
            Markup("<figcaption>{}</figcaption>").format(caption) if caption else "",
        )

    tiles = Markup('<div class="tiles">{}</div>').format(
        Markup("").join(tile(k) for k in range(len(shown)))
    )
    left_out = len(figure.pixels) - len(shown)
    return tiles + (
        _remark(f"The first {len(shown)} of {len(figure.pixels)} are shown.")
        if left_out > 0
        else Markup()
    )


def _png(pixels: Sequence[Sequence[float]]) -> bytes:
    """An 8-bit grey PNG of values in [0, 1]; beyond 96 pixels a side every k-th is kept."""
    image = np.asarray(pixels, dtype=np.float64)
    image = image[:: -(-image.shape[0] // 96), :: -(-image.shape[1] // 96)]
    grey = (np.nan_to_num(image).clip(0, 1) * 255).round().astype(np.uint8)
    lines = b"".join(b"\0" + row.tobytes() for row in grey)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines, 9))
        + chunk(b"IEND", b"")
    )


def _pairs(
    x: Sequence[float], y: Sequence[float], log_x: bool = False, log_y: bool = False
) -> NDArray[np.float64]:
    """(x, y) in order; what a scale cannot show becomes NaN, a gap. Without any pair: an empty
    array.
    """
    n = min(len(x), len(y))
    pairs = np.array([list(map(float, x[:n])), list(map(float, y[:n]))]).T.reshape(n, 2)
    pairs[~np.isfinite(pairs).all(1)] = nan
    for k, log in enumerate((log_x, log_y)):
        if log:
            pairs[~(pairs[:, k] > 0)] = nan
    return pairs if np.isfinite(pairs).any() else pairs[:0]
