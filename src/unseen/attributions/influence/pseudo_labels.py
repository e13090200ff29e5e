"""What stands for the labels of the pseudo-gradients that the curvature is fitted to: labels drawn
from the model, every class, or the data's own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.task import Batch, Objective, PerExample


class Fisher(StrEnum):
    """Whose labels the pseudo-gradients have."""

    SAMPLED = "sampled"
    """Drawn from the model: unbiased for the Gauss–Newton matrix."""
    EXACT = "exact"
    """Every class, weighted by its probability: the Gauss–Newton matrix itself."""
    EMPIRICAL = "empirical"
    """The data's own: another matrix, near zero where the model fits well."""


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """The labels of each batch, equal in every pass."""

    model: nn.Module
    fisher: Fisher
    draws: int
    objective: Objective
    loss: PerExample
    lab: Lab

    @property
    def per_example(self) -> int:
        """Gradients that an example adds with its whole weight."""
        return self.draws if self.fisher is Fisher.SAMPLED else 1

    def count(self, batch: Batch) -> int:
        """How often a batch is labelled."""
        if self.fisher is Fisher.EXACT:
            return classes(self.model, batch)
        return self.per_example

    def label(self, number: int, batch: Batch) -> Iterator[tuple[float, Batch, PerExample]]:
        """(share of an example, the batch with the labels of a draw or class, what is
        differentiated).
        """
        if self.fisher is Fisher.EMPIRICAL:
            yield 1.0, batch, self.loss
        elif self.fisher is Fisher.SAMPLED:
            if self.objective.relabel is None:
                raise InvalidConfig(
                    "The objective cannot draw labels from the model.",
                    why="the sampled Fisher needs `relabel`.",
                    fix="give the objective a `relabel`, or use fisher=Fisher.EMPIRICAL.",
                )
            generator = self.lab.child("draw", number).generator()
            for _ in range(self.draws):
                yield 1.0, self.objective.relabel(self.model, batch, generator), self.loss
        else:
            count = classes(self.model, batch)
            refuse_no_distribution(self.model, batch, self.loss, count)
            for k in range(count):
                yield 1 / count, with_label(batch, k), partial_root(self.loss)


def classes(model: nn.Module, batch: Batch) -> int:
    """How many classes `y` may have: two for a model with one logit."""
    if (
        "x" not in batch
        or "y" not in batch
        or (batch["y"].is_floating_point() and batch["y"].dim() > 1)
    ):
        raise InvalidConfig(
            "The exact Fisher needs inputs `x` and class labels `y`.",
            why="it visits every class that `y` may have.",
            fix="use fisher=Fisher.SAMPLED.",
        )
    with torch.no_grad():
        outputs = model(batch["x"][:1]).shape[-1]
    return max(2, outputs)


def with_label(batch: Batch, k: int) -> Batch:
    """The batch with class k everywhere."""
    return {**batch, "y": torch.full_like(batch["y"], k)}


def partial_root(loss: PerExample) -> PerExample:
    """√p · loss with p = e^(−loss) held fixed: the squares of its gradients are weighted by p."""

    def damped_loss(model: nn.Module, batch: Batch) -> Tensor:
        each = loss(model, batch)
        return each * (-each.detach() / 2).exp()

    return damped_loss


@torch.no_grad()
def refuse_no_distribution(model: nn.Module, batch: Batch, loss: PerExample, count: int) -> None:
    """Raises unless the loss is −log p of a distribution over the classes."""
    total = sum((-loss(model, with_label(batch, k))).exp() for k in range(count))
    assert isinstance(total, Tensor)
    # a rounding of each probability and of each loss, which bfloat16 shows
    tolerance = max(1e-3, 4 * torch.finfo(total.dtype).eps)
    if not torch.allclose(total, torch.ones_like(total), atol=tolerance):
        raise InvalidConfig(
            f"e^(−loss) sums to {float(total.flatten()[0]):.4g} over the classes, not to 1.",
            why="the exact Fisher weighs every class by its probability, so the loss must be −log "
            "p(y | x).",
            fix="use cross_entropy or logistic_loss, or fisher=Fisher.SAMPLED.",
        )


def refuse_batch_dependence(model: nn.Module, batch: Batch, loss: PerExample) -> None:
    """Raises if an example's loss depends on the others: then doubling the batch would not double
    summed gradients.
    """
    if size(batch) < 2:
        return
    with torch.no_grad():
        together = loss(model, batch)
        alone = loss(model, {name: tensor[:1] for name, tensor in batch.items()})
    if together.dim() != 1:
        return  # `tap` says what is wrong
    if not torch.allclose(together[:1].double(), alone.double(), rtol=1e-3, atol=1e-4):
        raise InvalidData(
            f"The loss of the first example is {float(alone[0]):.4g} alone and "
            f"{float(together[0]):.4g} in its batch.",
            why="a loss averaged over the batch, or a layer that mixes examples, has no "
            "per-example gradient.",
            fix='return the loss of each example (reduction="none"), and call model.eval().',
        )
