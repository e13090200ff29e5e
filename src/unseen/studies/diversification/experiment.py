"""How the hypotheses are made, which one is chosen, and what it comes to."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean

import numpy as np
import torch
from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Optimizer
from unseen.engine.prediction_diversity import mutual_information, over_pairs
from unseen.lab import Lab
from unseen.measures.diversity import hard_disagreement, member_probabilities
from unseen.measures.feature_reliance import reliances
from unseen.measures.worst_group import by_group
from unseen.method import Trained
from unseen.methods.diversify import DBAT, DivDis, member_scores, rank_by_disagreement
from unseen.methods.erm import ERM
from unseen.models.ensemble_model import Committee, SingleMember, members_of
from unseen.models.mlp import mlp
from unseen.study import Row, Value
from unseen.task import Split, Task, Use
from unseen.tasks.domino_halves import DominoHalf, Half
from unseen.tasks.dominoes import Dominoes, agreement_rates
from unseen.tasks.images import CLASSES, Collection


class Encoder(StrEnum):
    """What the hidden layer knows before, and whether it may learn more."""

    SCRATCH = "scratch"
    UPPER_TUNED = "upper, tuned"
    LOWER_TUNED = "lower, tuned"
    UPPER_FROZEN = "upper, frozen"
    LOWER_FROZEN = "lower, frozen"

    @property
    def half(self) -> Half:
        """The half whose ten classes it has learned."""
        return Half.UPPER if self in (Encoder.UPPER_TUNED, Encoder.UPPER_FROZEN) else Half.LOWER


class Way(StrEnum):
    """How hypotheses are made."""

    ERM = "ERM"
    DBAT = "D-BAT"
    DIVDIS = "DivDis"


class Selection(StrEnum):
    """How one hypothesis is chosen."""

    FIRST = "first"
    RANDOM = "random"
    """Expected of one drawn with equal chances."""
    QUERIED = "queried"
    """The most accurate on the most disputed unlabelled pairs, which are given labels."""
    ORACLE = "oracle"
    """The one whose worst group of the test set is best: it reads the test labels."""


GROUPS = ("y=0 upper=0", "y=0 upper=1", "y=1 upper=0", "y=1 upper=1")

ORACLE: dict[str, Value] = {"part": "chosen", "selection": str(Selection.ORACLE)}
SCRATCH: dict[str, Value] = {**ORACLE, "encoder": str(Encoder.SCRATCH)}


@dataclass(frozen=True)
class Config:
    task: Dominoes = Dominoes()
    shares: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """r: how often the images of an unlabelled pair agree."""
    encoders: tuple[Encoder, ...] = tuple(Encoder)
    members: tuple[int, ...] = (2, 3, 5)
    """Numbers of hypotheses, from scratch; with other encoders the first of them."""
    widths: tuple[int, ...] = (100,)
    before: int = 8_000
    """Pairs of the pre-training."""
    pretraining: Budget = Budget(steps=600, batch_size=128, lr=1e-3, optimizer=Optimizer.ADAM)
    budget: Budget = Budget(steps=400, batch_size=128, lr=1e-3, optimizer=Optimizer.ADAM)
    dbat: DBAT = DBAT(weight=1.0)
    divdis: DivDis = DivDis(dependence=10.0, prior=1.0)
    queries: int = 16
    seeds: int = 5


@dataclass(frozen=True)
class Cell:
    config: Config
    encoder: Encoder
    members: tuple[int, ...]
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        for encoder in config.encoders:
            members = config.members if encoder is Encoder.SCRATCH else config.members[:1]
            yield Cell(config, encoder, members, seed)


def run(cell: Cell, lab: Lab) -> Iterator[Row]:
    """All encoders of a seed share the data; all ways share the initial weights and the order of the labelled pairs."""
    config = cell.config
    specs = [replace(config.task, unlabelled_agreement=r) for r in config.shares]
    drawn = [spec.sample(lab.child("data")) for spec in specs]
    tasks = [spec.task(pairs) for spec, pairs in zip(specs, drawn, strict=True)]
    begin = starting_network(cell, lab)
    facts: dict[str, Value] = {"encoder": str(cell.encoder), "seed": cell.seed}
    alone = ERM(config.budget).fit(begin(), tasks[0], lab.child("fit"))
    found = {str(s): evaluate(alone.model, tasks[0], lab) for s in Selection if s is not Selection.QUERIED}
    for selection, values in found.items():
        yield {**facts, "part": "chosen", "way": str(Way.ERM), "members": 1, "selection": selection, **values}
    for way, members, k, trained in committees(cell, begin, tasks, lab.child("fit")):
        mine = {**facts, "way": str(way), "members": members, "r": config.shares[k]}
        yield {**mine, "part": "committee", **diversity_row(trained, drawn[k], lab)}
        for selection, values in evaluate_selections(trained, drawn[k]["unlabelled"], config.queries, lab).items():
            yield {**mine, "part": "chosen", "selection": str(selection), **values}


def starting_network(cell: Cell, lab: Lab) -> Callable[[], nn.Sequential]:
    """Makes the network that every way starts from: a hidden layer, pre-trained or not, below a head of fresh weights."""
    spec, widths = cell.config.task, cell.config.widths
    inputs = 2 * spec.side**2 * (3 if Collection.CIFAR10 in (spec.top, spec.bottom) else 1)
    with lab.child("init").seeded():
        fresh = mlp([inputs, *widths, 2])
    if cell.encoder is not Encoder.SCRATCH:
        fresh = nn.Sequential(*list(pretrain_network(cell, inputs, lab.child("before")))[:-1], fresh[-1])
    fresh.to(lab.device, lab.dtype)
    frozen = cell.encoder in (Encoder.UPPER_FROZEN, Encoder.LOWER_FROZEN)
    fresh[:-1].requires_grad_(not frozen)
    return lambda: copy.deepcopy(fresh)


def pretrain_network(cell: Cell, inputs: int, lab: Lab) -> nn.Sequential:
    """A network that tells the ten classes of one half; that half is all that the encoder's value names."""
    spec = cell.config.task
    half = DominoHalf(cell.encoder.half, spec.top, spec.bottom, n=cell.config.before, n_test=1, side=spec.side)
    with lab.child("init").seeded():
        model = mlp([inputs, *cell.config.widths, CLASSES])
    ERM(cell.config.pretraining).fit(model, half.build(lab.child("data")), lab.child("fit"))
    return model


