"""Features that nearly give the target away: alone, at one site only, or exactly in sum.

A feature's tree is fitted on some rows and judged on others, so that many useless features raise
no alarm; the interval is widened for the number of features tried. At one site it must lie above
what the feature says elsewhere: of many small sites a strong honest feature looks perfect at some.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from scipy.stats import beta, rankdata
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from unseen import stats
from unseen.engine.batches import Columns, whole
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.reading import Reading
from unseen.stats import widen
from unseen.task import Axis, Split, Task, Use

NEARLY_PERFECT_AUC, NEARLY_PERFECT_R2 = 0.985, 0.98
"""From here on a single feature is suspected; the best honest clinical scores lie below."""
LEAST_AUC, LEAST_R2 = 0.9, 0.9
"""The widened interval must lie above, too."""
EXACT_R2 = 0.9999
"""Of a linear combination that is the target in other words."""
MOST_ROWS = 20_000
"""More rows are drawn at random: a leak shows in any of them."""
FEWEST_ROWS, FEWEST_OF_A_CLASS = 50, 10
SCREEN, BANDS, FEWEST_IN_A_BAND = 0.95, 64, 5
"""Features whose bands say less than this are not looked at further."""
LEAVES, FOLDS, MOST_TERMS = 16, 5, 5
EVERYWHERE = -1
SETTLES, EXCEPTIONS, FEWEST_CERTAIN = 0.5, 0.005, 750
"""Half of one class has values that fewer than 5 in 1,000 of the other class have (upper limit): no
measurement does that whose AUC by itself is below 0.97, a consequence of the outcome does. So many
of the other class are needed to show it.
"""
TAIL, TAIL_EXCEPTIONS = 0.75, 0.02
"""The same of the values beyond one threshold: an observation that ends with the outcome is short
where there is one. Two normal distributions of one width do that at AUC 0.973.
"""
ORDERED = 0.9
"""AUC from which on a number that differs in every row sorts with the target."""


@dataclass(frozen=True)
class Leak:
    """Features that predict the target nearly without error."""

    features: tuple[str, ...]
    strength: Reading
    """Out-of-fold AUC (two classes: the rarer against the rest), or R² of a number."""
    site: int = EVERYWHERE
    """The code of the site where it shows more clearly than elsewhere."""
    settled: Reading | None = None
    """Of a feature that is certain for a part only: the share of one class whose values the other
    class has not.
    """
    exceptions: float = EXCEPTIONS
    """Fewer of the other class have them."""


def leaks(
    x: Float[np.ndarray, "row input"],
    y: Shaped[np.ndarray, " row"],
    features: Mapping[str, Sequence[int]],
    site: Int[np.ndarray, " row"] | None,
    rng: np.random.Generator,
) -> list[Leak]:
    """Suspected features over all rows, then those that show at one site only, then an exact linear
    combination (numbers as targets only). `features` names positions along the input.
    """
    rows = np.sort(rng.choice(len(y), MOST_ROWS, replace=False)) if len(y) > MOST_ROWS else None
    if rows is not None:
        x, y, site = x[rows], y[rows], None if site is None else site[rows]
    found = _single(x, y, features, EVERYWHERE, rng)
    known = {leak.features for leak in found}
    for code in [] if site is None else np.unique(site):
        here = site == code
        if 0 < here.sum() < len(y):
            local = _single(x[here], y[here], features, int(code), rng)
            found += [
                leak
                for leak in local
                if leak.features not in known and _exceeds(leak, x[~here], y[~here], features, rng)
            ]
    if np.issubdtype(y.dtype, np.floating):
        found += _in_sum(x, y, features)
    return found


def _exceeds(
    leak: Leak,
    x: Float[np.ndarray, "row input"],
    y: Shaped[np.ndarray, " row"],
    features: Mapping[str, Sequence[int]],
    rng: np.random.Generator,
) -> bool:
    """Whether the feature is clearly stronger at the leak's site than in these rows of the other
    sites; also where these cannot be judged.
    """
    target = _judged_target(y)
    if target is None:
        return True
    (name,) = leak.features
    elsewhere = _strength(x[:, list(features[name])], target, int(rng.integers(2**31)))
    return widen(leak.strength, len(features)).low > elsewhere.value


def _judged_target(y: Shaped[np.ndarray, " row"]) -> np.ndarray | None:
    """A number as it is, of classes whether it is the rarest one; None where rows are too few."""
    if not np.issubdtype(y.dtype, np.floating):
        classes, counts = np.unique(y, return_counts=True)
        if len(classes) < 2 or counts.min() < FEWEST_OF_A_CLASS:
            return None
        y = y == classes[counts.argmin()]
    # a standard deviation of equal numbers is rounding, not 0
    return None if len(y) < FEWEST_ROWS or (y == y[0]).all() else y


def _single(
    x: Float[np.ndarray, "row input"],
    y: Shaped[np.ndarray, " row"],
    features: Mapping[str, Sequence[int]],
    site: int,
    rng: np.random.Generator,
) -> list[Leak]:
    """Features whose own tree predicts rows that it was not fitted on nearly without error."""
    target = _judged_target(y)
    if target is None:
        return []
    y, is_number = target, target.dtype != bool
    seed = int(rng.integers(2**31))
    bar, least = (NEARLY_PERFECT_R2, LEAST_R2) if is_number else (NEARLY_PERFECT_AUC, LEAST_AUC)
    found = []
    for name, positions in features.items():
        block = x[:, list(positions)]
        screened = _in_sample(block, y, is_number)
        may_settle = not is_number and screened >= ORDERED and site == EVERYWHERE
        if screened < SCREEN and not may_settle:
            continue
        strength = _strength(block, y, seed)
        if strength.value >= bar and widen(strength, len(features)).low >= least:
            found.append(Leak((name,), strength, site))
        elif may_settle and (share := settled_share(block, y, seed)) is not None:
            found.append(Leak((name,), strength, site, share))
        elif may_settle and (share := settled_tail(block[:, 0], y)) is not None:
            found.append(Leak((name,), strength, site, share, TAIL_EXCEPTIONS))
    return found


def _strength(block: Float[np.ndarray, "row input"], y: np.ndarray, seed: int) -> Reading:
    """The better of the feature's own tree and of its first column as it is."""
    is_number = y.dtype != bool
    return max(
        (_out_of_fold(block, y, is_number, seed), _as_score(block[:, 0], y, is_number)),
        key=lambda reading: reading.value,
    )


