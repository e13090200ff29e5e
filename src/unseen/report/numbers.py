"""The numbers behind a figure, as a table."""

from collections.abc import Sequence

from unseen.document import Table, Value
from unseen.figure import Bars, Curves, Diagram, Dots, Figure, Grid, Images, Points
from unseen.reading import Reading

MOST_ROWS = 150
"""A report stays under 1 MB: longer tables are thinned evenly, and say so."""


def numbers(figure: Figure) -> Table:
    """What the figure draws, row by row."""
    match figure:
        case Curves():
            rows = _of_curves(figure)
        case Bars():
            rows = _of_bars(figure)
        case Dots():
            rows = _of_dots(figure)
        case Points():
            rows = _of_points(figure)
        case Grid():
            rows = _of_grid(figure)
        case Images():
            rows = _of_images(figure)
        case Diagram():
            rows = _of_diagram(figure)
    kept = thin_rows(rows)
    note = f"{len(kept)} of {len(rows):,} rows, evenly spaced, first and last included."
    return Table(
        rows=kept, caption=figure.title, footnotes=(note,) if len(kept) < len(rows) else ()
    )


def thin_rows(rows: Sequence[dict[str, Value]], most: int = MOST_ROWS) -> list[dict[str, Value]]:
    """At most `most` rows, evenly spaced, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(k * (len(rows) - 1) / (most - 1))] for k in range(most)]


def _free(name: str, taken: Sequence[str]) -> str:
    """A column name that no series has."""
    while name in taken:
        name += " "
    return name


def _of_curves(figure: Curves) -> list[dict[str, Value]]:
    head = _free(figure.x_label or "x", list(figure.y))

    def at(name: str, k: int) -> Value:
        if k >= len(figure.y[name]):
            return None
        value = float(figure.y[name][k])
        if figure.band is None or name not in figure.band:
            return value
        low, high = figure.band[name][k]
        return Reading(value, float(low), float(high))

    return [{head: x, **{name: at(name, k) for name in figure.y}} for k, x in enumerate(figure.x)]


def _of_bars(figure: Bars) -> list[dict[str, Value]]:
    label = _free(figure.label or "value", ["name"])

    def value(name: str) -> Value:
        if name not in (figure.intervals or {}):
            return float(figure.values[name])
        low, high = (figure.intervals or {})[name]
        return Reading(float(figure.values[name]), float(low), float(high))

    return [{"name": name, label: value(name)} for name in figure.values]


def _of_dots(figure: Dots) -> list[dict[str, Value]]:
    head = _free("name", list(figure.values))
    return [
        {head: row, **{series: values[k] for series, values in figure.values.items()}}
        for k, row in enumerate(figure.rows)
    ]


def _of_points(figure: Points) -> list[dict[str, Value]]:
    x = _free(figure.x_label or "x", ["group"])
    y = _free(figure.y_label or "y", ["group", x])
    return [
        {"group": name, x: float(a), y: float(b)}
        for name, group in figure.groups.items()
        for a, b in group
    ]


def _of_grid(figure: Grid) -> list[dict[str, Value]]:
    head = _free("row", figure.columns)
    return [
        {head: name, **dict(zip(figure.columns, map(float, row), strict=True))}
        for name, row in zip(figure.rows, figure.values, strict=True)
    ]


def _of_images(figure: Images) -> list[dict[str, Value]]:
    def row(k: int) -> dict[str, Value]:
        image = figure.pixels[k]
        flat = [float(v) for line in image for v in line]
        return {
            "image": k + 1,
            "caption": figure.captions[k] if k < len(figure.captions) else "",
            "height × width": f"{len(image)} × {len(image[0]) if len(image) else 0}",
            "mean grey": sum(flat) / len(flat) if flat else None,
        }

    return [row(k) for k in range(len(figure.pixels))]


def _of_diagram(figure: Diagram) -> list[dict[str, Value]]:
    return [{"from": wire.source, "to": wire.sink, "what": wire.kind} for wire in figure.wires]
