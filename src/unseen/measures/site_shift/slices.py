"""Regions of the inputs where a model is surer than it is right, found without naming a group.

A high loss alone is no fault: near the decision boundary every model errs. So each example is
measured by its excess loss, what it cost beyond what the model itself expected there; the mean
excess of calibrated probabilities is zero in every region. A shallow tree looks for a region of
high excess in one half of the examples, and the other half confirms it or not, both ways round
(honest trees: Athey & Imbens, 2016, arXiv:1504.01132; slices: Chung et al., 2019,
arXiv:1807.06068).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import optimize
from scipy import stats as scipy_stats
from scipy.special import expit
from sklearn.tree import DecisionTreeRegressor

from unseen import stats
from unseen.errors import InvalidData
from unseen.reading import Reading

Column: TypeAlias = Float[np.ndarray, " row"] | Shaped[np.ndarray, " row"]
"""A feature as written: numbers (NaN where missing), or words."""
DEPTH = 2
LEAST_ROWS, LEAST_SHARE = 20, 0.05
"""A region holds so many of the examples of a half, and this share of them."""
MOST_SHARE = 0.5
"""What holds for most examples is no slice, but the model."""
FEWEST = 100
"""Fewer examples than this are not searched."""
MOST_ROWS = 20_000
"""More are drawn at random: what matters at so many shows in these."""
MOST_LEVELS = 12
"""Of a column of words the commonest levels are tried."""
LEVEL = 0.005
"""Two halves confirm with this chance each of a false alarm."""
LEAST_NATS, LEAST_RELATIVE = 0.1, 0.5
"""A smaller excess than this beyond the rest does not matter: of probabilities in nats, of losses
in units of their mean.
"""


@dataclass(frozen=True)
class Condition:
    """A half-line of one feature's numbers, or a set of one level."""

    feature: str
    value: float | str
    """An edge of numbers; a level of words; "" for a missing cell."""
    is_above: bool
    """Above the edge; of a level: whether it is that one, or any other."""

    def holds(self, column: Column) -> Bool[np.ndarray, " row"]:
        """For which rows."""
        if isinstance(self.value, str):
            equal = _is_missing(column) if self.value == "" else column == self.value
            return equal if self.is_above else ~equal
        numbers = column.astype(float)
        return numbers > self.value if self.is_above else numbers <= self.value


@dataclass(frozen=True)
class Slice:
    """A region that the half which was not searched confirms; all numbers are of that half."""

    conditions: tuple[Condition, ...]
    share: float
    """Of all examples."""
    inside: Reading
    """Mean loss."""
    outside: Reading
    excess: Reading
    """How much more than expected an example costs inside than outside."""
    p: float
    detail: tuple[Bool[np.ndarray, " row"], Bool[np.ndarray, " row"]]
    """Which rows of that half are inside, and outside."""


def excess_of_probabilities(
    logit: Float[np.ndarray, " row"], y: Bool[np.ndarray, " row"], site: Shaped[np.ndarray, " row"]
) -> Float[np.ndarray, " row"]:
    """Loss of each example beyond the entropy of its probability: (p − y) · logit p.

    Probabilities are recalibrated before, with one slope and an intercept per site (a little
    ridge): a model that is too sure everywhere, or a site where the outcome is rarer, is another
    finding.
    """
    _require_finite(logit)
    names, code = np.unique(site, return_inverse=True)

    def cost(w: Float[np.ndarray, " weight"]) -> tuple[float, Float[np.ndarray, " weight"]]:
        z = w[0] * logit + w[1:][code]
        residual = expit(z) - y
        value = float(np.logaddexp(0, z).sum() - z[y].sum() + 0.5 * (w[1:] ** 2).sum() * RIDGE)
        slopes = [residual @ logit, *(np.bincount(code, residual, len(names)) + RIDGE * w[1:])]
        return value, np.array(slopes)

    start = np.concatenate([[1.0], np.zeros(len(names))])
    found = optimize.minimize(cost, start, jac=True, method="L-BFGS-B").x
    z = np.clip(found[0] * logit + found[1:][code], -MOST_LOGIT, MOST_LOGIT)
    return (expit(z) - y) * z


RIDGE, MOST_LOGIT = 0.1, 8.0
"""Of the intercepts; a surer probability than 0.9997 counts as that."""


