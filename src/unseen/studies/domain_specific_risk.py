"""A head per source, chosen at test time by its certainty, where one for all is far off.

Zhang, Wang, Liang, Zhang, Yu, Wang, Tao & Xie (2023), arXiv:2208.08661. One encoder with a head
per source and a common one (`methods.drm`), steered in several ways, against ERM and CORAL on
the same minibatches. Controls: sources drawn at random (as many heads, nothing to specialise on),
batches that mix domains, and sources ever further apart. Nothing is selected on the target; the two
ways that read its labels say so.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import Columns, whole
from unseen.engine.loop import Budget
from unseen.figure import Bars
from unseen.lab import Lab
from unseen.measures.adaptivity_gap import AdaptivityGap, PointwiseGap
from unseen.methods.coral import CORAL
from unseen.methods.drm import DRM, prototypes
from unseen.methods.erm import ERM
from unseen.models.ensemble_model import Committee, MeanProbability, Rule, SingleMember
from unseen.models.mlp import mlp
from unseen.models.test_time_weighting import (
    EntropySteering,
    Granularity,
    OnlineSteering,
    SimilaritySteering,
)
from unseen.reading import Reading
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, column, gap, pick
from unseen.study.effects import distinct, lowest_of, restrict
from unseen.study.figures import curves, draw_bars
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.task import Split, Task, Use
from unseen.tasks.colored_digits import ColoredDigits
from unseen.tasks.digit_sources import DigitSources
from unseen.tasks.domains import (
    UNSEEN,
    Division,
    Domains,
    DomainSpec,
    leave_one_out,
    shifting_clusters,
)
from unseen.tasks.images import Collection
from unseen.tasks.rotated_digits import RotatedDigits


class Data(StrEnum):
    """Which domains."""

    ROTATED = "rotated digits"
    COLOURED = "coloured digits"
    SOURCES = "digit sources"
    APART = "rotated digits, other spacings"


class Heads(StrEnum):
    """What the heads are trained on."""

    ONE = "one"
    """ERM and CORAL: a single head for all."""
    DOMAINS = "domains"
    RANDOM = "random"
    """The sources' examples dealt out at random: as many heads, none of them special."""


class Way(StrEnum):
    """How heads become one prediction."""

    ERM = "ERM"
    CORAL = "CORAL"
    """One head on features whose covariances are alike in all sources: a baseline of domain
    generalization.
    """
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


SINGLE = (Way.ERM, Way.CORAL)
"""Ways with one head."""
CORAL_WEIGHT = 4.0
"""DomainBed's weight of 1: its distance is not divided by 4."""


class Stream(StrEnum):
    """What is evaluated, in random order."""

    TARGET = "target"
    """The domain left out, alone."""
    MIXED = "mixed"
    """Its examples among those of the sources."""
    SOURCES = "sources"
    """New examples of each source, alone: the mean of their accuracies."""


RULES: Mapping[Way, Rule | OnlineSteering] = {
    Way.COMMON: SingleMember(-1),
    Way.BATCH: EntropySteering(),
    Way.SAMPLE: EntropySteering(Granularity.SAMPLE),
    Way.WHOLE: EntropySteering(size=1_000_000),
    Way.MEAN: MeanProbability(),
    Way.SIMILAR: SimilaritySteering(),
    Way.ONLINE: OnlineSteering(),
}
DIVISION = Division(select=0.05, seen=0.2, oracle=0)
"""Nothing is selected; on a fifth of every source stands what steering costs there."""


@dataclass(frozen=True)
class Setting:
    """One domain left out."""

    data: Data
    spec: DomainSpec
    width: int
    budget: Budget

    @property
    def is_controlled(self) -> bool:
        """Whether random sources and CORAL are tried, too."""
        return self.data is not Data.APART


@dataclass(frozen=True)
class Config:
    rotated: RotatedDigits = RotatedDigits(n=10_000, division=DIVISION)
    coloured: ColoredDigits = ColoredDigits(division=DIVISION)
    sources: DomainSpec = field(default_factory=lambda: DigitSources(division=DIVISION))
    spacings: tuple[float, ...] = (5, 10, 20, 30)
    """Degrees between neighbours, as many angles as `rotated` has; both ends are left out."""
    width: int = 128
    budget: Budget = Budget(steps=400, batch_size=32)
    colour_steps: int = 300
    seeds: int = 10

    def cells(self) -> Grid[Setting, None]:
        return Grid(list(settings(self)), (None,), self.seeds)


