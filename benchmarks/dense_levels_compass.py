"""Figures of few-shot dense prediction, of offline learning on levels and of the compass page,
measured in this process.

    python benchmarks/dense_levels_compass.py [--json] [--only levels] [--agreement STEPS]

Dense: `support_cache_speedup`: CPU time of predicting 100 images one by one with the support
encoded for each of them, over encoding it once and predicting them in batches, which a fixed
support allows (bar: 5); `support_cache_speedup_single`: the same with the images one by one on both
sides. `bias_adaptation_share`: numbers that a new task trains, as a share of the network's (bar:
0.03). `episodes_per_second`: episodes of four support and four query images per CPU second.

Levels: `bc_steps_vs_d3rlpy`: steps of behavioural cloning per CPU second over those of d3rlpy 2
with the same network, batch and transitions (bar: 1). `iql_steps_per_second`: of implicit
Q-learning, which trains four networks; d3rlpy has none with discrete actions, so that
`cql_steps_vs_d3rlpy` compares conservative Q-learning with its own. `levels_per_second`: levels
that a network plays on arrays, and with copies of MiniGrid in Gymnasium. `--agreement` trains both
for so many steps: share of logged states with one best action at which both choose the same, and
the share of unseen levels that conservative Q-learning solves, ours and theirs. d3rlpy
pins an old Gymnasium: it runs in an environment of its own, whose interpreter D3RLPY_PYTHON names;
without it these figures are left out.

Compass: times of the page through its HTTP interface. `board_ms`: images of the next board.
`fit_walk_ms`: from marks to the walk along their direction (bar: 500). `slider_p95_ms`: one frame
of the slider, 95th percentile (bar: 50). `page_kb`: all files of the page (bar: 150). Wall-clock
milliseconds of the shipped model; they mean something on an idle machine only, and `cpu` gives CPU
milliseconds beside them.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from starlette.testclient import TestClient
from torch import nn

from unseen.engine.image_attributes import brightness
from unseen.engine.rollouts import GymArena, act, returns_of
from unseen.lab import Lab
from unseen.method import Method
from unseen.methods.behaviour_cloning import OFFLINE, BehaviourCloning
from unseen.methods.conservative_q import DiscreteCQL
from unseen.methods.episodic_training import EPISODES, EpisodicTraining
from unseen.methods.few_shot_tuning import FewShotTuning
from unseen.methods.implicit_q import DiscreteIQL
from unseen.models.policy import policy_network
from unseen.models.token_matching import TokenMatching, token_matcher
from unseen.serve.app import PAGES, compass_app
from unseen.serve.generators import shipped_generator
from unseen.task import Task
from unseen.tasks.levels import GridLevels, LoggedData, level_task
from unseen.tasks.levels.full_grid import full_grid
from unseen.tasks.levels.grid import best_actions, distances, observe
from unseen.tasks.procedural_scenes import TRAINING, ProceduralScenes

CEILINGS = {"fit_walk_ms": 500, "slider_p95_ms": 50, "page_kb": 150, "bias_adaptation_share": 0.03}
FLOORS = {"support_cache_speedup": 5, "bc_steps_vs_d3rlpy": 1}
ROUNDS = 20
FRAMES = 100
QUERIES, SHOTS, STEPS, BATCH = 100, 10, 20, 25
LAB = Lab(seed=100)
LOG = GridLevels(train=100, unseen=50, transitions=4_000)
OFFLINE_STEPS = 60
PLAYED = 200
"""Unseen levels that both learners of Q-values play."""
SEEDS = 4


def milliseconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and CPU time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def compass() -> dict[str, Any]:
    """Times of the page of the shipped generator."""
    generator = shipped_generator()
    client = TestClient(compass_app(generator), base_url="http://127.0.0.1:8765")
    state = client.post("/api/sessions", json={}).json()
    path = f"/api/sessions/{state['session']}"

    def ask(verb: str, to: str, **options: Any) -> Any:
        answer = getattr(client, verb)(path + to, **options)
        assert answer.status_code == 200, answer.text
        return answer

    z = generator.sample(2_048, Lab(state["seed"]).child("compass"))
    light = brightness(generator.images(z)).tolist()
    boards, walks, frames = [], [], []
    for _ in range(ROUNDS):
        samples = state["samples"]
        boards.append(
            milliseconds(
                lambda s=samples: ask("get", f"/images.png?samples={','.join(map(str, s))}")
            )
        )
        order = sorted(samples, key=lambda sample: light[sample])
        marks = {str(s): -1 for s in order[:4]} | {str(s): 1 for s in order[-4:]}

        def mark_to_walk(marks: dict[str, int] = marks) -> None:
            ask("post", "/marks", json={"marks": marks})
            ask("post", "/fit", json={})
            ask("get", "/walk.png")

        walks.append(milliseconds(mark_to_walk))
        state = ask("post", "/board", json={"kind": "uncertain"}).json()
    for k in range(FRAMES):
        mix = json.dumps({"current": k / 10 - 5})
        frames.append(milliseconds(lambda m=mix: ask("get", f"/image.png?sample=1600&mix={m}")))
    size = sum(len(client.get(address).content) for address in PAGES)

    def summary(column: int) -> dict[str, float]:
        return {
            "board_ms": statistics.median(time[column] for time in boards),
            "fit_walk_ms": statistics.median(time[column] for time in walks),
            "slider_p95_ms": statistics.quantiles((time[column] for time in frames), n=20)[-1],
        }

    return {**summary(0), "page_kb": size / 1000, "cpu": summary(1)}


def cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def dense() -> dict[str, Any]:
    """Matching from ten labelled scenes, and episodes of training, at the laptop study's sizes."""
    tasks = tuple(str(label) for label in TRAINING)
    with Lab().child("init").seeded():
        switch = token_matcher()
    network = switch.module
    assert isinstance(network, TokenMatching)
    data = ProceduralScenes(n_train=320, n_test=QUERIES).build(Lab())
    few, queries = data.split("train").data[:SHOTS], data.split("test").data[:]["x"]
    labels = few["y"][:, :1]

    @torch.no_grad()
    def cached(size: int) -> None:
        support = network.encode_support(few["x"], labels)
        for images in queries.split(size):
            network(images, support)

    @torch.no_grad()
    def again() -> None:
        for image in queries:
            network(image[None], network.encode_support(few["x"], labels))

    cached(BATCH)  # a warm-up
    slow = cpu_seconds(again)
    batches, single = (cpu_seconds(lambda n=n: cached(n)) for n in (BATCH, 1))
    share = FewShotTuning("new").share(switch)
    method = EpisodicTraining(tasks=tasks, pretraining=replace(EPISODES, steps=0),
                              budget=replace(EPISODES, steps=STEPS))  # fmt: skip
    seconds = cpu_seconds(lambda: method.fit(switch, data, Lab()))
    return {
        "support_cache_speedup": slow / batches,
        "support_cache_speedup_single": slow / single,
        "bias_adaptation_share": share,
        "episodes_per_second": STEPS * method.episodes / seconds,
    }


