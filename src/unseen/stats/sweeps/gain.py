"""What a measure adds to the hyperparameters when the gap of an unseen configuration is
foretold.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from unseen.errors import InvalidConfig
from unseen.stats.sweeps.table import Outcome, Sweep

Array = NDArray[np.float64]


def out_of_fold_gain(sweep: Sweep, *, folds: int = 10, seed: int = 0) -> list[Outcome]:
    """1 − squared error with the measure / without it, over configurations left out of the fit.

    Least squares on the hyperparameters as categories, beside them the ranks of the measure. All
    seeds of a configuration are left out together. Below 0 the measure makes the forecast worse.
    """
    if folds < 2:
        raise InvalidConfig(
            f"out_of_fold_gain got folds={folds}.",
            why="a forecast is checked on models that were not fitted.",
            fix="set at least 2.",
        )
    configurations = int(sweep.configuration.max()) + 1
    base = _categories(sweep)
    if configurations <= base.shape[1] + 1:
        reason = (
            f"{configurations} configurations do not fix the {base.shape[1]} effects of the "
            "hyperparameters and a measure"
        )
        return [Outcome(np.nan, sweep.n, reason)] * len(sweep.measures)
    order = np.random.default_rng(seed).permutation(configurations)
    fold = (np.argsort(order) % min(folds, configurations))[sweep.configuration]
    without = _errors(base, sweep.gap, fold)
    if without <= 1e-20 * max(float(sweep.gap @ sweep.gap), 1e-300):
        reason = "the hyperparameters foretell the gap exactly"
        return [Outcome(np.nan, sweep.n, reason)] * len(sweep.measures)
    results = []
    for column in sweep.values.T:
        ranks = scipy_stats.rankdata(column)
        if np.ptp(ranks) == 0:
            results.append(Outcome(np.nan, sweep.n, "all models have the same measure"))
            continue
        ranks = (ranks - ranks.mean()) / ranks.std()
        error = _errors(np.column_stack([base, ranks]), sweep.gap, fold)
        results.append(Outcome(1 - error / without, sweep.n))
    return results


def _categories(sweep: Sweep) -> Array:
    """A constant and, for every axis, its values but the first."""
    columns = [np.ones((sweep.n, 1))]
    for codes in sweep.codes.T:
        columns.append(np.eye(codes.max() + 1)[codes][:, 1:])
    return np.concatenate(columns, 1)


def _errors(x: Array, y: Array, fold: NDArray[np.int64]) -> float:
    """Σ of squared errors of rows left out with their fold."""
    grams = np.stack([x[fold == k].T @ x[fold == k] for k in range(fold.max() + 1)])
    products = np.stack([x[fold == k].T @ y[fold == k] for k in range(fold.max() + 1)])
    total = 0.0
    for k in range(len(grams)):
        # the least-norm solution: a value that only the left-out fold has is foretold as the first
        gram, product = grams.sum(0) - grams[k], products.sum(0) - products[k]
        beta = np.linalg.lstsq(gram, product, rcond=1e-10)[0]
        rows = fold == k
        total += float(((y[rows] - x[rows] @ beta) ** 2).sum())
    return total
