"""Levels of MiniGrid made of walls, goals and lava, seen from above and played many at a time.

MiniGrid makes the layouts; its rules for turning and walking are followed here on arrays, since one
environment at a time in Python costs more than the training (tested to be equal step by step). An
observation is seven planes [height, width] of 0 and 1: wall, goal, lava, and one for each heading
of the agent (right, down, left, up). Actions: turn left, turn right, forward. A goal gives 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from unseen.engine.rollouts import Outcome
from unseen.errors import InvalidConfig, InvalidData, MissingExtra

LEFT, RIGHT, FORWARD = range(3)
PLANES = ("wall", "goal", "lava", "right", "down", "left", "up")
STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
"""(x, y) of one step forward by heading."""
EMPTY, WALL, FLOOR, GOAL, LAVA = 1, 2, 3, 8, 9
"""MiniGrid's numbers of objects."""
UNREACHABLE = np.iinfo(np.int32).max


def require_minigrid() -> None:
    """Refuses where the optional library is missing."""
    try:
        import minigrid  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "Levels of MiniGrid need the package minigrid.",
            why="it makes their layouts.",
            fix="pip install 'unseen[rl]'",
        ) from error


@dataclass(frozen=True)
class Layouts:
    """Level k: what lies where, and where the agent starts with which heading."""

    levels: Int[ndarray, " level"]
    walls: Bool[ndarray, "level y x"]
    goals: Bool[ndarray, "level y x"]
    lava: Bool[ndarray, "level y x"]
    start: Int[ndarray, "level 3"]
    """x, y, heading."""

    def __len__(self) -> int:
        return len(self.levels)

    def at(self, index: ndarray) -> "Layouts":
        """The layouts at these positions."""
        return Layouts(
            self.levels[index],
            self.walls[index],
            self.goals[index],
            self.lava[index],
            self.start[index],
        )

    def identities(self) -> list[bytes]:
        """Equal where two levels have the same layout."""
        parts = (self.walls, self.goals, self.lava, self.start)
        return [b"".join(part[k].tobytes() for part in parts) for k in range(len(self))]


def read_layout(env: object) -> tuple[ndarray, ndarray]:
    """Objects [y, x] and start (x, y, heading) of a MiniGrid environment after its reset."""
    inside = env.unwrapped  # type: ignore[attr-defined]
    objects = inside.grid.encode()[:, :, 0].T
    strange = set(np.unique(objects).tolist()) - {EMPTY, WALL, FLOOR, GOAL, LAVA}
    if strange:
        from minigrid.core.constants import IDX_TO_OBJECT

        names = ", ".join(sorted(IDX_TO_OBJECT[one] for one in strange))
        raise InvalidData(
            f"The environment {type(inside).__name__} has objects beyond walls, goals and lava: "
            f"{names}.",
            why="their rules are not followed here, and no planner knows them.",
            fix="give the environment as it is (file.py:make), without the view from above.",
        )
    return objects, np.array([*inside.agent_pos, inside.agent_dir])


def read_layouts(environment: str, levels: Sequence[int]) -> Layouts:
    """The layouts that MiniGrid makes for these seeds."""
    require_minigrid()
    import gymnasium

    env = gymnasium.make(environment).unwrapped
    found = []
    for level in levels:
        env.reset(seed=int(level))
        found.append(read_layout(env))
    objects = np.stack([one for one, _ in found])
    return Layouts(
        levels=np.array(levels, dtype=np.int64),
        walls=objects == WALL,
        goals=objects == GOAL,
        lava=objects == LAVA,
        start=np.stack([start for _, start in found]).astype(np.int64),
    )


def observe(layouts: Layouts, state: Int[ndarray, "level 3"]) -> UInt8[ndarray, "level 7 y x"]:
    """The seven planes of every level with its agent at (x, y, heading)."""
    n, height, width = layouts.walls.shape
    planes = np.zeros((n, len(PLANES), height, width), dtype=np.uint8)
    planes[:, 0], planes[:, 1], planes[:, 2] = layouts.walls, layouts.goals, layouts.lava
    x, y, heading = state.T
    planes[np.arange(n), 3 + heading, y, x] = 1
    return planes


