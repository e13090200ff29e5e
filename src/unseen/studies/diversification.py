"""Hypotheses that must differ on unlabelled data: what that gains depends on data and encoder.

Benoit et al. (2024), arXiv:2312.16313, on dominoes: the label is told by the upper image (simple)
and by the lower one (meant), always both in the labelled pairs; in the unlabelled ones they agree
in a share r. The worst of the four groups (label × upper image) of a balanced test set shows which
of the two a hypothesis reads. Accuracy on opposed pairs alone (two of the groups) would not: "not
the upper image" has all of it.
"""

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
from unseen.figure import Curves
from unseen.figure import Grid as Matrix
from unseen.lab import Lab
from unseen.measures.diversity import hard_disagreement, member_probabilities
from unseen.measures.feature_reliance import reliances
from unseen.measures.worst_group import by_group
from unseen.method import Trained
from unseen.methods.diversify import DBAT, DivDis, member_scores, rank_by_disagreement
from unseen.methods.erm import ERM
from unseen.models.ensemble_model import Committee, SingleMember, members_of
from unseen.models.mlp import mlp
from unseen.reading import Reading
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, gap, pick
from unseen.study.effects import derive, distinct, restrict, worst
from unseen.study.figures import curves, matrix, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
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

    @property
    def is_frozen(self) -> bool:
        return self in (Encoder.UPPER_FROZEN, Encoder.LOWER_FROZEN)


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
ADAM = Budget(steps=400, batch_size=128, lr=1e-3, optimizer=Optimizer.ADAM)


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
    pretraining: Budget = replace(ADAM, steps=600)
    budget: Budget = ADAM
    dbat: DBAT = DBAT(weight=1.0)
    divdis: DivDis = DivDis(dependence=10.0, prior=1.0)
    queries: int = 16
    seeds: int = 5


def run(cell: Cell[Config, Encoder], lab: Lab) -> Iterator[Row]:
    return label(choices(cell.setting, cell.arm, lab), encoder=cell.arm, seed=cell.seed)


def choices(config: Config, encoder: Encoder, lab: Lab) -> Iterator[Row]:
    """Encoders of a seed share the data; ways share initial weights and labelled minibatches."""
    specs = [replace(config.task, unlabelled_agreement=r) for r in config.shares]
    samples = [spec.sample(lab.child("data")) for spec in specs]
    tasks = [spec.task(sample) for spec, sample in zip(specs, samples, strict=True)]
    start = starting_network(config, encoder, lab)
    erm = ERM(config.budget).fit(copy.deepcopy(start), tasks[0], lab.child("fit")).model
    found: Row = {"part": "chosen", "way": Way.ERM, "members": 1, **evaluate(erm, tasks[0], lab)}
    for selection in (Selection.FIRST, Selection.RANDOM, Selection.ORACLE):
        yield {**found, "selection": selection}
    sizes = config.members if encoder is Encoder.SCRATCH else config.members[:1]
    for way, k, trained in committees(config, sizes, start, tasks, lab.child("fit")):
        members = len(members_of(trained.model))
        facts: Row = {"way": way, "members": members, "r": config.shares[k]}
        yield {**facts, "part": "committee", **diversity_row(trained, samples[k], lab)}
        pairs = samples[k]["unlabelled"]
        selections = evaluate_selections(trained, pairs, config.queries, lab)
        for selection, values in selections.items():
            yield {**facts, "part": "chosen", "selection": selection, **values}


def starting_network(config: Config, encoder: Encoder, lab: Lab) -> nn.Sequential:
    """A hidden layer, pre-trained or not, below a head of new weights: where every way starts."""
    spec = config.task
    channels = 3 if Collection.CIFAR10 in (spec.top, spec.bottom) else 1
    inputs = 2 * spec.side**2 * channels
    model = untrained_model(lambda: mlp([inputs, *config.widths, 2]), lab)
    if encoder is not Encoder.SCRATCH:
        *layers, _ = pretrain_network(config, encoder, inputs, lab.child("before"))
        model = nn.Sequential(*layers, model[-1])
    model.to(lab.device, lab.dtype)
    model[:-1].requires_grad_(not encoder.is_frozen)
    return model


