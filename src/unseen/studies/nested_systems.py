"""Systems whose state moves their own wires do what no fixed wiring does (Spivak & Hosgood, 2021,
arXiv:2111.01297).

Part "controllers": a plant whose response reverses, and two controllers of which one fits. Part
"learners": two networks on a stream whose labels change their meaning and change back.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from unseen.engine.batches import once
from unseen.figure import Diagram
from unseen.lab import Lab
from unseen.models.nested.diagram import diagram
from unseen.models.nested.learner import Descent, chain, cost, layer, supervise
from unseen.models.nested.machine import (
    Flows,
    Machine,
    Rewiring,
    Values,
    connect,
    function,
    moore,
    run,
)
from unseen.models.nested.wiring import Interface, Space, Symbols, Wiring
from unseen.study import Claim, Row, Rows, Scale, Study, average
from unseen.study.figures import stack, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.tasks.images import CLASSES, Collection, Images


@dataclass(frozen=True)
class Config:
    steps: int = 1_000
    """Of the plant."""
    until_reversal: int = 150
    """Mean number of steps."""
    images: Images = Images(Collection.FASHION_MNIST, n_train=25_600, n_test=1, side=14)
    """Each is shown once."""
    batch: int = 32
    period: int = 25
    """Batches until the labels change their meaning."""
    width: int = 64
    lr: float = 0.1
    seeds: int = 10


def run_cell(cell: Cell[Config, str], lab: Lab) -> Iterator[Row]:
    trial = {"controllers": control, "learners": learn}[cell.arm]
    for changes in (True, False):
        yield from label(trial(cell.setting, changes, lab), seed=cell.seed, part=cell.arm,
                         changes=changes)  # fmt: skip


NUMBER = Space(())
WALL, GAIN, NOISE = 3.0, 0.4, 0.02


def control(config: Config, reverses: bool, lab: Lab) -> Iterator[Row]:
    """Root mean square of the error of tracking, of the changing wiring over the best fixed one."""
    world = list(disturbances(config, reverses, lab.child("world")))
    fixed = {mode: tracking_error(connect(w, controllers()), world) for mode, w in WIRINGS.items()}
    changing = tracking_error(connect(TURNING, controllers()), world)
    best = min(fixed, key=fixed.__getitem__)
    yield {"changing": changing, "fixed": fixed[best], "best": best,
           "ratio": changing / fixed[best]}  # fmt: skip


def disturbances(config: Config, reverses: bool, lab: Lab) -> Iterator[Values]:
    """What the world does: a slow reference, the sign of the plant's response, and noise."""
    draw = lab.numpy()
    periods, phases = draw.uniform(100, 400, 3), draw.uniform(0, 2 * math.pi, 3)
    sign = 1.0
    for t in range(config.steps):
        if reverses and draw.random() < 1 / config.until_reversal:
            sign = -sign
        goal = float(np.sin(2 * math.pi * t / periods + phases).sum()) / 2
        yield {"reference": goal, "sign": sign, "noise": NOISE * float(draw.normal())}


def tracking_error(machine: Machine, world: Sequence[Values]) -> float:
    return math.sqrt(fmean(outputs["error"] ** 2 for outputs, _ in run(machine, world)))


def controllers() -> dict[str, Machine]:
    """A plant between walls; one controller pushes towards the reference, one away from it."""

    def move(x: float, inputs: Values) -> float:
        push = max(-1.0, min(1.0, inputs["u"]))
        return max(-WALL, min(WALL, x + GAIN * inputs["sign"] * push + inputs["noise"]))

    def controller(gain: float) -> Machine:
        return moore(BOXES["towards"], 0.0, lambda u: {"u": u}, lambda _, i: gain * i["error"])

    return {
        "plant": moore(BOXES["plant"], 0.0, lambda x: {"x": x}, move),
        "error": function(BOXES["error"], error=lambda reference, x: reference - x),
        "towards": controller(1.0),
        "away": controller(-1.0),
        "sum": function(BOXES["sum"], u=lambda a, b: a + b),
        "rest": function(BOXES["rest"], u=lambda: 0.0),
    }


