"""Figures of offline learning on levels: steps and levels per CPU second, beside d3rlpy's.

    python benchmarks/levels.py [--json] [--agreement STEPS]

`bc_steps_vs_d3rlpy`: steps of behavioural cloning per CPU second over those of d3rlpy 2 with the
same network, batch and transitions (bar: 1). `iql_steps_per_second`: of implicit Q-learning; d3rlpy
has none with discrete actions, so its conservative Q-learning, which trains one network of our
four, stands beside it. `levels_per_second`: levels that a network plays on arrays, and with copies
of MiniGrid in Gymnasium. `--agreement` trains both for so many steps: share of logged states with
one best action at which both choose the same. d3rlpy pins an old Gymnasium: it runs in an
environment of its own, whose interpreter D3RLPY_PYTHON names; without it these figures are left
out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unseen.engine.rollouts import GymArena, act, returns_of
from unseen.lab import Lab
from unseen.method import Method
from unseen.methods.behaviour_cloning import OFFLINE, BehaviourCloning
from unseen.methods.implicit_q import DiscreteIQL
from unseen.models.policy import policy_network
from unseen.task import Task
from unseen.tasks.levels import GridLevels, LoggedData, level_task
from unseen.tasks.levels.full_grid import full_grid
from unseen.tasks.levels.grid import best_actions, distances

LAB = Lab(seed=100)
SPEC = GridLevels(train=100, unseen=50, transitions=4_000)
STEPS = 60
FLOORS = {"bc_steps_vs_d3rlpy": 1.0}


def network() -> nn.Module:
    with LAB.child("init").seeded():
        return policy_network((7, 11, 11), 3)


def steps_per_second(method: Method, task: Task) -> float:
    start = time.process_time()
    method.fit(network(), task, LAB.child("fit"))
    return STEPS / (time.process_time() - start)


def levels_per_second() -> dict[str, float]:
    """Of an untrained network: games are as long as they can be."""
    levels = SPEC.levels(LAB).unseen
    copies = GymArena(lambda: full_grid(SPEC.environment), lambda seen: seen, 3)
    found = {}
    for name, arena, n in (("arrays", SPEC.arena, 50), ("gymnasium", copies, 10)):
        start = time.process_time()
        returns_of(network(), arena, levels[:n], LAB)
        found[name] = n / (time.process_time() - start)
    return found


def peer(python: str, data: LoggedData, method: str, steps: int) -> tuple[float, np.ndarray]:
    """Steps per CPU second of d3rlpy, and its actions at all logged states."""
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
            play=columns["x"],
        )
        script = Path(__file__).parent / "peers" / "d3rlpy_peer.py"
        command = [python, str(script), str(path), method, str(steps), str(out)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        line = next(one for one in said.splitlines() if one.startswith("{"))
        return json.loads(line)["steps_per_second"], np.load(out)


def unique_best(data: LoggedData) -> np.ndarray:
    """Logged states at which one action alone is best."""
    layouts = SPEC.arena.layouts(data.levels)
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


def measure(steps: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    levels = SPEC.levels(LAB)
    data = SPEC.data(levels, LAB)
    task = level_task(data, SPEC.arena, levels)
    budget = replace(OFFLINE, steps=STEPS)
    cloning, implicit = BehaviourCloning(budget), DiscreteIQL(budget=budget)
    steps_per_second(cloning, task)  # warm
    found: dict[str, Any] = {
        "bc_steps_per_second": steps_per_second(cloning, task),
        "iql_steps_per_second": steps_per_second(implicit, task),
        "levels_per_second": levels_per_second(),
    }
    python = os.environ.get("D3RLPY_PYTHON")
    if python:
        found["d3rlpy_bc_steps_per_second"], _ = peer(python, data, "bc", STEPS)
        found["d3rlpy_cql_steps_per_second"], _ = peer(python, data, "cql", STEPS)
        found["bc_steps_vs_d3rlpy"] = (
            found["bc_steps_per_second"] / found["d3rlpy_bc_steps_per_second"]
        )
        if steps:
            found["agreement"] = agreement(python, data, task, steps)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--agreement", type=int, default=0, metavar="STEPS")
    options = parser.parse_args()
    found = measure(options.agreement)
    if options.json:
        print(json.dumps({"levels": found, "floors": FLOORS}))
    else:
        print("\n".join(f"{name} {value}" for name, value in found.items()))
    return int(any(found.get(name, bar) < bar for name, bar in FLOORS.items()))


if __name__ == "__main__":
    sys.exit(main())
