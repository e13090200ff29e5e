"""A policy played on levels of an environment: many levels at once, one return for each.

A level is what `reset(seed=level)` makes: its layout and its randomness. The environment is any
`Arena`; a policy is any model of observations with one output per action, or one that remembers
what it saw (`SequenceModel`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor, nn

from unseen.errors import InvalidData
from unseen.lab import Lab


@dataclass(frozen=True)
class Outcome:
    """What one step gave every game."""

    rewards: Float[ndarray, " game"]
    terminated: Bool[ndarray, " game"]
    """The game is over by its rules: nothing follows."""
    truncated: Bool[ndarray, " game"]
    """It was cut, by a time limit: something would have followed."""


@runtime_checkable
class Games(Protocol):
    """Several levels in play. A game that is over takes no further steps and gives no reward."""

    observations: ndarray
    """[game, …]"""

    def step(self, actions: Int[ndarray, " game"]) -> Outcome: ...


@runtime_checkable
class Arena(Protocol):
    """Levels of one environment with a finite number of actions."""

    @property
    def actions(self) -> int: ...

    def start(self, levels: Sequence[int]) -> Games: ...


@runtime_checkable
class Policy(Protocol):
    """Chooses actions for the games `running` (their numbers), whose last rewards are given."""

    def act(
        self,
        observations: ndarray,
        rewards: Float[ndarray, " game"],
        running: Int[ndarray, " game"],
    ) -> Int[ndarray, " game"]: ...


@runtime_checkable
class SequenceModel(Protocol):
    """A model whose action depends on what it saw before."""

    def begin(self, games: int) -> Policy: ...


@dataclass(frozen=True)
class Greedy:
    """The action with the largest output; of equal ones the first."""

    model: nn.Module
    lab: Lab = Lab()

    def act(self, observations: ndarray, rewards: ndarray, running: ndarray) -> ndarray:
        return act(self.model, observations, self.lab)


@dataclass(frozen=True)
class RandomPolicy:
    """Every action equally often."""

    actions: int
    rng: np.random.Generator

    def act(self, observations: ndarray, rewards: ndarray, running: ndarray) -> ndarray:
        return self.rng.integers(self.actions, size=len(running))


def act(model: nn.Module, observations: ndarray | Tensor, lab: Lab = Lab()) -> ndarray:
    """The greedy action at every observation, each taken for the first of its game."""
    x = torch.as_tensor(observations).to(lab.device)
    if x.is_floating_point():
        x = x.to(lab.dtype)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            outputs = model(x)
    finally:
        model.train(was_training)
    if not torch.isfinite(outputs).all():
        raise InvalidData(
            "The policy's outputs are not finite.",
            why="the largest of them cannot be found.",
            fix="train with a smaller learning rate, or check the observations.",
        )
    return outputs.argmax(-1).cpu().numpy()


def policy_of(model: nn.Module, games: int, lab: Lab) -> Policy:
    """How a trained model plays: always the action that it takes for best."""
    return model.begin(games) if isinstance(model, SequenceModel) else Greedy(model, lab)


@dataclass(frozen=True)
class Playthrough:
    """Sum of rewards and number of steps of every level, in order."""

    returns: Float[ndarray, " level"]
    steps: Int[ndarray, " level"]


def play(policy: Policy, arena: Arena, levels: Sequence[int]) -> Playthrough:
    """One game of every level, to its end."""
    games = arena.start(levels)
    n = len(levels)
    returns, steps = np.zeros(n), np.zeros(n, dtype=np.int64)
    rewards = np.zeros(n)
    running = np.arange(n)
    while len(running):
        chosen = policy.act(games.observations[running], rewards[running], running)
        actions = np.zeros(n, dtype=np.int64)
        actions[running] = chosen
        outcome = games.step(actions)
        rewards = outcome.rewards
        returns[running] += rewards[running]
        steps[running] += 1
        over = outcome.terminated | outcome.truncated
        running = running[~over[running]]
    return Playthrough(returns, steps)


def returns_of(model: nn.Module, arena: Arena, levels: Sequence[int], lab: Lab) -> Playthrough:
    """The model's greedy policy on every level."""
    if not len(levels):
        raise InvalidData(
            "No level is played.", why="nothing has no mean.", fix="name at least one level."
        )
    return play(policy_of(model, len(levels), lab), arena, levels)


Convert = Callable[[Any], ndarray]


@dataclass(frozen=True)
class GymArena:
    """Any Gymnasium environment with discrete actions, several copies in step.

    `make` gives a new copy; `convert` makes an array of an observation. An environment without a
    time limit of its own is cut after `most` steps.
    """

    make: Callable[[], Any]
    convert: Convert
    actions: int
    most: int = 10_000

    def start(self, levels: Sequence[int]) -> "GymGames":
        return GymGames(self, levels)


class GymGames:
    """Copies of a Gymnasium environment, one per level, closed when their game is over."""

    def __init__(self, arena: GymArena, levels: Sequence[int]) -> None:
        self.arena = arena
        self.copies = [arena.make() for _ in levels]
        first = [
            arena.convert(copy.reset(seed=int(level))[0])
            for copy, level in zip(self.copies, levels, strict=True)
        ]
        self.observations = np.stack(first)
        self.over = np.zeros(len(levels), dtype=bool)
        self.steps = 0

    def step(self, actions: Int[ndarray, " game"]) -> Outcome:
        n = len(self.copies)
        rewards, terminated = np.zeros(n), np.zeros(n, dtype=bool)
        truncated = np.zeros(n, dtype=bool)
        self.steps += 1
        for k in np.flatnonzero(~self.over):
            seen, reward, ends, cut, _ = self.copies[k].step(int(actions[k]))
            self.observations[k] = self.arena.convert(seen)
            rewards[k], terminated[k] = float(reward), ends
            truncated[k] = cut or self.steps >= self.arena.most
            if terminated[k] or truncated[k]:
                self.over[k] = True
                self.copies[k].close()
        return Outcome(rewards, terminated, truncated)