def pretrain_network(config: Config, encoder: Encoder, inputs: int, lab: Lab) -> nn.Sequential:
    """A network that tells the ten classes of one half: all that the encoder's value names."""
    spec = config.task
    half = DominoHalf(encoder.half, spec.top, spec.bottom, config.before, n_test=1, side=spec.side)
    model = untrained_model(lambda: mlp([inputs, *config.widths, CLASSES]), lab)
    ERM(config.pretraining).fit(model, half.build(lab.child("data")), lab.child("fit"))
    return model


def committees(
    config: Config, sizes: Sequence[int], start: nn.Module, tasks: Sequence[Task], lab: Lab
) -> Iterator[tuple[Way, int, Trained]]:
    """Way, index of the task, committee. D-BAT's first members are a smaller committee's."""

    def fit(method: DBAT | DivDis) -> list[Trained]:
        models = [copy.deepcopy(start) for _ in tasks]
        method = replace(method, budget=config.budget)
        return list(method.fit_many(models, tasks, [lab] * len(tasks)))

    largest = fit(replace(config.dbat, members=max(sizes)))
    for size in sizes:
        for k, trained in enumerate(largest):
            assert isinstance(trained.model, Committee)
            few = Committee(list(trained.model.members)[:size], SingleMember()).eval()
            yield Way.DBAT, k, replace(trained, model=few)
        for k, trained in enumerate(fit(replace(config.divdis, members=size))):
            yield Way.DIVDIS, k, trained


def evaluate(model: nn.Module, task: Task, lab: Lab) -> dict[str, Value]:
    """Accuracies on the test set, on opposed pairs and in four groups.

    `upper`: how often the class of the upper image is answered.
    """
    data = task.split("test").data
    assert isinstance(data, Columns)
    columns = data.columns
    right = per_example(model, data, task.objective.score, lab).double().numpy()
    agrees = (columns["y"] == columns["cue"]).cpu().numpy()
    groups = by_group(right, columns["group"].cpu().numpy())
    return {
        "accuracy": float(right.mean()),
        "upper": float(np.where(agrees, right, 1 - right).mean()),
        "opposed": float(right[~agrees].mean()),
        "worst": min(reading.value for reading in groups.values()),
        **{GROUPS[group]: reading.value for group, reading in groups.items()},
    }


def evaluate_selections(
    trained: Trained, pairs: Columns, queries: int, lab: Lab
) -> dict[Selection, dict[str, Value]]:
    """`evaluate` of what each selection chooses.

    `pairs` are the unlabelled ones with the labels that a query is given.
    """
    assert isinstance(trained.model, Committee)
    members = members_of(trained.model)
    values = [evaluate(member, trained.task, lab) for member in members]
    disputed = rank_by_disagreement(trained.model, pairs, min(queries, len(pairs)), lab)
    answers = member_scores(trained, Split(pairs.subset(disputed), Use.SELECT), lab)
    best = max(range(len(values)), key=lambda k: float(values[k]["worst"]))
    return {
        Selection.FIRST: values[0],
        Selection.RANDOM: {name: fmean(float(v[name]) for v in values) for name in values[0]},
        Selection.QUERIED: values[answers.index(max(answers))],
        Selection.ORACLE: {**values[best], **reliance_on_halves(members[best], trained.task, lab)},
    }


def reliance_on_halves(model: nn.Module, task: Task, lab: Lab) -> dict[str, Value]:
    """How far the test accuracy falls when one half of the images is exchanged between pairs."""
    test = task.split("test")
    assert isinstance(test.data, Columns)
    x, y = test.data.columns["x"], test.data.columns["y"]
    pixels = x.flatten(1)
    split = replace(test, data=Columns(x=pixels, y=y))
    flat = Trained(model, replace(task, splits={**task.splits, "test": split}))
    upper, lower = torch.arange(pixels.shape[1]).view(x.shape[1:]).chunk(2, dim=1)
    halves = {"relies on upper": upper, "relies on lower": lower}
    places = {name: half.flatten().tolist() for name, half in halves.items()}
    found = reliances(flat, "test", places, lab, repeats=3)
    return {name: reading.value for name, reading in found.items()}


