"""Method: a way to train a model on a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from unseen.lab import Lab
from unseen.task import Task


@dataclass(frozen=True)
class Trained:
    """A model after training, with what was recorded on the way."""

    model: nn.Module
    task: Task
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Recorded values by name: `loss` at every step; what was watched, after the numbers of steps
    in `budget_with_readings`.
    """
    start: Mapping[str, Tensor] | None = None
    """The parameters before training."""


@runtime_checkable
class Method(Protocol):
    """A frozen dataclass of hyperparameters that trains. The model is given away: it may be trained
    in place.
    """

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained: ...
