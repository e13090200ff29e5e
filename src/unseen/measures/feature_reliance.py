"""Which features a model's score rests on, and which of them differ between splits.

Permutation importance: Breiman (2001, Random forests), Fisher, Rudin & Dominici (2019,
arXiv:1801.01489). Shift: standardised mean difference, Kolmogorov–Smirnov with Benjamini &
Hochberg's (1995) correction, total variation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from scipy import stats as scipy_stats
from torch import Tensor
from torch.nn.functional import one_hot

from unseen import stats
from unseen.engine.batches import Columns, whole
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading
from unseen.task import Batch, Task

BINS = 10
"""Equally filled bins for the total variation of a feature with more than `FEW` values."""
FEW = 20
MOST_TOGETHER = 1 << 22
"""Numbers of an input's copies that go through the model at once (16 MiB)."""


def reliances(
    trained: Trained,
    split: str,
    groups: Mapping[str, Sequence[int]],
    lab: Lab,
    *,
    repeats: int = 10,
    column: str = "x",
) -> dict[str, Reading]:
    """For each group of features: mean score − mean score with these features exchanged between
    examples of the split.

    The features of a group move together, so what they share is not left behind. The interval is
    paired and counts both the examples and the permutations as samples, blocks of examples where
    there is a column `block`; `detail` is the drop per example, averaged over permutations.
    """
    if repeats < 1:
        raise InvalidConfig(
            f"Feature reliance got repeats={repeats}.",
            "it needs a permutation.",
            "set repeats ≥ 1.",
        )
    batch = whole(trained.task.split(split).data, lab)
    x, score = _features(batch, column), trained.task.objective.score
    if len(x) < 2:
        raise InvalidData(
            f"Split `{split}` has {len(x)} example.",
            "one row cannot be shuffled.",
            "use a larger split.",
        )
    before = per_example(trained.model, Columns(**batch), score, lab).double()
    together = max(1, MOST_TOGETHER // x.numel())
    found = {}
    for name, features in groups.items():
        _refuse_features(name, features, x)
        streams = [lab.child("permute", name, k) for k in range(repeats)]
        orders = [torch.randperm(len(x), generator=own.generator()) for own in streams]
        drops = []
        for start in range(0, repeats, together):
            part = orders[start : start + together]
            shuffled = _exchange(batch, column, list(features), part)
            after = per_example(trained.model, shuffled, score, lab).double()
            drops.append(before - after.view(len(part), len(x)))
        table = torch.cat(drops)
        reading = stats.crossed_mean(table.numpy())
        if "block" in batch:
            reading = stats.over_blocks(reading, table.numpy(), batch["block"].cpu().numpy())
        found[name] = Reading(
            reading.value, reading.low, reading.high, reading.n, detail=table.mean(0)
        )
    return found


def _exchange(
    batch: Batch, column: str, features: list[int], orders: Sequence[Int[Tensor, " n"]]
) -> Columns:
    """The batch once per order, one after the other, with these features of other examples."""
    x = batch[column]
    order = torch.cat(list(orders)).to(x.device)
    copies = {
        name: values.repeat(len(orders), *[1] * (values.dim() - 1))
        for name, values in batch.items()
    }
    copies[column][:, features] = x[:, features][order]
    return Columns(**copies)


@dataclass(frozen=True)
class FeatureReliance:
    """How far the mean score of a split falls when the named features are permuted: 0 if the model
    ignores them.
    """

    features: tuple[int, ...] = (0,)
    """Positions along the first feature axis of the input."""
    split: str = "test"
    repeats: int = 10
    column: str = "x"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        groups = {"features": self.features}
        return reliances(
            subject, self.split, groups, lab, repeats=self.repeats, column=self.column
        )["features"]


@dataclass(frozen=True)
class Shift:
    """How one feature differs between two samples a and b."""

    difference: Reading
    """Standardised mean difference (mean b − mean a) / pooled standard deviation, with its
    large-sample interval.
    """
    total_variation: float
    """½ Σ |P_a − P_b| over values or equally filled bins; in small samples it exceeds 0 without any
    shift.
    """
    ks: float
    """Largest distance of the two distribution functions."""
    p: float
    """Of the Kolmogorov–Smirnov test."""
    q: float
    """`p` after Benjamini & Hochberg's correction over all features tested together."""


def shifts(
    a: Float[Tensor, "n feature"], b: Float[Tensor, "m other"], names: Sequence[str] = ()
) -> dict[str, Shift]:
    """`Shift` of every feature from sample a to sample b, in the order of the columns."""
    x, y = (t.double().cpu().numpy() for t in (a, b))
    if x.shape[1] != y.shape[1] or (names and len(names) != x.shape[1]):
        raise InvalidData(
            f"shifts got {x.shape[1]} and {y.shape[1]} features and {len(names)} names.",
            why="feature k of one sample is compared with feature k of the other.",
            fix="give the same columns on both sides.",
        )
    for sample in (x, y):
        if len(sample) < 2 or not np.isfinite(sample).all():
            raise InvalidData(
                f"shifts got a sample of {len(sample)} examples, "
                f"{int((~np.isfinite(sample)).sum())} values not finite.",
                why="a distribution of fewer than two numbers has no spread, and NaN has no rank.",
                fix="impute missing values, or merge small sites.",
            )
    tests = [scipy_stats.ks_2samp(x[:, j], y[:, j]) for j in range(x.shape[1])]
    adjusted = scipy_stats.false_discovery_control([test.pvalue for test in tests], method="bh")
    return {
        names[j] if names else str(j): Shift(
            standardised_difference(x[:, j], y[:, j]),
            total_variation(x[:, j], y[:, j]),
            float(test.statistic),
            float(test.pvalue),
            float(adjusted[j]),
        )
        for j, test in enumerate(tests)
    }


def association(
    x: Float[Tensor, "n input"], y: Shaped[Tensor, "n *output"]
) -> Float[Tensor, " input"]:
    """Of every input the largest |correlation| with an output, or with being of a class: 0 for a
    constant.
    """
    is_class = not y.is_floating_point()
    targets = one_hot(y.flatten().unique(return_inverse=True)[1]) if is_class else y
    targets = targets.reshape(len(x), -1).double()
    a, b = (values - values.mean(0) for values in (x.flatten(1).double(), targets))
    lengths = a.norm(dim=0)[:, None] * b.norm(dim=0)
    return ((a.T @ b).abs() / lengths.clamp_min(torch.finfo(torch.float64).tiny)).amax(1)


def standardised_difference(a: np.ndarray, b: np.ndarray) -> Reading:
    """d = (mean b − mean a)/s, s² = (s_a² + s_b²)/2; variance 1/n + 1/m + d²/(2(n + m)) (Hedges &
    Olkin, 1985).

    A feature that is constant in both samples differs by 0, or, if the constants differ, has no
    finite difference.
    """
    n, m = len(a), len(b)
    spread, gap = sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2), float(b.mean() - a.mean())
    if spread == 0:
        value = 0.0 if gap == 0 else float(np.copysign(np.inf, gap))
        return Reading(value, value, value, n + m, "standard deviations")
    d = gap / spread
    half = float(scipy_stats.norm.ppf(0.5 + stats.LEVEL / 2)) * sqrt(
        1 / n + 1 / m + d * d / (2 * (n + m))
    )
    return Reading(d, d - half, d + half, n + m, "standard deviations")


