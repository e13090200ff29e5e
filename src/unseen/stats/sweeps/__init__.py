"""Which measure foretells the gap? Statistics of many trained models, as functions of a table.

`evaluate_measures(table, gap=…, axes=…, measures=…)` gives for every measure Kendall's τ, the
granulated ψ and Ψ with permutation p values, the conditional mutual information 𝒦, the robust sign
error and the out-of-fold gain over the hyperparameters. What does not exist is NaN with a reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from unseen.stats.sweeps.gain import out_of_fold_gain
from unseen.stats.sweeps.information import Information, conditional_information
from unseen.stats.sweeps.ranks import GranulatedCorrelation, granulated_correlations, kendall
from unseen.stats.sweeps.sign_error import SignError, sign_error
from unseen.stats.sweeps.table import Columns, Outcome, Sweep

__all__ = [
    "Evaluation",
    "GranulatedCorrelation",
    "Information",
    "Outcome",
    "SignError",
    "Sweep",
    "conditional_information",
    "evaluate_measures",
    "granulated_correlations",
    "kendall",
    "out_of_fold_gain",
    "sign_error",
]


@dataclass(frozen=True)
class Evaluation:
    """How well one measure foretells the gap."""

    measure: str
    models: int
    """Models for which it exists."""
    tau: Outcome
    granulated: GranulatedCorrelation
    information: Information
    sign_error: SignError
    gain: Outcome


def evaluate_measures(
    table: Columns,
    *,
    gap: str,
    axes: Sequence[str],
    measures: Sequence[str],
    n_test: int | None = None,
    permutations: int = 199,
    seed: int = 0,
) -> list[Evaluation]:
    """Every statistic of every measure, in the order given.

    `table` has one row per trained model: a data frame, or arrays by name. A model without a
    measure (NaN) is left out for it. Larger measures should mean larger gaps: give −μ of one that
    is better when higher. `n_test` is the number of test examples behind each gap.
    """
    sweep = Sweep.of(table, gap=gap, axes=axes, measures=measures)
    results: dict[int, Evaluation] = {}
    for part, columns in sweep.by_missing():
        if part.n < 3:
            results |= {k: _too_few(sweep, k, part.n) for k in columns}
            continue
        ranks = granulated_correlations(part, permutations=permutations, seed=seed)
        information = conditional_information(part)
        errors, gains = sign_error(part, n_test), out_of_fold_gain(part, seed=seed)
        for at, k in enumerate(columns):
            results[k] = Evaluation(
                sweep.measures[k],
                part.n,
                kendall(part.values[:, at], part.gap),
                ranks[at],
                information[at],
                errors[at],
                gains[at],
            )
    return [results[k] for k in range(len(sweep.measures))]


def _too_few(sweep: Sweep, k: int, n: int) -> Evaluation:
    nothing = Outcome(float("nan"), n, f"the measure exists for {n} of {sweep.n} models")
    axes = dict.fromkeys(sweep.axes, nothing)
    ranks = GranulatedCorrelation(axes, nothing, float("nan"), float("nan"))
    error = SignError(nothing, nothing, nothing)
    return Evaluation(
        sweep.measures[k], n, nothing, ranks, Information(nothing, ()), error, nothing
    )
