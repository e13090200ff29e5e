"""One step of gradient descent fits flipped XOR labels with a linear classifier; later steps generalize all the same.

Xu, Wang, Frei, Vardi & Hu (2024), arXiv:2310.02541. The theorem's constants force p ≳ n⁵, beyond any run; here n and p
are moderate and the conditions that matter hold: nearly orthogonal samples and n‖μ‖⁴/p ≫ 1.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.batches import whole
from unseen.figure import Curves, Points
from unseen.lab import Lab
from unseen.measures.grokking import grokking_time, neuron_alignment, oddness
from unseen.methods.gradient_descent import gram_path, linear_path, loss_of, slope_of
from unseen.models.two_layer import TwoLayer
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, column, effects, figures, gap, pick
from unseen.study.source import Source
from unseen.task import Batch, Task
from unseen.tasks.xor_clusters import XorClusters, bayes_error


@dataclass(frozen=True)
class Setting:
    """Data and learning rate."""

    task: XorClusters = XorClusters()
    lr: float = 1e-3

    @property
    def label(self) -> str:
        task = self.task
        return f"n={task.n} p={task.dim} μ²={task.mean_norm2:g} η={task.noise:g}"


@dataclass(frozen=True)
class Config:
    settings: tuple[Setting, ...] = (
        Setting(XorClusters(n=400, dim=40_000, mean_norm2=800, noise=0.10), lr=1e-3),
        Setting(XorClusters(n=200, dim=10_000, mean_norm2=400, noise=0.10), lr=1e-2),
        Setting(XorClusters(n=200, dim=40_000, mean_norm2=600, noise=0.15), lr=1e-3),
        Setting(XorClusters(n=200, dim=10_000, mean_norm2=200, noise=0.10), lr=1e-2),
    )
    width: int = 500
    init: float = 1e-6
    # log-spaced from the start on: the transition happens between steps 1 and 10
    times: tuple[int, ...] = (0, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300)
    seeds: int = 10


@dataclass(frozen=True)
class Cell:
    setting: Setting
    width: int
    init: float
    times: tuple[int, ...]
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        for setting in config.settings:
            yield Cell(setting, config.width, config.init, config.times, seed)


@torch.no_grad()
def run(cell: Cell, lab: Lab) -> Iterable[Row]:
    task = cell.setting.task.build(lab.child("data"))
    with lab.child("init").seeded():
        model = TwoLayer(cell.setting.task.dim, cell.width, init=cell.init)
    model.to(lab.device, lab.dtype)
    facts: dict[str, Value] = {
        "setting": cell.setting.label,
        "signal": cell.setting.task.signal,
        "bayes_error": bayes_error(cell.setting.task.mean_norm2),
        "imbalance": imbalance(whole(task.splits["train"].data, lab)),
        "seed": cell.seed,
    }
    rows = [*network(cell, model, task, lab), *logistic(cell, task, lab)]
    return [{**facts, **row} for row in rows]


def network(cell: Cell, model: TwoLayer, task: Task, lab: Lab) -> list[dict[str, Value]]:
    """The two-layer network at the recorded times; its own test inputs through ZXᵀ, their mirror images for free."""
    train, test, centres = (whole(task.splits[name].data, lab) for name in ("train", "test", "centres"))
    x, norms2 = train["x"], model.hidden.weight.square().sum(1)
    hidden, judged, central = (model.hidden(batch["x"]) for batch in (train, test, centres))
    across, to_centres = test["x"] @ x.T, centres["x"] @ x.T
    path = gram_path(x @ x.T, hidden, model.head, slope_of(task.objective, train), cell.setting.lr, max(cell.times))
    rows: list[dict[str, Value]] = []
    for moment in path:
        if moment.step not in cell.times:
            continue
        pre = torch.addmm(judged, across, moment.coefficients)
        at, mirrored = pre.relu() @ model.head, (-pre).relu() @ model.head
        lengths = torch.outer(centres["x"].norm(dim=1), moment.norms2(norms2, hidden).sqrt())
        cosines = torch.addmm(central, to_centres, moment.coefficients) / lengths
        aligned = neuron_alignment(cosines.T, model.head, centres["y"])
        rows.append(
            {
                "model": "network",
                "t": moment.step,
                **hits(moment.outputs, train, at, test),
                "loss": loss_of(task.objective, train, moment.outputs).mean().item(),
                "oddness": oddness(at, mirrored),
                "aligned": aligned.share,
                "cosine": aligned.cosine,
            }
        )
    rows[-1]["grokking_time"] = grokking_time([float(row["t"]) for row in rows], [float(row["test"]) for row in rows])
    return rows


def logistic(cell: Cell, task: Task, lab: Lab) -> list[dict[str, Value]]:
    """Logistic regression by gradient descent from zero on the same data at the same times."""
    train, test = (whole(task.splits[name].data, lab) for name in ("train", "test"))
    x = train["x"]
    kernel, across = x @ x.T, test["x"] @ x.T
    path = linear_path(kernel, slope_of(task.objective, train), cell.setting.lr, max(cell.times))
    return [
        {"model": "logistic", "t": t, **hits(kernel @ c, train, across @ c, test)}
        for t, c in enumerate(path)
        if t in cell.times
    ]


def hits(fitted: Float[Tensor, " n"], train: Batch, judged: Float[Tensor, " m"], test: Batch) -> dict[str, Value]:
    """Counts of right signs: all training labels as given, the flipped among them, and clean test labels."""
    right, flipped = (fitted > 0) == (train["y"] > 0), train["flipped"]
    correct = int(((judged > 0) == (test["y"] > 0)).sum())
    return {
        "train": right.double().mean().item(),
        "train_correct": int(right.sum()),
        "train_n": len(right),
        "flipped_correct": int(right[flipped].sum()),
        "flipped_n": int(flipped.sum()),
        "test": correct / len(judged),
        "test_correct": correct,
        "test_n": len(judged),
    }


def imbalance(train: Batch) -> float:
    """The linear against the XOR part of what the labels say about the clusters, on the worse of the two axes.

    With S the sum of labels ±1 in a cluster: |S₊ − S₋| / |S₊ + S₋|. It is zero for equal clusters with equal flips and
    of order 1/√n by chance; a linear part slows the transition.
    """
    votes = train["x"].new_zeros(4).index_add_(0, train["cluster"], 2.0 * train["y"].to(train["x"]) - 1)
    plus, minus = votes[::2], votes[1::2]
    return ((plus - minus) / (plus + minus)).abs().max().item()


STRONG = 1_800  # n‖μ‖⁴/p from which the sheet of the laptop runs expects near-perfect generalization


def strong(effect: Effect) -> Effect:
    """The effect on the settings of a strong signal only."""
    return lambda rows: effect([row for row in rows if float(row["signal"]) >= STRONG])


def shortfall(t: int) -> Effect:
    """Mean test accuracy of the strong settings minus that of the weak ones at step `t`, paired by seed."""
    by_signal = gap("test", of={"strong": True}, against={"strong": False})
    return lambda rows: by_signal(
        [{**row, "strong": float(row["signal"]) >= STRONG} for row in pick(rows, model="network", t=t)]
    )


def worst(effect: Effect, ideal: float) -> Effect:
    return effects.worst(effect, "setting", ideal)


NET: dict[str, Value] = {"model": "network"}
CLAIMS = (
    Claim(
        says="One step fits every training label, flipped ones included (worst setting).",
        effect=worst(effects.share("train_correct", "train_n", **NET, t=1), 1.0),
        above=0.995,
    ),
    Claim(
        says="After one step the test accuracy is that of a coin (worst setting).",
        effect=worst(average("test", within=(0, 1), **NET, t=1), 0.5),
        above=0.44,
        below=0.56,
    ),
    Claim(
        says="After one step the network is nearly linear: oddness near 1 (worst setting).",
        effect=worst(average("oddness", within=(0, 1), **NET, t=1), 1.0),
        above=0.9,
    ),
    Claim(
        says="After 100 steps the test accuracy is near 1 where n‖μ‖⁴/p ≥ 1800 (worst such setting).",
        effect=strong(worst(effects.share("test_correct", "test_n", **NET, t=100), 1.0)),
        above=0.98,
    ),
    Claim(
        says="The flipped training labels are still fitted at step 100 (worst setting).",
        effect=worst(effects.share("flipped_correct", "flipped_n", **NET, t=100), 1.0),
        above=0.97,  # ≈ 200 flipped labels per setting: Wilson's lower limit of all right is 0.98
    ),
    Claim(
        says="A weak signal (n‖μ‖⁴/p = 800) ends visibly below, as the rate predicts.",
        effect=shortfall(t=300),
        above=0.02,
    ),
    Claim(
        says="By step 100 neurons point at the clusters they vote for (worst strong setting; chance is 0.5).",
        effect=strong(worst(average("aligned", within=(0, 1), **NET, t=100), 1.0)),
        above=0.9,
    ),
    Claim(
        says="Logistic regression stays at chance on the same data (worst setting, last step).",
        effect=worst(average("test", within=(0, 1), model="logistic", t=300), 0.5),
        above=0.44,
        below=0.56,
    ),
)


def curves(rows: Rows) -> Curves:
    """Median test accuracy over training."""
    linear = [{**row, "setting": "logistic regression (all settings)"} for row in pick(rows, model="logistic")]
    return figures.curves(
        [*by_label(pick(rows, **NET)), *linear],
        x="t",
        y="test",
        by="setting",
        title="Test accuracy on clean labels (median over seeds)",
        x_label="step + 1",
        y_label="accuracy",
        log_x=True,
        offset=1,
        middle=median,
    )


def by_label(rows: Rows) -> list[Row]:
    return sorted(rows, key=lambda row: str(row["setting"]))


def linearity(rows: Rows) -> Points:
    """Test accuracy against oddness along training."""
    return figures.points(
        by_label([row for row in pick(rows, **NET) if row["t"]]),
        x="oddness",
        y="test",
        by="setting",
        over="t",
        title="The network leaves the linear classifiers as it generalizes",
        x_label="oddness (1: linear, 0: even)",
        y_label="test accuracy",
        middle=median,
    )


def imbalances(rows: Rows) -> Points:
    """Why seeds differ: test accuracy early on against the imbalance of the training clusters."""
    t = max(int(row["t"]) for row in rows if int(row["t"]) <= 10)
    return figures.points(
        by_label(pick(rows, t=t, **NET)),
        x="imbalance",
        y="test",
        by="setting",
        title=f"Chance imbalance of the clusters delays generalization (step {t}, one point per seed)",
        x_label="linear / XOR part of the cluster labels",
        y_label="test accuracy",
    )


def table(rows: Rows) -> Sequence[Row]:
    """The sheet's table: medians over seeds, with the lowest seed where seeds disagree."""
    made: list[Row] = []
    last = max(int(row["t"]) for row in rows)
    for (label,) in effects.distinct(by_label(rows), "setting"):
        mine = pick(rows, setting=label)
        net = pick(mine, **NET)
        row: dict[str, Value] = {"setting": label, "n‖μ‖⁴/p": column(mine, "signal")[0]}
        for t in sorted({1, min(10, last), min(100, last)}):
            row[f"train t={t}"] = median(column(net, "train", t=t))
            row[f"test t={t}"] = median(column(net, "test", t=t))
            row[f"lowest test t={t}"] = min(column(net, "test", t=t))
            row[f"oddness t={t}"] = median(column(net, "oddness", t=t))
        row["aligned at the end"] = median(column(net, "aligned", t=last))
        row["grokking step"] = median(column(net, "grokking_time"))
        row["logistic at the end"] = median(column(mine, "test", t=last, model="logistic"))
        made.append(row)
    return made