def diversity_row(trained: Trained, sample: Mapping[str, Columns], lab: Lab) -> dict[str, Value]:
    """Realised agreements of the two images, and how far the members differ."""
    p = {name: member_probabilities(trained, name, lab) for name in ("unlabelled", "test")}
    shares = agreement_rates(sample)
    agreements = {f"agreement of {name}": shares[name] for name in ("train", "unlabelled", "test")}
    disagreements = {
        f"disagreement on {name}": float(hard_disagreement(members).mean())
        for name, members in p.items()
    }
    information = float(over_pairs(p["unlabelled"], mutual_information).mean())
    return {**agreements, **disagreements, "mutual information": information}


ORACLE: dict[str, Value] = {"part": "chosen", "selection": Selection.ORACLE}
FROM_SCRATCH: dict[str, Value] = {"encoder": Encoder.SCRATCH}
LOWER: dict[str, Value] = {"encoder": Encoder.LOWER_FROZEN}
UPPER: dict[str, Value] = {"encoder": Encoder.UPPER_FROZEN}
SCRATCH = {**ORACLE, **FROM_SCRATCH}
DBAT_WAY: dict[str, Value] = {"way": Way.DBAT}
DIVDIS_WAY: dict[str, Value] = {"way": Way.DIVDIS}
SHARE = (0.0, 1.0)
BEST: dict[Value, float] = {Way.DBAT: 0.0, Way.DIVDIS: 0.5}
"""The r at which the semantic rule is each penalty's optimum, if the upper image's is the other."""


def versus(
    name: str, of: Mapping[str, Value], against: Mapping[str, Value], **both: Value
) -> Effect:
    """Paired difference of a column between two kinds of oracle-chosen rows.

    Two members from scratch, if not said.
    """
    base = {**SCRATCH, "members": 2, **both}
    return gap(name, {**base, **of}, {**base, **against})


def diverse(effect: Effect, ideal: float) -> Effect:
    """The reading of the one of both ways that is farther from the ideal."""
    return restrict(worst(effect, "way", ideal), lambda row: row["way"] != Way.ERM)


def number(row: Row) -> str:
    return f"{row['way']} {row['members']}"


# the highest mean worst group that any number of hypotheses reaches at r = 1
highest_mean = derive(worst(average("worst", within=SHARE), "number", 0), number=number)
most_members = restrict(highest_mean, **SCRATCH, r=1.0)


def more_members(rows: Rows) -> Reading:
    """What the largest number of hypotheses gains over two for DivDis at r = 0."""
    rows = pick(rows, **SCRATCH, **DIVDIS_WAY, r=0.0)
    most = max((int(row["members"]) for row in rows), default=2)
    return gap("worst", {"members": most}, {"members": 2})(rows)


# worst group of the oracle's choice − of the queried one, at each way's best r
query_loss = diverse(gap("worst", ORACLE, {**ORACLE, "selection": Selection.QUERIED}), 0)
oracle_gap = restrict(
    query_loss, lambda row: BEST.get(row["way"]) == row.get("r"), **FROM_SCRATCH, members=2
)


