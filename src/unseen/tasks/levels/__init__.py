"""Levels of an environment: policies are learned from logged games of some levels and evaluated on
levels that the data never showed.

The unit of the split is the level, not the episode: two games of one level share its layout. An
example of an evaluation split is a level, and its score the return of the greedy policy there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.rollouts import Arena, returns_of
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import cross_entropy
from unseen.task import Axis, Batch, Objective, Split, Task, Use
from unseen.tasks.levels.grid import GridArena, GridGames, Planner
from unseen.tasks.levels.logged import (
    Episode,
    LoggedData,
    open_minari,
    read_minari,
    write_minari,
)

TRAINING, UNSEEN = "training levels", "unseen levels"


@dataclass(frozen=True)
class Levels:
    """The axis: which levels are trained on, and which are evaluated beside them as unseen."""

    train: tuple[int, ...]
    unseen: tuple[int, ...]

    def __post_init__(self) -> None:
        both = sorted(set(self.train) & set(self.unseen))
        if both:
            raise InvalidData(
                f"{len(both)} levels are trained on and called unseen: "
                f"{', '.join(map(str, both[:5]))}{', …' if len(both) > 5 else ''}.",
                why="a return on training levels says nothing about new ones.",
                fix="name unseen levels that no logged episode was played on.",
            )
        if not self.train or not self.unseen:
            raise InvalidData(
                f"{len(self.train)} training levels and {len(self.unseen)} unseen ones.",
                why="a gap is between two sides.",
                fix="give at least one level to each.",
            )


@dataclass(frozen=True)
class LevelReturn:
    """Return of the greedy policy on the level of every example, each level played once."""

    arena: Arena

    def __call__(self, model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
        levels, place = batch["level"].unique(return_inverse=True)
        weight = next(model.parameters())
        lab = Lab(device=weight.device, dtype=weight.dtype)
        played = returns_of(model, self.arena, levels.tolist(), lab)
        return torch.from_numpy(played.returns).to(weight)[place]


def level_columns(levels: Sequence[int]) -> Columns:
    """Levels as examples."""
    return Columns(level=torch.tensor(list(levels), dtype=torch.int64))


def level_task(data: LoggedData, arena: Arena, levels: Levels, name: str = "levels") -> Task:
    """Transitions of the training levels to learn from; training and unseen levels to play."""
    if data.actions != arena.actions:
        raise InvalidData(
            f"The data have {data.actions} actions, the environment {arena.actions}.",
            why="a policy of the data is played in the environment.",
            fix="give the environment in which the data were logged.",
        )
    logged = data.at_levels(levels.train)
    splits = {
        "train": Split(logged.columns(), Use.TRAIN, TRAINING),
        TRAINING: Split(level_columns(levels.train), Use.EVALUATE, TRAINING),
        UNSEEN: Split(level_columns(levels.unseen), Use.EVALUATE, UNSEEN),
    }
    objective = Objective(loss=cross_entropy, score=LevelReturn(arena))
    return Task(name=name, axis=Axis.LEVEL, splits=splits, objective=objective)


def layout_identities(arena: Arena, levels: Sequence[int]) -> list[bytes]:
    """Equal where two levels begin alike: layouts of MiniGrid, first observations elsewhere."""
    if isinstance(arena, GridArena):
        return arena.layouts(levels).identities()
    first = arena.start(levels).observations
    return [first[k].tobytes() for k in range(len(levels))]


def drop_known_layouts(
    arena: Arena, train: Sequence[int], unseen: Sequence[int]
) -> tuple[tuple[int, ...], int]:
    """The unseen levels that are no training level under another number and no repetition, and how
    many different layouts training has.
    """
    known = set(layout_identities(arena, train))
    distinct = len(known)
    kept = []
    for level, identity in zip(unseen, layout_identities(arena, unseen), strict=True):
        if identity not in known:
            known.add(identity)
            kept.append(level)
    if len(unseen) and not kept:
        raise InvalidData(
            f"All {len(unseen)} unseen levels begin in a layout that training shows, too.",
            why="a known layout is no unseen level, whatever its number.",
            fix="log fewer of the layouts, or take an environment that has more.",
        )
    return tuple(kept), distinct


class Skill(StrEnum):
    """How well the logged player plays."""

    EXPERT = "expert"
    """A shortest way, one action in ten at random."""
    MIXED = "mixed"
    """Every second game seven in ten actions at random."""
    SUBOPTIMAL = "suboptimal"
    """From all actions at random down to one in ten."""

    def epsilon(self, games: int) -> np.ndarray:
        """The share of random actions of every game."""
        if self is Skill.EXPERT:
            return np.full(games, 0.1)
        if self is Skill.MIXED:
            return np.where(np.arange(games) % 2, 0.7, 0.1)
        return np.linspace(1.0, 0.1, games)


AT_ONCE = 100
"""Games that are recorded together at least: few levels are played several times."""


def collect(
    arena: GridArena, levels: Sequence[int], transitions: int, skill: Skill, lab: Lab
) -> LoggedData:
    """So many transitions of the planner with random actions; all levels in turn, in new order
    every time. The last episode is cut.
    """
    if transitions < 1 or not len(levels):
        raise InvalidConfig(
            f"{transitions} transitions on {len(levels)} levels.",
            why="there is nothing to log.",
            fix="ask for at least one of each.",
        )
    rng = lab.numpy()
    layouts = arena.layouts(levels)
    episodes: list[Episode] = []
    free = transitions
    while free > 0:
        passes = -(-AT_ONCE // len(levels))
        order = np.concatenate([rng.permutation(len(levels)) for _ in range(passes)])
        games = GridGames(layouts.at(order), arena.most)
        for episode in record(games, skill, rng):
            if free <= 0:
                break
            episodes.append(episode.cut(free))
            free -= len(episodes[-1])
    return LoggedData(tuple(episodes), arena.actions)


def record(games: GridGames, skill: Skill, rng: np.random.Generator) -> list[Episode]:
    """The planner's games from start to end."""
    n = len(games.layouts)
    planner = Planner(games, rng, skill.epsilon(n))
    seen, actions, rewards = [games.observations.copy()], [], []
    lengths, ended = np.zeros(n, dtype=int), np.zeros(n, dtype=bool)
    running = np.arange(n)
    while len(running):
        action = np.zeros(n, dtype=np.int64)
        action[running] = planner.act(games.observations, np.zeros(n), running)
        outcome = games.step(action)
        seen.append(games.observations.copy())
        actions.append(action)
        rewards.append(outcome.rewards)
        lengths[running] += 1
        ended |= outcome.terminated
        running = running[~(outcome.terminated | outcome.truncated)[running]]
    states, moves, gains = np.stack(seen), np.stack(actions), np.stack(rewards)
    return [
        Episode(
            observations=states[: lengths[k] + 1, k],
            actions=moves[: lengths[k], k],
            rewards=gains[: lengths[k], k],
            terminated=bool(ended[k]),
            level=int(games.layouts.levels[k]),
        )
        for k in range(n)
    ]


