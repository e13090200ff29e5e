"""What one or several models did on a split: losses, scores and class margins of every example."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import once
from unseen.engine.evaluate import per_example
from unseen.engine.example_values import refuse_missing_column, refuse_nonfinite
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.objectives import negative_absolute_error
from unseen.reading import Reading
from unseen.task import Batch, Split, Task


@dataclass(frozen=True)
class SplitPredictions:
    """Per-example values of S models (seeds) on one split: arrays [seed, example]."""

    loss: NDArray[np.float64]
    score: NDArray[np.float64]
    y: NDArray[np.float64] | None
    margin: NDArray[np.float64] | None = None
    """Logit of class 1 minus logit of class 0, for two classes."""
    unit: float | None = None
    """Of a number as target: its own units per unit of `y`; scores are then negative absolute
    errors.
    """
    has_probabilities: bool = True
    """False where only classes were predicted: then neither loss nor AUC means anything."""
    block: NDArray[np.int64] | None = None
    """Examples with the same number hang together (the rows of a month): intervals draw whole
    blocks.
    """

    @property
    def is_accuracy(self) -> bool:
        return self.unit is None and bool(np.isin(self.score, (0.0, 1.0)).all())

    @property
    def score_name(self) -> str:
        if self.unit is not None:
            return "mean absolute error"
        return "accuracy" if self.is_accuracy else "score"

    @property
    def values(self) -> NDArray[np.float64]:
        """What `score_name` is the mean of, per seed and example."""
        return self.score if self.unit is None else -self.score * self.unit

    def metrics(
        self, rows: NDArray[np.bool_] | NDArray[np.intp] | None = None
    ) -> dict[str, Reading]:
        """Score, AUC (two classes, both present) and loss of the chosen examples, seeds and
        examples as samples.
        """
        chosen = slice(None) if rows is None else rows
        values = self.values[:, chosen]
        found = {self.score_name: self._widen(stats.mean_score(values), values, chosen)}
        if (explained := self._explained_variance(chosen)) is not None:
            read = self._widen(stats.crossed_mean(explained), explained, chosen)
            found["R²"] = replace(read, high=min(read.high, 1.0))
        if self.margin is not None and self.y is not None:
            y = self.y[chosen] > 0
            if 0 < y.sum() < y.size:
                margin = self.margin[:, chosen]
                area = replace(stats.crossed_auc(margin, y), unit="")
                if self.block is not None:
                    area = self._widen(area, stats.auc_shares(margin, y), chosen, (0.0, 1.0))
                found["AUC"] = area
        if self.has_probabilities:
            unit = "nats" if self.is_accuracy else ""
            loss = self.loss[:, chosen]
            read = self._widen(stats.mean_score(loss, unit=unit), loss, chosen)
            # the t of two trainings reaches far: losses that cannot be negative have no such mean
            found["loss"] = replace(read, low=max(read.low, 0.0)) if loss.min() >= 0 else read
        return found

    def changes(self, base: "SplitPredictions") -> dict[str, Reading]:
        """Paired differences to `base` (same examples, same seeds)."""
        found = {self.score_name: self._difference(self.values - base.values)}
        if (mine := self._explained_variance(slice(None))) is not None and (
            other := base._explained_variance(slice(None))
        ) is not None:
            found["R²"] = self._difference(mine - other)
        if self.margin is not None and base.margin is not None and self.y is not None:
            y = self.y > 0
            if 0 < y.sum() < y.size:
                area = replace(stats.crossed_auc(self.margin, y, against=base.margin), unit="")
                if self.block is not None:
                    shares = (stats.auc_shares(margin, y) for margin in (self.margin, base.margin))
                    area = self._widen(area, next(shares) - next(shares))
                found["AUC"] = area
        if self.has_probabilities and base.has_probabilities:
            found["loss"] = self._difference(self.loss - base.loss)
        return found

    def repeat(self, rows: NDArray[np.intp], times: int) -> "SplitPredictions":
        """The chosen examples so many times over, each time in blocks of their own."""
        index = np.tile(rows, times)
        block = self.block
        if block is not None:
            copy = np.repeat(np.arange(times), rows.size)
            block = block[index] + copy * (block.max() + 1)
        return replace(
            self,
            loss=self.loss[:, index],
            score=self.score[:, index],
            y=self.y[index] if self.y is not None and self.y.size == self.score.shape[1] else None,
            margin=None if self.margin is None else self.margin[:, index],
            block=block,
        )

    def _difference(self, values: NDArray[np.float64]) -> Reading:
        return self._widen(stats.crossed_mean(values), values)

    def _widen(
        self,
        alone: Reading,
        values: NDArray[np.float64],
        chosen: slice | NDArray[np.bool_] | NDArray[np.intp] = slice(None),
        within: tuple[float, float] = (-np.inf, np.inf),
    ) -> Reading:
        """The reading as it is, or with the interval of whole blocks where examples have them."""
        if self.block is None:
            return alone
        within = (0.0, 1.0) if alone.unit == "fraction" else within
        return stats.over_blocks(alone, values, self.block[chosen], within)

    def _explained_variance(
        self, chosen: slice | NDArray[np.bool_] | NDArray[np.intp]
    ) -> NDArray[np.float64] | None:
        """Values [seed, example] whose mean is R² = 1 − E e²/V with V = var(y), to first order also
        in V (delta method).

        1 − e²/V + (E e²/V)((y − ȳ)²/V − 1); None unless the target is one number with spread.
        """
        if self.unit is None or self.y is None or self.y.size != self.score.shape[1]:
            return None
        spread = (
            (self.y[chosen] - self.y[chosen].mean()) ** 2 if self.y[chosen].size else np.zeros(1)
        )
        if (variance := spread.mean()) == 0:
            return None
        e2 = self.score[:, chosen] ** 2
        return 1 - e2 / variance + e2.mean(1, keepdims=True) / variance * (spread / variance - 1)


def predict(
    models: Sequence[nn.Module], task: Task, split: Split, lab: Lab, unit: float = 1.0
) -> SplitPredictions:
    """Runs every model over the split for losses, scores and margins; `unit` is the target's, where
    it is a number.
    """
    losses, scores, margins = [], [], []
    has_probabilities = all(getattr(model, "is_probability", True) for model in models)
    for model in models:
        losses.append(per_example(model, split.data, task.objective.loss, lab).double().numpy())
        scores.append(per_example(model, split.data, task.objective.score, lab).double().numpy())
        margins.append(_margin(model, split, lab))
    if not (np.isfinite(losses).all() and np.isfinite(scores).all()):
        name = next((n for n, one in task.splits.items() if one is split), "")
        refuse_nonfinite(split.data, name, lab)
        bad = ~(np.isfinite(losses) & np.isfinite(scores))
        raise InvalidData(
            f"The model's loss or score is not finite on {int(bad.any(0).sum())} examples.",
            why="inputs far outside the training range, or a probability of exactly zero.",
            fix="scale the inputs, or use a loss that works on logits.",
        )
    blocks = [batch["block"].cpu() for batch in once(split.data, 4096, lab) if "block" in batch]
    labels = [batch["y"].cpu() for batch in once(split.data, 4096, lab) if "y" in batch]
    y = torch.cat(labels).double().flatten().numpy() if labels else None
    two = np.isin(scores, (0.0, 1.0)).all() and y is not None and np.isin(y, (0.0, 1.0)).all()
    margin = (
        np.stack([m for m in margins if m is not None])
        if two and has_probabilities and all(m is not None for m in margins)
        else None
    )
    is_number = task.objective.score is negative_absolute_error
    return SplitPredictions(
        np.stack(losses),
        np.stack(scores),
        y,
        margin,
        unit if is_number else None,
        has_probabilities,
        torch.cat(blocks).numpy() if blocks else None,
    )


@torch.no_grad()
def _margin(model: nn.Module, split: Split, lab: Lab) -> NDArray[np.float64] | None:
    """z₁ − z₀ of every example, or None if the model does not have one or two outputs for `x`."""
    found: list[Tensor] = []
    was_training = model.training
    model.eval()
    try:
        for batch in once(split.data, 1024, lab):
            if "x" not in batch:
                return None
            z = model(batch["x"])
            if not isinstance(z, Tensor) or z.dim() > 2 or (z.dim() == 2 and z.shape[1] > 2):
                return None
            z = z.reshape(len(z), -1)
            found.append((z[:, 1] - z[:, 0] if z.shape[1] == 2 else z[:, 0]).double().cpu())
    finally:
        model.train(was_training)
    return torch.cat(found).numpy()


def group_codes(split: Split, group: Callable[[Batch], Tensor], lab: Lab) -> NDArray[np.int64]:
    """The group's integer of every example, in order."""

    def of(batch: Batch) -> Tensor:
        try:
            value: object = group(batch)  # a user's function: it may return anything
        except KeyError as error:
            refuse_missing_column(error, batch)
            raise
        if not isinstance(value, Tensor) or value.dim() != 1:
            raise InvalidData(
                f"A group returned {type(value).__name__} {tuple(getattr(value, 'shape', ()))}.",
                why="a group gives one integer per example.",
                fix='return a one-dimensional tensor, for example lambda batch: batch["sex"].',
            )
        return value.long().cpu()

    return torch.cat([of(batch) for batch in once(split.data, 4096, lab)]).numpy()