POINT = 0.01
"""Less is no difference between two ways."""
CLAIMS = (
    Claim("ERM reads the upper image: its worst group is wrong.",
          average("worst", SCRATCH, way=Way.ERM, within=SHARE), below=0.25),
    Claim("D-BAT wants unlabelled images that are opposed: accuracy at r = 0 − at r = 0.75.",
          versus("accuracy", {"r": 0.0}, {"r": 0.75}, way=Way.DBAT), above=0.05),
    Claim("DivDis wants independent ones: accuracy at r = 0.5 − at r = 0.",
          versus("accuracy", {"r": 0.5}, {"r": 0.0}, way=Way.DIVDIS), above=0.08),
    Claim("At r = 0 D-BAT is more accurate than DivDis, by at least a point.",
          versus("accuracy", DBAT_WAY, DIVDIS_WAY, r=0.0), above=POINT),
    Claim("At r = 0.5 DivDis is more accurate than D-BAT, by at least a point.",
          versus("accuracy", DIVDIS_WAY, DBAT_WAY, r=0.5), above=POINT),
    Claim("Where both images always agree (r = 1) neither finds the lower one from scratch: worst "
          "group (better way).",
          diverse(average("worst", SCRATCH, members=2, r=1.0, within=SHARE), 0), below=0.75),
    Claim("There the encoder decides: frozen on lower images − from scratch, worst group (way "
          "that gains less).", diverse(versus("worst", LOWER, FROM_SCRATCH, r=1.0), 1), above=0.25),
    Claim("More hypotheses do not help there: worst group of the best of any number, either way.",
          most_members, below=0.70),
    Claim("Nor at r = 0 for DivDis: worst group of the best of the most hypotheses − of two.",
          more_members, below=0.10),
    Claim("The wrong encoder costs at least 20 points: DivDis at r = 0, frozen on lower − on upper "
          "images, worst group.", versus("worst", LOWER, UPPER, r=0.0, way=Way.DIVDIS), above=0.20),
    Claim("The best r depends on the encoder: from scratch DivDis loses its worst group from r = "
          "0.5 to r = 0 …", versus("worst", {"r": 0.5}, {"r": 0.0}, way=Way.DIVDIS), above=0.15),
    Claim("… and frozen on lower images it loses at most 5 points.",
          versus("worst", {"r": 0.5}, {"r": 0.0}, way=Way.DIVDIS, **LOWER), above=-0.05,
          below=0.05),
    Claim("The best encoder depends on r: D-BAT at r = 0.5 from scratch − frozen on lower images, "
          "opposed pairs.", versus("opposed", FROM_SCRATCH, LOWER, r=0.5, way=Way.DBAT),
          above=0.05),
    Claim("The same in the worst of all four groups.",
          versus("worst", FROM_SCRATCH, LOWER, r=0.5, way=Way.DBAT), above=0.05),
    Claim("A few labels on disputed pairs find the oracle's choice at each way's best r: worst "
          "group lost (worse way).", oracle_gap, below=0.05),
)  # fmt: skip

AGREEMENT = "agreement r of unlabelled images"


def along(name: str, title: str) -> Callable[[Rows], Curves]:
    """A column of the oracle's choice over r; two members from scratch, and ERM at every r."""
    draw = curves("r", name, by="way", title=title, x_label=AGREEMENT)

    def draw_ways(rows: Rows) -> Curves:
        rows = pick(rows, **SCRATCH)
        # ERM does not read unlabelled pairs
        erm = [{**row, "r": r} for row in pick(rows, way=Way.ERM) for (r,) in distinct(rows, "r")]
        return draw([*pick(rows, members=2), *erm])

    return draw_ways


# which groups D-BAT loses: accuracy hides it
groups = curves(
    "r",
    {name: name for name in GROUPS},
    title="D-BAT by group (label, class of the upper image)",
    x_label=AGREEMENT,
    y_label="accuracy",
    where={**SCRATCH, **DBAT_WAY, "members": 2},
)


def worst_group_grid(by: str, title: str, **where: Value) -> Callable[[Rows], Matrix]:
    """Mean worst group: ways and another column down, r across."""
    draw = derive(
        matrix("worst", down=("way", by), across="share", title=title, label="worst group"),
        share=lambda row: f"r = {row['r']:g}",
        number=lambda row: f"{row['members']} hypotheses",
    )

    def draw_by_way(rows: Rows) -> Matrix:
        rows = [row for row in pick(rows, **where) if "r" in row]
        return draw(sorted(rows, key=lambda row: str(row["way"])))

    return draw_by_way


