"""Fine-tuning: training goes on from the weights that the model comes with, of all parameters or of
some.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from unseen.engine.loop import Budget, Schedule, erm_step, train
from unseen.engine.parameters import trainable
from unseen.errors import UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Task


@dataclass(frozen=True)
class Finetune:
    """Minimises the mean loss over the training examples, starting at the given weights.

    `Trained.start` holds those weights, so that `engine.flat` tells how far training went.
    """

    budget: Budget = Budget(lr=1e-4, schedule=Schedule.COSINE)
    only: tuple[str, ...] = ()
    """Prefixes of the parameters to train ("head", "blocks.1."); empty: all."""

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        with asking(model, self.only):
            return train(model, task, erm_step, self.budget, lab)


@contextmanager
def asking(model: nn.Module, only: tuple[str, ...]) -> Iterator[None]:
    """Inside the block only the parameters with one of these prefixes require gradients."""
    parameters = trainable(model)
    for prefix in only:
        if not any(name.startswith(prefix) for name in parameters):
            raise UnknownName.near("parameter prefix", prefix, parameters)
    frozen = [p for name, p in parameters.items() if only and not name.startswith(only)]
    try:
        for p in frozen:
            p.requires_grad_(False)
        yield
    finally:
        for p in frozen:
            p.requires_grad_(True)


def example() -> Finetune:
    return Finetune(Budget(steps=20, lr=1e-2))
