"""Heat maps, bars and the table of the study."""

from collections.abc import Sequence
from statistics import fmean

from unseen import stats
from unseen.attributions.influence import Curvature
from unseen.figure import Bars, Curves, Grid
from unseen.studies.procedural_knowledge.rows import EKFAC
from unseen.study import Row, Rows, Value, column, effects, figures, pick
from unseen.tasks.procedural_corpus import Kind


def heat(rows: Rows, title: str, label: str, name: str, **where: Value) -> Grid:
    """Means over seeds, group by group or group by source; a block is stored once."""
    mine, names = pick(rows, **where), [str(kind) for kind in Kind]

    def mean(one: str, two: str) -> float:
        pairs = (
            {"first": one, "second": two},
            {"first": two, "second": one},
            {"group": one, "source": two},
        )
        return fmean(
            float(row[name]) for row in mine if any(pair.items() <= row.items() for pair in pairs)
        )

    return Grid(
        title=title,
        rows=names,
        columns=names,
        values=[[mean(a, b) for b in names] for a in names],
        label=label,
    )


def correlation_grid(rows: Rows) -> Grid:
    title = "Correlation between queries of the influences of all documents (EK-FAC)"
    return heat(rows, title, "mean correlation", "value", part="block", **EKFAC)


def dot_product_grid(rows: Rows) -> Grid:
    where: dict[str, Value] = {"part": "block", "curvature": str(Curvature.IDENTITY)}
    return heat(rows, "The same by gradient dot products", "mean correlation", "value", **where)


def sources(rows: Rows) -> Grid:
    title = "Kinds of documents (columns) among the top 50 of each group of queries (rows)"
    return heat(
        rows,
        title,
        "share / share in the corpus",
        "enrichment",
        part="source",
        bottom=False,
        **EKFAC,
    )


def answers(rows: Rows) -> Bars:
    """Recall of answers by group."""
    mine = [row for row in pick(rows, part="group", **EKFAC) if "hit_share" in row]
    readings = {
        str(kind): effects.share("hits", "queries", group=kind)(mine)
        for (kind,) in effects.distinct(mine, "group")
    }
    return figures.draw_bars(
        readings,
        title="A document that states the answer is among the top 10",
        label="share of queries",
    )


def removal_bars(rows: Rows) -> Bars:
    """Counterfactual removal."""
    mine = pick(rows, part="removal")
    names = [str(name) for (name,) in effects.distinct(mine, "left_out")]
    readings = {name: stats.mean(column(mine, "fall", left_out=name)) for name in names}
    return figures.draw_bars(
        readings, title="Fall of log p when documents are left out", label="nats"
    )


def spread(rows: Rows) -> Curves:
    """Not judged."""
    return figures.curves(
        x="share",
        y="volatility",
        by="group",
        title="Volatility of influence per nat between queries (not judged)",
        x_label="share of documents, the most helpful first",
        y_label="standard deviation / mean",
        log_x=True,
    )(pick(rows, part="tail", side="helpful"))


def tails(rows: Rows) -> Bars:
    """Not judged."""
    mine = pick(rows, part="exponent")
    readings = {
        str(kind): stats.mean(column(mine, "exponent", group=kind))
        for (kind,) in effects.distinct(mine, "group")
    }
    steeper = column(rows, "value", contrast="tail exponent, procedures − facts")
    readings["procedures − facts"] = stats.mean(steeper)
    return figures.draw_bars(
        readings,
        title="How steeply influence falls with rank (not judged)",
        label="exponent of the tail",
    )


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds; tails of EK-FAC only."""
    merged: list[Row] = []
    for row in pick(rows, part="group"):
        where = {"group": row["group"], "seed": row["seed"]}
        parts = pick(
            rows,
            part="source",
            source=row["group"],
            curvature=row["curvature"],
            bottom=False,
            **where,
        )
        if row["curvature"] == str(Curvature.EKFAC):
            parts += pick(rows, part="exponent", **where) + pick(
                rows, part="tail", side="helpful", share=0.01, **where
            )
        merged.append({name: value for part in (*parts, row) for name, value in part.items()})
    titles = {
        "queries": "queries",
        "right": "right",
        "of": "tried",
        "nats": "query_nats",
        "answer in top 10": "hit_share",
        "excess of answers in top 50": "excess",
        "own kind in top 50 (ratio)": "enrichment",
        "top 1 % per nat": "mass",
        "volatility": "volatility",
        "tail exponent": "exponent",
    }
    return figures.summary(("curvature", "group"), titles)(merged)
