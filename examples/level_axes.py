"""Cloning on two more axes of unseen levels: missions of BabyAI, and mazes of Procgen from pixels.

    python examples/level_axes.py missions     # unseen pairs of colour and object: a minute
    python examples/level_axes.py mazes        # 10 against 200 training mazes: six minutes
    python examples/level_axes.py mazes 2500   # with so many steps instead of 8,000

Mazes need envpool and two libraries of Qt (docs/levels.md). One seed: figures to report, no claim.
"""

import sys
from dataclasses import replace

import numpy as np

from unseen.engine.rollouts import Arena, RandomPolicy, play, returns_of
from unseen.lab import Lab
from unseen.methods.behaviour_cloning import OFFLINE, BehaviourCloning
from unseen.models.policy import policy_network
from unseen.task import Task
from unseen.tasks.levels import TRAINING, UNSEEN
from unseen.tasks.levels.maze import MazeLevels
from unseen.tasks.levels.missions import MissionLevels

LAB = Lab(seed=0).child("level axes")


def success(task: Task, arena: Arena, method: BehaviourCloning, **network: object) -> str:
    """Of cloning and of a random player on both sides."""
    data = task.splits["train"].data
    x = data[:]["x"]
    with LAB.child("init").seeded():
        model = policy_network(x.shape[1:], arena.actions, most=float(x.max()), **network)
    trained = method.fit(model, task, LAB.child("fit"))
    words = [f"{len(x)} transitions"]
    for side in (TRAINING, UNSEEN):
        levels = task.splits[side].data.columns["level"].tolist()[:200]
        found = returns_of(trained.model, arena, levels, LAB).returns.mean()
        player = RandomPolicy(arena.actions, np.random.default_rng(0))
        chance = play(player, arena, levels).returns.mean()
        words.append(f"{len(levels)} {side} {found:.2f} (random player {chance:.2f})")
    return ", ".join(words)


def missions(steps: int = OFFLINE.steps) -> None:
    spec = MissionLevels()
    print(
        "missions:",
        success(spec.build(LAB), spec.arena, BehaviourCloning(replace(OFFLINE, steps=steps))),
    )


def mazes(steps: int = 8_000) -> None:
    budget = replace(OFFLINE, steps=steps, batch_size=64)
    for levels in (10, 200):
        spec = MazeLevels(train=levels)
        found = success(
            spec.build(LAB), spec.arena, BehaviourCloning(budget), channels=(24, 24, 24, 24)
        )
        print(f"{levels} mazes:", found)


if __name__ == "__main__":
    {"missions": missions, "mazes": mazes}[sys.argv[1]](*map(int, sys.argv[2:]))
