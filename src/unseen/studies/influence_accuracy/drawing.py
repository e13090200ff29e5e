"""Bars and the table of the study."""

from collections.abc import Sequence

from unseen import stats
from unseen.figure import Bars
from unseen.study import Row, Rows, column, figures


def mean_by_strategy(rows: Rows, name: str) -> dict[str, stats.Reading]:
    """Mean over seeds by strategy, of the strategies that have it."""
    labels = dict.fromkeys(str(row["strategy"]) for row in rows if name in row)
    return {label: stats.mean(column(rows, name, strategy=label)) for label in labels}


def datamodeling(rows: Rows) -> Bars:
    """Linear datamodeling scores."""
    return figures.draw_bars(
        mean_by_strategy(rows, "lds"),
        title="How well credits foretell retraining on halves",
        label="LDS",
    )


def falls(rows: Rows) -> Bars:
    """Counterfactual removal."""
    return figures.draw_bars(
        mean_by_strategy(rows, "drop"),
        title="Fall of a query's margin without its most helpful images",
        label="logits",
    )


def proximal(rows: Rows) -> Bars:
    """Correlation with the proximal response."""
    return figures.draw_bars(
        mean_by_strategy(rows, "response_r"),
        title="Correlation with the proximal response",
        label="r",
    )


def single(rows: Rows) -> Bars:
    """Correlation with leave-one-out."""
    return figures.draw_bars(
        mean_by_strategy(rows, "leave_one_out_r"),
        title="Correlation with leave-one-out retraining",
        label="r",
    )


def labels(rows: Rows) -> Bars:
    """Detection of wrong labels."""
    return figures.draw_bars(
        mean_by_strategy(rows, "auc"), title="Detection of wrong labels", label="AUC"
    )


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds."""
    titles = {
        "LDS": "lds",
        "fall without the most helpful": "drop",
        "r with proximal response": "response_r",
        "slope": "slope",
        "r with leave-one-out": "leave_one_out_r",
        "AUC of wrong labels": "auc",
        "found in the top tenth": "found",
    }
    return figures.summary(("strategy",), titles)(rows)
