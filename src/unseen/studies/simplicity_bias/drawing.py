"""Figures and the table of the simplicity-bias study."""

from collections.abc import Sequence

from unseen.figure import Curves, Grid
from unseen.studies.simplicity_bias.networks import Data, Kind, Role
from unseen.study import Row, Rows, average, effects, figures, pick

COLUMNS = {
    "auc": "as it is",
    "simple": "simple feature exchanged",
    "complex": "all others exchanged",
}


def reliance(rows: Rows) -> Grid:
    """Mean AUC over seeds of every kind of training on every data set."""
    rows = [row for row in pick(rows, part="scores") if all(name in row for name in COLUMNS)]
    keys = effects.distinct(rows, "data", "kind", "setting")
    values = [
        [average(name, data=data, kind=kind, setting=setting)(rows).value for name in COLUMNS]
        for data, kind, setting in keys
    ]
    names = [f"{data}, {kind} ({setting})" for data, kind, setting in keys]
    return Grid(
        title="AUC when features change places between examples (mean over seeds; 0.5: nothing "
        "else is used)",
        rows=names,
        columns=list(COLUMNS.values()),
        values=values,
        label="AUC",
    )


def noisy(rows: Rows) -> list[Row]:
    """The networks on a noisy linear coordinate, named by the number of coordinates."""
    mine = pick(rows, part="scores", data=Data.NOISY.value, kind=Kind.ONE.value)
    fast = (Role.FEW_FAST, Role.WIDE_FAST)
    return [
        {**row, "coordinates": f"{row['d']} coordinates"} for row in mine if row["role"] not in fast
    ]


def boundary(rows: Rows) -> Curves:
    """Where the noisy linear coordinate no longer costs accuracy."""
    return figures.curves(
        x="n",
        y="test",
        by="coordinates",
        title="Noisy LMS-7: test accuracy (mean over seeds; 0.95 is the linear coordinate's own, 1 "
        "the slabs')",
        x_label="training examples",
        y_label="accuracy",
        log_x=True,
    )(noisy(rows))


def beyond_linear(rows: Rows) -> Curves:
    """How much the networks know without it."""
    return figures.curves(
        x="n",
        y="simple",
        by="coordinates",
        title="Noisy LMS-7: AUC with the linear coordinate exchanged (mean over seeds)",
        x_label="training examples",
        y_label="AUC",
        log_x=True,
    )(noisy(rows))


def flips(rows: Rows) -> Curves:
    return figures.curves(
        x="size",
        y={
            "network, linear coordinate": "linear",
            "rule of its sign": "linear rule",
            "network, slab coordinate": "slab",
        },
        title="LMS-5: share of test points whose class changes with a shift along one coordinate "
        "(mean over seeds)",
        x_label="size of the shift",
        y_label="share",
    )(pick(rows, part="shift"))


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds."""
    titles = {
        "train": "train",
        "test": "test",
        "AUC": "auc",
        "simple exchanged": "simple",
        "others exchanged": "complex",
    }
    return figures.summary(["data", "kind", "setting", "role"], titles)(pick(rows, part="scores"))