def _tree(is_number: bool, columns: int) -> DecisionTreeRegressor | DecisionTreeClassifier:
    kind = DecisionTreeRegressor if is_number else DecisionTreeClassifier
    # numbers need more steps: 16 steps of an identity already miss 0.4 % of the variance; a leaf
    # per category
    leaves = max(4 * LEAVES if is_number else LEAVES, columns + 1)
    return kind(max_leaf_nodes=leaves, random_state=0)


def _in_sample(block: Float[np.ndarray, "row input"], y: np.ndarray, is_number: bool) -> float:
    """Strength of the target's mean per band of values, on the rows that the means come from: a
    cheap screen, on the safe side.
    """
    code = _bands(block[:, 0])
    if block.shape[1] > 1:
        bands = np.stack([_bands(column) for column in block.T], 1)
        code = np.unique(bands, axis=0, return_inverse=True)[1].ravel()
    # a band without rows has no mean, and nobody asks for it
    mean = (np.bincount(code, weights=y) / np.maximum(np.bincount(code), 1))[code]
    if is_number:
        return float(1 - ((y - mean) ** 2).mean() / y.var())
    rank, positives = rankdata(mean), int(y.sum())
    area = rank[y].sum() - positives * (positives + 1) / 2
    return float(area / (positives * (len(y) - positives)))