BOXES = {
    "plant": Interface(dict.fromkeys(("u", "sign", "noise"), NUMBER), {"x": NUMBER}),
    "error": Interface({"reference": NUMBER, "x": NUMBER}, {"error": NUMBER},
                       {"error": frozenset({"reference", "x"})}),
    "towards": Interface({"error": NUMBER}, {"u": NUMBER}),
    "away": Interface({"error": NUMBER}, {"u": NUMBER}),
    "sum": Interface({"a": NUMBER, "b": NUMBER}, {"u": NUMBER}, {"u": frozenset({"a", "b"})}),
    "rest": Interface(outputs={"u": NUMBER}),
}  # fmt: skip


def wire_plant(source: str) -> Wiring:
    """The loop, with the plant driven by one of the boxes."""
    wires = {
        "plant.u": f"{source}.u", "plant.sign": "sign", "plant.noise": "noise",
        "error.reference": "reference", "error.x": "plant.x", "error": "error.error",
        "towards.error": "error.error", "away.error": "error.error",
        "sum.a": "towards.u", "sum.b": "away.u",
    }  # fmt: skip
    outer = Interface(dict.fromkeys(("reference", "sign", "noise"), NUMBER), {"error": NUMBER})
    return Wiring(BOXES, outer, wires)


WIRINGS = {source: wire_plant(source) for source in ("towards", "away", "sum", "rest")}


@dataclass(frozen=True)
class Growth:
    """Which controller drives, the last error, and for how many steps it has grown."""

    mode: str = "towards"
    error: float = 0.0
    grown: int = 0


def watch_error(state: Growth, flows: Flows) -> Growth:
    """The other controller takes over where a large error has grown three times in a row."""
    error = abs(flows["towards"]["error"])
    grown = state.grown + 1 if error > max(state.error, LARGE) else 0
    if grown < 3:
        return Growth(state.mode, error, grown)
    return Growth("away" if state.mode == "towards" else "towards", error)


LARGE = 0.2
TURNING = Rewiring(
    {name: WIRINGS[name] for name in ("towards", "away")}, Growth(), lambda s: s.mode, watch_error
)


def learn(config: Config, alternates: bool, lab: Lab) -> Iterator[Row]:
    """Share of a stream that is named rightly before it is learned from."""
    stream = list(batches(config, alternates, lab))
    accuracy = {}
    for name, machine in networks(config, lab).items():
        shown = [outputs["y"] for outputs, _ in run(machine, stream)]
        rights = [
            (y.argmax(1) == batch["target"]).float().mean().item()
            for y, batch in zip(shown, stream, strict=True)
        ]
        accuracy[name] = fmean(rights)
    best = max(accuracy["alone"], accuracy["both"])
    yield {**accuracy, "gain": accuracy["changing"] - best}


def batches(config: Config, alternates: bool, lab: Lab) -> Iterator[Values]:
    """Images in turn; in every other period each class bears the name of the fifth after it."""
    train = config.images.build(lab.child("data")).split("train").data
    for k, batch in enumerate(once(train, config.batch, lab)):
        shift = CLASSES // 2 if alternates and k // config.period % 2 else 0
        yield {"x": batch["x"].flatten(1), "target": (batch["y"] + shift) % CLASSES}


def networks(config: Config, lab: Lab) -> dict[str, Machine]:
    """One network, the mean of two, and two whose wires change."""
    inside = config.images.side or 28
    first, second = (network(config, inside**2, lab.child("init", k)) for k in range(2))
    end = cost(cross_entropy, (CLASSES,), Symbols(tuple(range(CLASSES))))
    mean = function(
        Interface({"a": LOGITS, "b": LOGITS, "dy": GRADIENT}, {"y": LOGITS, "half": GRADIENT},
                  {"y": frozenset("ab"), "half": frozenset({"dy"})}),
        y=lambda a, b: (a + b) / 2, half=lambda dy: dy / 2,
    )  # fmt: skip
    idle = function(Interface({"y": LOGITS}, {"dy": GRADIENT}), dy=lambda y: torch.zeros_like(y))
    pair = {"a": first, "b": second, "cost": end}
    return {
        "alone": supervise(first, end),
        "both": connect(wire_networks(pair | {"mean": mean}, MEAN), pair | {"mean": mean}),
        "changing": connect(
            Rewiring(
                {
                    "a": wire_networks(pair | {"idle": idle}, one_learns("a", "b")),
                    "b": wire_networks(pair | {"idle": idle}, one_learns("b", "a")),
                },
                Failures(), lambda s: s.mode, watch_errors,
            ),
            pair | {"idle": idle},
        ),
    }  # fmt: skip


