"""Domain-specific risk minimisation (Zhang et al., 2023, arXiv:2208.08661): a classifier per
domain, steered at test time.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from unseen.engine.batches import once
from unseen.engine.domain_risks import environments
from unseen.engine.features import FixedOutput
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.toy import toy_subject
from unseen.engine.vectorized.steps import VectorizedStep
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.ensemble_model import Committee, Rule, heads_like, refuse_inner_layer, split_head
from unseen.models.test_time_weighting import EntropySteering, SimilaritySteering
from unseen.search_space import Space, Uniform
from unseen.task import Objective, Task, Use


def drm_criterion(
    model: Committee, draw: Draw, objective: Objective, *, shared: Tensor | float
) -> Tensor:
    """Mean over domains e of (1 − s) ℓ(h_e(φ(x))) + s ℓ(h_shared(φ(x))); the shared head is the
    last member.
    """
    *heads, last = model.members
    found = []
    for head, batch in zip(heads, environments(draw, "DRM"), strict=True):
        h = model.encoder(batch["x"])
        own, common = (objective.loss(FixedOutput(one(h)), batch).mean() for one in (head, last))
        found.append((1 - shared) * own + shared * common)
    return torch.stack(found).mean()


@dataclass(frozen=True)
class DRM:
    """One head per training domain and one for all, on a common encoder; a rule chooses among them
    at test time.

    `shared` is the weight s of the common head's loss: 1 trains that head as ERM does. All heads
    begin as copies of the model's last linear layer (or of `layer`). The trained model is a
    `Committee`: `all(x)` has the domains' heads in the order of the TRAIN splits, the common one
      last. For classification; batches to be steered must hold one domain each.
    """

    shared: float = 0.5
    rule: Rule = field(default_factory=EntropySteering)
    layer: str = ""
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"shared": Uniform(0.2, 0.8)}

    def __post_init__(self) -> None:
        if not 0 <= self.shared <= 1:
            raise InvalidConfig(
                f"DRM got shared={self.shared}.",
                "it is a share of the loss.",
                "choose a value from 0 to 1.",
            )

    @property
    def training(self) -> VectorizedStep:
        return VectorizedStep(criterion=drm_criterion, settings={"shared": self.shared})

    def surgery(self, model: nn.Module, task: Task, lab: Lab) -> Committee:
        """The model's encoder with one head per TRAIN split and a common one."""
        fitted = task.of(Use.TRAIN)
        if len(fitted) < 2:
            raise InvalidData(
                f"DRM needs at least two training domains, and `{task.name}` has one split to fit.",
                why="it trains a classifier for each.",
                fix="give one TRAIN split per domain (`unseen.tasks.domains`), or use ERM.",
            )
        model.to(lab.device, lab.dtype)
        refuse_inner_layer(
            model, self.layer, next(once(next(iter(fitted.values())).data, 4, lab))["x"]
        )
        encoder, head = split_head(model, self.layer)
        return Committee(heads_like(head, len(fitted) + 1, lab, fresh=False), self.rule, encoder)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        committee = self.surgery(model, task, lab)
        if isinstance(self.rule, SimilaritySteering):
            committee.prototypes = prototypes(committee, task, lab)
        trained = train(committee, task, self.training, self.budget, lab)
        if isinstance(self.rule, SimilaritySteering):
            committee.prototypes = prototypes(committee, task, lab)
        return trained


@torch.no_grad()
def prototypes(model: Committee, task: Task, lab: Lab) -> Tensor:
    """The mean features of every TRAIN split, [domain, d]."""
    model.eval()
    means = []
    for split in task.of(Use.TRAIN).values():
        parts = [model.encoder(batch["x"]).flatten(1) for batch in once(split.data, 1024, lab)]
        means.append(torch.cat(parts).mean(0))
    return torch.stack(means)


def example() -> tuple[DRM, Trained]:
    """Thirty steps on a task with two domains to fit."""
    return DRM(budget=Budget(steps=30, batch_size=32, lr=0.01)), toy_subject()
