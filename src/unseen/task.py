"""Task: data whose evaluation splits may differ from the training ones along a named axis."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab

Batch = Mapping[str, Tensor]
"""Tensors by name; in each the example axis comes first."""

PerExample = Callable[[nn.Module, Batch], Float[Tensor, " batch"]]
"""One number per example: a loss, a score, an influence query, an explained behaviour."""


class Axis(StrEnum):
    """Along what evaluation data differ from training data."""

    IID = "iid"
    DOMAIN = "domain"
    COMPOSITION = "composition"
    LENGTH = "length"
    TASK = "task"
    DIFFICULTY = "difficulty"
    DIRECTION = "direction"
    LEVEL = "level"
    SITE = "site"
    TIME = "time"


class Use(StrEnum):
    """What a split may be used for."""

    TRAIN = "train"
    """Methods train on it."""
    ADAPT = "adapt"
    """Inputs without targets that a method may use."""
    SELECT = "select"
    """Early stopping and hyperparameters."""
    EVALUATE = "evaluate"
    """Read by evaluation only."""


@dataclass(frozen=True)
class Split:
    """Examples with a use and a position on the task's axis (length 40, domain "sketch", site
    "Zurich").
    """

    data: Dataset[Any]
    use: Use
    at: float | str | None = None


@dataclass(frozen=True)
class Objective:
    """What training lowers and what evaluation reports (higher is better)."""

    loss: PerExample
    score: PerExample
    relabel: Callable[[nn.Module, Batch, torch.Generator], Batch] | None = None
    """The batch with targets drawn from the model's own distribution (true Fisher)."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Named splits and an objective. A value: own data needs no subclass."""

    name: str
    axis: Axis
    splits: Mapping[str, Split]
    objective: Objective

    def __post_init__(self) -> None:
        if not self.of(Use.TRAIN):
            raise InvalidData(
                f"Task `{self.name}` has no split to fit.",
                why="a method needs at least one split with use=Use.TRAIN.",
                fix='add one: splits={"train": Split(data, Use.TRAIN), …}.',
            )

    def of(self, use: Use) -> dict[str, Split]:
        """The splits of one use, in the task's order."""
        return {name: split for name, split in self.splits.items() if split.use is use}

    def split(self, name: str) -> Split:
        """The named split, or `UnknownName` with near matches."""
        if name not in self.splits:
            raise UnknownName.near("split", name, self.splits)
        return self.splits[name]

    @property
    def unseen(self) -> dict[str, Split]:
        """The evaluation splits at a position where nothing was fitted."""
        fitted = {split.at for split in self.of(Use.TRAIN).values()}
        return {
            name: split for name, split in self.of(Use.EVALUATE).items() if split.at not in fitted
        }


@runtime_checkable
class TaskSpec(Protocol):
    """A generator or loader of tasks: a frozen dataclass whose fields are its hyperparameters."""

    def build(self, lab: Lab) -> Task: ...
