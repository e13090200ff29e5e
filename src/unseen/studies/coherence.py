"""Gradients agree on real labels, not on random ones; what few examples ask for can be suppressed.

Chatterjee & Zielinski (2022), arXiv:2203.10036. Three parts: coherence over training with real and
random labels, the order in which right and wrong labels are learned, and robust means of gradients
in place of the mean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf, log
from statistics import fmean, median
from typing import TypeAlias

from torch import Tensor, nn

from unseen.engine.batches import Columns, whole
from unseen.engine.evaluate import score
from unseen.engine.loop import Budget, Optimizer, Watch, erm_step, train
from unseen.lab import Lab
from unseen.measures.coherence import coherence, unbiased_alpha
from unseen.measures.learning_order import (
    HitRecorder,
    LearningOrder,
    first_learning_time,
    forgetting_events,
)
from unseen.methods.robust_gradients import MedianOfMicrobatches, RollingMedian, WinsorizedMean
from unseen.models.conv import resnet
from unseen.models.mlp import mlp
from unseen.study import Claim, Row, Scale, Study, Value, average, gap
from unseen.study.effects import ratio
from unseen.study.figures import curves, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import example, label, untrained_model
from unseen.task import Task
from unseen.tasks.images import CLASSES, Collection, Images

SGD = Budget(optimizer=Optimizer.SGD, lr=0.1, batch_size=100)
EARLY = 100
"""Steps during which gradients on random labels should not agree yet."""


@dataclass(frozen=True)
class Setting:
    """Data, network and descent of one part. No hidden width: a small residual network."""

    images: Images
    hidden: tuple[int, ...] = (256, 256)
    budget: Budget = SGD
    epochs: int = 0
    """If positive, the number of steps follows from it."""

    def network(self, task: Task) -> nn.Module:
        shape = example(task)["x"].shape
        if not self.hidden:
            return resnet(in_channels=shape[0], classes=CLASSES)
        return mlp([shape.numel(), *self.hidden, CLASSES])

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.images.n_train // self.budget.batch_size)

    def budget_with_readings(self, every: int) -> Budget:
        """The budget of all epochs, read after every `every` of them and after the last."""
        n = self.steps_per_epoch
        epochs = [*range(every, self.epochs, every), self.epochs]
        return replace(
            self.budget, steps=self.epochs * n, watch_at=tuple(epoch * n for epoch in epochs)
        )


@dataclass(frozen=True)
class Labels:
    """An arm of the first part: coherence under this share of redrawn labels."""

    noise: float
    sample: int
    """Training images on which it is measured, the same at all times."""

    def __str__(self) -> str:
        return {0.0: "real", 1.0: "random"}.get(self.noise, f"{self.noise:.0%} redrawn")


@dataclass(frozen=True)
class Networks:
    """The arm of the second part: networks whose orders of learning are compared."""

    n: int = 2


Rule: TypeAlias = WinsorizedMean | MedianOfMicrobatches | RollingMedian | None
"""An arm of the third part: how the gradients of a minibatch are averaged; None: the mean.

