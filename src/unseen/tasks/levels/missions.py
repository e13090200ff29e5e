"""Instructions as a second axis: levels of BabyAI (Chevalier-Boisvert et al., 2019,
arXiv:1810.08272) whose mission names a colour and an object, of which some pairs are unseen.

Every colour and every object is named in training, only not together. An observation is the room
seen from above, with the mission as further planes, so that any network of images reads both.
"""

from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy import ndarray

from unseen.engine.rollouts import GymArena
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.levels import Levels, LoggedData, level_task
from unseen.tasks.levels.grid import WALL, require_minigrid
from unseen.tasks.levels.logged import Episode

COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
"""In the order of MiniGrid's numbers."""
OBJECTS = {"key": 5, "ball": 6, "box": 7}
"""With MiniGrid's numbers."""
PLANES = 1 + 2 * (len(OBJECTS) + len(COLOURS)) + 4
"""Wall, kind and colour of what lies there, heading of the agent, kind and colour of the mission.
"""
ACTIONS = 3
"""Turn left, turn right, forward: nothing has to be picked up."""

Mission = tuple[str, str]
"""Colour and object."""
HELD_OUT: tuple[Mission, ...] = tuple(
    (colour, tuple(OBJECTS)[k % len(OBJECTS)]) for k, colour in enumerate(COLOURS)
)
"""Of the 18 pairs six: every colour once, every object twice."""


def mission_of(env: Any) -> Mission:
    """What a level asks for, after its reset."""
    words = str(env.unwrapped.mission).split()
    if words[:2] != ["go", "to"] or words[-2] not in COLOURS or words[-1] not in OBJECTS:
        raise InvalidData(
            f"The mission “{' '.join(words)}” is not to go to a coloured object.",
            why="pairs of colour and object are held out.",
            fix="take an environment such as BabyAI-GoToLocalS6N4-v0.",
        )
    return words[-2], words[-1]