def table(rows: Rows) -> list[Row]:
    """Means over seeds of ERM and of two members from scratch: the choices, the members."""
    columns = ("accuracy", "opposed", "upper", *GROUPS, "relies on upper", "relies on lower")
    unlabelled = ("agreement of unlabelled", "disagreement on unlabelled")
    diversity = (*unlabelled, "disagreement on test", "mutual information")
    lines: list[Row] = []
    scratch = [{"r": "any", **row} for row in pick(rows, **FROM_SCRATCH)]
    scratch = [row for row in scratch if row["members"] in (1, 2)]
    for way, r in distinct(scratch, "way", "r"):
        here = pick(scratch, way=way, r=r)
        (choice,) = summary(("way", "r"), columns, where=ORACLE)(here)
        worsts = {
            f"worst: {selection}": average("worst", selection=selection)(here).value
            for (selection,) in distinct(here, "selection")
        }
        members = summary((), diversity, where={"part": "committee"})(here)
        lines.append({**choice, **worsts, **(members[0] if members else {})})
    return lines


LAPTOP = Config()
study = Study(
    name="diversification",
    system="05",
    differs=(
        "The paper trains ResNet-50 and ViT with several pre-trainings on Waterbirds, Office-Home "
        "and dominoes; here one network of width 100 reads dominoes of an MNIST digit above a "
        "piece of clothing (4,000 labelled and 2,000 unlabelled pairs), with 5 seeds. Instead of "
        "pre-trained encoders there are three: from scratch, and frozen ones that learned the "
        "lower or the upper image. At most 5 hypotheses are trained, and weights of the losses are "
        "the methods' own. Where an encoder is everything, as here by construction, its effect is "
        "larger than between real pre-trainings."
    ),
    not_tested=(
        "That the second-best choice of pre-training costs up to 20 points on Waterbirds and "
        "Office-Home (here it is the wrong half of a domino), and that a method's score rises or "
        "falls with real foundation models."
    ),
    source=reference("benoit2024unraveling"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            task=Dominoes(
                top=Collection.OPTDIGITS,
                bottom=Collection.FASHION_MNIST_SMALL,
                n=160,
                n_select=20,
                n_unlabelled=80,
                n_same=20,
                n_test=60,
                side=8,
            ),
            shares=(0.0, 0.5, 0.75, 1.0),
            encoders=(Encoder.SCRATCH, Encoder.UPPER_FROZEN, Encoder.LOWER_FROZEN),
            members=(2, 3),
            widths=(32,),
            before=800,
            pretraining={"steps": 40, "batch_size": 64, "lr": 5e-3},
            budget={"steps": 20, "batch_size": 32, "lr": 1e-2},
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        # the paper's Waterbirds-CC and Office-Home cannot be shipped: its synthetic set in full
        Scale.PAPER: resize(
            LAPTOP,
            task={"n": 8_000, "n_unlabelled": 2_500, "side": 28},
            members=(2, 3, 5, 16, 64),
            widths=(500, 500),
            before=40_000,
            pretraining={"steps": 5_000, "batch_size": 256},
            budget={"steps": 2_000, "batch_size": 256},
        ),
    },
    cells=lambda config: Grid((config,), config.encoders, config.seeds),
    run=run,
    claims=CLAIMS,
    figures=(
        along("accuracy", "Accuracy of the better hypothesis"),
        along("worst", "Worst of four groups"),
        along("opposed", "Accuracy on opposed pairs"),
        groups,
        worst_group_grid(
            "selection",
            "Worst group by selection (the oracle reads test labels)",
            part="chosen",
            members=2,
            **FROM_SCRATCH,
        ),
        worst_group_grid(
            "encoder",
            "Worst group by what the hidden layer knows (oracle of two)",
            members=2,
            **ORACLE,
        ),
        worst_group_grid(
            "number",
            "Worst group by the number of hypotheses (oracle, from scratch)",
            **SCRATCH,
        ),
    ),
    table=table,
)
