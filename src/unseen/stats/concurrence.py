"""Do benchmarks agree? How alike splits order models (Sun, Williams & Hupkes, 2023, CoNLL).

The concurrence of splits A and B is Kendall's τ_b over the points (A of model i and seed s, B of
model i and seed s′), all seeds crossed. The points of one model are not independent: p values
exchange whole models, intervals leave out whole seeds.

A pair of points adds sign(A_is − A_jt) · sign(B_is′ − B_jt′). Its sum over seeds is a product of
one number of A and one of B for each pair of models, so that permutations of models are matrix
products.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from math import factorial, sqrt

import numpy as np
from numpy.typing import NDArray

from unseen.errors import InvalidConfig, InvalidData
from unseen.reading import Reading
from unseen.stats.means import welch
from unseen.stats.quantiles import t_quantile

Array = NDArray[np.float64]

FEWEST_MODELS = 5
"""With four, the smallest two-sided p of 4! = 24 permutations is 0.083."""
MOST_EXACT = 5_040
"""All permutations of up to seven models, or splits, are run through; of more a sample is."""


@dataclass(frozen=True)
class Scores:
    """`values` [split, model, seed], NaN where there is none."""

    splits: tuple[str, ...]
    models: tuple[str, ...]
    values: Array

    def __post_init__(self) -> None:
        wanted = (len(self.splits), len(self.models))
        if self.values.ndim != 3 or self.values.shape[:2] != wanted or not self.values.shape[2]:
            raise InvalidData(
                f"Scores of shape {self.values.shape} for {wanted[0]} splits and {wanted[1]} "
                "models.",
                why="they are numbered by split, model and seed.",
                fix="fill what is missing with NaN.",
            )

    @cached_property
    def order(self) -> "_Order":
        return _Order.of(self.values)

    def choose(self, *splits: int) -> "Scores":
        names = tuple(self.splits[k] for k in splits)
        return Scores(names, self.models, self.values[list(splits)])

    def without_seed(self, model: int, seed: int) -> "Scores":
        """Without this seed of this model, in every split: trainings may be shared by splits."""
        values = self.values.copy()
        values[:, model, seed] = np.nan
        return replace(self, values=values)

    def average_seeds(self) -> "Scores":
        """One score per model: the mean over its seeds."""
        there = np.isfinite(self.values)
        count = there.sum(2)
        total = np.where(there, self.values, 0.0).sum(2)
        mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return replace(self, values=mean[:, :, None])


@dataclass(frozen=True)
class _Order:
    """Per split and pair of models: `signs` Σ_st sign(A_is − A_jt), `ties` how many (s, t) have
    equal scores; per split and model `seeds`.
    """

    signs: Array
    ties: Array
    seeds: Array

    @classmethod
    def of(cls, values: Array) -> "_Order":
        there = np.isfinite(values)
        filled = np.where(there, values, 0.0)
        both = there[:, :, :, None, None] & there[:, None, None, :, :]
        difference = filled[:, :, :, None, None] - filled[:, None, None, :, :]
        return cls(
            (np.sign(difference) * both).sum((2, 4)),
            ((difference == 0) & both).sum((2, 4)).astype(float),
            there.sum(2).astype(float),
        )

    def permute(self, draw: NDArray[np.int64]) -> "_Order":
        """With the models of split k exchanged by `draw[k]`."""
        rows, columns = draw[:, :, None], draw[:, None, :]
        split = np.arange(len(draw))[:, None, None]
        return _Order(
            self.signs[split, rows, columns],
            self.ties[split, rows, columns],
            self.seeds[split[:, :, 0], draw],
        )

    def against(self, other: "_Order") -> Array:
        """τ_b of every split with every split of `other`; NaN where all points are tied."""
        first, second = (one.seeds[:, :, None] * one.seeds[:, None, :] for one in (self, other))
        a, b = (x.reshape(len(x), -1) for x in (self.signs, other.signs))
        ties_a, ties_b = (x.reshape(len(x), -1) for x in (self.ties, other.ties))
        first, second = (x.reshape(len(x), -1) for x in (first, second))
        pairs = first @ second.T
        untied = (pairs - ties_a @ second.T) * (pairs - first @ ties_b.T)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(untied > 0, (a @ b.T) / np.sqrt(untied), np.nan)


@dataclass(frozen=True)
class Pair:
    """Two splits and how alike they order the models."""

    first: str
    second: str
    tau: Reading
    """Over all pairs of seeds; the interval is that of other seeds of these models."""
    tau_of_means: float
    corrected: float
    """τ divided by the root of both reliabilities: 1 where only the noise of seeds differs."""
    models: int
    """Models with a score in both."""
    p: float
    """Two-sided, over exchanges of models."""
    p_family: float
    """The same of the largest |τ| of all pairs."""
    reason: str = ""
    """Why there is no τ, or no p."""


@dataclass(frozen=True)
class SplitQuality:
    """What a split can say about these models at all."""

    split: str
    mean: float
    reliability: float
    """τ of the split with itself over different seeds; NaN with one seed."""
    separated: float
    """Share of pairs of models whose difference is clear (Welch, 95 %)."""
    models: int
    reason: str = ""


@dataclass(frozen=True)
class SourceEffect:
    """Mean concurrence of pairs that share the source minus that of pairs that share the
    strategy.
    """

    same_source: float
    same_strategy: float
    neither: float
    p: float
    """One-sided, over exchanges of the splits' labels."""
    relabelings: int
    """Different assignments; the smallest possible p is one of these."""

    @property
    def difference(self) -> float:
        return self.same_source - self.same_strategy