class MissionGrid(gymnasium.Wrapper[ndarray, int, Any, Any]):
    """The room from above with the mission, planes of 0 and 1; the actions left, right, forward; 1
    at the object that the mission names.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        inside: Any = env.unwrapped
        shape = (PLANES, inside.height, inside.width)
        self.observation_space = spaces.Box(0, 1, shape, np.uint8)
        self.action_space = spaces.Discrete(ACTIONS)  # type: ignore[assignment]

    def _planes(self) -> ndarray:
        inside: Any = self.env.unwrapped
        kind, colour = np.moveaxis(inside.grid.encode()[:, :, :2], 2, 0).transpose(0, 2, 1)
        things = np.isin(kind, [*OBJECTS.values()])
        x, y = inside.agent_pos
        heading = np.zeros((4, *kind.shape), dtype=bool)
        heading[inside.agent_dir, y, x] = True
        wanted = mission_of(self.env)
        everywhere = np.ones(kind.shape, dtype=bool)
        planes = [
            kind == WALL,
            *(kind == number for number in OBJECTS.values()),
            *(things & (colour == number) for number in range(len(COLOURS))),
            *heading,
            *(everywhere * (name == wanted[1]) for name in OBJECTS),
            *(everywhere * (name == wanted[0]) for name in COLOURS),
        ]
        return np.stack(planes).astype(np.uint8)

    def reset(self, **options: Any) -> tuple[ndarray, dict[str, Any]]:
        with redirect_stdout(StringIO()):  # BabyAI prints which rooms it drew again
            _, infos = self.env.reset(**options)
        return self._planes(), infos

    def step(self, action: int) -> tuple[ndarray, float, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, infos = self.env.step(action)
        return self._planes(), float(float(reward) > 0), terminated, truncated, infos


@dataclass(frozen=True)
class MissionGridMaker:
    """Makes new copies of one environment."""

    environment: str

    def __call__(self) -> MissionGrid:
        require_minigrid()
        return MissionGrid(gymnasium.make(self.environment))


def as_array(observation: ndarray) -> ndarray:
    return observation


@dataclass(frozen=True)
class MissionLevels:
    """Games that BabyAI's own bot played on levels with some missions; evaluated are levels with
    others. One action of the log in ten is random.
    """

    environment: str = "BabyAI-GoToLocalS6N4-v0"
    held_out: tuple[Mission, ...] = field(default=HELD_OUT)
    train: int = 300
    unseen: int = 200
    transitions: int = 8_000
    epsilon: float = 0.1
    most: int = 40

    def __post_init__(self) -> None:
        if min(self.train, self.unseen, self.transitions, self.most) < 1 or not self.held_out:
            raise InvalidConfig(
                f"{self.train} training levels, {self.unseen} unseen ones and "
                f"{len(self.held_out)} missions held out.",
                why="both sides have levels, and the unseen ones other missions.",
                fix="MissionLevels(train=300, unseen=200)",
            )

    @property
    def arena(self) -> GymArena:
        return GymArena(MissionGridMaker(self.environment), as_array, ACTIONS, self.most)

    def levels(self, lab: Lab) -> Levels:
        """The first levels behind a number drawn with the seed that have missions of their side."""
        first = int(lab.child("levels").numpy().integers(1_000_000)) * 10_000
        env = MissionGridMaker(self.environment)()
        sides: tuple[list[int], list[int]] = ([], [])
        sizes = (self.train, self.unseen)
        level = first
        while any(len(side) < size for side, size in zip(sides, sizes, strict=True)):
            if level == first + 50 * sum(sizes):
                raise InvalidData(
                    f"Of {level - first} levels {len(sides[0])} have missions for training and "
                    f"{len(sides[1])} unseen ones.",
                    why=f"{self.train} and {self.unseen} are asked for.",
                    fix="hold out other missions, or ask for fewer levels.",
                )
            env.reset(seed=level)
            side = int(mission_of(env) in self.held_out)
            if len(sides[side]) < sizes[side]:
                sides[side].append(level)
            level += 1
        return Levels(tuple(sides[0]), tuple(sides[1]))

    def data(self, levels: Levels, lab: Lab) -> LoggedData:
        """The bot's games, all levels in turn in random order; the last one is cut. A game in which
        the bot wants to move something is left out.
        """
        rng = lab.child("games").numpy()
        env = MissionGridMaker(self.environment)()
        episodes: list[Episode] = []
        free = self.transitions
        for level in _in_turn(levels.train, rng):
            episode = record(env, level, self.epsilon, self.most, rng)
            if episode is not None:
                episodes.append(episode.cut(free))
                free -= len(episodes[-1])
            if free <= 0:
                return LoggedData(tuple(episodes), ACTIONS)
        raise InvalidData(
            f"The bot's games hold {self.transitions - free} of {self.transitions} transitions.",
            why="it fails on most of these levels.",
            fix="take more training levels, or an environment without things in the way.",
        )

    def build(self, lab: Lab) -> Task:
        levels = self.levels(lab)
        return level_task(self.data(levels, lab), self.arena, levels, self.environment)


PASSES = 100
"""Games of every level at most."""


def _in_turn(levels: Sequence[int], rng: np.random.Generator) -> Iterator[int]:
    for _ in range(PASSES):
        yield from (levels[k] for k in rng.permutation(len(levels)))


def record(
    env: MissionGrid, level: int, epsilon: float, most: int, rng: np.random.Generator
) -> Episode | None:
    """One game of the bot, or none where it wants more than to turn and walk."""
    from minigrid.utils.baby_ai_bot import BabyAIBot

    seen, _ = env.reset(seed=int(level))
    bot = BabyAIBot(env)
    observations, actions, rewards = [seen], list[int](), list[float]()
    action, terminated = None, False
    while not terminated and len(actions) < most:
        wanted = bot.replan(action)
        if wanted >= ACTIONS:
            return None
        action = int(rng.integers(ACTIONS)) if rng.random() < epsilon else int(wanted)
        seen, reward, terminated, _, _ = env.step(action)
        observations.append(seen)
        actions.append(action)
        rewards.append(reward)
    return Episode(
        np.stack(observations), np.array(actions), np.array(rewards), terminated, int(level)
    )
