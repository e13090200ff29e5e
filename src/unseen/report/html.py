"""A document as one HTML file: no request to anywhere, no script, light, dark and print."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from math import isfinite

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from unseen import wording
from unseen.document import Block, Document, Note, Paragraph, Passage, Table, Value
from unseen.reading import Reading
from unseen.report.canvas import palette
from unseen.report.figures import draw
from unseen.report.numbers import numbers
from unseen.wording import Words, clean, words

_CODE = re.compile(r"(?<![\w`])`([^`\n]+)`(?![\w`])")
"""A name in a sentence."""


@dataclass(frozen=True)
class Run:
    """Neighbouring blocks of one kind, laid out together: notes as a list, figures side by side."""

    kind: str
    blocks: Sequence[Block]


def html(document: Document) -> str:
    """The whole page. Every text is escaped; equal documents give equal bytes."""
    ids = anchors([section.title for section in document.sections])
    sections = [
        (anchor, s, runs(s.blocks)) for anchor, s in zip(ids, document.sections, strict=True)
    ]
    return _page().render(document=document, sections=sections, palette=palette())


def notebook(document: Document) -> str:
    """The page in a frame, for `_repr_html_`: its style stays inside."""
    frame = '<iframe srcdoc="{}" title="{}" style="width:100%;height:42rem;border:0"></iframe>'
    return str(Markup(frame).format(html(document), clean(document.title)))


def runs(blocks: Sequence[Block]) -> list[Run]:
    """Blocks in order, neighbours of one kind together."""
    return [Run(kind, list(group)) for kind, group in groupby(blocks, _kind)]


def _kind(block: Block) -> str:
    return {Paragraph: "paragraph", Note: "note", Table: "table", Passage: "passage"}.get(
        type(block), "figure"
    )


def anchors(titles: Sequence[str]) -> list[str]:
    """One fragment identifier per title, unique on the page."""
    seen: dict[str, int] = {}
    out = []
    for title in titles:
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        seen[slug] = seen.get(slug, 0) + 1
        out.append(slug if seen[slug] == 1 else f"{slug}-{seen[slug]}")
    return out


def prose(text: object) -> Markup:
    """The text, escaped; what stands between backticks is code."""
    escaped = str(Markup.escape(clean(text)))
    return Markup(_CODE.sub(r"<code>\1</code>", escaped))


def table(value: Table, whiskers: bool = True) -> Markup:
    """The table; numbers right-aligned, readings with their interval in small print and as a line
    on a shared scale.

    A row that is too long to read becomes a column; its quantities then share no scale.
    """
    whiskers = whiskers and value.comparable and wording.transpose(value) is None
    value = wording.transpose(value) or value
    names = wording.columns(value)
    shown = value.rows[: wording.PAGE_ROWS]
    cells = {name: [row.get(name) for row in shown] for name in names}
    numeric = {name: wording.is_numeric(cells[name]) for name in names}
    units = {name: wording.shared_unit(cells[name]) for name in names}
    digits = wording.decimals_by_column(value, cells)
    readings = [name for name in names if any(isinstance(v, Reading) for v in cells[name])]
    scales = {name: _scale(cells[name]) if whiskers else None for name in names}
    head = [
        Markup('<th scope="col"{}>{}{}</th>').format(
            Markup(' class="num"') if numeric[name] else "",
            prose(clean(name).strip()),
            _small(wording.head_unit(name, units[name])),
        )
        for name in names
    ]

    def line(k: int, row: Mapping[str, Value]) -> Markup:
        told = {
            name: _mark(words(row.get(name), units[name], digits[name]), value, k, name)
            for name in names
        }
        parts = (
            _cell(told[name], row.get(name), numeric[name], scales[name], name, name == names[0])
            for name in names
        )
        return Markup("<tr>{}</tr>").format(Markup("").join(parts))

    left_out = (
        [f"{len(shown)} of {len(value.rows):,} rows."] if len(value.rows) > len(shown) else []
    )
    return Markup(
        '<div class="scroll" tabindex="0" role="group" '
        'aria-label="{}"><table{}><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>{}"
    ).format(
        clean(value.caption) or "table",
        Markup(' class="{}"').format(_layout(len(names), len(readings))),
        Markup("").join(head),
        Markup("").join(line(k, row) for k, row in enumerate(shown)),
        Markup("").join(
            Markup('<p class="remark">{}</p>').format(prose(n))
            for n in (*value.footnotes, *left_out)
        ),
    )


def _layout(columns: int, readings: int) -> str:
    """Long whiskers where few columns leave room for them, rows that become lists on a narrow
    screen, and intervals below their values where many columns have some: a page has room for three
    beside one another.
    """
    kinds = {"wide": readings < 3 and columns < 6, "dense": readings > 3, "stack": columns > 2}
    return " ".join(kind for kind, is_so in kinds.items() if is_so)


def _mark(told: Words, table: Table, row: int, column: str) -> Words:
    """Bold where the table says so, and the raised number of a footnote."""
    text = prose(told.main)
    main = Markup("<b>{}</b>").format(text) if (row, column) in table.strong else text
    mark = wording.superscript(table.marks.get((row, column)))
    return replace(told, main=Markup("{}{}").format(main, mark))


def _cell(
    told: Words,
    value: Value,
    numeric: bool,
    scale: tuple[float, float] | None,
    column: str,
    first: bool,
) -> Markup:
    # on a narrow screen a row becomes a list, and each cell carries the head of its column
    mark = Markup(' data-head="{}"').format(clean(column).replace("`", "").strip())
    mark += Markup(' class="num"') if numeric else Markup()
    drawn = _whisker(value, scale) if scale and isinstance(value, Reading) else ""
    inside = Markup("{}{}{}{}").format(
        told.main, _small(told.unit), _small(told.interval, "interval"), drawn
    )
    if first and not numeric:
        return Markup('<th scope="row"{}>{}</th>').format(mark, inside)
    return Markup("<td{}>{}</td>").format(mark, inside)


def _small(text: str, kind: str = "unit") -> Markup:
    return Markup(' <small class="{}">{}</small>').format(kind, text) if text else Markup()


def _scale(values: Sequence[Value]) -> tuple[float, float] | None:
    """The range of a column's intervals, if there are two or more of one unit to compare."""
    known = [v for v in values if isinstance(v, Reading) and isfinite(v.low) and isfinite(v.high)]
    if len(known) < 2 or len({v.unit for v in known}) > 1:
        return None
    low, high = min(v.low for v in known), max(v.high for v in known)
    return (low, high) if high > low else None