def excess_of_losses(loss: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Where a model states no probability: the loss in units of its mean."""
    _require_finite(loss)
    mean = loss.mean()
    return loss / mean - 1 if mean > 0 else np.zeros_like(loss)


def worst_slice(
    features: Mapping[str, Column],
    excess: Float[np.ndarray, " row"],
    loss: Float[np.ndarray, " row"],
    rng: np.random.Generator,
    least: float = LEAST_NATS,
) -> Slice | None:
    """The region of highest excess that holds in the half where it was not looked for; None where
    none is confirmed.
    """
    n = len(excess)
    if n < FEWEST or not features:
        raise InvalidData(
            f"{n} examples with {len(features)} features have no slices.",
            why=f"a region is found on one half and confirmed on the other: {FEWEST} are needed.",
            fix="evaluate on more examples.",
        )
    for values in (excess, loss):
        _require_finite(values)
    rows = rng.permutation(n)[:MOST_ROWS]
    halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    design, conditions = _design(features, rows)
    confirmed = []
    for search, confirm in (halves, halves[::-1]):
        path = _search(design[search], excess[search], conditions)
        if path is None:
            continue
        is_here = np.zeros(n, bool)
        is_here[confirm] = True
        inside = np.logical_and.reduce([c.holds(features[c.feature]) for c in path])
        one = _confirm(path, inside & is_here, ~inside & is_here, excess, loss)
        if one is not None and one.p <= LEVEL and one.excess.value >= least:
            confirmed.append(one)
    return min(confirmed, key=lambda found: found.p) if confirmed else None


def _require_finite(values: Float[np.ndarray, " row"]) -> None:
    if not np.isfinite(values).all():
        raise InvalidData(
            f"{int((~np.isfinite(values)).sum())} of {len(values)} losses are not finite.",
            why="a mean over them has no value.",
            fix="look at the examples that produced them.",
        )


def _is_missing(column: Column) -> Bool[np.ndarray, " row"]:
    return np.isnan(column) if np.issubdtype(column.dtype, np.floating) else column == ""


MOST_NUMBER = 1e30
"""The tree reads float32, and their sum is one, too."""
Question: TypeAlias = tuple[str, str | None]
"""A feature, and the level that a column of the design asks for (None: its number)."""


def _design(
    features: Mapping[str, Column], rows: np.ndarray
) -> tuple[Float[np.ndarray, "row question"], list[Question]]:
    """What the tree may ask of each example: numbers, levels, and whether a cell is missing."""
    parts: list[np.ndarray] = []
    questions: list[Question] = []
    for name, column in features.items():
        gone = _is_missing(column)
        if np.issubdtype(column.dtype, np.floating):
            column = column.clip(-MOST_NUMBER, MOST_NUMBER)
            known = column[rows][~gone[rows]]
            if known.size and np.ptp(known) > 0:
                parts.append(np.where(gone, np.median(known), column))
                questions.append((name, None))
        else:
            levels, counts = np.unique(column[rows][~gone[rows]], return_counts=True)
            for level in levels[np.argsort(-counts, kind="stable")][:MOST_LEVELS]:
                parts.append((column == level).astype(float))
                questions.append((name, str(level)))
        if 0 < gone[rows].sum() < len(rows):
            parts.append(gone.astype(float))
            questions.append((name, ""))
    if not parts:
        raise InvalidData(
            "No feature varies.",
            why="a region is described by values of features.",
            fix="nothing to do.",
        )
    return np.stack(parts, 1), questions


def _search(
    design: Float[np.ndarray, "row question"],
    excess: Float[np.ndarray, " row"],
    questions: Sequence[Question],
) -> tuple[Condition, ...] | None:
    """The path to the node of a shallow tree whose mean excess is the most standard errors above
    the rest.
    """
    least = max(LEAST_ROWS, int(np.ceil(LEAST_SHARE * len(excess))))
    if len(excess) < 2 * least:
        return None
    tree = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=least, random_state=0)
    reached = tree.fit(design, excess).decision_path(design).toarray().astype(bool)
    scores = [
        _standard_errors(excess[inside], excess[~inside])
        if inside.mean() <= MOST_SHARE
        else -np.inf
        for inside in reached.T
    ]
    best = int(np.argmax(scores))
    return None if scores[best] <= 0 else _path(tree, best, questions)


def _standard_errors(a: Float[np.ndarray, " a"], b: Float[np.ndarray, " b"]) -> float:
    spread = sqrt(a.var(ddof=1) / a.size + b.var(ddof=1) / b.size)
    return float((a.mean() - b.mean()) / spread) if spread > 0 else -np.inf


def _path(
    tree: DecisionTreeRegressor, node: int, questions: Sequence[Question]
) -> tuple[Condition, ...]:
    """The conditions from the root to a node; of two edges on the same side the nearer one."""
    inner = tree.tree_
    parent = {int(child): k for k in range(inner.node_count) for child in
              (inner.children_left[k], inner.children_right[k]) if child >= 0}  # fmt: skip
    found: dict[tuple[str, str | None, bool], Condition] = {}
    while node in parent:
        above = parent[node]
        name, level = questions[int(inner.feature[above])]
        is_above = int(inner.children_right[above]) == node
        value = float(inner.threshold[above]) if level is None else level
        found.setdefault((name, level, is_above), Condition(name, value, is_above))
        node = above
    return tuple(reversed(found.values()))


def _confirm(
    path: tuple[Condition, ...],
    inside: Bool[np.ndarray, " row"],
    outside: Bool[np.ndarray, " row"],
    excess: Float[np.ndarray, " row"],
    loss: Float[np.ndarray, " row"],
) -> Slice | None:
    """What the region shows in examples where it was not looked for (Welch's t, one-sided)."""
    if min(inside.sum(), outside.sum()) < LEAST_ROWS // 2:
        return None
    test = scipy_stats.ttest_ind(
        excess[inside], excess[outside], equal_var=False, alternative="greater"
    )
    p = float(test.pvalue)
    if not isfinite(p):
        return None
    a, b = stats.mean(excess[inside]), stats.mean(excess[outside])
    return Slice(
        conditions=path,
        share=float(inside.sum() / (inside.sum() + outside.sum())),
        inside=stats.mean(loss[inside]),
        outside=stats.mean(loss[outside]),
        excess=stats.independent_difference(a, b),
        p=p,
        detail=(inside, outside),
    )
