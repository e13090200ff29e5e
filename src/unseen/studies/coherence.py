"""Per-example gradients agree on real labels and not on random ones; what few examples ask for can be suppressed.

Chatterjee & Zielinski (2022), arXiv:2203.10036. Three parts: coherence over training with real and random labels, the
order in which right and wrong labels are learned, and robust means of gradients in place of the mean.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf, log
from statistics import fmean, median

from torch import Tensor, nn

from unseen.engine.batches import Columns, whole
from unseen.engine.evaluate import score
from unseen.engine.loop import Budget, Optimizer, Watch, erm_step, train
from unseen.figure import Curves
from unseen.lab import Lab
from unseen.measures.coherence import coherence, unbiased_alpha
from unseen.measures.learning_order import HitRecorder, LearningOrder, first_learning_time, forgetting_events
from unseen.methods.robust_gradients import MedianOfMicrobatches, RollingMedian, WinsorizedMean
from unseen.models.conv import resnet
from unseen.models.mlp import mlp
from unseen.study import Claim, Row, Rows, Scale, Study, Value, average, effects, figures, gap, pick
from unseen.study.source import Source
from unseen.task import Task
from unseen.tasks.images import CLASSES, Collection, Images

SGD = Budget(optimizer=Optimizer.SGD, lr=0.1, batch_size=100)


@dataclass(frozen=True)
class Setting:
    """Data, network and descent of one part. No hidden width: a small residual network."""

    images: Images
    hidden: tuple[int, ...] = (256, 256)
    budget: Budget = SGD
    epochs: int = 0
    """If positive, the number of steps follows from it."""

    def model(self, task: Task, lab: Lab) -> nn.Module:
        shape = task.split("train").data[0]["x"].shape
        with lab.seeded():
            if not self.hidden:
                return resnet(in_channels=shape[0], classes=CLASSES)
            return mlp([shape.numel(), *self.hidden, CLASSES])

    @property
    def per_epoch(self) -> int:
        return max(1, self.images.n_train // self.budget.batch_size)

    def budget_with_readings(self, every: int) -> Budget:
        """The budget of all epochs, read after every `every` of them and after the last."""
        at = [*range(every, self.epochs, every), self.epochs]
        return replace(self.budget, steps=self.epochs * self.per_epoch, watch_at=tuple(e * self.per_epoch for e in at))


Rule = WinsorizedMean | MedianOfMicrobatches | RollingMedian | None
"""How the gradients of a minibatch are averaged; None: the mean. The budget of a rule is not used here."""
RULES: tuple[Rule, ...] = (None, WinsorizedMean(2), WinsorizedMean(6), RollingMedian(3), MedianOfMicrobatches(3))
EARLY = 100
"""Steps during which gradients on random labels should not agree yet."""


@dataclass(frozen=True)
class Config:
    coherence: Setting
    order: Setting
    suppression: Setting
    noises: tuple[float, ...] = (0.0, 1.0)
    """Shares of redrawn labels under which coherence is followed."""
    sample: int = 1_000
    """Fitted images on which it is measured, the same at all times."""
    rules: tuple[Rule, ...] = RULES
    rates: tuple[float, ...] = (0.1,)
    """Learning rates at which the rules are compared; the claims are about the first one."""
    seeds: int = 5


@dataclass(frozen=True)
class CoherenceCell:
    setting: Setting
    noise: float
    sample: int
    seed: int


@dataclass(frozen=True)
class OrderCell:
    setting: Setting
    seed: int


@dataclass(frozen=True)
class SuppressionCell:
    setting: Setting
    rule: Rule
    seed: int


Cell = CoherenceCell | OrderCell | SuppressionCell


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        for noise in config.noises:
            yield CoherenceCell(config.coherence, noise, config.sample, seed)
        yield OrderCell(config.order, seed)
        for rule in config.rules:
            for lr in config.rates:
                budget = replace(config.suppression.budget, lr=lr)
                yield SuppressionCell(replace(config.suppression, budget=budget), rule, seed)


def run(cell: Cell, lab: Lab) -> Iterable[Row]:
    if isinstance(cell, CoherenceCell):
        return coherence_rows(cell, lab)
    return order_rows(cell, lab) if isinstance(cell, OrderCell) else suppression_rows(cell, lab)


def coherence_rows(cell: CoherenceCell, lab: Lab) -> Iterator[Row]:
    """m·α of a fixed sample over training; seeds share images and initial weights between real and random labels."""
    task = replace(cell.setting.images, label_noise=cell.noise).build(lab.child("data"))
    sample = Columns(**{name: x[: cell.sample] for name, x in whole(task.split("train").data, lab).items()})
    m = len(sample)
    watch: dict[str, Watch] = {
        "alpha": lambda model: coherence(model, task.objective.loss, sample, lab).alpha,
        "train": accuracy(task, "train", lab),
        "test": accuracy(task, "test", lab),
    }
    model = cell.setting.model(task, lab.child("init"))
    curves = train(model, task, erm_step, cell.setting.budget, lab.child("fit"), watch).curves
    labels = {0.0: "real", 1.0: "random"}.get(cell.noise, f"{cell.noise:.0%} redrawn")
    facts: dict[str, Value] = {"part": "coherence", "labels": labels, "seed": cell.seed}
    along = zip(curves["watched"], curves["alpha"], curves["train"], curves["test"], strict=True)
    rows = [
        {"step": step, "m_alpha": m * alpha, "debiased": unbiased_alpha(alpha, m), "train": fit, "test": judged}
        for step, alpha, fit, judged in along
    ]
    yield from ({**facts, **row} for row in rows)
    early = fmean(row["m_alpha"] for row in rows if row["step"] <= EARLY)
    half = max(row["step"] for row in rows) / 2  # later a shared oscillation raises m·α whatever the labels
    middle = [row["m_alpha"] for row in rows if EARLY < row["step"] <= half] or [rows[-1]["m_alpha"]]
    yield {
        **facts,
        "part": "coherence summary",
        "log_start": log(rows[0]["m_alpha"]),
        "early": early,
        "rise": max(middle) - early,
        "fit": rows[-1]["train"],
        "final_test": rows[-1]["test"],
    }


def accuracy(task: Task, split: str, lab: Lab) -> Watch:
    return lambda model: score(model, task, task.split(split), lab).value


def label_fits(recorder: HitRecorder, wrong: Tensor, test: Sequence[float]) -> list[dict[str, float]]:
    """Shares of the right and of the wrong labels that the network gives back, beside the test accuracy, over time."""
    by_label = zip(recorder.means(~wrong), recorder.means(wrong), test, strict=True)
    return [{"right_fit": right, "wrong_fit": wrong, "test": judged} for right, wrong, judged in by_label]


def order_rows(cell: OrderCell, lab: Lab) -> Iterator[Row]:
    """Two networks on the same half-wrong labels: when each example is learned, and how far the two agree."""
    task = cell.setting.images.build(lab.child("data"))
    data = whole(task.split("train").data, lab)
    wrong, redrawn = data["wrong"], data["redrawn"]
    tables, gains = [], []
    for k in range(2):
        recorder = HitRecorder(task.split("train"), task.objective.score, lab)
        watch: dict[str, Watch] = {"train": recorder} | {name: accuracy(task, name, lab) for name in ("select", "test")}
        model = cell.setting.model(task, lab.child("init", k))
        curves = train(model, task, erm_step, cell.setting.budget_with_readings(1), lab.child("fit", k), watch).curves
        tables.append(recorder.hits)
        # the epoch is chosen on images that are not those of the test
        best = max(range(len(curves["test"])), key=lambda epoch: curves["select"][epoch])
        gains.append(curves["test"][best] - curves["test"][-1])
        if k == 0:
            for epoch, row in enumerate(label_fits(recorder, wrong, curves["test"]), 1):
                yield {"part": "order", "seed": cell.seed, "epoch": epoch, **row}
    epochs, lost, agree = first_learning_time(tables[0]) + 1, forgetting_events(tables[0]).double(), LearningOrder()
    right_epoch, wrong_epoch = (epochs[of].double().median().item() for of in (~wrong, wrong))
    yield {
        "part": "order summary",
        "seed": cell.seed,
        "right_epoch": right_epoch,
        "wrong_epoch": wrong_epoch,
        "later": wrong_epoch - right_epoch,
        "forgotten_right": lost[~wrong].mean().item(),
        "forgotten_wrong": lost[wrong].mean().item(),
        "agreement": agree(tables, lab).value,
        # right and wrong labels differ so much that any two networks agree on them: within the clean ones it is harder
        "agreement_clean": agree([hits[:, ~redrawn] for hits in tables], lab).value,
        "gain_of_stopping": fmean(gains),
    }


def suppression_rows(cell: SuppressionCell, lab: Lab) -> Iterator[Row]:
    """How many right and wrong labels are fitted, and the test accuracy, over the epochs."""
    task = cell.setting.images.build(lab.child("data"))
    wrong = whole(task.split("train").data, lab)["wrong"]
    recorder = HitRecorder(task.split("train"), task.objective.score, lab)
    watch: dict[str, Watch] = {"train": recorder, "test": accuracy(task, "test", lab)}
    budget = cell.setting.budget_with_readings(max(1, cell.setting.epochs // 22))
    step = cell.rule.step() if cell.rule else erm_step
    curves = train(cell.setting.model(task, lab.child("init")), task, step, budget, lab.child("fit"), watch).curves
    name = cell.rule.label if cell.rule else "SGD"
    facts: dict[str, Value] = {"rule": name, "lr": cell.setting.budget.lr, "seed": cell.seed}
    epochs = [int(at) // cell.setting.per_epoch for at in curves["watched"]]
    shares = label_fits(recorder, wrong, curves["test"])
    rows = [{"epoch": epoch, **row} for epoch, row in zip(epochs, shares, strict=True)]
    yield from ({"part": "suppression", **facts, **row} for row in rows)
    summary: dict[str, Value] = {"part": "suppression summary", **facts, **rows[-1], "best_test": max(curves["test"])}
    # equal epochs favour a slow rule; where the right labels are fitted equally well the comparison is fair
    if equal := next((row for row in rows if row["right_fit"] >= 0.8), None):
        summary |= {"wrong_at_equal_fit": equal["wrong_fit"], "test_at_equal_fit": equal["test"]}
    yield summary


REAL: dict[str, Value] = {"part": "coherence summary", "labels": "real"}
RANDOM: dict[str, Value] = {"part": "coherence summary", "labels": "random"}
ORDER: dict[str, Value] = {"part": "order summary"}


def rule(name: str) -> dict[str, Value]:
    return {"part": "suppression summary", "rule": name, "lr": 0.1}


CLAIMS = (
    Claim(
        says="At the start an example's step helps many times more examples with real than with random labels (m·α).",
        effect=effects.ratio("log_start", REAL, RANDOM),
        above=5,
        needs=Scale.SMOKE,
    ),
    Claim(
        says="During the first 100 steps gradients on random labels are nearly orthogonal: m·α near 1.",
        effect=average("early", within=(0, inf), **RANDOM),
        above=0,
        below=2,
    ),
    Claim(
        says="In the middle of training m·α of random labels rises: common patterns are found even there.",
        effect=average("rise", within=(-inf, inf), **RANDOM),
        above=2,
    ),
    Claim(says="The same network fits random labels …", effect=average("fit", within=(0, 1), **RANDOM), above=0.8),
    Claim(
        says="… and then knows nothing about new images.",
        effect=average("final_test", within=(0, 1), **RANDOM),
        above=0.05,
        below=0.2,
    ),
    Claim(
        says="Wrong labels are learned later than right ones (difference of median epochs).",
        effect=average("later", within=(-inf, inf), **ORDER),
        above=5,
    ),
    Claim(
        says="Two networks learn the examples in the same order (Spearman's ρ).",
        effect=average("agreement", within=(-1, 1), **ORDER),
        above=0.7,
    ),
    Claim(
        says="They agree also on the order of the examples whose labels were left alone.",
        effect=average("agreement_clean", within=(-1, 1), **ORDER),
        above=0.5,
    ),
    Claim(
        says="Stopping early uses the shared directions only: it raises test accuracy.",
        effect=average("gain_of_stopping", within=(-1, 1), **ORDER),
        above=0.05,
    ),
    Claim(
        says="Winsorizing (c=6) keeps the network from fitting wrong labels at equal epochs.",
        effect=gap("wrong_fit", rule("SGD"), rule("winsorized c=6")),
        above=0.5,
    ),
    Claim(
        says="Winsorizing (c=6) raises the test accuracy at equal epochs.",
        effect=gap("test", rule("winsorized c=6"), rule("SGD")),
        above=0.05,
    ),
    Claim(
        says="With large batches the median of three micro-batches (M3) fits fewer wrong labels than SGD.",
        effect=gap("wrong_fit", rule("SGD"), rule("M3")),
        above=0.1,
        needs=Scale.PAPER,
    ),
    Claim(
        says="With large batches the rolling median of three (RM3) fits fewer wrong labels than SGD.",
        effect=gap("wrong_fit", rule("SGD"), rule("RM3")),
        above=0.1,
        needs=Scale.PAPER,
    ),
)


def coherence_curves(rows: Rows) -> Curves:
    return figures.curves(
        x="step",
        y="m_alpha",
        by="labels",
        title="How many examples an average example's step helps (m·α; 1: orthogonal gradients)",
        x_label="step + 1",
        y_label="m·α",
        log_x=True,
        log_y=True,
        offset=1,
    )(pick(rows, part="coherence"))


def order_curves(rows: Rows) -> Curves:
    columns = {"right labels": "right_fit", "wrong labels": "wrong_fit", "test": "test"}
    title = "Right labels are fitted first"
    order = pick(rows, part="order")
    return figures.curves(x="epoch", y=columns, title=title, x_label="epoch", y_label="accuracy")(order)


def suppression_curves(rows: Rows, key: str, title: str) -> Curves:
    chosen = pick(rows, part="suppression", lr=0.1)
    return figures.curves(x="epoch", y=key, by="rule", title=title, x_label="epoch", y_label="accuracy")(chosen)


def table(rows: Rows) -> Sequence[Row]:
    """The step rules at the last epoch and where 80 % of the right labels are fitted (medians over seeds)."""
    columns = {
        "wrong labels fitted": "wrong_fit",
        "right labels fitted": "right_fit",
        "test at end": "test",
        "best test": "best_test",
        "wrong at equal fit": "wrong_at_equal_fit",
        "test at equal fit": "test_at_equal_fit",
    }
    return figures.summary(("rule", "lr"), columns, median)(pick(rows, part="suppression summary"))


FASHION = Images(Collection.FASHION_MNIST, n_train=5_000, n_test=2_000)
TIMES = (0, 10, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 4_000)
SMALL = Images(Collection.FASHION_MNIST_SMALL, n_train=1_000, n_test=300, n_select=200)

study = Study(
    name="coherence",
    system="01",
    source=Source(
        key="chatterjee2022mystery",
        title="On the Generalization Mystery in Deep Learning",
        authors=("Chatterjee, Satrajit", "Zielinski, Piotr"),
        year=2022,
        arxiv="2203.10036",
    ),
    scales={
        Scale.SMOKE: Config(
            coherence=Setting(SMALL, (256,), replace(SGD, steps=20, watch_at=(0, 20))),
            order=Setting(replace(SMALL, n_train=200, label_noise=0.5), (32,), replace(SGD, batch_size=50), epochs=4),
            suppression=Setting(
                replace(SMALL, n_train=200, side=14, label_noise=0.5), (16,), replace(SGD, batch_size=50), epochs=4
            ),
            seeds=3,
        ),
        Scale.LAPTOP: Config(
            coherence=Setting(FASHION, budget=replace(SGD, steps=4_000, watch_at=TIMES)),
            order=Setting(
                replace(FASHION, n_train=3_000, n_select=1_000, label_noise=0.5),
                budget=replace(SGD, batch_size=96),
                epochs=60,
            ),
            suppression=Setting(
                replace(FASHION, n_train=1_000, side=14, label_noise=0.5),
                (64, 64),
                replace(SGD, batch_size=64),
                epochs=220,
            ),
        ),
        Scale.PAPER: Config(
            coherence=Setting(
                replace(FASHION, n_train=50_000, n_test=10_000),
                (),
                replace(
                    SGD, momentum=0.9, batch_size=768, steps=6_500, watch_at=(0, *(65 * 2**k for k in range(7)), 6_500)
                ),
            ),
            order=Setting(
                replace(FASHION, n_train=50_000, n_test=10_000, n_select=10_000, label_noise=0.5),
                (),
                replace(SGD, momentum=0.9, batch_size=768),
                epochs=100,
            ),
            suppression=Setting(
                replace(FASHION, n_train=50_000, n_test=10_000, label_noise=0.5),
                (),
                replace(SGD, momentum=0.9, batch_size=768),
                epochs=100,
            ),
            noises=(0.0, 0.25, 0.5, 0.75, 1.0),
            sample=10_000,
            # winsorizing compares 24 micro-batches of 32: single examples would need all their gradients at once
            rules=(None, WinsorizedMean(6, microbatches=24), RollingMedian(3), MedianOfMicrobatches(3)),
            rates=(0.1, 0.03, 0.3),
            seeds=3,
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(
        coherence_curves,
        order_curves,
        partial(suppression_curves, key="wrong_fit", title="Wrong labels fitted, by step rule"),
        partial(suppression_curves, key="test", title="Test accuracy, by step rule"),
    ),
    table=table,
)