def settled_share(
    block: Float[np.ndarray, "row input"], y: Bool[np.ndarray, " row"], seed: int
) -> Reading | None:
    """Share of one class with values that (almost) no row of the other class has, where that is at
    least half; values are collected in one half of the rows and counted in the other, both ways.
    """
    half = np.random.default_rng(seed).permutation(len(y)) % 2 == 0
    _, code = np.unique(
        np.stack([_bands(column) for column in block.T], 1), axis=0, return_inverse=True
    )
    code, best = code.ravel(), None
    bands = int(code.max()) + 1
    for outcome in (y, ~y):  # values that the rows of this class do not have
        without = np.zeros(len(y), bool)
        for rows in (half, ~half):
            without[~rows] = _bands_without(code[rows], outcome[rows], bands)[code[~rows]]
        n, exceptions = int(outcome.sum()), int((without & outcome).sum())
        share = stats.proportion(int((without & ~outcome).sum()), int((~outcome).sum()))
        is_certain = n >= FEWEST_CERTAIN and stats.proportion(exceptions, n).high <= EXCEPTIONS
        if is_certain and share.low >= SETTLES and (best is None or share.value > best.value):
            best = share
    return best


def settled_tail(column: Float[np.ndarray, " row"], y: Bool[np.ndarray, " row"]) -> Reading | None:
    """Share of one class beyond a threshold that (almost) no row of the other class is beyond,
    where that is at least three quarters.

    The share of a class beyond the k-th largest of its n values is Beta(k, n + 1 − k), whatever
    their distribution (Wilks, 1941), so that the same rows choose the threshold and judge it.
    """
    best = None
    for outcome in (y, ~y):
        if (n := int(outcome.sum())) < FEWEST_CERTAIN:
            continue
        k = np.arange(1, n)
        exceptions = int((beta.ppf(0.975, k, n + 1 - k) <= TAIL_EXCEPTIONS).sum())
        for values in (column, -column):
            threshold = np.sort(values[outcome])[-exceptions]
            beyond = int((values[~outcome] > threshold).sum())
            share = stats.proportion(beyond, len(y) - n)
            if share.low >= TAIL and (best is None or share.value > best.value):
                best = share
    return best


def _bands_without(
    code: Int[np.ndarray, " row"], outcome: Bool[np.ndarray, " row"], bands: int
) -> Bool[np.ndarray, " band"]:
    """The bands that (almost) no row of a class is in: those where it is rarest, as long as they
    hold half of the exceptions together that are allowed.
    """
    count = np.bincount(code, outcome, bands)
    rate = count / np.maximum(np.bincount(code, minlength=bands), 1)
    order = np.argsort(rate, kind="stable")
    allowed = count[order].cumsum() <= EXCEPTIONS / 2 * outcome.sum()
    found = np.zeros(bands, bool)
    found[order[allowed]] = True
    return found


def identifier_order(
    cells: Shaped[np.ndarray, " row"], y: Shaped[np.ndarray, " row"]
) -> Reading | None:
    """How well the order of an identifier (another word, or another whole number, in every row)
    ranks two classes; None for what is none, or does not rank them clearly.
    """
    target, is_number = _judged_target(y), np.issubdtype(cells.dtype, np.floating)
    if target is None or target.dtype != bool:
        return None
    if is_number and not (np.isfinite(cells).all() and (cells == np.round(cells)).all()):
        return None
    levels, rank = np.unique(cells, return_inverse=True)
    if len(levels) < len(cells):
        return None
    found = _as_score(rank.ravel().astype(np.float64), target, is_number=False)
    return found if found.low >= ORDERED else None