def settings(config: Config) -> Iterator[Setting]:
    """Every domain left out; of rotations at other spacings, both ends."""
    apart: list[DomainSpec] = []
    for spacing in config.spacings:
        angles = tuple(k * spacing for k in range(len(config.rotated.angles)))
        first, *_, last = leave_one_out(replace(config.rotated, angles=angles))
        apart += [first, last]
    specs: dict[Data, Sequence[DomainSpec]] = {
        Data.ROTATED: leave_one_out(config.rotated),
        Data.COLOURED: leave_one_out(config.coloured),
        Data.SOURCES: leave_one_out(config.sources),
        Data.APART: apart,
    }
    colour = replace(config.budget, steps=config.colour_steps)
    for data, targets in specs.items():
        budget = colour if data is Data.COLOURED else config.budget
        for spec in targets:
            yield Setting(data, spec, config.width, budget)


def run(cell: Cell[Setting, None], lab: Lab) -> Iterator[Row]:
    """Data, weights and minibatches of a seed are the same for ERM and the heads."""
    setting = cell.setting
    task = setting.spec.build(lab.child("data"))
    rows = ways(setting, task, lab)
    return label(rows, data=setting.data, seed=cell.seed, **position(setting.spec))


def ways(setting: Setting, task: Task, lab: Lab) -> Iterator[Row]:
    start = untrained_network(task, setting.width, lab)
    fit, order = lab.child("fit"), lab.child("order")
    baselines: dict[Way, ERM | CORAL] = {Way.ERM: ERM(setting.budget)}
    if setting.is_controlled:
        baselines[Way.CORAL] = CORAL(CORAL_WEIGHT, budget=setting.budget)
    for way, method in baselines.items():
        single = Committee([method.fit(deepcopy(start), task, fit).model], SingleMember())
        rows = accuracies({way: SingleMember()}, single, task, order)
        yield from label(rows, heads=Heads.ONE)
    tasks = {Heads.DOMAINS: task}
    if setting.is_controlled:
        tasks[Heads.RANDOM] = shuffle_domains(task, lab.child("dealt"))
    for heads, sources in tasks.items():
        trained = DRM(budget=setting.budget).fit(deepcopy(start), sources, fit)
        model = trained.model
        assert isinstance(model, Committee)
        model.prototypes = prototypes(model, sources, order)
        yield from label(accuracies(RULES, model, task, order), heads=heads)
        errors = {
            Way.BEST: AdaptivityGap(UNSEEN, draws=2)(replace(trained, task=task), order),
            Way.ANY: PointwiseGap(UNSEEN)(replace(trained, task=task), order),
        }
        for way, error in errors.items():
            facts: Row = {"heads": heads, "way": way, "stream": Stream.TARGET}
            yield {**facts, "accuracy": 1 - error.value}


def position(spec: DomainSpec) -> dict[str, Value]:
    """Where the target lies among the sources, if domains have positions."""
    target = spec.held_out or spec.domains()[-1]
    positions: tuple[float, ...] = ()
    if isinstance(spec, RotatedDigits):
        positions = spec.angles
    elif isinstance(spec, ColoredDigits):
        positions = spec.agreements
    if not positions:
        return {"target": target}
    at = positions[spec.domains().index(target)]
    others = [position for position in positions if position != at]
    return {
        "target": target,
        "place": "inside" if min(others) < at < max(others) else "end",
        "distance": round(min(abs(at - other) for other in others), 6),
    }


def untrained_network(task: Task, width: int, lab: Lab) -> nn.Module:
    """An untrained network with two hidden layers for the task's inputs and classes."""
    batches = [whole(split.data, lab) for split in task.of(Use.TRAIN).values()]
    classes = 1 + max(int(batch["y"].max()) for batch in batches)
    inputs = batches[0]["x"][0].numel()
    return untrained_model(lambda: mlp([inputs, width, width, classes]), lab)


def shuffle_domains(task: Task, lab: Lab) -> Task:
    """The task with its training examples dealt out at random, in parts of equal size (± 1)."""
    fit = task.of(Use.TRAIN)
    batches = [whole(split.data, lab) for split in fit.values()]
    pooled = Columns(**{key: torch.cat([batch[key] for batch in batches]) for key in batches[0]})
    parts = torch.randperm(len(pooled), generator=lab.generator()).tensor_split(len(fit))
    mixed = {
        name: replace(split, data=pooled.subset(part))
        for (name, split), part in zip(fit.items(), parts, strict=True)
    }
    return replace(task, splits={**task.splits, **mixed})


@dataclass(frozen=True)
class HeadOutputs:
    """Examples with the outputs of every head."""

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


def hits(rule: Rule | OnlineSteering, model: Committee, heads: HeadOutputs) -> Float[Tensor, " n"]:
    """1 where the prediction is right. Online steering learns on a copy of the model."""
    if isinstance(rule, OnlineSteering):
        outputs = rule(deepcopy(model), heads.x.split(EntropySteering().size)).outputs
    else:
        outputs = rule(heads.outputs, heads.h, model.prototypes)
    return (outputs.argmax(-1) == heads.y).double()


