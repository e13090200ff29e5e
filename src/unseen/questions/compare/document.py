"""The results of a comparison as a document, and its tables for export."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.errors import InvalidConfig
from unseen.figure import Bars, Points
from unseen.questions.compare.advice import advice, clear, headline, limits, metric_of, recommend
from unseen.questions.compare.protocols import Protocol
from unseen.questions.compare.quantities import is_lower_better, side_of_zero
from unseen.questions.compare.results import AVERAGE, WORST, Cell, Results
from unseen.questions.compare.subgroups import SMALLEST
from unseen.report import latex, markdown
from unseen.report.csv import plain_cell
from unseen.report.json import plain
from unseen.runs.store import write_atomic
from unseen.text import (
    count_intervals,
    count_noun,
    format_interval,
    format_reading,
    format_value,
    join_words,
)

MOST_DOTS = 1_200
WORST_IN_TRUTH = (
    "Worst site: the value there, and the interval of the worst in truth, whichever site it is; "
    "the site's own stands in its column."
)
BOLD = (
    "Bold (* where there is none): its paired difference from every other method in the column "
    "excludes zero, widened for the choice."
)


def document(results: Results) -> Document:
    """Summary first, then every site under every protocol, differences, figures, what was chosen,
    and the limits.
    """
    parts: list[tuple[str, list[Block]]] = [
        ("What to do next", list(advice(results))),
        ("The comparison", [summary(results), *(_worst_against_average(results))]),
        (
            "Every site",
            [by_site(results, m, p) for m in _ordered_metrics(results) for p in results.protocols],
        ),
        ("Subgroups", [by_subgroup(results, spec) for spec in results.subgroups]),
        (f"Differences from {results.baseline}", _differences(results)),
        ("Known sites and new ones", _on_the_line(results)),
        ("Hyperparameters that were selected", _selection_blocks(results)),
        ("What these runs cannot tell", [Note(text, Tone.NEUTRAL) for text in limits(results)]),
        ("How it was done", _treatment(results)),
    ]
    return Document(
        kicker="comparison of training methods",
        title=f"{len(results.methods)} methods on {results.name}",
        lead=_lead(results),
        sections=[Section(title, blocks) for title, blocks in parts if blocks],
        facts={
            "methods": ", ".join(results.methods),
            "runs": f"{results.seeds} seeds × {results.draws} draws per method and site",
            "seconds on the clock": f"{results.seconds:.1f}",
        },
    )


def _lead(results: Results) -> str:
    metric, column, method = metric_of(results), headline(results), recommend(results)
    cell, worst = results.cell(method, column, metric), results.cell(method, WORST, metric)
    if cell.reading is None:
        return "No method has a value everywhere; see the reasons below."
    where = (
        f"on average over {len(results.sites)} sites left out"
        if column == AVERAGE
        else f"at {column}"
    )
    text = f"{method} reaches {metric} {format_reading(cell.reading)} {where}"
    text += "." if worst.reading is None else f"; {_lowest(results, metric, worst)}."
    rivals = [name for name in results.methods if name != results.baseline]
    if method != results.baseline:
        change = results.change(method, column, metric)
        text += (
            f" That is {format_reading(change, '+')} against {results.baseline}."
            if change is not None
            else ""
        )
    elif rivals:
        _, worse = clear(results, column)
        if len(rivals) == 1:
            text += f" {rivals[0]} is {'clearly worse' if worse else 'not clearly better'}."
        else:
            text += f" None of the {len(rivals)} other methods is clearly better"
            text += f"; {len(worse)} clearly worse." if worse else "."
    return text


def _lowest(results: Results, metric: str, worst: Cell) -> str:
    """The lowest value, without the interval, which is that of the lowest in truth."""
    assert worst.reading is not None
    word = "highest" if is_lower_better(metric) else "lowest"
    return (
        f"the {word} value is {format_value(worst.reading)}, at {worst.note} (where it is {word} "
        f"in truth, at whichever of the {len(results.sites)} sites: "
        f"{format_interval(worst.reading)})"
    )


def summary(results: Results) -> Table:
    """One row per method: average and worst site under each protocol, side by side."""
    metric = metric_of(results)
    columns = [AVERAGE, WORST] if len(results.sites) > 1 else list(results.sites)
    heads = {(c, p): f"{c}: {_short(p)}" for c in columns for p in results.protocols}
    cells = {
        head: [results.cell(m, c, metric, p) for m in results.methods]
        for (c, p), head in heads.items()
    }
    only = f" {_metric_title(metric)} at sites left out, by how the hyperparameters were selected."
    return _table(
        results.methods,
        cells,
        caption=only.strip(),
        notes=[
            BOLD,
            *(f"{_short(p)}: {_protocol_text(p)}" for p in results.protocols),
            f"Draws are compared by their mean {results.metrics[0]}.",
        ],
        judged=sum(results.sizes.values()),
    )


def by_site(results: Results, metric: str, protocol: Protocol) -> Table:
    """Every site, average and worst site of one metric under one protocol."""
    found = dict.fromkeys(
        c.column for c in results.cells if (c.metric, c.protocol) == (metric, protocol)
    )
    cells = {
        column: [results.cell(m, column, metric, protocol) for m in results.methods]
        for column in found
    }
    left = [site for site in results.sites if site not in found]
    notes = (
        [f"{metric} does not exist at {', '.join(left)}: one class only is evaluated there."]
        if left
        else []
    )
    sizes = ", ".join(f"{site} {results.sizes[site]}" for site in results.sites)
    return _table(
        results.methods,
        cells,
        caption=f"{_metric_title(metric)}, hyperparameters by {protocol}.",
        notes=[
            BOLD,
            *([WORST_IN_TRUTH] if WORST in found else []),
            f"Evaluation examples: {sizes}.",
            *notes,
        ],
        judged=sum(results.sizes[site] for site in results.sites if site in found),
    )


def by_subgroup(results: Results, spec: str) -> Table:
    """The subgroups of one grouping: on average over the sites that have enough of their
    examples.
    """
    heads, where = {}, {}
    for metric in results.subgroups[spec]:
        found = dict.fromkeys(c.column for c in results.cells if c.metric == metric)
        column, level = (
            AVERAGE if AVERAGE in found else next(iter(found)),
            metric.partition(": ")[2],
        )
        heads[level] = [results.cell(m, column, metric) for m in results.methods]
        where[level] = [site for site in found if site not in (AVERAGE, WORST)]
    readings = sum(cell.reading is not None for cells in heads.values() for cell in cells)
    told = [
        f"{level}: at {join_words(at)} only"
        for level, at in where.items()
        if len(at) < len(results.sites)
    ]
    metric = results.metrics[0]
    title = _metric_title(metric)
    return _table(
        results.methods,
        heads,
        caption=f"{title} by {spec.partition(':')[0]}, average over sites, hyperparameters by "
        f"{results.protocols[0]}. {count_intervals(readings)}",
        notes=[
            BOLD,
            *(
                [
                    f"Read where there are {SMALLEST} examples, so not the same everywhere: "
                    f"{'; '.join(told)}."
                ]
                if told
                else []
            ),
        ],
        judged=sum(results.sizes.values()),
    )


def _table(
    methods: Sequence[str],
    cells: Mapping[str, Sequence[Cell]],
    *,
    caption: str,
    notes: Sequence[str],
    judged: int,
) -> Table:
    """Readings by method and column with raised numbers where a cell's note says something."""
    numbers: dict[str, int] = {}
    marks = {}
    for head, column in cells.items():
        for k, cell in enumerate(column):
            if cell.note:
                text = (
                    cell.note if cell.reading is None or cell.column != WORST else f"at {cell.note}"
                )
                marks[k, head] = numbers.setdefault(text, len(numbers) + 1)
    rows: list[dict[str, Value]] = [
        {"method": m, **{head: column[k].reading for head, column in cells.items()}}
        for k, m in enumerate(methods)
    ]
    seeds = max((cell.seeds for column in cells.values() for cell in column), default=0)
    caption += (
        f" n = {judged:,} evaluation examples, {count_noun(seeds, 'seed')} unless a "
        "footnote says otherwise."
    )
    explained = [f"{number}: {text}." for text, number in numbers.items()]
    strong = [
        (k, head) for head, column in cells.items() for k, cell in enumerate(column) if cell.best
    ]
    shown = [text for text in notes if strong or text != BOLD]
    return Table(
        rows=rows, caption=caption, footnotes=[*explained, *shown], strong=strong, marks=marks
    )


