"""Mazes of Procgen (Cobbe et al., 2020, arXiv:1912.01588) from pixels, by envpool: a level is the
number of its maze, and a planner that sees a second, plain rendering logs the games.

The log holds the mean colour of each of the 15 × 15 cells. Actions: left, right, up, down. The
cheese gives 1.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from unseen.engine.rollouts import Outcome
from unseen.errors import InvalidConfig, InvalidData, MissingExtra
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.levels import Levels, LoggedData, level_task
from unseen.tasks.levels.logged import Episode

CELLS, PIXELS = 15, 64
EDGES = np.round(np.arange(CELLS + 1) * PIXELS / CELLS).astype(int)
"""Where cells begin, in pixels."""
ACTIONS = (1, 7, 5, 3)
"""Procgen's numbers of left, right, up and down."""
STEPS = np.array([[0, -1], [0, 1], [-1, 0], [1, 0]])
"""(y, x) of these."""
PLAIN = {"use_backgrounds": False, "restrict_themes": True}
"""Black corridors, brown walls, a grey mouse and a yellow cheese."""
BLACK, GREY, BROWN_RED, BROWN_BLUE = 20, 150, 230, 110


def require_envpool() -> Any:
    """The module, where it and the libraries of Qt that its Procgen needs are installed."""
    try:
        import envpool

        envpool.make_spec("MazeEasy-v0")
    except ImportError as error:
        if "Qt" in str(error):
            raise MissingExtra(
                "Mazes of Procgen need the libraries of Qt 5.",
                why="envpool draws with them.",
                fix="apt-get install libqt5gui5 libqt5core5a",
            ) from error
        raise MissingExtra(
            "Mazes of Procgen need the package envpool 1.1.",
            why="it makes and draws them.",
            fix="pip install 'envpool>=1.1,<1.2'",
        ) from error
    return envpool


def make_maze(level: int, **options: Any) -> Any:
    """One maze, drawn as Procgen does unless options say otherwise."""
    return require_envpool().make(
        "MazeEasy-v0", env_type="gymnasium", num_envs=1, num_threads=1, num_levels=1,
        start_level=int(level), **options,
    )  # fmt: skip


def mean_colours(image: UInt8[ndarray, "3 height width"]) -> UInt8[ndarray, "3 y x"]:
    """Of every cell."""
    rows = np.add.reduceat(image.astype(float), EDGES[:-1], axis=1)
    sums = np.add.reduceat(rows, EDGES[:-1], axis=2)
    sides = np.diff(EDGES)
    return np.round(sums / np.outer(sides, sides)).astype(np.uint8)


@dataclass(frozen=True)
class Maze:
    """What a plain rendering shows: free cells, the mouse and the cheese."""

    free: Bool[ndarray, "y x"]
    start: tuple[int, int]
    goal: tuple[int, int]


def read_maze(image: UInt8[ndarray, "3 height width"]) -> Maze:
    """Reads the picture of a maze at its start."""
    red, _, blue = image.astype(int)

    def share(pixels: ndarray) -> ndarray:
        return mean_colours(np.broadcast_to(255 * pixels, image.shape).astype(np.uint8))[0]

    mouse = share(blue > GREY)
    cheese = share((red > BROWN_RED) & (blue < BROWN_BLUE))
    if not mouse.any() or not cheese.any():
        raise InvalidData(
            "A maze shows no mouse or no cheese.",
            why="the planner reads both from a rendering without backgrounds.",
            fix="use envpool 1.1, whose renderings were tested.",
        )
    free = share(image.max(0) < BLACK) > 255 * 0.2
    places = [divmod(int(one.argmax()), CELLS) for one in (mouse, cheese)]
    for y, x in places:
        free[y, x] = True
    return Maze(free, places[0], places[1])


def cells_to_goal(maze: Maze) -> Int[ndarray, "y x"]:
    """Fewest steps to the cheese from every cell, −1 where there is no way."""
    far = np.full(maze.free.shape, -1)
    far[maze.goal] = 0
    border = [maze.goal]
    while border:
        after = []
        for y, x in border:
            for dy, dx in STEPS.tolist():
                cell = (y + dy, x + dx)
                if _is_free(maze, cell) and far[cell] < 0:
                    far[cell] = far[y, x] + 1
                    after.append(cell)
        border = after
    return far


def _is_free(maze: Maze, cell: tuple[int, int]) -> bool:
    return min(cell) >= 0 and max(cell) < CELLS and bool(maze.free[cell])