def concurrences(scores: Scores, *, draws: int = 999, seed: int = 0) -> list[Pair]:
    """Every pair of splits. p is exact for up to seven models, `draws` exchanges give that of the
    family.
    """
    if draws < 0:
        raise InvalidConfig(
            f"concurrences got draws={draws}.", why="a p counts them.", fix="use 0, or 19 or more."
        )
    rng = np.random.default_rng(seed)
    tau, means = scores.order.against(scores.order), scores.average_seeds()
    tau_of_means = means.order.against(means.order)
    quality = [split_quality(scores, k) for k in range(len(scores.splits))]
    largest = _largest(scores, draws, rng)
    found = []
    for a, b in _pairs(len(scores.splits)):
        models = int(((scores.order.seeds[a] > 0) & (scores.order.seeds[b] > 0)).sum())
        pair = scores.choose(a, b)
        reason = _reason(tau[a, b], models)
        rel = [quality[k].reliability for k in (a, b)]
        p = _exchange_p(pair, rng) if not reason else np.nan
        family = np.mean(largest >= abs(tau[a, b]) - 1e-12) if draws and not reason else np.nan
        found.append(
            Pair(
                pair.splits[0],
                pair.splits[1],
                tau=_jackknife(pair, float(tau[a, b])),
                tau_of_means=float(tau_of_means[a, b]),
                # two reliabilities below 0 have a root that means nothing
                corrected=float(tau[a, b] / np.sqrt(rel[0] * rel[1])) if min(rel) > 0 else np.nan,
                models=models,
                p=p,
                p_family=float(family),
                reason=reason,
            )
        )
    return found


def _pairs(n: int) -> Iterator[tuple[int, int]]:
    return ((a, b) for a in range(n) for b in range(a + 1, n))


def _reason(tau: float, models: int) -> str:
    if not np.isfinite(tau):
        return "all models are tied in one of the splits" if models > 1 else "no pair of models"
    if models < FEWEST_MODELS:
        return (
            f"{models} models have {factorial(models)} orders: too few for a p of 0.05, at least "
            f"{FEWEST_MODELS} are needed"
        )
    return ""


def _exchange_p(pair: Scores, rng: np.random.Generator) -> float:
    """Two-sided: how many exchanges of the models of one split give so large a |τ|."""
    both = np.isfinite(pair.values).any(2).all(0)
    order = _Order.of(pair.values[:, both])
    first, second = (_Order(*(x[k : k + 1] for x in vars(order).values())) for k in (0, 1))
    draws = exchanges(int(both.sum()), rng)
    copies = _Order(*(np.repeat(x, len(draws), 0) for x in vars(second).values()))
    taus = np.nan_to_num(first.against(copies.permute(draws))[0])
    return float(np.mean(np.abs(taus) >= abs(taus[0]) - 1e-12))