def network(seed: int = 0) -> nn.Module:
    with LAB.child("init", seed).seeded():
        return policy_network((7, 11, 11), 3)


def offline_steps_per_second(method: Method, task: Task) -> float:
    start = time.process_time()
    method.fit(network(), task, LAB.child("fit"))
    return OFFLINE_STEPS / (time.process_time() - start)


def levels_per_second() -> dict[str, float]:
    """Of an untrained network: games are as long as they can be."""
    levels = LOG.levels(LAB).unseen
    copies = GymArena(lambda: full_grid(LOG.environment), lambda seen: seen, 3)
    found = {}
    for name, arena, n in (("arrays", LOG.arena, 50), ("gymnasium", copies, 10)):
        start = time.process_time()
        returns_of(network(), arena, levels[:n], LAB)
        found[name] = n / (time.process_time() - start)
    return found


def peer(
    python: str,
    data: LoggedData,
    method: str,
    steps: int,
    play: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[float, np.ndarray]:
    """Steps per CPU second of d3rlpy, and its actions at these states (default: the logged)."""
    columns = {name: column.numpy() for name, column in data.columns().columns.items()}
    ends = np.append(columns["episode"][1:] != columns["episode"][:-1], True)
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "data.npz"), Path(folder, "actions.npy")
        np.savez(
            path,
            x=columns["x"],
            y=columns["y"],
            reward=columns["reward"],
            terminal=columns["terminal"],
            timeout=(ends & (columns["terminal"] == 0)).astype(np.float32),
            play=columns["x"] if play is None else play,
        )
        script = Path(__file__).parent / "peers" / "d3rlpy_peer.py"
        command = [python, str(script), str(path), method, str(steps), str(out), str(seed)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        line = next(one for one in said.splitlines() if one.startswith("{"))
        return json.loads(line)["steps_per_second"], np.load(out)


class Answers(nn.Module):
    """A policy by its actions at single states."""

    def __init__(self, states: np.ndarray, actions: np.ndarray) -> None:
        super().__init__()
        self.actions = {
            state.tobytes(): int(action) for state, action in zip(states, actions, strict=True)
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = x.numpy().astype(np.uint8)
        chosen = torch.tensor([self.actions[state.tobytes()] for state in states])
        return nn.functional.one_hot(chosen, 3).float()


def all_states(levels: Sequence[int]) -> np.ndarray:
    """What an agent may see in these levels: every place and heading."""
    layouts = LOG.arena.layouts(levels)
    _, height, width = layouts.walls.shape
    places = itertools.product(range(1, width - 1), range(1, height - 1), range(4))
    return np.concatenate([observe(layouts, np.tile(place, (len(layouts), 1))) for place in places])


def success(python: str, data: LoggedData, task: Task, steps: int) -> dict[str, Any]:
    """Of conservative Q-learning on unseen levels, ours and d3rlpy's, by seed; the difference of
    means with its standard error.
    """
    unseen = replace(LOG, unseen=PLAYED).levels(LAB).unseen
    method, states = DiscreteCQL(budget=replace(OFFLINE, steps=steps)), all_states(unseen)
    found: dict[str, list[float]] = {"ours": [], "d3rlpy": []}
    for seed in range(SEEDS):
        ours = method.fit(network(seed), task, LAB.child("fit", seed)).model
        _, actions = peer(python, data, "cql", steps, states, seed)
        for who, model in (("ours", ours), ("d3rlpy", Answers(states, actions))):
            reached = returns_of(model, LOG.arena, unseen, LAB).returns > 0
            found[who].append(float(reached.mean()))
    ours_mean, theirs_mean = map(statistics.mean, found.values())
    variances = sum(statistics.variance(values) / SEEDS for values in found.values())
    return {**found, "difference": ours_mean - theirs_mean, "standard_error": variances**0.5}


def unique_best(data: LoggedData) -> np.ndarray:
    """Logged states at which one action alone is best."""
    layouts = LOG.arena.layouts(data.levels)
    far = distances(layouts)
    place = {level: k for k, level in enumerate(data.levels)}
    columns = data.columns().columns
    planes = columns["x"].numpy()[:, 3:]
    heading, y, x = (part.reshape(-1) for part in np.nonzero(planes)[1:])
    at = np.array([place[level] for level in columns["level"].tolist()])
    best = best_actions(layouts.at(at), far[at], np.column_stack([x, y, heading]))
    return best.sum(1) == 1


def agreement(python: str, data: LoggedData, task: Task, steps: int) -> dict[str, float]:
    budget = replace(OFFLINE, steps=steps)
    model = BehaviourCloning(budget).fit(network(), task, LAB.child("fit")).model
    ours = act(model, data.columns().columns["x"], LAB)
    _, theirs = peer(python, data, "bc", steps)
    clear = unique_best(data)
    same = ours == theirs
    return {"clear_states": float(same[clear].mean()), "all_states": float(same.mean())}


def levels(agreement_steps: int = 0) -> dict[str, Any]:
    """Offline learning from the planner's games, and playing."""
    chosen = LOG.levels(LAB)
    data = LOG.data(chosen, LAB)
    task = level_task(data, LOG.arena, chosen)
    budget = replace(OFFLINE, steps=OFFLINE_STEPS)
    cloning, implicit = BehaviourCloning(budget), DiscreteIQL(budget=budget)
    conservative = DiscreteCQL(budget=budget)
    offline_steps_per_second(cloning, task)  # a warm-up
    found: dict[str, Any] = {
        "bc_steps_per_second": offline_steps_per_second(cloning, task),
        "iql_steps_per_second": offline_steps_per_second(implicit, task),
        "cql_steps_per_second": offline_steps_per_second(conservative, task),
        "levels_per_second": levels_per_second(),
    }
    python = os.environ.get("D3RLPY_PYTHON")
    if python:
        theirs, _ = peer(python, data, "bc", OFFLINE_STEPS)
        theirs_cql, _ = peer(python, data, "cql", OFFLINE_STEPS)
        found["d3rlpy_bc_steps_per_second"] = theirs
        found["d3rlpy_cql_steps_per_second"] = theirs_cql
        found["bc_steps_vs_d3rlpy"] = found["bc_steps_per_second"] / theirs
        found["cql_steps_vs_d3rlpy"] = found["cql_steps_per_second"] / theirs_cql
        if agreement_steps:
            found["agreement"] = agreement(python, data, task, agreement_steps)
            found["cql"] = success(python, data, task, agreement_steps)
    return found


FIGURES: dict[str, Callable[[], dict[str, Any]]] = {
    "dense": dense,
    "levels": levels,
    "compass": compass,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=FIGURES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--agreement", type=int, default=0, metavar="STEPS")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {**FIGURES, "levels": lambda: levels(options.agreement)}
    found = {name: figures[name]() for name in options.only or FIGURES}
    if options.json:
        print(json.dumps({**found, "bars": {"at most": CEILINGS, "at least": FLOORS}}))
    else:
        for values in found.values():
            for name, value in values.items():
                print(name, value)
    values = {name: value for one in found.values() for name, value in one.items()}
    high = any(values[name] > bar for name, bar in CEILINGS.items() if name in values)
    return int(high or any(values[name] < bar for name, bar in FLOORS.items() if name in values))


if __name__ == "__main__":
    sys.exit(main())
