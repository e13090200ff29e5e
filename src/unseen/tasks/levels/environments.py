"""Environments by name or made by a function, with the check that a seed sets the level."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from unseen.engine.rollouts import Arena, GymArena
from unseen.errors import InvalidData, MissingExtra, UnknownName
from unseen.tasks.levels.grid import GridArena, read_layout
from unseen.tasks.levels.logged import converter, discrete_actions

Make = Callable[[], Any]
TRIED = 10
"""Levels that are begun to see whether their number changes anything."""
STEPS = 20


def require_gymnasium() -> Any:
    """The module with MiniGrid's environments, where that is installed."""
    try:
        import gymnasium
    except ImportError as error:
        raise MissingExtra(
            "Environments need the package gymnasium.",
            why="policies are evaluated by playing.",
            fix="pip install 'unseen[rl]'",
        ) from error
    with contextlib.suppress(ImportError):  # only names that begin with MiniGrid need it
        import minigrid  # noqa: F401
    return gymnasium


def make_named(name: str) -> Any:
    """A new environment of that name in Gymnasium's registry."""
    gymnasium = require_gymnasium()
    try:
        return gymnasium.make(name)
    except gymnasium.error.UnregisteredEnv:
        raise UnknownName.near("environment", name, gymnasium.registry) from None
    except gymnasium.error.Error as error:
        raise InvalidData(
            f"Gymnasium cannot make `{name}`: {error}",
            why="policies are evaluated by playing it.",
            fix="install what it asks for, or give --environment file.py:make.",
        ) from error


def open_arena(environment: str | Make, observations: Any = None, most: int | None = None) -> Arena:
    """The environment whose observations lie in the space `observations` (None: its own).

    MiniGrid is played as it is, or, where the data were logged so, seen from above. `most` cuts
    games (None: 80 steps from above, elsewhere the environment's own limit).
    """
    require_gymnasium()
    make = (lambda: make_named(environment)) if isinstance(environment, str) else environment
    env = make()
    if observations is None or env.observation_space == observations:
        arena = GymArena(
            make,
            converter(env.observation_space),
            discrete_actions(env.action_space),
            *(() if most is None else (most,)),
        )
        refuse_fixed_levels(arena, range(TRIED))
        return arena
    if isinstance(environment, str) and is_seen_from_above(env, observations):
        return GridArena(environment, *(() if most is None else (most,)))
    raise InvalidData(
        f"The data hold observations in {observations}, the environment gives "
        f"{env.observation_space}.",
        why="a policy of the one cannot read the other.",
        fix="give the environment with the wrappers that it had when the data were logged: "
        "--environment file.py:make.",
    )


def is_seen_from_above(env: Any, observations: Any) -> bool:
    """Whether the data hold the seven planes of this MiniGrid environment."""
    if not hasattr(env.unwrapped, "agent_dir"):
        return False
    from unseen.tasks.levels.full_grid import FullGrid

    if FullGrid(env).observation_space != observations:
        return False
    env.reset(seed=0)
    read_layout(env)  # refuses what is more than walls, goals and lava
    return True


def refuse_fixed_levels(arena: GymArena, levels: Sequence[int]) -> None:
    """Refuses an environment in which `reset(seed=level)` does not make the level: the same seed
    gives two games, or all seeds give one.
    """
    games = [first_steps(arena, level) for level in levels]
    again = first_steps(arena, levels[0])
    if games[0] != again:
        raise InvalidData(
            "The environment gave two different games for the same seed.",
            why="a level must be the same whenever it is played.",
            fix="draw everything from self.np_random after super().reset(seed=seed).",
        )
    if len(set(games)) == 1:
        raise InvalidData(
            f"The environment gave the same game for {len(levels)} seeds.",
            why="its level cannot be set: reset(seed=level) changes nothing.",
            fix="make the layout from self.np_random in reset, or wrap the environment so that "
            "the seed chooses the level.",
        )


def first_steps(arena: GymArena, level: int) -> bytes:
    """What a fixed sequence of actions sees and gets on a level."""
    games = arena.start([level])
    seen: list[ndarray] = [games.observations.copy()]
    rewards: list[float] = []
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        if games.over.all():
            break
        outcome = games.step(rng.integers(arena.actions, size=1))
        seen.append(games.observations.copy())
        rewards.append(float(outcome.rewards[0]))
    return b"".join(part.tobytes() for part in seen) + np.array(rewards).tobytes()
