"""A density of unlabelled inputs first, then a small head on the labels (Ge, Tang, Fan & Jin, 2024,
arXiv:2303.01566).

Maximum likelihood on m unlabelled inputs, then empirical risk minimisation on n labels: the excess
risk is at most of order √(C_Φ/m) + √(C_Ψ/n), with C_Φ and C_Ψ the sizes of the density and of the
head, where labels alone pay for both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import whole
from unseen.engine.domain_risks import merge_batches
from unseen.engine.toy import toy_subject
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.pretrain_then_fit.contrastive import ContrastiveLinear
from unseen.methods.pretrain_then_fit.factor_model import FactorAnalysis, ProbabilisticPCA
from unseen.methods.pretrain_then_fit.heads import ComponentLabels, LinearHead
from unseen.methods.pretrain_then_fit.mixture import MixtureEM
from unseen.search_space import LogUniform, Space
from unseen.task import Batch, Objective, Split, Task, Use


@runtime_checkable
class Density(Protocol):
    """A frozen dataclass that makes an encoder of unlabelled inputs: from x to a representation."""

    def fit(self, unlabelled: Batch, lab: Lab) -> nn.Module: ...


@runtime_checkable
class Head(Protocol):
    """A frozen dataclass that fits a model of a representation to labels."""

    def fit(
        self, z: Float[Tensor, "n r"], batch: Batch, objective: Objective, outputs: int
    ) -> nn.Module: ...


@dataclass(frozen=True)
class PretrainThenFit:
    """`density` by maximum likelihood on the ADAPT splits, then `head` on the TRAIN splits.

    Of the model given only the number of outputs is used: the trained model is encoder and head.
    Labels of the unlabelled data and inputs of the labelled data are not read for the density.
    """

    density: Density = field(default_factory=ProbabilisticPCA)
    head: Head | None = None
    """None: a linear one."""
    decay: float = 1e-3
    """Penalty of the linear head where none is given: what a comparison searches."""
    search: ClassVar[Space] = {"decay": LogUniform(1e-5, 1)}

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        unlabelled = read_unlabelled(task, lab)
        encoder = self.density.fit(unlabelled, lab.child("density")).eval()
        labelled = _on_cpu(merge_batches(whole(s.data, lab) for s in task.of(Use.TRAIN).values()))
        _refuse_other_inputs(unlabelled, labelled)
        head = self.head or LinearHead(self.decay)
        with torch.no_grad():
            z = encoder(labelled["x"].double().flatten(1))
        fitted = head.fit(z, labelled, task.objective, count_outputs(model, labelled, lab))
        trained = nn.Sequential(nn.Flatten(), encoder, fitted).requires_grad_(False)
        return Trained(trained.to(lab.device, lab.dtype).eval(), task)


def read_unlabelled(task: Task, lab: Lab) -> Batch:
    """All inputs of the ADAPT splits, without labels."""
    splits: Mapping[str, Split] = task.of(Use.ADAPT)
    if not splits:
        raise InvalidData(
            f"PretrainThenFit needs unlabelled data, and `{task.name}` has no ADAPT split.",
            why="the density is learned from inputs without labels.",
            fix="add them: Split(data, Use.ADAPT); in a table, rows whose target is empty.",
        )
    batch = merge_batches(whole(split.data, lab) for split in splits.values())
    return _on_cpu({name: column for name, column in batch.items() if name != "y"})


def _on_cpu(batch: Batch) -> Batch:
    """Where factors and components are computed, in float64."""
    return {name: column.cpu() for name, column in batch.items()}


def _refuse_other_inputs(unlabelled: Batch, labelled: Batch) -> None:
    there, here = unlabelled["x"].shape[1:], labelled["x"].shape[1:]
    if there != here:
        raise InvalidData(
            f"Unlabelled inputs of shape {tuple(there)} beside labelled ones of {tuple(here)}.",
            why="the head is fitted on what the density says of the same inputs.",
            fix="prepare both in the same way.",
        )


@torch.no_grad()
def count_outputs(model: nn.Module, batch: Batch, lab: Lab) -> int:
    """How many numbers the model gives per example: classes, or parts of a prediction."""
    model = model.to(lab.device, lab.dtype).eval()
    x = batch["x"][:2].to(lab.device, lab.dtype)
    outputs = model(x)
    return outputs.flatten(1).shape[1] if outputs.dim() > 1 else 1


def example() -> tuple[PretrainThenFit, Trained]:
    """On a task with unlabelled data."""
    return PretrainThenFit(), toy_subject()


__all__ = [
    "ComponentLabels",
    "ContrastiveLinear",
    "FactorAnalysis",
    "LinearHead",
    "MixtureEM",
    "PretrainThenFit",
    "ProbabilisticPCA",
    "example",
]