def walk(maze: Maze, place: tuple[int, int], action: int) -> tuple[int, int]:
    """Where the mouse is after an action."""
    cell = (place[0] + int(STEPS[action, 0]), place[1] + int(STEPS[action, 1]))
    return cell if _is_free(maze, cell) else place


@dataclass(frozen=True)
class MazeArena:
    """Mazes by number."""

    most: int = 60
    """Steps after which a game is cut."""
    actions: int = len(ACTIONS)

    def start(self, levels: Sequence[int]) -> "MazeGames":
        return MazeGames(levels, self.most)


class MazeGames:
    """Mazes in play."""

    def __init__(self, levels: Sequence[int], most: int) -> None:
        self.most, self.steps = most, 0
        self.mazes = [make_maze(level) for level in levels]
        self.observations = np.stack([mean_colours(maze.reset()[0][0]) for maze in self.mazes])
        self.over = np.zeros(len(levels), dtype=bool)

    def step(self, actions: Int[ndarray, " game"]) -> Outcome:
        n = len(self.mazes)
        rewards, terminated = np.zeros(n), np.zeros(n, dtype=bool)
        truncated = np.zeros(n, dtype=bool)
        self.steps += 1
        for k in np.flatnonzero(~self.over):
            move = np.array([ACTIONS[int(actions[k])]], dtype=np.int32)
            seen, reward, ends, _, _ = self.mazes[k].step(move)
            self.observations[k] = mean_colours(seen[0])
            rewards[k], terminated[k] = float(reward[0] > 0), bool(ends[0])
            truncated[k] = not terminated[k] and self.steps >= self.most
        self.over |= terminated | truncated
        return Outcome(rewards, terminated, truncated)


@dataclass(frozen=True)
class MazeLevels:
    """Logged games of the planner, one action in ten at random; unseen mazes are evaluated."""

    train: int = 200
    unseen: int = 100
    transitions: int = 6_000
    epsilon: float = 0.1
    most: int = 60

    def __post_init__(self) -> None:
        if min(self.train, self.unseen, self.transitions, self.most) < 1:
            raise InvalidConfig(
                f"{self}.", why="every count is at least one.", fix="MazeLevels(train=200)"
            )

    @property
    def arena(self) -> MazeArena:
        return MazeArena(self.most)

    def levels(self, lab: Lab) -> Levels:
        """A set of 10 is part of that of 200, and the unseen ones are the same for both."""
        first = int(lab.child("levels").numpy().integers(10_000)) * 10_000
        behind = first + 5_000
        return Levels(
            tuple(range(first, first + self.train)), tuple(range(behind, behind + self.unseen))
        )

    def data(self, levels: Levels, lab: Lab) -> LoggedData:
        """All mazes in turn in random order; the last game is cut."""
        rng = lab.child("games").numpy()
        mazes = {
            level: read_maze(make_maze(level, **PLAIN).reset()[0][0]) for level in levels.train
        }
        episodes: list[Episode] = []
        free = self.transitions
        while free > 0:
            for k in rng.permutation(len(levels.train)):
                level = levels.train[k]
                one = record(self.arena, level, mazes[level], self.epsilon, rng)
                episodes.append(one.cut(free))
                free -= len(episodes[-1])
                if free <= 0:
                    break
        return LoggedData(tuple(episodes), len(ACTIONS))

    def build(self, lab: Lab) -> Task:
        levels = self.levels(lab)
        return level_task(self.data(levels, lab), self.arena, levels, "MazeEasy-v0")


def record(
    arena: MazeArena, level: int, maze: Maze, epsilon: float, rng: np.random.Generator
) -> Episode:
    """A shortest way through one maze, ties at random, with probability `epsilon` a random action
    instead.
    """
    games, far, place = arena.start([level]), cells_to_goal(maze), maze.start
    seen, actions, rewards = [games.observations[0].copy()], list[int](), list[float]()
    terminated = False
    while not games.over[0]:
        near = [far[walk(maze, place, action)] for action in range(len(ACTIONS))]
        best = np.flatnonzero(np.array(near) == far[place] - 1)
        action = int(rng.choice(best)) if len(best) else 0
        if rng.random() < epsilon:
            action = int(rng.integers(len(ACTIONS)))
        outcome = games.step(np.array([action]))
        place = walk(maze, place, action)
        seen.append(games.observations[0].copy())
        actions.append(action)
        rewards.append(float(outcome.rewards[0]))
        terminated = bool(outcome.terminated[0])
    with contextlib.suppress(AttributeError):  # some versions have nothing to close
        games.mazes[0].close()
    return Episode(np.stack(seen), np.array(actions), np.array(rewards), terminated, int(level))