LOGITS, GRADIENT = Space((CLASSES,)), Space((CLASSES,), dual=True)
MEAN = {
    "mean.a": "a.y", "mean.b": "b.y", "mean.dy": "cost.dy", "a.dy": "mean.half",
    "b.dy": "mean.half", "cost.y": "mean.y", "y": "mean.y",
}  # fmt: skip


def one_learns(active: str, passive: str) -> dict[str, str]:
    """Wires by which one network answers and is corrected; the other's gradient is 0."""
    return {
        "cost.y": f"{active}.y", f"{active}.dy": "cost.dy", "y": f"{active}.y",
        "idle.y": f"{passive}.y", f"{passive}.dy": "idle.dy",
    }  # fmt: skip


def wire_networks(machines: Mapping[str, Machine], wires: Mapping[str, str]) -> Wiring:
    shown = machines["a"].interface.inputs["x"]
    outer = Interface(
        {"x": shown, "target": machines["cost"].interface.inputs["target"]}, {"y": LOGITS}
    )
    shared = {"a.x": "x", "b.x": "x", "cost.target": "target"}
    boxes = {name: machine.interface for name, machine in machines.items()}
    return Wiring(boxes, outer, {**shared, **wires})


def network(config: Config, inputs: int, lab: Lab) -> Machine:
    descent = Descent(config.lr)
    hidden, head = untrained_model(
        lambda: nn.ModuleList([
            nn.Sequential(nn.Linear(inputs, config.width), nn.ReLU()),
            nn.Linear(config.width, CLASSES),
        ]), lab,
    )  # fmt: skip
    return chain(
        hidden=layer(hidden, (inputs,), descent), head=layer(head, (config.width,), descent)
    )


@dataclass(frozen=True)
class Failures:
    """Which network answers, and for how many steps."""

    mode: str = "a"
    steps: int = 0


def watch_errors(state: Failures, flows: Flows) -> Failures:
    """The other network takes over after a batch with under 30 % right, at the earliest ten steps
    after the last change.
    """
    shown, target = flows["cost"]["y"], flows["cost"]["target"]
    right = (shown.argmax(1) == target).float().mean().item()
    if right >= 0.3 or state.steps < 10:
        return Failures(state.mode, state.steps + 1)
    return Failures("b" if state.mode == "a" else "a")


CONTROL, LEARN = {"part": "controllers"}, {"part": "learners"}
CLAIMS = (
    Claim("Where the plant reverses, the controller that changes its own wiring errs at most a "
          "third as much as the best fixed wiring of each run.",
          average("ratio", CONTROL, changes=True), below=1 / 3),
    Claim("Where labels change their meaning, learners that change their own wiring name more "
          "images rightly than the better of two fixed wirings.",
          average("gain", LEARN, changes=True), above=0.05),
)  # fmt: skip

table = stack(
    summary(("part", "changes"), ("changing", "fixed", "ratio"), where=CONTROL),
    summary(("part", "changes"), ("changing", "alone", "both", "gain"), where=LEARN),
)
LAPTOP = Config()


def draw_plant(rows: Rows) -> Diagram:
    return diagram(WIRINGS["towards"], "The plant and its controllers, in mode `towards`")


def draw_networks(rows: Rows) -> Diagram:
    wirings = networks(LAPTOP, Lab())["changing"].wirings
    return diagram(wirings["a"], "Two networks, in mode `a`")


study = Study(
    name="nested_systems",
    system="26",
    source=reference("spivak2021deep"),
    differs=(
        "The paper has no experiments and no numbers: it embeds deep networks and control diagrams "
        "in systems whose interaction depends on their state. Its laws are tests of "
        "`unseen.models.nested`. Here, with 10 seeds, two such systems are run against every fixed "
        "wiring of the same boxes that was thought of: two controllers and a plant whose response "
        "reverses, and two networks on a stream of 25,600 Fashion-MNIST images in which the names "
        "of the classes change every 25 batches. The rules that change the wires were chosen by "
        "hand on other seeds."
    ),
    not_tested=(
        "That artificial neurons resemble synapses rather than nerve cells, and what the brain "
        "has to do with deeply interacting learning systems."
    ),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            steps=200,
            images=Images(n_train=320, n_test=1, side=14),
            period=3,
            width=8,
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(LAPTOP, images={"n_train": 60_000}, width=1_024, seeds=20),
    },
    cells=lambda config: Grid((config,), ("controllers", "learners"), config.seeds),
    run=run_cell,
    claims=CLAIMS,
    figures=(draw_plant, draw_networks),
    table=table,
)