def accuracies(
    rules: Mapping[Way, Rule | OnlineSteering], model: Committee, task: Task, lab: Lab
) -> Iterator[Row]:
    """Rows of these ways in the three streams."""
    target = task.split(UNSEEN)
    seen = [split for name, split in task.splits.items() if name.startswith("seen:")]

    def stream(splits: list[Split], *name: str | int) -> tuple[HeadOutputs, Int[Tensor, " n"]]:
        heads = head_outputs(model, splits, lab)
        order = torch.randperm(len(heads.y), generator=lab.child(*name).generator())
        return heads[order], order

    alone, _ = stream([target], Stream.TARGET)
    mixed, order = stream([target, *seen], Stream.MIXED)
    sources = [stream([split], Stream.SOURCES, k)[0] for k, split in enumerate(seen)]
    inside = order < len(alone.y)
    for way, rule in rules.items():
        known = [float(hits(rule, model, heads).mean()) for heads in sources]
        values = {
            Stream.TARGET: float(hits(rule, model, alone).mean()),
            Stream.MIXED: float(hits(rule, model, mixed)[inside].mean()),
            Stream.SOURCES: stats.mean(known).value,
        }
        for name, value in values.items():
            yield {"way": way, "stream": name, "accuracy": value}


ANYWHERE: Mapping[str, Value] = {}
END: Mapping[str, Value] = {"place": "end"}
INSIDE: Mapping[str, Value] = {"place": "inside"}
COLLECTIONS = (Data.ROTATED, Data.COLOURED, Data.SOURCES)


def rows_of(
    way: Way,
    data: Data,
    where: Mapping[str, Value] = ANYWHERE,
    stream: Stream = Stream.TARGET,
    heads: Heads = Heads.DOMAINS,
) -> dict[str, Value]:
    """Where the rows of one way are; some have one head."""
    kind = Heads.ONE if way in SINGLE else heads
    return {"way": way, "data": data, "stream": stream, "heads": kind, **where}


def gain(
    data: Data,
    where: Mapping[str, Value] = ANYWHERE,
    over: Way = Way.ERM,
    stream: Stream = Stream.TARGET,
    of: Way = Way.BATCH,
) -> Effect:
    """Accuracy of a way (steering per batch) minus another's: mean over targets, then seeds."""
    return gap("accuracy", rows_of(of, data, where, stream), rows_of(over, data, where, stream))


# on the coloured targets that have a source with a similar agreement of colour and label
gain_near_sources = restrict(
    gain(Data.COLOURED), lambda row: float(row["distance"]) < 0.5, data=Data.COLOURED
)
# on the sources themselves, the lowest of the three collections
on_sources = lowest_of({str(data): gain(data, stream=Stream.SOURCES) for data in COLLECTIONS})


def widest(rows: Rows) -> Reading:
    """Gain at the ends where sources are furthest apart."""
    farthest = max(column(rows, "distance", data=Data.APART))
    return gain(Data.APART, {"distance": farthest})(rows)


def against(stream: Stream = Stream.TARGET, heads: Heads = Heads.DOMAINS) -> Effect:
    """Steering per batch beyond all sources minus the same in another stream or of other heads."""
    steered = rows_of(Way.BATCH, Data.ROTATED, END)
    return gap("accuracy", steered, rows_of(Way.BATCH, Data.ROTATED, END, stream, heads))


OPPOSITE: Mapping[str, Value] = {"target": "0.1"}
POINT = 0.01
"""Less is no gain: differences of the field's methods start there."""
CLAIMS = (
    Claim("Steering by certainty per batch beats ERM by 3 points on rotations beyond all sources.",
          gain(Data.ROTATED, END), above=0.03),
    Claim("It beats CORAL, a baseline of domain generalization, by as much there.",
          gain(Data.ROTATED, END, over=Way.CORAL), above=0.03),
    Claim("Learning online from what it is sure of adds a point there.",
          gain(Data.ROTATED, END, over=Way.BATCH, of=Way.ONLINE), above=POINT),
    Claim("On rotations between sources it is within 2 points of ERM.",
          gain(Data.ROTATED, INSIDE), above=-0.02, below=0.02),
    Claim("Beyond all sources certainty per batch beats certainty per example by 3 points.",
          gain(Data.ROTATED, END, over=Way.SAMPLE), above=0.03),
    Claim("The sources themselves lose at most 2.5 points (worst of three collections).",
          on_sources, above=-0.025),
    Claim("The domains matter: beyond all sources, as many heads of randomly drawn sources do "
          "worse.", against(heads=Heads.RANDOM), above=POINT),
    Claim("Steering per batch needs batches of one domain: among examples of the sources it loses "
          "accuracy.", against(Stream.MIXED), above=POINT),
    Claim("Where no source is near (widest spacing) steering gains less than 1 point.",
          widest, below=POINT),
    Claim("Steering per batch beats ERM on coloured digits that have a similar source.",
          gain_near_sources, above=POINT),
    Claim("Where colour means the opposite no source's rule holds: the best head is right for "
          "less than 20 %.",
          average("accuracy", rows_of(Way.BEST, Data.COLOURED, OPPOSITE), within=(0, 1)),
          below=0.2),
    Claim("Steering per batch beats ERM on digits from another source (mean of three).",
          gain(Data.SOURCES), above=POINT),
    Claim("It beats CORAL on digits from another source by a point (mean of three).",
          gain(Data.SOURCES, over=Way.CORAL), above=POINT),
    Claim("Learning online adds a point on digits from another source (mean of three).",
          gain(Data.SOURCES, over=Way.BATCH, of=Way.ONLINE), above=POINT),
)  # fmt: skip