def committees(
    cell: Cell, begin: Callable[[], nn.Sequential], tasks: Sequence[Task], lab: Lab
) -> Iterator[tuple[Way, int, int, Trained]]:
    """Way, number of members, place of the task, committee. D-BAT's first members are those of a smaller committee."""
    config, labs = cell.config, [lab] * len(tasks)
    largest = replace(config.dbat, members=max(cell.members), budget=config.budget)
    grown = largest.fit_many([begin() for _ in tasks], tasks, labs)
    for members in cell.members:
        for k, trained in enumerate(grown):
            assert isinstance(trained.model, Committee)
            few = Committee(list(trained.model.members)[:members], SingleMember()).eval()
            yield Way.DBAT, members, k, replace(trained, model=few)
        method = replace(config.divdis, members=members, budget=config.budget)
        for k, trained in enumerate(method.fit_many([begin() for _ in tasks], tasks, labs)):
            yield Way.DIVDIS, members, k, trained


def evaluate(model: nn.Module, task: Task, lab: Lab) -> dict[str, Value]:
    """On the test set: accuracy, how often the class of the upper image is answered, accuracy on the pairs whose images
    are opposed, and the accuracies of the four groups."""
    data = task.split("test").data
    assert isinstance(data, Columns)
    right = per_example(model, data, task.objective.score, lab).double().numpy()
    agrees = (data.columns["y"] == data.columns["cue"]).cpu().numpy()
    groups: dict[str, Value] = {
        GROUPS[g]: reading.value for g, reading in by_group(right, data.columns["group"].cpu().numpy()).items()
    }
    whole = {
        "accuracy": right.mean(),
        "upper": np.where(agrees, right, 1 - right).mean(),
        "opposed": right[~agrees].mean(),
    }
    return {name: float(value) for name, value in whole.items()} | {"worst": min(map(float, groups.values())), **groups}


def evaluate_selections(trained: Trained, pairs: Columns, queries: int, lab: Lab) -> dict[Selection, dict[str, Value]]:
    """What each selection comes to; `pairs` are the unlabelled ones with the labels that a query is given."""
    assert isinstance(trained.model, Committee)
    each = [evaluate(member, trained.task, lab) for member in members_of(trained.model)]
    asked = pairs.subset(rank_by_disagreement(trained.model, pairs, min(queries, len(pairs)), lab))
    answers = member_scores(trained, Split(asked, Use.SELECT), lab)
    best = max(range(len(each)), key=lambda k: float(each[k]["worst"]))
    return {
        Selection.FIRST: each[0],
        Selection.RANDOM: {name: fmean(float(values[name]) for values in each) for name in each[0]},
        Selection.QUERIED: each[answers.index(max(answers))],
        Selection.ORACLE: {**each[best], **reliance_on_halves(members_of(trained.model)[best], trained.task, lab)},
    }


def reliance_on_halves(model: nn.Module, task: Task, lab: Lab) -> dict[str, Value]:
    """How far the test accuracy falls when one half of the images is exchanged between pairs."""
    data = task.split("test").data
    assert isinstance(data, Columns)
    x = data.columns["x"]
    rows = x.flatten(1)
    place = torch.arange(rows.shape[1]).view(x.shape[1:])
    halves = {"relies on upper": place[:, : x.shape[2] // 2], "relies on lower": place[:, x.shape[2] // 2 :]}
    pixels = replace(task.split("test"), data=Columns(x=rows, y=data.columns["y"]))
    subject = Trained(model, replace(task, splits={**task.splits, "test": pixels}))
    found = reliances(subject, "test", {name: at.flatten().tolist() for name, at in halves.items()}, lab, repeats=3)
    return {name: reading.value for name, reading in found.items()}


def diversity_row(trained: Trained, drawn: Mapping[str, Columns], lab: Lab) -> dict[str, Value]:
    """Realised agreements of the two images, and how far the members differ."""
    p = {name: member_probabilities(trained, name, lab) for name in ("unlabelled", "test")}
    shares = agreement_rates(drawn)
    return {
        **{f"agreement of {name}": shares[name] for name in ("train", "unlabelled", "test")},
        **{f"disagreement on {name}": float(hard_disagreement(each).mean()) for name, each in p.items()},
        "mutual information": float(over_pairs(p["unlabelled"], mutual_information).mean()),
    }
