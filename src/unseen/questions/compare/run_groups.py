"""The units of a comparison: the runs of one method on one task, whose scores are kept under a key of all that decides them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.questions.compare.candidates import MethodSpec
from unseen.task import Task

FORMAT = 2
"""Part of every key: what the kept tensors mean."""

RunScores = Mapping[str, Tensor]
"""Of every model of a block [model, …]: `select`, `oracle` and `seen` (mean scores), `score PLACE` and `margin PLACE` of every
judged example, `diverged`, and `together`: whether it was trained with others."""


@dataclass(frozen=True)
class Run:
    """One model: which seed, which draw of the hyperparameters."""

    seed: int
    draw: int


@dataclass(frozen=True)
class RunGroup:
    """Models of one method on one task."""

    entrant: MethodSpec
    at: str
    """Label of the subject."""
    without: str = ""
    """The training domain that is left out for validation."""
    runs: tuple[Run, ...] = ()

    @property
    def says(self) -> str:
        return f"{self.entrant.name} · {self.at}" + (f" without {self.without}" if self.without else "")


def fingerprint(task: Task) -> str | None:
    """A hash of the objective and of all examples, or None where a split is no table of columns or a loss has no name."""
    functions = (task.objective.loss, task.objective.score)
    if any("<" in getattr(f, "__qualname__", "<") for f in functions):
        return None
    found = [f"{f.__module__}.{f.__qualname__}" for f in functions]
    for name, split in task.splits.items():
        if not isinstance(split.data, Columns):
            return None
        found.append(f"{name} {split.use} {split.at} {hash_of(split.data.columns)}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
