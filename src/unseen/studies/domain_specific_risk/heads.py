"""One network with many heads, used in many ways and judged in three streams."""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import Columns, whole
from unseen.lab import Lab
from unseen.measures.adaptivity_gap import AdaptivityGap, PointwiseGap
from unseen.method import Trained
from unseen.methods.drm import prototypes
from unseen.models.ensemble_model import Committee, MeanProbability, Rule, SingleMember
from unseen.models.mlp import mlp
from unseen.models.test_time_weighting import (
    EntropySteering,
    Granularity,
    OnlineSteering,
    SimilaritySteering,
)
from unseen.study import Row, Value
from unseen.task import Split, Task, Use
from unseen.tasks.domains import UNSEEN


class Data(StrEnum):
    """Which domains."""

    ROTATED = "rotated digits"
    COLOURED = "coloured digits"
    SOURCES = "digit sources"
    APART = "rotated digits, other spacings"


class Heads(StrEnum):
    """What the heads are trained on."""

    ONE = "one"
    """ERM: a single head for all."""
    DOMAINS = "domains"
    RANDOM = "random"
    """The sources' examples dealt out at random: as many heads, none of them special."""


class Way(StrEnum):
    """How heads become one prediction."""

    ERM = "ERM"
    COMMON = "common head"
    BATCH = "surest per batch"
    SAMPLE = "surest per example"
    WHOLE = "surest of the stream"
    """One head for all examples: a batch as large as the stream."""
    MEAN = "mean of all"
    SIMILAR = "most similar source"
    ONLINE = "per batch, online"
    """The heads learn from what they are sure of (β = 0.9, one step per batch)."""
    BEST = "best source's head (test labels)"
    ANY = "any source's head (test labels)"


ONLINE = OnlineSteering()
RULES: Mapping[Way, Rule | OnlineSteering] = {
    Way.COMMON: SingleMember(-1),
    Way.BATCH: EntropySteering(),
    Way.SAMPLE: EntropySteering(Granularity.SAMPLE),
    Way.WHOLE: EntropySteering(size=1_000_000),
    Way.MEAN: MeanProbability(),
    Way.SIMILAR: SimilaritySteering(),
    Way.ONLINE: ONLINE,
}


class Stream(StrEnum):
    """What is judged, in random order."""

    TARGET = "target"
    """The domain left out, alone."""
    MIXED = "mixed"
    """Its examples among those of the sources."""
    SOURCES = "sources"
    """New examples of each source, alone: the mean of their accuracies."""


def untrained_network(task: Task, width: int, lab: Lab) -> nn.Module:
    """An untrained network with two hidden layers for the task's inputs and classes."""
    batches = [whole(split.data, lab) for split in task.of(Use.TRAIN).values()]
    classes = 1 + max(int(batch["y"].max()) for batch in batches)
    with lab.child("init").seeded():
        return mlp([batches[0]["x"][0].numel(), width, width, classes])


def shuffle_domains(task: Task, lab: Lab) -> Task:
    """The task whose fitted examples are dealt out to its TRAIN splits at random, in parts of equal
    size (± 1).
    """
    fit = task.of(Use.TRAIN)
    batches = [whole(split.data, lab) for split in fit.values()]
    pooled = Columns(**{name: torch.cat([batch[name] for batch in batches]) for name in batches[0]})
    parts = torch.randperm(len(pooled), generator=lab.generator()).tensor_split(len(fit))
    mixed = {
        name: replace(split, data=pooled.subset(part))
        for (name, split), part in zip(fit.items(), parts, strict=True)
    }
    return replace(task, splits={**task.splits, **mixed})


def of_heads(facts: Mapping[str, Value], trained: Trained, fitted: Task, lab: Lab) -> Iterator[Row]:
    """Every way to use the heads, and what the labels of the target say of them."""
    model = trained.model
    assert isinstance(model, Committee)
    model.prototypes = prototypes(model, fitted, lab)
    yield from accuracies(facts, RULES, model, trained.task, lab)
    errors = {
        Way.BEST: AdaptivityGap(UNSEEN, draws=2)(trained, lab),
        Way.ANY: PointwiseGap(UNSEEN)(trained, lab),
    }
    for way, error in errors.items():
        yield {
            **facts,
            "way": way.value,
            "stream": Stream.TARGET.value,
            "accuracy": 1 - error.value,
        }


@dataclass(frozen=True)
class HeadOutputs:
    """Examples with what every head makes of them."""

    x: Tensor
    y: Int[Tensor, " n"]
    h: Float[Tensor, "n d"]
    outputs: Float[Tensor, "member n c"]

    def __getitem__(self, order: Int[Tensor, " k"]) -> "HeadOutputs":
        return HeadOutputs(self.x[order], self.y[order], self.h[order], self.outputs[:, order])


@torch.no_grad()
def head_outputs(model: Committee, splits: Iterable[Split], lab: Lab) -> HeadOutputs:
    """The examples of these splits, one after the other."""
    batches = [whole(split.data, lab) for split in splits]
    x, y = (torch.cat([batch[name] for batch in batches]) for name in ("x", "y"))
    h = model.encoder(x)
    return HeadOutputs(x, y, h.flatten(1), model.outputs_from_features(h))


def hits(rule: Rule | OnlineSteering, model: Committee, found: HeadOutputs) -> Float[Tensor, " n"]:
    """1 where the prediction is right. Online steering learns on a copy of the model."""
    if isinstance(rule, OnlineSteering):
        outputs = rule(deepcopy(model), found.x.split(EntropySteering().size)).outputs
    else:
        outputs = rule(found.outputs, found.h, model.prototypes)
    return (outputs.argmax(-1) == found.y).double()


def accuracies(
    facts: Mapping[str, Value],
    ways: Mapping[Way, Rule | OnlineSteering],
    model: Committee,
    task: Task,
    lab: Lab,
) -> Iterator[Row]:
    """Rows of these ways in the three streams."""
    target, seen = (
        task.split(UNSEEN),
        [split for name, split in task.splits.items() if name.startswith("seen:")],
    )
    alone, mixed = head_outputs(model, [target], lab), head_outputs(model, [target, *seen], lab)
    sources = [head_outputs(model, [split], lab) for split in seen]
    order = {
        Stream.TARGET: random_order(len(alone.y), lab.child(Stream.TARGET)),
        Stream.MIXED: random_order(len(mixed.y), lab.child(Stream.MIXED)),
    }
    sources = [
        one[random_order(len(one.y), lab.child(Stream.SOURCES, k))] for k, one in enumerate(sources)
    ]
    inside = order[Stream.MIXED] < len(alone.y)
    for way, rule in ways.items():
        values = {
            Stream.TARGET: float(hits(rule, model, alone[order[Stream.TARGET]]).mean()),
            Stream.MIXED: float(hits(rule, model, mixed[order[Stream.MIXED]])[inside].mean()),
            Stream.SOURCES: stats.mean(
                [float(hits(rule, model, one).mean()) for one in sources]
            ).value,
        }
        for stream, value in values.items():
            yield {**facts, "way": way.value, "stream": stream.value, "accuracy": value}


def random_order(n: int, lab: Lab) -> Int[Tensor, " n"]:
    """0 … n − 1 in random order."""
    return torch.randperm(n, generator=lab.generator())
