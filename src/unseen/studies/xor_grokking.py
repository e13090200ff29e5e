"""One step of descent fits flipped XOR labels with a linear classifier; later steps generalize.

Xu, Wang, Frei, Vardi & Hu (2024), arXiv:2310.02541. The theorem's constants force p ≳ n⁵, beyond
any run; here n and p are moderate and the conditions that matter hold: nearly orthogonal samples
and n‖μ‖⁴/p ≫ 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.batches import whole
from unseen.figure import Curves, Points
from unseen.lab import Lab
from unseen.measures.grokking import grokking_time, neuron_alignment, oddness
from unseen.methods.gradient_descent import gram_path, linear_path, loss_of, slope_of
from unseen.models.two_layer import TwoLayer
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, column, gap, pick
from unseen.study.effects import derive, distinct, restrict, share, worst
from unseen.study.figures import curves, points
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
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
class Network:
    width: int = 500
    init: float = 1e-6
    # log-spaced from the start on: the transition happens between steps 1 and 10
    times: tuple[int, ...] = (0, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300)


@dataclass(frozen=True)
class Config:
    settings: tuple[Setting, ...] = (
        Setting(XorClusters(n=400, dim=40_000, mean_norm2=800, noise=0.10), lr=1e-3),
        Setting(XorClusters(n=200, dim=10_000, mean_norm2=400, noise=0.10), lr=1e-2),
        Setting(XorClusters(n=200, dim=40_000, mean_norm2=600, noise=0.15), lr=1e-3),
        Setting(XorClusters(n=200, dim=10_000, mean_norm2=200, noise=0.10), lr=1e-2),
    )
    network: Network = Network()
    seeds: int = 20


XorCell: TypeAlias = Cell[Setting, Network]


@torch.no_grad()
def run(cell: XorCell, lab: Lab) -> Sequence[Row]:
    spec, shape = cell.setting.task, cell.arm
    task = spec.build(lab.child("data"))
    model = untrained_model(lambda: TwoLayer(spec.dim, shape.width, init=shape.init), lab)
    model.to(lab.device, lab.dtype)
    rows = [*network(cell, model, task, lab), *logistic(cell, task, lab)]
    facts: dict[str, Value] = {
        "setting": cell.setting.label,
        "signal": spec.signal,
        "bayes_error": bayes_error(spec.mean_norm2),
        "imbalance": imbalance(whole(task.splits["train"].data, lab)),
        "seed": cell.seed,
    }
    return list(label(rows, **facts))


def network(cell: XorCell, model: TwoLayer, task: Task, lab: Lab) -> list[dict[str, Value]]:
    """The two-layer network at the recorded times.

    Its own test inputs go through ZXᵀ; their mirror images cost nothing.
    """
    batches = [whole(task.splits[name].data, lab) for name in ("train", "test", "centres")]
    train, test, centres = batches
    hidden, tested, central = (model.hidden(batch["x"]) for batch in batches)
    x, norms2 = train["x"], model.hidden.weight.square().sum(1)
    to_test, to_centres = test["x"] @ x.T, centres["x"] @ x.T
    slope, times = slope_of(task.objective, train), cell.arm.times
    rows: list[dict[str, Value]] = []
    for moment in gram_path(x @ x.T, hidden, model.head, slope, cell.setting.lr, max(times)):
        if moment.step not in times:
            continue
        before = torch.addmm(tested, to_test, moment.coefficients)
        outputs, mirrored = before.relu() @ model.head, (-before).relu() @ model.head
        lengths = torch.outer(centres["x"].norm(dim=1), moment.norms2(norms2, hidden).sqrt())
        cosines = torch.addmm(central, to_centres, moment.coefficients) / lengths
        aligned = neuron_alignment(cosines.T, model.head, centres["y"])
        rows.append(
            {
                "model": "network",
                "t": moment.step,
                **hits(moment.outputs, train, outputs, test),
                "loss": loss_of(task.objective, train, moment.outputs).mean().item(),
                "oddness": oddness(outputs, mirrored),
                "aligned": aligned.share,
                "cosine": aligned.cosine,
            }
        )
    steps, accuracies = ([float(row[name]) for row in rows] for name in ("t", "test"))
    rows[-1]["grokking_time"] = grokking_time(steps, accuracies)
    return rows


def logistic(cell: XorCell, task: Task, lab: Lab) -> Iterator[dict[str, Value]]:
    """Logistic regression by gradient descent from zero on the same data at the same times."""
    train, test = (whole(task.splits[name].data, lab) for name in ("train", "test"))
    x, times = train["x"], cell.arm.times
    kernel, to_test = x @ x.T, test["x"] @ x.T
    path = linear_path(kernel, slope_of(task.objective, train), cell.setting.lr, max(times))
    for t, weights in enumerate(path):
        if t in times:
            found = hits(kernel @ weights, train, to_test @ weights, test)
            yield {"model": "logistic", "t": t, **found}


def hits(
    fitted: Float[Tensor, " n"], train: Batch, tested: Float[Tensor, " m"], test: Batch
) -> dict[str, Value]:
    """Counts of right signs: training labels as given, the flipped ones, and clean test labels."""
    right, flipped = (fitted > 0) == (train["y"] > 0), train["flipped"]
    correct = int(((tested > 0) == (test["y"] > 0)).sum())
    return {
        "train": right.double().mean().item(),
        "train_correct": int(right.sum()),
        "train_n": len(right),
        "flipped_correct": int(right[flipped].sum()),
        "flipped_n": int(flipped.sum()),
        "test": correct / len(tested),
        "test_correct": correct,
        "test_n": len(tested),
    }


def imbalance(train: Batch) -> float:
    """The linear against the XOR part of what the labels say of the clusters, on the worse axis.

    With S the sum of labels ±1 in a cluster: |S₊ − S₋| / |S₊ + S₋|. It is zero for equal clusters
    with equal flips and of order 1/√n by chance; a linear part slows the transition.
    """
    signs = 2.0 * train["y"].to(train["x"]) - 1
    votes = train["x"].new_zeros(4).index_add_(0, train["cluster"], signs)
    plus, minus = votes[::2], votes[1::2]
    return ((plus - minus) / (plus + minus)).abs().max().item()


STRONG = 3_200
"""n‖μ‖⁴/p from which laptop runs are expected to generalize near-perfectly."""
BOUNDARY = 1_800
"""Where they are expected to find the clusters; how near to perfect is reported, not judged."""
NET: dict[str, Value] = {"model": "network"}
SHARE = (0, 1)


def at_least(signal: float, effect: Effect) -> Effect:
    """The effect on the settings of such a signal only."""
    return restrict(effect, lambda row: float(row["signal"]) >= signal)


def strength(row: Row) -> str:
    """Strong, weak, or at the boundary between them."""
    signal = float(row["signal"])
    return "strong" if signal >= STRONG else "boundary" if signal >= BOUNDARY else "weak"


def shortfall(t: int) -> Effect:
    """Mean test accuracy of the strong settings minus that of the weak ones at step `t`."""
    at: dict[str, Value] = {**NET, "t": t}
    difference = gap("test", {**at, "strength": "strong"}, {**at, "strength": "weak"})
    return derive(difference, strength=strength)


def worst_setting(effect: Effect, ideal: float) -> Effect:
    return worst(effect, "setting", ideal)


def label_accuracy(which: str, t: int) -> Effect:
    """Share of labels that the network gets right in the worst setting."""
    return worst_setting(share(f"{which}_correct", f"{which}_n", NET, t=t), 1.0)


CLAIMS = (
    Claim("One step fits every training label, flipped ones included (worst setting).",
          label_accuracy("train", t=1), above=0.995),
    Claim("After one step the test accuracy is that of a coin (worst setting).",
          worst_setting(average("test", NET, t=1, within=SHARE), 0.5), above=0.44, below=0.56),
    Claim("After one step the network is nearly linear: oddness near 1 (worst setting).",
          worst_setting(average("oddness", NET, t=1, within=SHARE), 1.0), above=0.9),
    Claim("After 100 steps the test accuracy is near 1 where n‖μ‖⁴/p ≥ 3200 (worst such setting).",
          at_least(STRONG, label_accuracy("test", t=100)), above=0.98),
    # ≈ 200 flipped labels per setting: Wilson's lower limit of all right is 0.98
    Claim("The flipped training labels are still fitted at step 100 (worst setting).",
          label_accuracy("flipped", t=100), above=0.97),
    Claim("A weak signal (n‖μ‖⁴/p = 800) ends visibly below, as the rate predicts.",
          shortfall(t=300), above=0.02),
    Claim("By step 100 neurons point at the clusters they vote for where n‖μ‖⁴/p ≥ 1800 (worst "
          "such setting; chance is 0.5).",
          at_least(BOUNDARY, worst_setting(average("aligned", NET, t=100, within=SHARE), 1.0)),
          above=0.9),
    Claim("Logistic regression stays at chance on the same data (worst setting, last step).",
          worst_setting(average("test", model="logistic", t=300, within=SHARE), 0.5), above=0.44,
          below=0.56),
)  # fmt: skip


def by_label(rows: Rows) -> list[Row]:
    return sorted(rows, key=lambda row: str(row["setting"]))


def accuracies(rows: Rows) -> Curves:
    """Median test accuracy over training, of logistic regression in all settings together."""
    linear = pick(rows, model="logistic")
    named = [{**row, "setting": "logistic regression (all settings)"} for row in linear]
    draw = curves(
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
    return draw([*by_label(pick(rows, **NET)), *named])


def linearity(rows: Rows) -> Points:
    """Test accuracy against oddness along training."""
    draw = points(
        x="oddness",
        y="test",
        by="setting",
        over="t",
        title="The network leaves the linear classifiers as it generalizes",
        x_label="oddness (1: linear, 0: even)",
        y_label="test accuracy",
        middle=median,
        where=NET,
    )
    return draw(by_label([row for row in rows if row["t"]]))


def imbalances(rows: Rows) -> Points:
    """Why seeds differ: test accuracy early on against the imbalance of the training clusters."""
    t = max(int(row["t"]) for row in rows if int(row["t"]) <= 10)
    draw = points(
        x="imbalance",
        y="test",
        by="setting",
        title=f"Chance imbalance of the clusters delays generalization (step {t}, one point per "
        "seed)",
        x_label="linear / XOR part of the cluster labels",
        y_label="test accuracy",
        where={**NET, "t": t},
    )
    return draw(by_label(rows))


def table(rows: Rows) -> Sequence[Row]:
    """Medians over seeds, with the lowest seed where seeds disagree."""
    lines: list[Row] = []
    last = max(int(row["t"]) for row in rows)
    for (setting,) in distinct(by_label(rows), "setting"):
        here = pick(rows, setting=setting)
        net = pick(here, **NET)
        line: dict[str, Value] = {"setting": setting, "n‖μ‖⁴/p": column(here, "signal")[0]}
        for t in sorted({1, min(10, last), min(100, last)}):
            line[f"train t={t}"] = median(column(net, "train", t=t))
            line[f"test t={t}"] = median(column(net, "test", t=t))
            line[f"lowest test t={t}"] = min(column(net, "test", t=t))
            line[f"oddness t={t}"] = median(column(net, "oddness", t=t))
        line["aligned at the end"] = median(column(net, "aligned", t=last))
        line["grokking step"] = median(column(net, "grokking_time"))
        line["logistic at the end"] = median(column(here, "test", t=last, model="logistic"))
        lines.append(line)
    return lines


def phase_diagram() -> Iterator[Setting]:
    """n, p, ‖μ‖² and η around the laptop settings; lr · p as there."""
    for n, dim, ratio, noise in product(
        (100, 200, 400, 800), (40_000, 100_000, 400_000), (1.0, 2.0, 4.0), (0.05, 0.10, 0.20)
    ):
        task = XorClusters(
            n=n, dim=dim, mean_norm2=ratio * dim**0.5, noise=noise, n_evaluate=10_000
        )
        yield Setting(task, lr=40 / dim)


SMALL = XorClusters(n=100, dim=5_000, mean_norm2=400, noise=0.10)
LAPTOP = Config()
study = Study(
    name="xor_grokking",
    system="07",
    differs=(
        "The theorem needs a dimension p that grows like n⁵; here n is 200 or 400, p is 10,000 or "
        "40,000 and the network has 500 neurons, with 20 seeds, so that samples are nearly "
        "orthogonal and the signal n‖μ‖⁴/p, which the rate depends on, is between 800 and 6,400. "
        "One test set of 1,000 points a seed cannot see errors below a tenth of a percent. "
        "Clusters are as unequal as chance makes them, which delays the transition in some seeds."
    ),
    not_tested=(
        "The rate itself (test error exponential in n‖μ‖⁴/p), the number of steps after which it "
        "holds, and widths as small as the theorem allows."
    ),
    source=reference("xu2024benign"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            settings=(
                Setting(SMALL, lr=1e-2),
                Setting(resize(SMALL, mean_norm2=150), lr=1e-2),
            ),
            network={"width": 100},
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(LAPTOP, settings=tuple(phase_diagram()), network={"width": 10_000}),
    },
    cells=lambda config: Grid(config.settings, (config.network,), config.seeds),
    run=run,
    claims=CLAIMS,
    figures=(accuracies, linearity, imbalances),
    table=table,
)
