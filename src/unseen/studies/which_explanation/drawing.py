"""Figures and the table of the study."""

from collections.abc import Callable, Sequence
from statistics import fmean

from unseen.attributions.explanation import eight
from unseen.figure import Bars, Grid
from unseen.measures.faithfulness import Noise, Order
from unseen.study import Row, Rows, Value, average, column, figures, pick


def matrix(rows: Rows) -> Grid:
    """Explanation i on neighbourhood j."""
    return _grid(pick(rows, part="lunch"), "explanation", "neighbourhood", "unexplained",
                 "Share left unexplained: explanation (row) on neighbourhood (column)")  # fmt: skip


def distances(rows: Rows) -> Grid:
    """Classic i against instance j."""
    return _grid(
        pick(rows, part="same"),
        "classic",
        "instance",
        "cosine",
        "Cosine distance: method by its own definition (row), instance of the "
        "approximation (column)",
    )


def _grid(rows: Rows, down: str, across: str, name: str, title: str) -> Grid:
    names = list(eight())
    values = [
        [average(name)(pick(rows, **{down: a, across: b})).value for b in names] for a in names
    ]
    return Grid(title=title, rows=names, columns=names, values=values, label=across)


def perturbation_bars(noise: Noise, order: Order) -> Callable[[Rows], Bars]:
    """How far the output moves when the features at one end of each method's ranking are
    perturbed.
    """

    def draw(rows: Rows) -> Bars:
        mine = pick(rows, part="test", noise=str(noise), order=str(order))
        readings = {name: average("change", explanation=name)(mine) for name in eight()}
        done = "removed" if noise is Noise.BINARY else "jittered"
        return figures.draw_bars(
            readings,
            title=f"Change of the output when {order} features are {done}",
            label="standard deviations of the output",
        )

    return draw


def table(rows: Rows) -> Sequence[Row]:
    """Per method: distance to its definition, how much it leaves at home and elsewhere, recovery,
    perturbation tests.
    """
    made: list[Row] = []
    for name in eight():
        lunches = pick(rows, part="lunch", explanation=name)
        tested = pick(rows, part="test", explanation=name)
        (recovered,) = {
            bool(row["additive"]) for row in pick(rows, part="recovery", explanation=name)
        }
        error = "error_w" if recovered else "error_wx"
        made.append(
            {
                "explanation": name,
                "cosine distance to its definition": _mean(
                    rows, "cosine", part="same", classic=name, instance=name
                ),
                "unexplained at home": _mean(lunches, "unexplained", neighbourhood=name),
                "unexplained, worst place": max(
                    _mean(lunches, "unexplained", neighbourhood=place) for place in eight()
                ),
                "recovers": "w" if recovered else "w·x₀",
                "error on a linear model": _mean(rows, error, part="recovery", explanation=name),
                **{
                    f"{order}, {noise}": _mean(tested, "change", order=str(order), noise=str(noise))
                    for noise in Noise
                    for order in Order
                },
            }
        )
    return made


def _mean(rows: Rows, name: str, **where: Value) -> float:
    return fmean(column(rows, name, **where))
