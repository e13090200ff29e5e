"""Coherence of per-example gradients (Chatterjee & Zielinski, 2022, arXiv:2203.10036).

    α = ‖E g‖² / E‖g‖²          1 if all examples ask for the same change, 1/m if m examples ask for
    orthogonal ones m·α                         how many examples an average example's step helps
    α̂ = (m·α − 1) / (m − 1)     the numerator without its bias: the mean of g_i·g_j over i ≠ j; may
    be below zero

‖g‖² adds up over layers, so α = Σ_l ω_l α_l with ω_l the layer's share of E‖g‖². One pass over the
data with sums only; memory does not grow with the number of examples, apart from one number each.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import nan, sqrt
from typing import Any

import torch
from jaxtyping import Float
from scipy import stats as scipy_stats
from torch import Tensor, nn
from torch.utils.data import Dataset

from unseen.engine.batches import gather, length, once, size, to_device
from unseen.engine.gradient_factors import GradientFactor
from unseen.engine.parameters import real_view, trainable
from unseen.engine.tap import tap_and_reduce
from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Direction, MeasureEntry, Need, Reading, Work
from unseen.stats import LEVEL
from unseen.task import Batch, PerExample


def alignment(total2: float, square: float, n: int) -> float:
    """α from ‖Σ g‖², Σ ‖g‖² and the number of examples."""
    _refuse_few(n)
    if not total2 + square < float("inf"):  # also true for NaN
        raise InvalidData(
            "Some per-example gradients are NaN or infinite.",
            why="one of them would make the sums meaningless.",
            fix="look for non-finite inputs or a model that has diverged.",
        )
    if square == 0:
        raise InvalidData(
            "Every per-example gradient is zero.",
            why="coherence compares gradients, and 0/0 has no value.",
            fix="measure before the training loss saturates, or in float64.",
        )
    return total2 / (n * square)


def _refuse_few(n: int) -> None:
    if n < 2:
        raise InvalidData(
            f"Coherence got {n} example{'s' * (n != 1)}.",
            why="it says how far the gradients of different examples agree.",
            fix="give at least two examples.",
        )


def unbiased_alpha(alpha: float, n: int) -> float:
    """α̂ = (n·α − 1)/(n − 1): 0 for orthogonal gradients whatever n, 1 for equal ones."""
    return (n * alpha - 1) / (n - 1)


@dataclass(frozen=True)
class Part:
    """Coherence of one layer's gradients, or of one class's examples, and their share of Σ ‖g‖²."""

    alpha: float
    weight: float
    n: int

    @property
    def unbiased_alpha(self) -> float:
        return unbiased_alpha(self.alpha, self.n)


@dataclass(frozen=True, kw_only=True)
class CoherenceResult:
    """α with its relatives, and the sums from which agreement of single examples can be read in a
    second pass.
    """

    alpha: float
    low: float
    """95 % limits of α at this number of examples, from a jackknife over groups of examples; NaN:
    unknown.
    """
    high: float
    n: int
    norms2: Float[Tensor, " n"]
    """‖g‖² of each example, in the order of the data."""
    by_layer: Mapping[str, Part]
    by_class: Mapping[int, Part]
    total: Mapping[str, Tensor] = field(repr=False)
    """Σ g by parameter."""

    @property
    def m_alpha(self) -> float:
        return self.n * self.alpha

    @property
    def unbiased_alpha(self) -> float:
        return unbiased_alpha(self.alpha, self.n)


def coherence(
    model: nn.Module,
    loss: PerExample,
    data: Dataset[Any],
    lab: Lab,
    *,
    by: str | None = None,
    batch_size: int = 256,
    groups: int = 10,
) -> CoherenceResult:
    """Coherence over the data; `by` names an integer column (`"y"`) whose values are measured
    apart, too.

    Memory is one copy of the parameters per group and per class; `groups=1` gives no interval.
    Examples are read in a shuffled order, so that the groups are exchangeable. The model runs in
    the mode in which it comes.
    """
    sums = _Sums(model, loss, by)
    with lab.child("dropout").seeded():
        for group, rows, batch in _iterate_groups(data, batch_size, groups, lab.child("groups")):
            sums.add(group, rows, batch)
    return sums.result()


def agreement(
    model: nn.Module,
    loss: PerExample,
    data: Dataset[Any],
    lab: Lab,
    total: Mapping[str, Tensor],
    batch_size: int = 256,
) -> Float[Tensor, " n"]:
    """g_i · (mean gradient of the other examples), in the order of the data: below zero, the others
    work against i.

    `total` is Σ g over these data (`CoherenceResult.total`); i's own part of it is taken out.
    """
    values, n = [], 0
    total = {name: total[name].to(p.dtype) for name, p in trainable(model).items()}

    def read(name: str, form: GradientFactor) -> Tensor:
        return form.along(total[name]).double() - form.norms2().double()

    with lab.child("dropout").seeded():
        for batch in once(data, batch_size, lab):
            values.append(
                torch.stack(list(tap_and_reduce(model, batch, loss, read).values())).sum(0).cpu()
            )
            n += size(batch)
    _refuse_few(n)
    return torch.cat(values) / (n - 1)


def _iterate_groups(
    data: Dataset[Any], batch_size: int, groups: int, lab: Lab
) -> Iterator[tuple[int, Tensor, Batch]]:
    """(group, places in the data, batch): equal parts of a shuffled order; of a stream, its batches
    in turn.
    """
    n = length(data)
    if n is None:
        start = 0
        for k, batch in enumerate(once(data, batch_size, lab)):
            yield k % groups, torch.arange(start, start + size(batch)), batch
            start += size(batch)
        return
    _refuse_few(n)
    for k, members in enumerate(
        torch.randperm(n, generator=lab.generator()).tensor_split(min(groups, n))
    ):
        for rows in members.split(batch_size):
            yield k, rows, to_device(gather(data, rows), lab)


class _Sums:
    """Σ g by group and by class, Σ ‖g‖² by parameter, ‖g‖² by example."""

    def __init__(self, model: nn.Module, loss: PerExample, by: str | None) -> None:
        self.model, self.loss, self.by = model, loss, by
        self.parameters = trainable(model)
        self.groups: dict[int, dict[str, Tensor]] = {}
        self.classes: dict[int, dict[str, Tensor]] = {}
        self.squares = dict.fromkeys(self.parameters, 0.0)
        self.rows: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.members: list[int] = []
        self.norms2: list[Tensor] = []

    def add(self, group: int, rows: Tensor, batch: Batch) -> None:
        total, members = self._of(self.groups, group), self._members(batch)
        own: list[Tensor] = []

        def read(name: str, form: GradientFactor) -> None:
            norms2 = form.add_sum_and_norms(total[name]).double()
            self.squares[name] += norms2.sum().item()
            own.append(norms2)
            for label, chosen in members.items():
                self._of(self.classes, label)[name] += form.take(chosen).total()

        tap_and_reduce(self.model, batch, self.loss, read)
        self.norms2.append(torch.stack(own).sum(0).cpu())
        self.rows.append(rows)
        self.members.append(group)

    def _of(self, sums: dict[int, dict[str, Tensor]], key: int) -> dict[str, Tensor]:
        if key not in sums:  # at least float32, since many examples are added up
            sums[key] = {
                name: torch.zeros_like(
                    p, dtype=torch.promote_types(p.dtype, torch.float32), requires_grad=False
                )
                for name, p in self.parameters.items()
            }
        return sums[key]

    def _members(self, batch: Batch) -> dict[int, Tensor]:
        if self.by is None:
            return {}
        if self.by not in batch:
            raise UnknownName.near("column", self.by, batch)
        labels = batch[self.by]
        if labels.dim() != 1 or labels.is_floating_point():
            raise InvalidData(
                f"Column `{self.by}` is {labels.dtype} of shape {tuple(labels.shape)}.",
                why="examples are put together by one whole number each.",
                fix="name a column of classes or groups.",
            )
        self.labels.append(labels.cpu())
        return {int(label): (labels == label).nonzero().squeeze(1) for label in labels.unique()}

    def result(self) -> CoherenceResult:
        order = torch.cat(self.rows).argsort()
        norms2 = torch.cat(self.norms2)
        n = len(norms2)
        total = {
            name: torch.zeros_like(first)
            for name, first in next(iter(self.groups.values())).items()
        }
        for group in self.groups.values():
            for name, part in group.items():
                total[name] += part
        alpha = alignment(_norm2(total), norms2.sum().item(), n)
        low, high = self._interval(total, norms2)
        return CoherenceResult(
            alpha=alpha,
            low=low,
            high=high,
            n=n,
            norms2=norms2[order],
            by_layer=self._layers(total, n),
            by_class=self._classes(norms2),
            total=total,
        )

    def _layers(self, total: Mapping[str, Tensor], n: int) -> dict[str, Part]:
        """By the module that owns the parameters; a layer whose gradients are all zero has no
        coherence.
        """
        norms2: defaultdict[str, float] = defaultdict(float)
        squares: defaultdict[str, float] = defaultdict(float)
        for name, value in total.items():
            layer = name.rpartition(".")[0]
            norms2[layer] += _norm2({name: value})
            squares[layer] += self.squares[name]
        whole = sum(squares.values())
        return {
            layer: Part(alignment(norms2[layer], square, n), square / whole, n)
            for layer, square in squares.items()
            if square > 0
        }

    def _classes(self, norms2: Tensor) -> dict[int, Part]:
        """A class of one example, or whose gradients are all zero, has no coherence."""
        parts, whole = {}, norms2.sum().item()
        labels = torch.cat(self.labels) if self.labels else norms2.new_zeros(0)
        for label, total in sorted(self.classes.items()):
            own = norms2[labels == label]
            if len(own) > 1 and own.any():
                square = own.sum().item()
                parts[label] = Part(
                    alignment(_norm2(total), square, len(own)), square / whole, len(own)
                )
        return parts

    def _interval(self, total: Mapping[str, Tensor], norms2: Tensor) -> tuple[float, float]:
        """Delete-a-group jackknife of α̂ with Student's t, as limits of α.

        On α̂ because the bias of α depends on the number of examples, which differs between the
        jackknife's samples.
        """
        g, n = len(self.groups), len(norms2)
        sizes, squares = dict.fromkeys(self.groups, 0), dict.fromkeys(self.groups, 0.0)
        for key, values in zip(self.members, self.norms2, strict=True):
            sizes[key] += len(values)
            squares[key] += values.sum().item()
        without, whole = [], _dot(total, total)
        for key, part in self.groups.items():
            left, square = n - sizes[key], norms2.sum().item() - squares[key]
            if left < 2 or square <= 0:
                return nan, nan
            # not below zero: the three terms cancel where the group carries the whole gradient
            rest = max(
                0.0, whole - 2 * _dot(total, part) + _dot(part, part)
            )  # ‖Σ g without the group‖²
            without.append(unbiased_alpha(alignment(rest, square, left), left))
        if g < 3:
            return nan, nan
        values = torch.tensor(without, dtype=torch.float64)
        error = sqrt((g - 1) / g * (values - values.mean()).square().sum().item())
        half = float(scipy_stats.t.ppf(0.5 + LEVEL / 2, g - 1)) * error
        centre = unbiased_alpha(alignment(_norm2(total), norms2.sum().item(), n), n)
        # back from α̂ to α, for the n of the whole split
        low, high = ((1 + (n - 1) * limit) / n for limit in (centre - half, centre + half))
        return max(0.0, low), min(1.0, high)


def _norm2(gradient: Mapping[str, Tensor]) -> float:
    return sum(real_view(tensor).double().square().sum().item() for tensor in gradient.values())


def _dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    flat = [(real_view(a[name]).flatten(), real_view(b[name]).flatten()) for name in a]
    return sum(torch.dot(x, y).item() for x, y in flat)


@dataclass(frozen=True)
class Coherence:
    """α over one split; `detail` holds ‖g‖² of each example. The model is measured in the mode in
    which it comes.
    """

    split: str = "train"
    batch_size: int = 256
    groups: int = 10

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        data, loss = subject.task.split(self.split).data, subject.task.objective.loss
        got = coherence(
            subject.model, loss, data, lab, batch_size=self.batch_size, groups=self.groups
        )
        return Reading(got.alpha, got.low, got.high, got.n, "fraction", got.norms2)


MEASURES = (
    MeasureEntry(
        name="coherence α",
        measure=Coherence(),
        meaning="Agreement of the training examples' gradients: 1 if all ask for the same change, "
        "1/n if their changes have nothing in common, less, down to 0, if they work against each "
        "other.",
        direction=Direction.HIGHER,
        family="training",
        passes=1,
        interval="examples",
        needs=frozenset({Need.GRADIENTS}),
        most=20_000,
        covers=trainable,
        work=Work(gradients=3, sweeps=20, copies=12),
    ),
)


def example() -> Coherence:
    """The smallest useful use: `example()(trained, Lab())`."""
    return Coherence()
