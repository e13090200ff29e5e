"""Representative attributes describe concepts; how many it takes, and whether rules or similarity
carry them to new examples (Shi et al., 2023, arXiv:2211.11033).

Two networks learn half of the concepts each: the one that learned a concept says how many
attributes describe it, the other one, to which it is new, how it is generalized.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from unseen import stats
from unseen.engine.attributes import (
    LayerOutputs,
    concept_means,
    layer_outputs,
    representativeness,
)
from unseen.engine.loop import Budget
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.concept_complexity import (
    centroid_complexity,
    image_entropy,
    subjective_complexity,
)
from unseen.measures.concept_generalization import few_shot, interaction
from unseen.method import Trained
from unseen.methods.erm import ERM
from unseen.models.conv import cnn
from unseen.reading import Reading
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Unit, pick
from unseen.study.effects import distinct
from unseen.study.figures import points, stack, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.tasks.concepts import GENERATED, NATURAL, Concepts, Level, Table, read_attributes

POOLED = "8"
"""The last maximum pooling: the channels of the last convolution, not negative."""


@dataclass(frozen=True)
class Config:
    concepts: Concepts = Concepts(GENERATED + NATURAL, n_train=60, n_test=10, characters=20)
    channels: tuple[int, ...] = (16, 32, 64)
    budget: Budget = Budget(steps=300, batch_size=64, lr=3e-3)
    threshold: float = 0.8
    shots: int = 4
    attributes: int = 3
    draws: int = 10
    pictures: int = 3
    """Of each concept, whose entropy is measured."""
    seeds: int = 3


def run(cell: Cell[Config, str], lab: Lab) -> Iterator[Row]:
    if cell.arm in tuple(Table):
        rows = animals(Table(cell.arm), cell.setting, lab.child(cell.arm))
    else:
        rows = images(int(cell.arm), cell.setting, lab)
    return label(rows, seed=cell.seed)


def images(held_out: int, config: Config, lab: Lab) -> Iterator[Row]:
    """What the concepts that were learned need, and how the others are generalized."""
    spec = resize(config.concepts, held_out=held_out)
    task = spec.build(lab.child("data"))
    classes = 1 + max(int(split.data.columns["y"].max()) for split in task.splits.values())  # type: ignore[attr-defined]
    model = untrained_model(lambda: cnn(config.channels, classes, in_channels=3), lab)
    trained = ERM(config.budget).fit(model, task, lab.child("fit", held_out))
    yield from describe(trained, config, lab)
    yield from generalize(trained, config, lab)


def describe(trained: Trained, config: Config, lab: Lab) -> Iterator[Row]:
    """K of each concept on images that were not trained on, by attributes in the order of RoA and
    in a random one, beside the entropy of its images.
    """
    train, test = (outputs_of(trained, name, lab, most=50) for name in ("train", "test"))
    concepts = test.labels.unique()
    means = concept_means(train.activations(), train.labels, concepts).double()
    orders = representativeness(means).argsort(dim=1, descending=True, stable=True)
    shuffled = torch.stack([
        torch.randperm(means.shape[1], generator=lab.child("order", int(c)).generator())
        for c in concepts
    ])  # fmt: skip
    found, random = (
        subjective_complexity(test, order, concepts, config.threshold)
        for order in (orders, shuffled)
    )
    data = trained.task.split("test").data.columns  # type: ignore[attr-defined]
    for k, concept in enumerate(found.concepts.tolist()):
        rows = (data["y"] == concept).nonzero()[:, 0]
        level = config.concepts.levels[int(data["level"][rows[0]])]
        yield {
            "part": "description",
            "level": str(level),
            "depth": GENERATED.index(level) if level in GENERATED else -1,
            "natural": level in NATURAL,
            "concept": concept,
            "K": int(found.numbers[k]),
            "random": int(random.numbers[k]),
            "youden": float(found.youden[k]),
            "bits": float(image_entropy(data["x"][rows[: config.pictures]]).mean()),
        }


def generalize(trained: Trained, config: Config, lab: Lab) -> Iterator[Row]:
    """Rules and similarity on concepts that the network has not seen."""
    novel = outputs_of(trained, "novel", lab, most=50)
    for natural in (False, True):
        known = [k for k, level in enumerate(config.concepts.levels)
                 if (level in NATURAL) == natural]  # fmt: skip
        columns = trained.task.split("novel").data.columns  # type: ignore[attr-defined]
        concepts = columns["y"][torch.isin(columns["level"], torch.tensor(known))].unique()
        if not len(concepts):
            continue
        inside = torch.isin(novel.labels, concepts)
        labels, activations = novel.labels[inside], novel.activations()[inside]
        means = concept_means(activations, labels, concepts)
        found = few_shot(
            activations, labels[None] == concepts[:, None], means,
            torch.ones_like(means, dtype=torch.bool), lab.child("shots").generator(),
            shots=config.shots, attributes=config.attributes, draws=config.draws,
        )  # fmt: skip
        for k, concept in enumerate(concepts.tolist()):
            yield {
                "part": "generalization",
                "natural": natural,
                "concept": concept,
                "rule": float(found.rule[k]),
                "similarity": float(found.similarity[k]),
            }


def outputs_of(trained: Trained, split: str, lab: Lab, most: int) -> LayerOutputs:
    return layer_outputs(trained.model, POOLED, trained.task.split(split).data, lab, most)


def animals(table: Table, config: Config, lab: Lab) -> Iterator[Row]:
    """Each attribute that some animals have and others lack is a concept, told by the others."""
    known = read_attributes(table)
    values = known.values.float()
    enough = config.shots + 2
    concepts = [k for k, n in enumerate(known.values.sum(0).tolist())
                if enough <= n <= len(values) - enough]  # fmt: skip
    members = known.values[:, concepts].T
    means = torch.stack([values[member].mean(0) for member in members])
    usable = torch.arange(len(known.names))[None] != torch.tensor(concepts)[:, None]
    roa = representativeness(means.double())
    found = few_shot(
        values, members, means, usable, lab.generator(), shots=config.shots,
        attributes=config.attributes, draws=config.draws,
    )  # fmt: skip
    for k, concept in enumerate(concepts):
        order = roa[k].argsort(descending=True, stable=True)
        order = order[order != concept]
        yield {
            "part": str(table),
            "concept": concept,
            "name": known.names[concept],
            "K": centroid_complexity(values, members[k], order, config.threshold),
            "rule": float(found.rule[k]),
            "similarity": float(found.similarity[k]),
        }


def over_seeds(read: Callable[[Rows], float]) -> Effect:
    """Mean over seeds of one number for each."""

    def effect(rows: Rows) -> Reading:
        seeds = sorted(distinct(rows, "seed"))
        return stats.mean([read(pick(rows, seed=seed)) for (seed,) in seeds])

    return effect


def numbers(rows: Rows, name: str) -> np.ndarray:
    if len(rows) < 4:
        raise InvalidData(
            f"{len(rows)} concepts have `{name}`.",
            why="a curve is drawn through them.",
            fix="run the missing cells, or a larger scale.",
        )
    return np.array([float(row[name]) for row in rows])


def order_ratio(rows: Rows) -> float:
    """Mean number of attributes in the order of RoA over that in a random one."""
    described = pick(rows, part="description")
    return float(numbers(described, "K").mean() / numbers(described, "random").mean())


def level_slope(rows: Rows) -> float:
    """Attributes per level of the generated shapes."""
    shapes = pick(rows, part="description", natural=False)
    return float(np.polyfit(numbers(shapes, "depth"), numbers(shapes, "K"), 1)[0])


def curvature(rows: Rows) -> float:
    """Coefficient of H² in K on the entropy H of natural concepts, both standardised."""
    bits, needed = standard_scores(pick(rows, part="description", natural=True))
    return float(np.polyfit(bits, needed, 2)[0])


def upper_slope(rows: Rows) -> float:
    """Slope of K on the entropy over the natural concepts above its median, standardised."""
    bits, needed = standard_scores(pick(rows, part="description", natural=True))
    upper = bits > np.median(bits)
    return float(np.polyfit(bits[upper], needed[upper], 1)[0])


def standard_scores(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    bits, needed = numbers(rows, "bits"), numbers(rows, "K")
    return (bits - bits.mean()) / bits.std(), (needed - needed.mean()) / needed.std()


def image_interaction(rows: Rows) -> float:
    """(rule − similarity) × (high − low K) over natural concepts: K from the network that learned
    a concept, the rest from the one that did not.
    """
    needed = {row["concept"]: float(row["K"]) for row in pick(rows, part="description")}
    new = pick(rows, part="generalization", natural=True)
    new = [row for row in new if row["concept"] in needed]
    columns = ([float(row[name]) for row in new] for name in ("rule", "similarity"))
    rule, similarity = (torch.tensor(values) for values in columns)
    return interaction(rule, similarity, vector([needed[row["concept"]] for row in new])).value


def vector(values: list[float]) -> Tensor:
    return torch.tensor(values)


def table_interaction(table: Table) -> Effect:
    """The same over the concepts of a table; draws of examples are averaged first."""

    def effect(rows: Rows) -> Reading:
        chosen = pick(rows, part=str(table))
        concepts = [pick(chosen, concept=concept) for (concept,) in distinct(chosen, "concept")]
        rule, similarity, needed = (
            vector([fmean(float(row[name]) for row in group) for group in concepts])
            for name in ("rule", "similarity", "K")
        )
        return interaction(rule, similarity, needed)

    return effect


SHAPE = "the sign of the curvature is what an inverted U claims"
CROSSING = "the paper claims the direction of the interaction, not its size"
CLAIMS = (
    Claim("In the order of representativeness fewer attributes describe a concept than in a random "
          "one (ratio of means).", over_seeds(order_ratio), below=0.8),
    Claim("Over five levels of generated shapes a concept needs more attributes the more complex "
          "its images are (attributes per level).", over_seeds(level_slope), above=0.5),
    Claim("Over natural concepts the number of attributes is an inverted U of visual complexity: "
          "negative curvature.", over_seeds(curvature), below=0, sign_because=SHAPE),
    Claim("It falls over the visually more complex half of natural concepts.",
          over_seeds(upper_slope), below=0, sign_because=SHAPE),
    Claim("Natural images: rules do relatively better on concepts that need many attributes, "
          "similarity on those that need few.", over_seeds(image_interaction), above=0,
          sign_because=CROSSING),
    Claim("The same for attributes of animals (AwA2).", table_interaction(Table.AWA2), above=0,
          sign_because=CROSSING, unit=Unit.ATTRIBUTE),
    Claim("The same for attributes and types of animals (Zoo).", table_interaction(Table.ZOO),
          above=0, sign_because=CROSSING, unit=Unit.ATTRIBUTE),
)  # fmt: skip

figure = points(
    "bits",
    "K",
    by="level",
    over="concept",
    title="Attributes that describe a concept, by the entropy of its images",
    x_label="2-D entropy, bits",
    y_label="attributes",
    where={"part": "description"},
)
table = stack(
    summary("level", {"bits": "bits", "attributes": "K", "random order": "random",
                      "recognition": "youden"}, where={"part": "description"}),
    summary(("part", "natural"), ("rule", "similarity"), where={"part": "generalization"}),
    summary("part", {"attributes": "K", "rule": "rule", "similarity": "similarity"},
            where={"part": "awa2"}),
    summary("part", {"attributes": "K", "rule": "rule", "similarity": "similarity"},
            where={"part": "zoo"}),
)  # fmt: skip

LAPTOP = Config()
study = Study(
    name="bayesian_generalization",
    system="29",
    source=reference("shi2023complexity"),
    differs=(
        "The paper describes concepts of six sets, from LEGO bricks to ImageNet, by the channels "
        "of a ResNet; here a network with three convolutions and 64 channels learns, with 3 "
        "seeds, 40 generated shapes at five levels of complexity and 50 natural concepts (digits, "
        "characters, clothes, CIFAR-10), half of the concepts in each of two networks. K counts "
        "attributes up to 0.8 of the recognition with all of them, as true-positive plus "
        "true-negative rate minus 1: with recall, as in the paper, an answer that is always given "
        "is perfect, and with balanced accuracy it already has 0.5. Rule and similarity take "
        "their thresholds from the same four examples. In tables of animals each attribute is a "
        "concept for the others, and the nearer of two means stands for the network."
    ),
    not_tested=(
        "The inverted U over images as complex as those of Places365 and ImageNet, and the "
        "generalization of concepts by people or by language."
    ),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            concepts=Concepts((Level.FIXED, Level.POSE, Level.OPTDIGITS), n_train=16, n_test=10),
            channels=(8, 8, 16),
            budget={"steps": 100},
            draws=2,
            pictures=1,
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            concepts={"n_train": 1_000, "n_test": 200, "characters": 136},
            channels=(64, 128, 512),
            budget={"steps": 50_000},
            draws=100,
            pictures=50,
            seeds=10,
        ),
    },
    cells=lambda config: Grid((config,), ("0", "1", *map(str, Table)), config.seeds),
    run=run,
    claims=CLAIMS,
    figures=(figure,),
    table=table,
)
