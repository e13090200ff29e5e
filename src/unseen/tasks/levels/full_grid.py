"""MiniGrid seen from above, as a Gymnasium environment: what `GridArena` plays many at a time."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy import ndarray

from unseen.tasks.levels.grid import GOAL, LAVA, PLANES, WALL, read_layout


class FullGrid(gymnasium.Wrapper[ndarray, int, Any, Any]):
    """Seven planes of 0 and 1 (wall, goal, lava, one per heading of the agent); the actions left,
    right, forward; 1 at the goal, 0 elsewhere.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        inside: Any = env.unwrapped
        shape = (len(PLANES), inside.height, inside.width)
        self.observation_space = spaces.Box(0, 1, shape, np.uint8)
        self.action_space = spaces.Discrete(3)  # type: ignore[assignment]

    def _planes(self) -> ndarray:
        objects, (x, y, heading) = read_layout(self.env)
        planes = np.zeros(self.observation_space.shape or (), dtype=np.uint8)
        for plane, kind in enumerate((WALL, GOAL, LAVA)):
            planes[plane] = objects == kind
        planes[3 + heading, y, x] = 1
        return planes

    def reset(self, **options: Any) -> tuple[ndarray, dict[str, Any]]:
        _, infos = self.env.reset(**options)
        return self._planes(), infos

    def step(self, action: int) -> tuple[ndarray, float, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, infos = self.env.step(action)
        return self._planes(), float(float(reward) > 0), terminated, truncated, infos


def full_grid(environment: str, most: int = 80) -> FullGrid:
    """A new environment of that name, seen from above, cut after `most` steps."""
    return FullGrid(gymnasium.make(environment, max_steps=most))
