"""The canvas of a figure, apart from pyplot, and its SVG for an HTML page: colours, dashes and
markers are the page's.
"""

import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from unseen.wording import clean

LIGHT = ("#0072b2", "#c44e00", "#00805c", "#a8478a", "#80640a", "#4a4a4a")
"""Okabe and Ito's hues, darkened until each has contrast 4.5 on white; every series also has its
own dash or marker.
"""
DARK = ("#56b4e9", "#ff9455", "#3ecfa0", "#e79bcb", "#e8bd4a", "#c8c8c8")
DASHES = ("", "5 2", "1.5 1.5", "6 2 1.5 2", "9 2", "3 1")
MARKERS = ("o", "s", "^", "D", "v", "P")
SHAPES = {
    "o": '<circle cx="6" cy="6" r="4"/>',
    "s": '<path d="M2 2h8v8h-8z"/>',
    "^": '<path d="M6 1.5 10.5 10h-9z"/>',
    "D": '<path d="M6 1 11 6 6 11 1 6z"/>',
    "v": '<path d="M6 10.5 1.5 2h9z"/>',
    "P": '<path d="M4.5 1.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z"/>',
}
INK, MUTED, RULE = "#000001", "#000002", "#000003"
WIDTH, POINT = 400, 1 / 72


def palette() -> Markup:
    """The series colours as CSS custom properties, light and dark."""

    def block(colours: Sequence[str]) -> str:
        return ";".join(f"--s{k}:{colour}" for k, colour in enumerate(colours))

    dark = f"@media (prefers-color-scheme:dark){{@media screen{{:root{{{block(DARK)}}}}}}}"
    return Markup(f":root{{{block(LIGHT)}}}{dark}")


def _turn(kinds: Sequence[str], k: int) -> str:
    """The dash or marker of series k: one further each time the colours start again, so that no two
    series look alike.
    """
    return kinds[(k + k // len(LIGHT)) % len(kinds)]


def _series(k: int) -> str:
    """The placeholder of series k; six colours, then again with other dashes or markers."""
    return f"#0000{16 + k % len(LIGHT):02x}"


@contextmanager
def _plot(height: float) -> Iterator[tuple[Canvas, Axes]]:
    """A canvas 400 units wide, apart from pyplot and from the user's rcParams."""
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "unseen",
        "text.parse_math": False,
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": RULE,
        "grid.linewidth": 0.7,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "path.simplify_threshold": 0.4,
    }
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing"
        )  # the browser has the fonts, matplotlib need not
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        canvas = Canvas(
            figsize=(WIDTH * POINT, height * POINT), layout="constrained", facecolor="none"
        )
        FigureCanvasSVG(canvas)
        axes = canvas.add_subplot(facecolor="none")
        yield canvas, axes


def _axes(axes: Axes, x: str, y: str, *, named_rows: bool = False, frame: bool = True) -> None:
    axes.set_xlabel(_short(x, 60))
    axes.set_ylabel(_short(y, 40))
    axes.tick_params(length=3 if frame else 0)
    tick = FuncFormatter(lambda value, _: _tick(value))
    if not frame:
        axes.grid(False)
        axes.spines[:].set_visible(False)
        return
    axes.xaxis.set_major_formatter(tick)
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(6))
    if named_rows:
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return
    axes.yaxis.set_major_formatter(tick)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _tick(value: float) -> str:
    text = f"{value:,.6g}" if abs(value) >= 1000 else f"{value:.6g}"
    return "0" if abs(value) < 1e-12 else text.replace("-", "−")


def _short(text: str, most: int = 34) -> str:
    text = clean(text).replace("\n", " ")
    return text if len(text) <= most else text[: most - 1] + "…"


def _page_svg(canvas: Canvas, title: str) -> Markup:
    """The canvas as SVG for an HTML page: no prolog, metadata, fonts or style sheet; ids unique by
    content.
    """
    buffer = io.StringIO()
    # not `savefig`, which draws once more before: where things lie is found while they are drawn
    FigureCanvasSVG(canvas).print_svg(
        buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    svg = buffer.getvalue()
    body = svg[svg.index("<svg") :]
    body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL
    )
    box = re.search(r'viewBox="[^"]*"', body)
    assert box is not None
    body = body[body.index(">") + 1 :]
    refs = dict.fromkeys(re.findall(r'(?:url\(|href=")#([^)"]+)', body))
    prefix = f"f{zlib.crc32(body.encode()):08x}"
    ids = {ref: f"{prefix}-{k}" for k, ref in enumerate(refs)}
    body = re.sub(
        r"<[^>]+>", lambda tag: _page_tag(tag[0], ids), body
    )  # in tags only: labels may hold anything
    body = re.sub(r">\s+<", "><", body).replace("<g></g>", "").replace("<g/>", "")
    label = Markup.escape(clean(title))
    return Markup(f'<svg class="plot" {box[0]} role="img" aria-label="{label}">{body.strip()}')


def _page_tag(tag: str, ids: Mapping[str, str]) -> str:
    """One tag with the page's colours and font, two decimals, and only those ids that something
    refers to.
    """
    tag = re.sub(r"\s+", " ", tag).replace("xlink:href", "href")
    tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{ids[m[1]]}"' if m[1] in ids else "", tag)
    tag = re.sub(r'(url\(|href=")#([^)"]+)', lambda m: f"{m[1]}#{ids[m[2]]}", tag)
    tag = re.sub(r" font-family: [^;\"]*;?", "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", tag)
    tag = re.sub(r"(\d\.\d{2})\d+", r"\1", tag)
    for placeholder, css in _colours().items():
        tag = tag.replace(placeholder, css)
    return tag


def _colours() -> Mapping[str, str]:
    named = {INK: "currentColor", MUTED: "var(--muted,#667)", RULE: "var(--rule,#ccd)"}
    return named | {_series(k): f"var(--s{k},{colour})" for k, colour in enumerate(LIGHT)}


def _legend(names: Sequence[str], mark: Callable[[int], str], filled: bool = False) -> Markup:
    if len(names) < 2:
        return Markup()

    def item(k: int, name: str) -> Markup:
        paint = "fill" if filled else "stroke"
        swatch = Markup(
            f'<svg viewBox="0 0 {12 if filled else 24} 12" aria-hidden="true" '
            f'style="{paint}:var(--s{k % len(LIGHT)})">{mark(k)}</svg>'
        )
        return Markup("<li>{}{}</li>").format(swatch, clean(name))

    return Markup('<ul class="legend">{}</ul>').format(
        Markup("").join(item(k, name) for k, name in enumerate(names))
    )


def _remark(text: str) -> Markup:
    return Markup('<p class="remark">{}</p>').format(text)


def _empty_remark() -> Markup:
    return _remark("There is no finite value to draw.")