def _whisker(reading: Reading, scale: tuple[float, float]) -> Markup:
    """The interval as a line and the value as a dot, on the column's scale; zero as a tick where it
    is in range.
    """
    if not (isfinite(reading.low) and isfinite(reading.high)):
        return Markup()

    def at(x: float) -> str:
        return f"{4 + 92 * (x - scale[0]) / (scale[1] - scale[0]):.1f}"

    zero = f'<path class="zero" d="M{at(0)} 0v10"/>' if scale[0] < 0 < scale[1] else ""
    line = f'<path d="M{at(reading.low)} 5H{at(reading.high)}"/>'
    dot = (
        f'<circle cx="{at(reading.value)}" cy="5" r="2.6"/>'
        if scale[0] <= reading.value <= scale[1]
        else ""
    )
    return Markup(
        f'<svg class="whisker" viewBox="0 0 100 10" aria-hidden="true">{zero}{line}{dot}</svg>'
    )


def passage(value: Passage) -> Markup:
    """The text; a piece's weight is its colour's strength, its sign also an underline, its number
    the tooltip.
    """
    if not value.weights:
        return Markup('<p class="passage">{}</p>').format(clean("".join(value.pieces)))
    largest = max((abs(w) for w in value.weights if isfinite(w)), default=0.0)

    def piece_markup(piece: str, weight: float) -> Markup:
        share = abs(weight) / largest if largest and isfinite(weight) else 0.0
        if share < 0.03:  # hardly visible: no need of an element
            return Markup.escape(clean(piece))
        return Markup('<span class="{}" style="--w:{}%" title="{}">{}</span>').format(
            "up" if weight > 0 else "down",
            round(55 * share),
            f"{wording.number(weight)} {value.unit}",
            clean(piece),
        )

    inside = Markup("").join(
        piece_markup(p, w) for p, w in zip(value.pieces, value.weights, strict=True)
    )
    return Markup('<p class="passage">{}</p>').format(inside)


@cache
def _page() -> Template:
    room = files("unseen.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "clean": clean,
        "prose": prose,
        "sign": wording.sign,
        "anchor": lambda title: anchors([title])[0],
    }
    environment.globals |= {
        "style": Markup(room.joinpath("page.css").read_text("utf-8")),
        "table": table,
        "passage": passage,
        "draw": draw,
        "numbers": lambda figure: table(numbers(figure), whiskers=False),
    }
    return environment.from_string(room.joinpath("page.html.jinja").read_text("utf-8"))
