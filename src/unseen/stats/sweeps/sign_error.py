"""Robust sign error (Dziugaite et al., 2020, arXiv:2010.11924): how often a measure orders two
models wrongly, in the worst environment.

An environment is a pair of configurations that differ in one hyperparameter, with all their seeds.
A pair of models counts with weight (w − ½)₊, w = max(0, 1 − 2 exp(−2 N (|g − g′|/2)²))², the
probability (Hoeffding's bound, N test examples) that the sign of g − g′ is no chance of the test
set.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unseen.errors import InvalidConfig
from unseen.stats.sweeps.ranks import signs
from unseen.stats.sweeps.table import Outcome, Pairs, Sweep

LEAST = 12
"""Smallest effective number of pairs, (Σ w)²/Σ w², of an environment."""


@dataclass(frozen=True)
class SignError:
    """Mean, 90 % quantile and maximum of the sign error over environments: ½ is chance, 0 perfect.

    Each with the number of environments; a tie of the measure counts ½.
    """

    mean: Outcome
    quantile: Outcome
    worst: Outcome


def sign_error(sweep: Sweep, n_test: int | None, *, least: float = LEAST) -> list[SignError]:
    """The sign error of every measure; without `n_test` all pairs whose gaps differ count alike."""
    if n_test is not None and n_test < 1:
        raise InvalidConfig(
            f"sign_error got n_test={n_test}.",
            why="the noise of a gap is that of its test examples.",
            fix="give the number of test examples of each model.",
        )
    errors = [_errors(sweep, pairs, n_test, least) for pairs in sweep.pairs.values()]
    found = np.concatenate(errors)
    if not len(found):
        reason = f"no environment has an effective number of {least:g} pairs whose gaps differ"
        return [SignError(*[Outcome(np.nan, 0, reason)] * 3)] * len(sweep.measures)
    n = len(found)
    return [
        SignError(
            *(Outcome(float(x), n) for x in (column.mean(), np.quantile(column, 0.9), column.max()))
        )
        for column in found.T
    ]


def _errors(sweep: Sweep, pairs: Pairs, n_test: int | None, least: float) -> NDArray[np.float64]:
    """[environment, measure] along one axis."""
    if not pairs.lines:
        return np.empty((0, len(sweep.measures)))
    ends = np.sort(
        np.stack([sweep.configuration[pairs.first], sweep.configuration[pairs.second]]), axis=0
    )
    environment = np.unique(ends, axis=1, return_inverse=True)[1].reshape(-1)
    order = np.argsort(environment, kind="stable")
    starts = np.flatnonzero(np.diff(environment[order], prepend=-1))
    weight = pair_weights(sweep.gap[pairs.first] - sweep.gap[pairs.second], n_test)[order]
    total, squares = (np.add.reduceat(w, starts) for w in (weight, weight**2))
    enough = (total > 0) & (total**2 >= least * (1 - 1e-9) * squares)
    product = signs(sweep.values, pairs) * signs(sweep.gap[:, None], pairs)
    wrong = 0.5 * (1 - product[order]) * weight[:, None]
    return np.add.reduceat(wrong, starts, axis=0)[enough] / total[enough, None]


def pair_weights(differences: NDArray[np.float64], n_test: int | None) -> NDArray[np.float64]:
    """(w − ½)₊ of each pair; 1 where gaps differ if the test set is unknown."""
    if n_test is None:
        return (differences != 0).astype(np.float64)
    w = np.maximum(0, 1 - 2 * np.exp(-2 * n_test * (differences / 2) ** 2)) ** 2
    return np.maximum(0, w - 0.5)
