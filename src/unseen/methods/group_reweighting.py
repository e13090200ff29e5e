"""Training for the worst group, and for all groups alike.

Group DRO: Sagawa et al. (2020, arXiv:1911.08731), Algorithm 1. Inverse frequency: importance
weighting (Shimodaira, 2000).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.engine.batches import once
from unseen.engine.domain_risks import require_domains
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.vectorized.steps import VectorizedStep
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.search_space import LogUniform, Space
from unseen.task import Batch, Objective, Task, Use


@dataclass(frozen=True)
class Groups:
    """The values of the group column in the TRAIN splits, sorted, and how many examples have
    each.
    """

    values: Int[Tensor, " group"]
    counts: Int[Tensor, " group"]


def groups_of(task: Task, column: str, lab: Lab) -> Groups:
    """Every TRAIN example's group, counted. Group numbers are integers."""
    parts = []
    for name, split in task.of(Use.TRAIN).items():
        for batch in once(split.data, 1024, lab):
            if column not in batch:
                raise UnknownName.near(f"column of split `{name}`", column, batch)
            parts.append(batch[column].flatten())
    labels = torch.cat(parts)
    if labels.is_floating_point():
        raise InvalidData(
            f"The group column `{column}` holds {labels.dtype} values.",
            why="groups are named by integers.",
            fix=f"encode `{column}` as integers 0 … G − 1.",
        )
    return Groups(*labels.unique(return_counts=True))


def membership(
    batches: Mapping[str, Batch], column: str, values: Tensor
) -> Float[Tensor, "example group"]:
    """1 where an example of the minibatches belongs to a group."""
    labels = torch.cat([batch[column].flatten() for batch in batches.values()])
    return (labels[:, None] == values.to(labels)).to(torch.get_default_dtype())


def mirror_ascent(
    q: Float[Tensor, " group"], losses: Float[Tensor, " group"], rate: Tensor | float
) -> Float[Tensor, " group"]:
    """q_g exp(η ℓ_g) / Σ_h q_h exp(η ℓ_h): mirror ascent on the simplex."""
    return (q.log() + rate * losses).softmax(0)


def group_dro_step(
    model: nn.Module,
    draw: Draw,
    objective: Objective,
    *,
    weights: Tensor,
    groups: Groups,
    column: str,
    rate: float,
) -> Tensor:
    """Raises the weights of groups with high loss (in place), then leaves the gradient of Σ_g q_g
    ℓ_g in `.grad`.

    ℓ_g is the mean loss of the group's examples in the minibatch; a group without examples has loss
    0 and no gradient.
    """
    losses = torch.cat([objective.loss(model, batch) for batch in draw.fit.values()])
    inside = membership(draw.fit, column, groups.values).to(losses)
    each = (inside.T @ losses) / inside.sum(0).clamp_min(1)
    weights.copy_(mirror_ascent(weights, each.detach().to(weights), rate))
    loss = (weights.to(each) * each).sum()
    loss.backward()
    return loss.detach()


def reweighted_step(
    model: nn.Module,
    draw: Draw,
    objective: Objective,
    *,
    weights: Tensor,
    groups: Groups,
    column: str,
) -> Tensor:
    """Leaves in `.grad` the gradient of the mean of w_{g(i)} ℓ_i."""
    losses = torch.cat([objective.loss(model, batch) for batch in draw.fit.values()])
    inside = membership(draw.fit, column, groups.values).to(losses)
    loss = (inside @ weights.to(losses) * losses).mean()
    loss.backward()
    return loss.detach()


@dataclass(frozen=True)
class GroupDRO:
    """Lowers the loss of the worst group, min_θ max_g E[ℓ | g], by online exponentiated weights
    with step size `rate`.

    `rate=0` weighs all groups alike. The paper finds strong weight decay or early stopping
    necessary for large networks. `curves` holds each group's final weight as `weight <group>`.
    """

    group: str = "site"
    rate: float = 0.01
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"rate": LogUniform(0.001, 0.1)}

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise InvalidConfig(
                f"GroupDRO got rate={self.rate}.",
                "weights must rise with the loss.",
                "set rate ≥ 0.",
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        groups = groups_of(task, self.group, lab)
        # float64: products of thousands of small exponents
        weights = torch.full(
            (len(groups.values),), 1 / len(groups.values), dtype=torch.float64, device=lab.device
        )
        step = partial(
            group_dro_step, weights=weights, groups=groups, column=self.group, rate=self.rate
        )
        trained = train(model, task, step, self.budget, lab)
        final = {
            f"weight {int(g)}": [float(q)] for g, q in zip(groups.values, weights, strict=True)
        }
        return replace(trained, curves={**trained.curves, **final})


def weighted_domains(
    losses: Sequence[Float[Tensor, " example"]],
    step: int,
    *,
    rate: Tensor | float,
    weights: Tensor | None = None,
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Σ_e q_e R_e with the weights q, at first even, raised by the risks R, and these weights for
    the next step.
    """
    require_domains(len(losses), "Group DRO over domains")
    risks = torch.stack([each.mean() for each in losses])
    if weights is None:  # float64: products of thousands of small exponents
        weights = torch.full(
            (len(losses),), 1 / len(losses), dtype=torch.float64, device=risks.device
        )
    raised = mirror_ascent(weights, risks.detach().to(weights), rate)
    return (raised.to(risks) * risks).sum(), {"weights": raised}


@dataclass(frozen=True)
class DomainDRO:
    """Group DRO whose groups are the training domains, one TRAIN split each: min_θ max_e R_e, with
    step size `rate`.

    `rate=0` is the mean of the domains' risks. The same algorithm as `GroupDRO`, which takes its
    groups from a column.
    """

    rate: float = 0.01
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"rate": LogUniform(1e-3, 1)}

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise InvalidConfig(
                f"DomainDRO got rate={self.rate}.",
                "weights must rise with the loss.",
                "set rate ≥ 0.",
            )

    @property
    def step(self) -> VectorizedStep:
        return VectorizedStep(weighted_domains, settings={"rate": self.rate})

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


@dataclass(frozen=True)
class InverseFrequency:
    """Lowers the mean over groups of the group's mean loss: example i weighs n / (G n_g(i)), the
    mean weight is 1.
    """

    group: str = "site"
    budget: Budget = field(default_factory=Budget)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        groups = groups_of(task, self.group, lab)
        weights = groups.counts.sum() / (len(groups.counts) * groups.counts.double())
        step = partial(reweighted_step, weights=weights, groups=groups, column=self.group)
        return train(model, task, step, self.budget, lab)


def example() -> GroupDRO:
    """Thirty steps; needs an integer column `site` in the TRAIN splits."""
    return GroupDRO(rate=0.05, budget=Budget(steps=30, batch_size=32, lr=0.01))