def total_variation(a: np.ndarray, b: np.ndarray) -> float:
    """½ Σ_v |P_a(v) − P_b(v)| over the values, or over tenths of the pooled sample where there are
    many values.
    """
    values = np.unique(np.concatenate([a, b]))
    if len(values) > FEW:
        inner = np.unique(np.quantile(np.concatenate([a, b]), np.linspace(0, 1, BINS + 1)[1:-1]))
        a, b, values = (
            np.searchsorted(inner, a),
            np.searchsorted(inner, b),
            np.arange(len(inner) + 1),
        )
    share = [
        np.bincount(np.searchsorted(values, sample), minlength=len(values)) / len(sample)
        for sample in (a, b)
    ]
    return float(np.abs(share[0] - share[1]).sum() / 2)


@dataclass(frozen=True)
class FeatureShift:
    """Standardised mean difference of one feature between two splits: 0 if the means agree, ± 1 is
    one deviation.
    """

    feature: int = 0
    reference: str = "train"
    split: str = "test"
    column: str = "x"

    def __call__(self, subject: Task, lab: Lab) -> Reading:
        samples = []
        for name in (self.reference, self.split):
            x = _features(whole(subject.split(name).data, lab), self.column)
            _refuse_features("feature", (self.feature,), x)
            samples.append(x[:, self.feature].unsqueeze(1).flatten(1).mean(1, keepdim=True))
        return shifts(samples[0], samples[1])["0"].difference


def _features(batch: Batch, column: str) -> Tensor:
    if column not in batch:
        raise UnknownName.near("column", column, batch)
    x = batch[column]
    if x.dim() < 2:
        raise InvalidData(
            f"Column `{column}` has shape {tuple(x.shape)}.",
            why="features lie along the second axis.",
            fix="unsqueeze it to [example, 1].",
        )
    if not len(x) or (x.is_floating_point() and not torch.isfinite(x).all()):
        raise InvalidData(
            f"Column `{column}` has {len(x)} examples, {int((~torch.isfinite(x)).sum())} values "
            "not finite.",
            why="a score of such inputs means nothing.",
            fix="impute missing values before training, or drop those rows.",
        )
    return x


def _refuse_features(name: str, features: Sequence[int], x: Tensor) -> None:
    if not features or not all(0 <= j < x.shape[1] for j in features):
        raise InvalidConfig(
            f"Group `{name}` names the features {tuple(features)} of {x.shape[1]}.",
            why=f"features are counted from 0 to {x.shape[1] - 1}, and a group holds at least one.",
            fix="correct the positions.",
        )


def example() -> FeatureReliance:
    """Reliance on the first feature, on the evaluation split of the contract battery's task."""
    return FeatureReliance(features=(0,), split="same", repeats=3)
