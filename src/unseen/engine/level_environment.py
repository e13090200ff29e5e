"""Levels of an arena as one Gymnasium environment: every game is on a level drawn at random."""

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy import ndarray

from unseen.engine.rollouts import Arena, Games, GymArena


class LevelEnvironment(gymnasium.Env[ndarray, Any]):
    """One game after the other on the levels, drawn with `rng`; observations as float32.

    `returns` takes the sum of rewards of every game that was played to its end.
    """

    def __init__(
        self, arena: Arena, levels: Sequence[int], rng: np.random.Generator, returns: list[float]
    ) -> None:
        super().__init__()
        self.arena, self.levels, self.rng, self.returns = arena, levels, rng, returns
        self.begun: dict[int, Games] = {}
        self.games = self._begin(levels[0])
        shape = self.games.observations.shape[1:]
        # floating numbers: of bytes stable-baselines3 makes images, with scale and axes of its own
        self.observation_space = spaces.Box(-np.inf, np.inf, shape, np.float32)
        self.action_space = spaces.Discrete(arena.actions)
        self.total = 0.0

    def _begin(self, level: int) -> Games:
        """Level at its start; where games are arrays, a copy of the first one."""
        if isinstance(self.arena, GymArena):
            return self.arena.start([level])
        if level not in self.begun:
            self.begun[level] = self.arena.start([level])
        return copy.deepcopy(self.begun[level])

    def _observation(self) -> ndarray:
        return self.games.observations[0].astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ndarray, dict[str, Any]]:
        """A new game; which level follows does not depend on `seed`."""
        self.games = self._begin(int(self.rng.choice(self.levels)))
        self.total = 0.0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[ndarray, float, bool, bool, dict[str, Any]]:
        outcome = self.games.step(np.array([int(action)]))
        reward = float(outcome.rewards[0])
        self.total += reward
        terminated = bool(outcome.terminated[0])
        truncated = bool(outcome.truncated[0]) and not terminated
        if terminated or truncated:
            self.returns.append(self.total)
        return self._observation(), reward, terminated, truncated, {}