def move(
    layouts: Layouts, state: Int[ndarray, "level 3"], actions: Int[ndarray, " level"]
) -> Int[ndarray, "level 3"]:
    """Where the agents are after their actions."""
    x, y, heading = state.T
    heading = (heading + (actions == RIGHT) - (actions == LEFT)) % 4
    ahead = state[:, :2] + STEPS[heading]
    level = np.arange(len(state))
    blocked = layouts.walls[level, ahead[:, 1], ahead[:, 0]]
    walks = (actions == FORWARD) & ~blocked
    return np.column_stack(
        [np.where(walks, ahead[:, 0], x), np.where(walks, ahead[:, 1], y), heading]
    )


@dataclass(frozen=True)
class GridArena:
    """Levels of one MiniGrid environment, played together on arrays."""

    environment: str
    most: int = 80
    """Steps after which a game is cut."""
    actions: int = 3

    def __post_init__(self) -> None:
        if self.most < 1:
            raise InvalidConfig(
                f"{self.most} steps.", why="a game has at least one.", fix="most=80"
            )

    def layouts(self, levels: Sequence[int]) -> Layouts:
        return read_layouts(self.environment, levels)

    def start(self, levels: Sequence[int]) -> "GridGames":
        return GridGames(self.layouts(levels), self.most)


class GridGames:
    """Levels in play."""

    def __init__(self, layouts: Layouts, most: int) -> None:
        self.layouts, self.most = layouts, most
        self.state = layouts.start.copy()
        self.over = np.zeros(len(layouts), dtype=bool)
        self.steps = 0
        self.observations = observe(layouts, self.state)

    def step(self, actions: Int[ndarray, " game"]) -> Outcome:
        running = ~self.over
        after = move(self.layouts, self.state, actions)
        # an agent on a goal or in lava has left the game
        self.state = np.where(running[:, None], after, self.state)
        self.steps += 1
        game = np.arange(len(self.state))
        x, y, _ = self.state.T
        at_goal = running & self.layouts.goals[game, y, x]
        terminated = at_goal | (running & self.layouts.lava[game, y, x])
        truncated = running & (self.steps >= self.most)
        self.over = self.over | terminated | truncated
        self.observations[:, 3:] = 0
        self.observations[game, 3 + self.state[:, 2], y, x] = 1
        return Outcome(at_goal.astype(float), terminated, truncated)


def distances(layouts: Layouts) -> Int[ndarray, "level y x 4"]:
    """Fewest actions to a goal from every cell and heading, by search backward from the goal; all
    levels at once.

    A pose is one action further than the nearest pose that an action leads to. Lava is never
    entered.
    """
    free = ~(layouts.walls | layouts.lava)
    far = np.full((*free.shape, 4), UNREACHABLE, dtype=np.int32)
    far[layouts.goals] = 0
    for step in range(1, far[0].size + 1):
        near = far < UNREACHABLE
        reaches = np.roll(near, 1, axis=3) | np.roll(near, -1, axis=3)
        for heading, (dx, dy) in enumerate(STEPS):
            # the border is wall, so what np.roll carries around the edge is never free
            reaches[..., heading] |= np.roll(near[..., heading], (-dy, -dx), axis=(1, 2))
        new = reaches & ~near & free[..., None]
        if not new.any():
            break
        far[new] = step
    return far


def best_actions(
    layouts: Layouts, far: Int[ndarray, "level y x 4"], state: Int[ndarray, "level 3"]
) -> Bool[ndarray, "level 3"]:
    """Which actions lead one step nearer to the goal."""
    game = np.arange(len(state))
    x, y, heading = state.T
    here = far[game, y, x, heading]
    nearer = []
    for action in (LEFT, RIGHT, FORWARD):
        a, b, turned = move(layouts, state, np.full(len(state), action)).T
        nearer.append(far[game, b, a, turned] < here)
    return np.stack(nearer, 1)


@dataclass
class Planner:
    """Plays a shortest way, ties at random; with probability `epsilon` a random action instead."""

    games: GridGames
    rng: np.random.Generator
    epsilon: float | ndarray = 0.0
    """One for all, or of every game."""

    def __post_init__(self) -> None:
        self.far = distances(self.games.layouts)

    def act(self, observations: ndarray, rewards: ndarray, running: ndarray) -> ndarray:
        best = best_actions(
            self.games.layouts.at(running), self.far[running], self.games.state[running]
        )
        n = len(running)
        # the largest of independent draws: uniform over the best actions
        planned = np.where(best, self.rng.random(best.shape), -1.0).argmax(1)
        epsilon = np.broadcast_to(self.epsilon, len(self.games.state))[running]
        strays = self.rng.random(n) < epsilon
        return np.where(strays, self.rng.integers(3, size=n), planned)