def table(rows: Rows) -> list[Row]:
    """Mean accuracy over seeds for every domain left out."""
    lines: list[Row] = []
    for data, target in distinct(rows, "data", "target"):
        here = pick(rows, data=data, target=target)
        near = [{"distance": distance} for (distance,) in distinct(here, "distance")]
        for facts in near or [{}]:
            means = mean_accuracies(pick(here, **facts))
            lines.append({"data": data, "target": target, **facts, **means})
    return lines


def mean_accuracies(rows: Rows) -> dict[str, Value]:
    """Every way on the target; the controls; what the sources pay."""
    found = {str(way): (way, Stream.TARGET, Heads.DOMAINS) for way in Way}
    found["per batch, random sources"] = (Way.BATCH, Stream.TARGET, Heads.RANDOM)
    found["per batch, mixed stream"] = (Way.BATCH, Stream.MIXED, Heads.DOMAINS)
    found["on sources: ERM"] = (Way.ERM, Stream.SOURCES, Heads.ONE)
    found["on sources: per batch"] = (Way.BATCH, Stream.SOURCES, Heads.DOMAINS)
    line: dict[str, Value] = {}
    for title, (way, stream, heads) in found.items():
        kind = Heads.ONE if way in SINGLE else heads
        if known := pick(rows, way=way, stream=stream, heads=kind):
            line[title] = average("accuracy")(known).value
    return line


def gains(rows: Rows) -> Bars:
    """What steering per batch gains on every target."""
    readings = {
        f"{data} {target}": gain(data, {"target": target})(rows)
        for data in COLLECTIONS
        for (target,) in distinct(pick(rows, data=data), "target")
    }
    title = "Steering per batch against ERM"
    return draw_bars(readings, title, "difference of accuracy")


def is_shown(row: Row) -> bool:
    """Four ways on rotations, without the control."""
    shown = row["way"] in (Way.ERM, Way.BATCH, Way.SAMPLE, Way.BEST)
    return shown and row["data"] != Data.COLOURED and row["heads"] != Heads.RANDOM


# the ends of the range against the distance of their nearest source
spacing = restrict(
    curves(
        "distance",
        "accuracy",
        by="way",
        title="Rotations beyond all sources",
        x_label="degrees to the nearest source",
        y_label="accuracy",
        where={**END, "stream": Stream.TARGET},
    ),
    is_shown,
)

LAPTOP = Config()
SMALL = {"collection": Collection.OPTDIGITS, "n": 300, "side": 8}
study = Study(
    name="domain_specific_risk",
    system="16",
    differs=(
        "The paper trains ResNet-50 on PACS, VLCS, OfficeHome and others, with selection over "
        "random hyperparameters; here two hidden layers of 128 units learn rotated and coloured "
        "digits (10,000 and 9,000) and three collections of digits, one domain left out at a time, "
        "with 10 seeds and no selection at all. Heads are steered by batches of 64 from one "
        "domain, as the authors' code evaluates. The baseline of domain generalization is CORAL "
        "alone, at DomainBed's weight."
    ),
    not_tested=(
        "The gains over strong baselines on the paper's benchmarks, that the method combines with "
        "penalties of invariance, and its cost in time."
    ),
    source=reference("zhang2023domain"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            rotated={**SMALL, "angles": (0, 30, 60)},
            coloured=SMALL,
            sources=Domains(shifting_clusters, division=DIVISION),
            spacings=(60,),
            width=16,
            budget={"steps": 10, "batch_size": 16, "lr": 2e-2},
            colour_steps=10,
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            rotated={"n": 60_000, "side": 28},
            coloured={"n": 60_000, "side": 28},
            sources=DigitSources(n=3_800, side=16, division=DIVISION),
            width=1_024,
            budget={"steps": 5_000, "batch_size": 64},
            colour_steps=5_000,
            seeds=20,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(gains, spacing),
    table=table,
)