def _ordered_metrics(results: Results) -> list[str]:
    """The metric that the sentences quote first."""
    return sorted(results.metrics, key=lambda metric: metric != metric_of(results))


def _metric_title(metric: str) -> str:
    """The metric at the beginning of a caption, with its direction where less is better."""
    lower = " (lower is better)" if is_lower_better(metric) else ""
    return f"{metric[0].upper()}{metric[1:]}{lower}"


def _short(protocol: Protocol) -> str:
    return protocol.value.removesuffix(" validation")


def _protocol_text(protocol: Protocol) -> str:
    return {
        Protocol.TRAINING: "the draw that is best on held-out examples of the training sites.",
        Protocol.LEFT_OUT: "the draw that is best at each training site in turn, trained without "
        "it.",
        Protocol.ORACLE: "the draw that is best on labelled examples of the evaluated site itself, "
        "not available in practice.",
    }[protocol]


def _worst_against_average(results: Results) -> list[Block]:
    if len(results.sites) < 2:
        return []
    metric, groups = metric_of(results), {}
    for m in results.methods:
        pairs = [
            [results.cell(m, c, metric, p).reading for c in (AVERAGE, WORST)]
            for p in results.protocols
        ]
        groups[m] = [(a.value, w.value) for a, w in pairs if a is not None and w is not None]
    title = f"Worst site against average ({metric}; one point per protocol)"
    known = {m: dots for m, dots in groups.items() if dots}
    return [
        Points(
            title=title,
            groups=known,
            x_label=f"average {metric}",
            y_label=f"{metric} at the worst site",
        )
    ]