def _bands(column: Float[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
    """Equally filled bands; equal values share one, and an edge is a band of its own: of a column
    that is 0 in 99 % of rows every edge is 0.
    """
    bands = min(BANDS, len(column) // FEWEST_IN_A_BAND)
    edges = np.unique(np.quantile(column, np.linspace(0, 1, bands + 1)[1:-1]))
    return np.searchsorted(edges, column, "left") + np.searchsorted(edges, column, "right")


def _out_of_fold(
    block: Float[np.ndarray, "row input"], y: np.ndarray, is_number: bool, seed: int
) -> Reading:
    kind = KFold if is_number else StratifiedKFold
    guess = np.zeros(len(y))
    for fit, rest in kind(FOLDS, shuffle=True, random_state=seed).split(block, y):
        tree = _tree(is_number, block.shape[1]).fit(block[fit], y[fit])
        guess[rest] = (
            tree.predict(block[rest]) if is_number else tree.predict_proba(block[rest])[:, 1]
        )
    if not is_number:
        return stats.auc(guess, y)
    shares = 1 - (y - guess) ** 2 / y.var()  # their mean is R²
    return stats.mean(shares)


def _as_score(column: Float[np.ndarray, " row"], y: np.ndarray, is_number: bool) -> Reading:
    """The column itself as the guess, up to its sign (and scale): a tree's steps blur a score."""
    if not is_number:
        return max(stats.auc(column, y), stats.auc(-column, y), key=lambda reading: reading.value)
    line = LinearRegression().fit(column[:, None], y).predict(column[:, None])
    return stats.mean(1 - (y - line) ** 2 / y.var())


def _in_sum(
    x: Float[np.ndarray, "row input"],
    y: Float[np.ndarray, " row"],
    features: Mapping[str, Sequence[int]],
) -> list[Leak]:
    """The fewest features, chosen one after the other, whose linear combination is the target."""
    if len(y) < FEWEST_ROWS or len(y) <= 2 * x.shape[1] or (y == y[0]).all():
        return []
    x, y = x.astype(np.float64), y.astype(np.float64)
    spread = x.std(0)
    x = x / np.where(spread > 0, spread, 1.0)  # columns of any unit are solved for alike
    if LinearRegression().fit(x, y).score(x, y) < EXACT_R2:
        return []
    chosen: list[str] = []
    while len(chosen) < min(MOST_TERMS, len(features)):
        fits = {
            name: _linear_r2(x, y, features, [*chosen, name])
            for name in features
            if name not in chosen
        }
        chosen.append(max(fits, key=lambda name: fits[name]))
        if fits[chosen[-1]] >= EXACT_R2:
            value = fits[chosen[-1]]
            return [Leak(tuple(chosen), Reading(value, value, value, len(y)))]
    return []


def _linear_r2(
    x: Float[np.ndarray, "row input"],
    y: Float[np.ndarray, " row"],
    features: Mapping[str, Sequence[int]],
    names: Sequence[str],
) -> float:
    block = x[:, [k for name in names for k in features[name]]]
    return float(LinearRegression().fit(block, y).score(block, y))


@dataclass(frozen=True)
class StrongestInput:
    """Out-of-fold AUC (R² of a number) of the most telling input alone: near 1 it gives the target
    away. `detail` is its position, a tensor without axes.
    """

    split: str = "train"

    def __call__(self, task: Task, lab: Lab) -> Reading:
        batch = whole(task.split(self.split).data, lab)
        if not {"x", "y"} <= batch.keys():
            raise InvalidData(
                f"Split `{self.split}` has no columns `x` and `y`.",
                why="each input is held against the target.",
                fix="name a split of inputs and targets.",
            )
        x, y = batch["x"].flatten(1).double().cpu().numpy(), batch["y"].flatten().cpu().numpy()
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise InvalidData(
                f"Split `{self.split}` holds NaN or infinite numbers.",
                why="values are ordered.",
                fix="fill in or drop these rows.",
            )
        target = _judged_target(y)
        if target is None:
            raise InvalidData(
                f"The target of split `{self.split}` cannot be judged.",
                why=f"{FEWEST_ROWS} rows and {FEWEST_OF_A_CLASS} of each class are needed.",
                fix="use more rows.",
            )
        is_number = target.dtype != bool
        screened = [_in_sample(column[:, None], target, is_number) for column in x.T]
        best = int(np.argmax(screened))
        seed = int(lab.child("folds").numpy().integers(2**31))
        found = _strength(x[:, [best]], target, seed)
        return replace(found, detail=torch.tensor(best))


def example() -> tuple[StrongestInput, Task]:
    """The second of two inputs is the class."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 30)
    x = np.stack([rng.normal(size=60), y + 0.1 * rng.random(60)], 1).astype(np.float32)
    data = Columns(x=torch.from_numpy(x), y=torch.from_numpy(y))
    splits = {"train": Split(data, Use.TRAIN), "test": Split(data, Use.EVALUATE)}
    task = Task(name="given away", axis=Axis.IID, splits=splits, objective=classify)
    return StrongestInput(), task