def phase_diagram() -> tuple[Setting, ...]:
    """n, p, ‖μ‖² and η around the laptop settings, with learning rates that keep lr · p as there."""
    return tuple(
        Setting(XorClusters(n=n, dim=dim, mean_norm2=ratio * dim**0.5, noise=noise, n_judge=10_000), lr=40 / dim)
        for n in (100, 200, 400, 800)
        for dim in (40_000, 100_000, 400_000)
        for ratio in (1.0, 2.0, 4.0)
        for noise in (0.05, 0.10, 0.20)
    )


study = Study(
    name="xor_grokking",
    system="07",
    source=Source(
        key="xu2024benign",
        title="Benign Overfitting and Grokking in ReLU Networks for XOR Cluster Data",
        authors=("Xu, Zhiwei", "Wang, Yutong", "Frei, Spencer", "Vardi, Gal", "Hu, Wei"),
        year=2024,
        venue="ICLR",
        arxiv="2310.02541",
    ),
    scales={
        Scale.SMOKE: Config(
            settings=(
                Setting(XorClusters(n=100, dim=5_000, mean_norm2=400, noise=0.10), lr=1e-2),
                Setting(XorClusters(n=100, dim=5_000, mean_norm2=150, noise=0.10), lr=1e-2),
            ),
            width=100,
            seeds=2,
        ),
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(settings=phase_diagram(), width=10_000, seeds=10),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(curves, linearity, imbalances),
    table=table,
)