def _differences(results: Results) -> list[Block]:
    """Paired differences on average and at the worst site, under every protocol."""
    rivals = [m for m in results.methods if m != results.baseline]
    metric, column = metric_of(results), headline(results)
    known = {m: r for m in rivals if (r := results.change(m, column, metric)) is not None}
    if not known:
        return []
    side = side_of_zero(metric)
    bars = Bars(
        title=f"Change of {metric} against {results.baseline}, {column} ({side} zero: better)",
        values={m: r.value for m, r in known.items()},
        intervals={m: (r.low, r.high) for m, r in known.items()},
        label=f"paired change of {metric}",
    )
    note = (
        "Same data, seeds, initial weights, order of minibatches, and draws of learning rate "
        "and weight decay."
    )
    tables = [
        Table(
            rows=[
                {
                    "method": m,
                    **{_short(p): results.change(m, c, metric, p) for p in results.protocols},
                }
                for m in rivals
            ],
            caption=f"Paired differences of {metric} from {results.baseline}, {c} ({side} "
            "zero: better), not widened.",
            footnotes=[note],
        )
        for c in [column, *([WORST] if len(results.sites) > 1 else [])]
    ]
    return [bars, *tables]


def _on_the_line(results: Results) -> list[Block]:
    """Every draw: how it does at known sites against the sites left out (Miller et al., 2021,
    arXiv:2107.04649).
    """
    if not results.dots:
        return []
    step = -(-len(results.dots) // MOST_DOTS)
    dots = results.dots[::step]
    groups = {m: [(d.seen, d.unseen) for d in dots if d.method == m] for m in results.methods}
    metric = results.metrics[0]
    points = Points(
        title=f"Every draw of every method ({metric})",
        groups={m: group for m, group in groups.items() if group},
        x_label=f"{metric} on new examples of known sites",
        y_label=f"{metric} at the sites left out",
        diagonal=True,
    )
    text = (
        "Points near one line: what is better at known sites is better at new ones, and selecting "
        "there is safe. "
        "The dashed diagonal is where both are equal."
    )
    return [Paragraph(text), points]


def _selection_blocks(results: Results) -> list[Block]:
    rows = []
    for m in results.methods:
        row: dict[str, Any] = {"method": m}
        for p in results.protocols:
            mine = [c for c in results.choices if (c.method, c.protocol) == (m, p)]
            row[f"defaults kept: {_short(p)}"] = f"{sum(c.is_default for c in mine)} of {len(mine)}"
        rows.append(row)
    text = (
        f"Each seed of each method chose among {results.draws} draws at every site left out; the "
        "first draw has the "
        "method's defaults. All choices with their values are in the JSON."
    )
    return [Table(rows=rows, caption=text)] if results.draws > 1 else []


def _treatment(results: Results) -> list[Block]:
    lines = [*results.decisions, *(f"{m}: {way}." for m, way in results.trained.items())]
    return [
        *(Note(text, Tone.CAUTION) for text in results.warnings),
        *(Note(text, Tone.NEUTRAL) for text in lines),
    ]


def tables(results: Results) -> list[Table]:
    """The summary, every metric under every protocol, and the subgroups."""
    tables = [by_site(results, m, p) for m in _ordered_metrics(results) for p in results.protocols]
    return [summary(results), *tables, *(by_subgroup(results, spec) for spec in results.subgroups)]


def as_latex(results: Results) -> str:
    return "\n".join(latex.table(table) for table in tables(results))


def as_markdown(results: Results) -> str:
    return "\n\n".join(markdown.table(table) for table in tables(results)) + "\n"


def as_csv(results: Results) -> str:
    """One line per cell, with interval, seeds, whether it is bold, and why it is missing."""
    text = io.StringIO()
    names = [
        "metric",
        "protocol",
        "method",
        "column",
        "value",
        "low",
        "high",
        "n",
        "seeds",
        "best",
        "note",
    ]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for cell in results.cells:
        reading = plain(cell.reading) or {}
        row = {name: plain(getattr(cell, name)) for name in names if hasattr(cell, name)}
        row |= {name: reading.get(name, "") for name in ("value", "low", "high", "n")}
        writer.writerow({name: plain_cell(value) for name, value in row.items()})
    return text.getvalue()


def as_json(results: Results) -> str:
    return json.dumps(plain(results), indent=1, ensure_ascii=False)


TABLE_WRITERS: Mapping[str, Callable[[Results], str]] = {
    ".tex": as_latex,
    ".md": as_markdown,
    ".csv": as_csv,
    ".json": as_json,
}
"""How the tables alone are written, by the suffix of the file."""


def check_table_path(path: str | Path) -> None:
    """Refuses a file whose suffix no writer knows."""
    if Path(path).suffix not in TABLE_WRITERS:
        raise InvalidConfig(
            f"`--table {path}` has an unknown suffix.",
            why="it says how the table is written.",
            fix=f"use one of {', '.join(TABLE_WRITERS)}.",
        )


def write_tables(results: Results, path: str | Path) -> None:
    """The tables in the format of the file's suffix, in one step."""
    write_atomic(path, TABLE_WRITERS[Path(path).suffix](results))