CROSSING = "MiniGrid-SimpleCrossingS11N5-v0"


@dataclass(frozen=True)
class GridLevels:
    """Logged games of a planner on levels of MiniGrid; unseen levels are evaluated.

    Levels are drawn anew with the seed: a training set of 10 is part of that of 100, and the unseen
    ones are the same for both.
    """

    environment: str = CROSSING
    train: int = 100
    unseen: int = 200
    transitions: int = 8_000
    skill: Skill = Skill.EXPERT
    most: int = 80
    pool: int = 300
    """Training levels of the largest log in a comparison: no unseen level has their layouts."""

    def __post_init__(self) -> None:
        if not 1 <= self.train <= UNSEEN_FROM or self.unseen < 1:
            raise InvalidConfig(
                f"{self.train} training levels and {self.unseen} unseen ones.",
                why=f"both have at least one, and levels from {UNSEEN_FROM:,} on are unseen.",
                fix="train=100, unseen=200",
            )

    @property
    def arena(self) -> GridArena:
        return GridArena(self.environment, self.most)

    def levels(self, lab: Lab) -> Levels:
        """Which levels are trained on and which are unseen; known layouts are dropped."""
        first = int(lab.child("levels").numpy().integers(1_000_000)) * 10_000
        pool = range(first, first + max(self.pool, self.train))
        # one layout more than wanted for every one that may be known
        unseen = range(first + UNSEEN_FROM, first + UNSEEN_FROM + 2 * self.unseen)
        kept, _ = drop_known_layouts(self.arena, pool, unseen)
        return Levels(tuple(pool[: self.train]), kept[: self.unseen])

    def data(self, levels: Levels, lab: Lab) -> LoggedData:
        """The logged games."""
        return collect(self.arena, levels.train, self.transitions, self.skill, lab.child("games"))

    def build(self, lab: Lab) -> Task:
        levels = self.levels(lab)
        return level_task(self.data(levels, lab), self.arena, levels, self.environment)


UNSEEN_FROM = 4_000
"""Levels of a seed from this number on are never trained on."""


def example() -> tuple[GridLevels, object]:
    """Five levels, and a linear model of the seven planes."""

    def model(task: Task) -> nn.Module:
        with Lab().child("model").seeded():
            return nn.Sequential(_Floats(), nn.Flatten(), nn.Linear(7 * 9 * 9, 3))

    return GridLevels("MiniGrid-SimpleCrossingS9N1-v0", 5, 5, 100, pool=5), model


class _Floats(nn.Module):
    """Bytes as numbers that a linear map takes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


__all__ = [
    "CROSSING",
    "TRAINING",
    "UNSEEN",
    "GridArena",
    "GridLevels",
    "LevelReturn",
    "Levels",
    "LoggedData",
    "Skill",
    "collect",
    "drop_known_layouts",
    "example",
    "level_task",
    "open_minari",
    "read_minari",
    "write_minari",
]