def exchanges(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """All permutations of n, or a sample of them; the identity is first."""
    if factorial(n) <= MOST_EXACT:
        return np.array(list(permutations(range(n))))
    return np.stack([np.arange(n), *(rng.permutation(n) for _ in range(MOST_EXACT - 1))])


def _largest(scores: Scores, draws: int, rng: np.random.Generator) -> Array:
    """The largest |τ| of all pairs, models of every split exchanged on their own; that of the data
    is among them.
    """
    upper = np.triu_indices(len(scores.splits), 1)
    n = len(scores.models)
    found = []
    for k in range(draws + 1):
        draw = [rng.permutation(n) if k else np.arange(n) for _ in scores.splits]
        order = scores.order.permute(np.stack(draw))
        found.append(np.nan_to_num(np.abs(order.against(order)[upper])).max())
    return np.array(found)


def _jackknife(pair: Scores, tau: float) -> Reading:
    """Seeds of a model are drawn anew: each is left out in turn, in both splits together, since
    one training may stand behind both. The t quantile has the degrees of freedom of one model's
    seeds: signs hardly move for most models, so that few of them carry the variance (with those of
    all models 80 to 87 % of intervals cover, with these 93 to 99 %).
    """
    usable = np.isfinite(pair.values)
    per_model = usable.any(0).sum(1)
    n = int(per_model.sum())
    fewest = int(min(usable.sum(2)[usable.any(2)], default=0))
    if not np.isfinite(tau) or fewest < 2:
        return Reading(tau, n=n)
    variance = 0.0
    for model, seeds in enumerate(per_model):
        if seeds:
            without = [
                pair.without_seed(model, s)
                for s in range(usable.shape[2])
                if usable[:, model, s].any()
            ]
            taus = np.array([one.order.against(one.order)[0, 1] for one in without])
            variance += (seeds - 1) / seeds * float(np.sum((taus - taus.mean()) ** 2))
    if not np.isfinite(variance):
        return Reading(tau, n=n)
    half = t_quantile(fewest - 1) * sqrt(variance)
    return Reading(tau, max(-1.0, tau - half), min(1.0, tau + half), n, freedom=fewest - 1)


def split_quality(scores: Scores, k: int) -> SplitQuality:
    """Mean score, reliability and separated pairs of models of split k."""
    values = scores.values[k]
    there = np.isfinite(values)
    models = int(there.any(1).sum())
    reliability, reason = _reliability(values)
    clear = [_is_clear(values[i][there[i]], values[j][there[j]]) for i, j in _pairs(len(values))]
    known = [one for one in clear if one is not None]
    return SplitQuality(
        scores.splits[k],
        float(values[there].mean()) if there.any() else np.nan,
        reliability,
        float(np.mean(known)) if known else np.nan,
        models,
        reason,
    )


def _reliability(values: Array) -> tuple[float, str]:
    """The τ to expect of the split with itself, trained again with as many other seeds.

    Pairs of points of one model add nothing on average; over distinct seeds of one training each
    they would add less than nothing, and three seeds would look less reliable than they are.
    """
    rows = [row[np.isfinite(row)] for row in values]
    rows = [row for row in rows if len(row) > 1]
    if len(rows) < 2:
        return np.nan, "one seed per model says nothing about its noise"
    agreement, pairs, ties = 0.0, 0.0, 0.0
    for i, first in enumerate(rows):
        for j, second in enumerate(rows):
            weight = float(len(first) * len(second))
            pairs += weight**2
            ties += weight * float((first[:, None] == second[None, :]).sum())
            if i != j:
                agreement += weight**2 * _distinct_agreement(first, second)
    return (agreement / (pairs - ties), "") if pairs > ties else (np.nan, "all models are tied")


def _distinct_agreement(first: Array, second: Array) -> float:
    """Mean of sign(a_s − b_t) · sign(a_s′ − b_t′) over s ≠ s′ and t ≠ t′."""
    signs = np.sign(first[:, None] - second[None, :])
    total = signs.sum() ** 2 - (signs.sum(1) ** 2).sum() - (signs.sum(0) ** 2).sum()
    n, m = signs.shape
    return float((total + (signs**2).sum()) / (n * (n - 1) * m * (m - 1)))


def _is_clear(a: Array, b: Array) -> bool | None:
    if min(len(a), len(b)) < 2:
        return None
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return bool(a[0] != b[0])
    with warnings.catch_warnings():
        # equal scores over seeds leave no variance on one side, which is no loss here
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        found = welch(a, b)
    return not found.low <= 0 <= found.high


def source_effect(
    taus: Array, sources: Sequence[str], strategies: Sequence[str], *, seed: int = 0
) -> SourceEffect:
    """Whether sharing the source data foretells concurrence better than sharing the way of
    splitting. `taus` [split, split]; the labels are exchanged together.
    """
    a, b = np.triu_indices(len(taus), 1)
    shared_source, shared_strategy = (
        np.equal.outer(np.array(labels), np.array(labels)) for labels in (sources, strategies)
    )
    same_source, same_strategy = shared_source[a, b], shared_strategy[a, b]
    only_source, only_strategy = same_source & ~same_strategy, same_strategy & ~same_source
    if not only_source.any() or not only_strategy.any():
        lacking = "source and not the strategy" if not only_source.any() else (
            "strategy and not the source"
        )  # fmt: skip
        raise InvalidData(
            f"No pair of splits shares the {lacking}.",
            why="the two means are compared.",
            fix="give splits of at least two sources by at least two strategies.",
        )
    draws = exchanges(len(taus), np.random.default_rng(seed))
    moved = taus[draws[:, a], draws[:, b]]
    differences = _mean(moved, only_source) - _mean(moved, only_strategy)
    assignments = {
        (shared_source[draw][:, draw].tobytes(), shared_strategy[draw][:, draw].tobytes())
        for draw in draws
    }
    neither = ~same_source & ~same_strategy
    return SourceEffect(
        float(_mean(taus[a, b][None], only_source)[0]),
        float(_mean(taus[a, b][None], only_strategy)[0]),
        float(_mean(taus[a, b][None], neither)[0]) if neither.any() else np.nan,
        float(np.mean(differences >= differences[0] - 1e-12)),
        len(assignments),
    )


def source_difference(taus: Array, sources: Sequence[str], strategies: Sequence[str]) -> Reading:
    """Mean concurrence of pairs that share the source only − of those that share the strategy only.

    The interval holds every δ that the exchange of labels does not refuse, once δ / 2 is taken from
    the former pairs and given to the latter. Refused is what the labels as they are make larger, or
    smaller, than all other m − 1 assignments do: it holds with probability 1 − 2/m (60 assignments
    of two sources by three strategies: 97 %). Six of those keep the sources together, so that a
    source alone moves p to between 1/60 and 6/60.
    """
    found = source_effect(taus, sources, strategies)
    a, b = np.triu_indices(len(taus), 1)
    same_source, same_strategy = (
        np.equal.outer(np.array(labels), np.array(labels))[a, b] for labels in (sources, strategies)
    )
    chosen = (same_source & ~same_strategy, same_strategy & ~same_source)
    shift = np.zeros_like(taus)
    for part, half in zip(chosen, (0.5, -0.5), strict=True):
        shift[a[part], b[part]] = shift[b[part], a[part]] = half
    draws = exchanges(len(taus), np.random.default_rng(0))
    differences, slopes = (
        _mean(moved, chosen[0]) - _mean(moved, chosen[1])
        for moved in (table[draws[:, a], draws[:, b]] for table in (taus, shift))
    )
    others = slopes < 1 - 1e-12  # the labels as they are, in another order of the splits, have 1
    limits = (differences[0] - differences[others]) / (1 - slopes[others])
    return Reading(found.difference, float(limits.min()), float(limits.max()), len(taus))


def _mean(values: Array, chosen: NDArray[np.bool_]) -> Array:
    """Over the chosen columns that exist."""
    part = values[:, chosen]
    there = np.isfinite(part)
    with np.errstate(invalid="ignore"):
        return np.where(there, part, 0.0).sum(1) / there.sum(1)
