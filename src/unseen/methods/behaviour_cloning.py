"""Behavioural cloning: the logged actions as labels (Pomerleau, 1991)."""

from dataclasses import dataclass

from torch import Tensor, nn

from unseen.engine.loop import Budget, Draw, Optimizer, train
from unseen.engine.toy_chain import chain_subject
from unseen.engine.value_losses import cloning_loss, merge_transitions, require_transitions
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Objective, Task

OFFLINE = Budget(steps=1_200, batch_size=128, lr=1e-3, optimizer=Optimizer.ADAM)


def cloning_step(model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
    """Leaves in `.grad` the gradient of the mean of −log π(a | s)."""
    batch = merge_transitions(draw.fit)
    loss = cloning_loss(model(batch["x"]), batch["y"]).mean()
    loss.backward()
    return loss.detach()


@dataclass(frozen=True)
class BehaviourCloning:
    """A policy that does what was logged; rewards are not read."""

    budget: Budget = OFFLINE

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        require_transitions(task, ("x", "y"))
        return train(model, task, cloning_step, self.budget, lab)


def example() -> tuple[BehaviourCloning, Trained]:
    """On logged walks along a chain."""
    return BehaviourCloning(Budget(steps=20, batch_size=16)), chain_subject()