The budget of a rule is not used here.
"""
Arm: TypeAlias = Labels | Networks | Rule
# 24 micro-batches of 32: single examples would need all their gradients at once
LARGE_RULES = (None, WinsorizedMean(6, microbatches=24), RollingMedian(3), MedianOfMicrobatches(3))
RULES = (None, WinsorizedMean(2), WinsorizedMean(6), RollingMedian(3), MedianOfMicrobatches(3))


@dataclass(frozen=True)
class Config:
    coherence: Setting
    order: Setting
    suppression: Setting
    noises: tuple[float, ...] = (0.0, 1.0)
    sample: int = 1_000
    rules: tuple[Rule, ...] = RULES
    rates: tuple[float, ...] = (0.1,)
    """Learning rates at which the rules are compared; the claims are about the first one."""
    seeds: int = 5

    def cells(self) -> Iterator[Cell[Setting, Arm]]:
        labels = [Labels(noise, self.sample) for noise in self.noises]
        suppression = [resize(self.suppression, budget={"lr": lr}) for lr in self.rates]
        return interleave(
            Grid((self.coherence,), labels, self.seeds),
            Grid((self.order,), (Networks(),), self.seeds),
            Grid(suppression, self.rules, self.seeds),
        )


def run(cell: Cell[Setting, Arm], lab: Lab) -> Iterator[Row]:
    setting, arm = cell.setting, cell.arm
    if isinstance(arm, Labels):
        rows = coherence_rows(setting, arm, lab)
    elif isinstance(arm, Networks):
        rows = order_rows(setting, arm, lab)
    else:
        rows = suppression_rows(setting, arm, lab)
    return label(rows, seed=cell.seed)


def coherence_rows(setting: Setting, labels: Labels, lab: Lab) -> Iterator[Row]:
    """m·α of a fixed sample over training.

    Seeds share images and initial weights between real and random labels.
    """
    task = replace(setting.images, label_noise=labels.noise).build(lab.child("data"))
    images = whole(task.split("train").data, lab)
    sample = Columns(**{name: column[: labels.sample] for name, column in images.items()})
    m = len(sample)
    watch: dict[str, Watch] = {
        "alpha": lambda model: coherence(model, task.objective.loss, sample, lab).alpha,
        **accuracies(task, lab, "train", "test"),
    }
    model = untrained_model(lambda: setting.network(task), lab)
    read = train(model, task, erm_step, setting.budget, lab.child("fit"), watch).curves
    rows = [
        {"step": step, "m_alpha": m * alpha, "debiased": unbiased_alpha(alpha, m)}
        for step, alpha in zip(read["watched"], read["alpha"], strict=True)
    ]
    for row, fit, test in zip(rows, read["train"], read["test"], strict=True):
        row |= {"train": fit, "test": test}
    yield from label(rows, part="coherence", labels=str(labels))
    early = fmean(row["m_alpha"] for row in rows if row["step"] <= EARLY)
    # later a shared oscillation raises m·α whatever the labels
    half = rows[-1]["step"] / 2
    middle = [row["m_alpha"] for row in rows if EARLY < row["step"] <= half]
    yield {
        "part": "coherence summary",
        "labels": str(labels),
        "log_start": log(rows[0]["m_alpha"]),
        "early": early,
        "rise": max(middle, default=rows[-1]["m_alpha"]) - early,
        "fit": rows[-1]["train"],
        "final_test": rows[-1]["test"],
    }


def accuracies(task: Task, lab: Lab, *splits: str) -> dict[str, Watch]:
    """Watches of the accuracy on these splits."""

    def on(split: str) -> Watch:
        return lambda model: score(model, task, task.split(split), lab).value

    return {split: on(split) for split in splits}


def label_fits(
    recorder: HitRecorder, wrong: Tensor, test: Sequence[float]
) -> list[dict[str, float]]:
    """Shares of the right and of the wrong labels that the network gives back, over time.

    Beside them the test accuracy.
    """
    shares = zip(recorder.means(~wrong), recorder.means(wrong), test, strict=True)
    return [{"right_fit": r, "wrong_fit": w, "test": accuracy} for r, w, accuracy in shares]


def order_rows(setting: Setting, networks: Networks, lab: Lab) -> Iterator[Row]:
    """Networks on the same half-wrong labels: when examples are learned, how far orders agree."""
    task = setting.images.build(lab.child("data"))
    images = whole(task.split("train").data, lab)
    wrong, redrawn = images["wrong"], images["redrawn"]
    tables, gains = [], []
    for k in range(networks.n):
        recorder = HitRecorder(task.split("train"), task.objective.score, lab)
        watch: dict[str, Watch] = {"train": recorder, **accuracies(task, lab, "select", "test")}
        model = untrained_model(lambda: setting.network(task), lab.child("init"), str(k))
        budget = setting.budget_with_readings(1)
        read = train(model, task, erm_step, budget, lab.child("fit", k), watch).curves
        test, select = read["test"], read["select"]
        tables.append(recorder.hits)
        # the epoch is chosen on images that are not those of the test
        best = max(range(len(test)), key=select.__getitem__)
        gains.append(test[best] - test[-1])
        if k == 0:
            for epoch, row in enumerate(label_fits(recorder, wrong, test), 1):
                yield {"part": "order", "epoch": epoch, **row}
    epochs = first_learning_time(tables[0]) + 1
    right_epoch, wrong_epoch = (epochs[of].double().median().item() for of in (~wrong, wrong))
    forgotten, agreement = forgetting_events(tables[0]).double(), LearningOrder()
    # right and wrong labels differ so much that any two networks agree on them: within the clean
    # ones it is harder
    clean = [hits[:, ~redrawn] for hits in tables]
    yield {
        "part": "order summary",
        "right_epoch": right_epoch,
        "wrong_epoch": wrong_epoch,
        "later": wrong_epoch - right_epoch,
        "forgotten_right": forgotten[~wrong].mean().item(),
        "forgotten_wrong": forgotten[wrong].mean().item(),
        "agreement": agreement(tables, lab).value,
        "agreement_clean": agreement(clean, lab).value,
        "gain_of_stopping": fmean(gains),
    }


def suppression_rows(setting: Setting, rule: Rule, lab: Lab) -> Iterator[Row]:
    """How many right and wrong labels are fitted, and the test accuracy, over the epochs."""
    task = setting.images.build(lab.child("data"))
    wrong = whole(task.split("train").data, lab)["wrong"]
    recorder = HitRecorder(task.split("train"), task.objective.score, lab)
    watch: dict[str, Watch] = {"train": recorder, **accuracies(task, lab, "test")}
    model = untrained_model(lambda: setting.network(task), lab)
    step = rule.step() if rule else erm_step
    budget = setting.budget_with_readings(max(1, setting.epochs // 22))
    read = train(model, task, step, budget, lab.child("fit"), watch).curves
    facts: dict[str, Value] = {"rule": rule.label if rule else "SGD", "lr": setting.budget.lr}
    epochs = [int(at) // setting.steps_per_epoch for at in read["watched"]]
    shares = label_fits(recorder, wrong, read["test"])
    rows = [{"epoch": epoch, **row} for epoch, row in zip(epochs, shares, strict=True)]
    yield from label(rows, part="suppression", **facts)
    end: dict[str, Value] = {**rows[-1], "best_test": max(read["test"])}
    # equal epochs favour a slow rule; where right labels are fitted equally well it is fair
    if equal := next((row for row in rows if row["right_fit"] >= 0.8), None):
        end |= {"wrong_at_equal_fit": equal["wrong_fit"], "test_at_equal_fit": equal["test"]}
    yield {"part": "suppression summary", **facts, **end}


REAL: dict[str, Value] = {"part": "coherence summary", "labels": "real"}
RANDOM: dict[str, Value] = {"part": "coherence summary", "labels": "random"}
ORDER: dict[str, Value] = {"part": "order summary"}


def rule(name: str) -> dict[str, Value]:
    return {"part": "suppression summary", "rule": name, "lr": 0.1}


CLAIMS = (
    Claim("At the start an example's step helps at least five times as many examples with real as "
          "with random labels (m·α).",
          ratio("log_start", REAL, RANDOM), above=5, needs=Scale.SMOKE),
    Claim("During the first 100 steps gradients on random labels are nearly orthogonal: m·α "
          "below 2 (1: orthogonal).", average("early", RANDOM, within=(0, inf)), below=2),
    Claim("In the middle of training m·α of random labels rises by at least 2: common patterns are "
          "found even there.", average("rise", RANDOM), above=2),
    Claim("The same network fits random labels …",
          average("fit", RANDOM, within=(0, 1)), above=0.8),
    Claim("… and then knows nothing about new images.",
          average("final_test", RANDOM, within=(0, 1)), above=0.05, below=0.2),
    Claim("Wrong labels are learned later than right ones (difference of median epochs).",
          average("later", ORDER), above=5),
    Claim("Two networks learn the examples in the same order (Spearman's ρ).",
          average("agreement", ORDER, within=(-1, 1)), above=0.7),
    Claim("They agree also on the order of the examples whose labels were left alone.",
          average("agreement_clean", ORDER, within=(-1, 1)), above=0.5),
    Claim("Stopping early uses the shared directions only: it raises test accuracy.",
          average("gain_of_stopping", ORDER, within=(-1, 1)), above=0.05),
    Claim("Winsorizing (c=6) keeps the network from fitting wrong labels at equal epochs.",
          gap("wrong_fit", rule("SGD"), rule("winsorized c=6")), above=0.5),
    Claim("Winsorizing (c=6) raises the test accuracy at equal epochs.",
          gap("test", rule("winsorized c=6"), rule("SGD")), above=0.05),
    Claim("With large batches the median of three micro-batches (M3) fits fewer wrong labels than "
          "SGD.", gap("wrong_fit", rule("SGD"), rule("M3")), above=0.1, needs=Scale.PAPER),
    Claim("With large batches the rolling median of three (RM3) fits fewer wrong labels than SGD.",
          gap("wrong_fit", rule("SGD"), rule("RM3")), above=0.1, needs=Scale.PAPER),
)  # fmt: skip

coherence_curves = curves(
    x="step",
    y="m_alpha",
    by="labels",
    title="How many examples an average example's step helps (m·α; 1: orthogonal gradients)",
    x_label="step + 1",
    y_label="m·α",
    log_x=True,
    log_y=True,
    offset=1,
    where={"part": "coherence"},
)
over_epochs = partial(curves, x="epoch", x_label="epoch")
order_curves = over_epochs(
    y={"right labels": "right_fit", "wrong labels": "wrong_fit", "test": "test"},
    title="Right labels are fitted first",
    y_label="accuracy",
    where={"part": "order"},
)
rule_curves = partial(
    over_epochs, by="rule", y_label="accuracy", where={"part": "suppression", "lr": 0.1}
)
# the step rules at the last epoch and where 80 % of the right labels are fitted
table = summary(
    ("rule", "lr"),
    {
        "wrong labels fitted": "wrong_fit",
        "right labels fitted": "right_fit",
        "test at end": "test",
        "best test": "best_test",
        "wrong at equal fit": "wrong_at_equal_fit",
        "test at equal fit": "test_at_equal_fit",
    },
    middle=median,
    where={"part": "suppression summary"},
)

FASHION = Images(Collection.FASHION_MNIST, n_train=5_000, n_test=2_000)
NOISY = replace(FASHION, label_noise=0.5)
TIMES = (0, 10, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 4_000)
DOUBLING = (0, *(65 * 2**k for k in range(7)), 6_500)
LAPTOP = Config(
    coherence=Setting(FASHION, budget=replace(SGD, steps=4_000, watch_at=TIMES)),
    order=Setting(
        replace(NOISY, n_train=3_000, n_select=1_000),
        budget=replace(SGD, batch_size=96),
        epochs=60,
    ),
    suppression=Setting(
        replace(NOISY, n_train=1_000, side=14),
        hidden=(64, 64),
        budget=replace(SGD, batch_size=64),
        epochs=220,
    ),
)
SMALL = Images(Collection.FASHION_MNIST_SMALL, n_train=1_000, n_test=300, n_select=200)
FEW = replace(SMALL, n_train=200, label_noise=0.5)
MANY = {"n_train": 50_000, "n_test": 10_000}
START = {"steps": 20, "watch_at": (0, 20)}
SHORT = {"budget": {"batch_size": 50}, "epochs": 4}
LARGE = {"momentum": 0.9, "batch_size": 768}
RESIDUAL = {"hidden": (), "budget": LARGE, "epochs": 100}
study = Study(
    name="coherence",
    system="01",
    differs=(
        "The paper follows several vision networks, ResNet-50 on ImageNet among them; here fully "
        "connected networks (two layers of 256, or 64) learn 1,000 to 5,000 images of "
        "Fashion-MNIST, with 5 seeds. Random labels are fitted to 92 % only, coherence is read on "
        "1,000 examples, and robust means of gradients are compared at batches of 64; what the "
        "paper claims of large batches (M3, RM3) needs its networks and is not judged here. Small "
        "networks fit fast, so phases that take epochs there take tens of steps here."
    ),
    not_tested=(
        "That coherence bounds the generalization gap (the stability theorem), that it explains "
        "the choice among solutions of convolutional networks on photographs, and why depth or "
        "width help."
    ),
    source=reference("chatterjee2022mystery"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            coherence={"images": SMALL, "hidden": (256,), "budget": START},
            order={"images": FEW, "hidden": (32,), **SHORT},
            suppression={"images": replace(FEW, side=14), "hidden": (16,), **SHORT},
            seeds=3,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            coherence={
                "images": MANY,
                "hidden": (),
                "budget": {**LARGE, "steps": 6_500, "watch_at": DOUBLING},
            },
            order={"images": {**MANY, "n_select": 10_000}, **RESIDUAL},
            suppression={"images": {**MANY, "side": None}, **RESIDUAL},
            noises=(0.0, 0.25, 0.5, 0.75, 1.0),
            sample=10_000,
            rules=LARGE_RULES,
            rates=(0.1, 0.03, 0.3),
            seeds=3,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(
        coherence_curves,
        order_curves,
        rule_curves(y="wrong_fit", title="Wrong labels fitted, by step rule"),
        rule_curves(y="test", title="Test accuracy, by step rule"),
    ),
    table=table,
)
