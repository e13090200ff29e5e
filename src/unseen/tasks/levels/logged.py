"""Logged episodes of an environment with the level of each, and Minari's HDF5 as their file."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from unseen.engine.batches import Columns
from unseen.errors import InvalidData, MissingExtra, MissingFile, UnknownName
from unseen.lab import Lab

LEVEL = "level_seed"
"""Where an episode's infos hold its level."""
SEED = "seed"
"""Names the seed that Minari recorded when an episode was reset."""


@dataclass(frozen=True)
class Episode:
    """One game: T + 1 observations, T actions and rewards, and how it ended."""

    observations: ndarray
    actions: Int[ndarray, " step"]
    rewards: Float[ndarray, " step"]
    terminated: bool
    """It ended by the rules of the game; otherwise it was cut, and something would have followed.
    """
    level: int

    def __len__(self) -> int:
        return len(self.actions)

    def cut(self, steps: int) -> "Episode":
        """The first steps only."""
        whole = steps >= len(self)
        return Episode(
            self.observations[: steps + 1],
            self.actions[:steps],
            self.rewards[:steps],
            self.terminated and whole,
            self.level,
        )


@dataclass(frozen=True)
class LoggedData:
    """Episodes of one environment, with the number of its actions."""

    episodes: tuple[Episode, ...]
    actions: int

    def __post_init__(self) -> None:
        if not sum(len(one) for one in self.episodes):
            raise InvalidData(
                "The logged data hold no transition.",
                why="nothing can be learned from nothing.",
                fix="give data with at least one episode of one step.",
            )
        for number, one in enumerate(self.episodes):
            if len(one.observations) != len(one) + 1 or len(one.rewards) != len(one):
                raise InvalidData(
                    f"Episode {number} has {len(one.observations)} observations, {len(one)} "
                    f"actions and {len(one.rewards)} rewards.",
                    why="every action leads from an observation to the next one.",
                    fix="log the last observation of every episode, too.",
                )
            if not np.isfinite(one.rewards).all():
                raise InvalidData(
                    f"Episode {number} has a reward that is not finite.",
                    why="no return can be computed with it.",
                    fix="drop the episode, or correct its rewards.",
                )
            if len(one) and not (0 <= one.actions.min() <= one.actions.max() < self.actions):
                raise InvalidData(
                    f"Episode {number} has actions from {one.actions.min()} to "
                    f"{one.actions.max()}.",
                    why=f"the environment has the actions 0 to {self.actions - 1}.",
                    fix="give the data and the environment that belong together.",
                )

    def __len__(self) -> int:
        return sum(len(one) for one in self.episodes)

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels that occur, in order."""
        return tuple(sorted({one.level for one in self.episodes}))

    @property
    def mean_return(self) -> float:
        """Mean over episodes of the sum of rewards."""
        return float(np.mean([one.rewards.sum() for one in self.episodes]))

    def at_levels(self, levels: Sequence[int]) -> "LoggedData":
        """The episodes of these levels."""
        chosen = set(levels)
        return LoggedData(tuple(one for one in self.episodes if one.level in chosen), self.actions)

    def draw(self, transitions: int, lab: Lab) -> "LoggedData":
        """Whole episodes drawn at random, the last one cut: so many transitions.

        At random, not the best first: sorting by return would make of "half of the data" "the
        better half".
        """
        if transitions >= len(self):
            return self
        found: list[Episode] = []
        free = transitions
        for k in lab.numpy().permutation(len(self.episodes)):
            if free <= 0:
                break
            found.append(self.episodes[k].cut(free))
            free -= len(found[-1])
        return LoggedData(tuple(found), self.actions)

    def columns(self) -> Columns:
        """Transitions: `x`, the action `y`, `reward`, the next observation `next_x`, `terminal`,
        `level`, and `episode` and `step` for methods that look back; rows in order of time.

        `terminal` is 1 only where the game ended by its rules: a time limit cuts an episode, and
        the value of what would have followed still counts.
        """
        full = [one for one in self.episodes if len(one)]

        def join(parts: list[ndarray]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate(parts))

        def repeat(values: Sequence[int]) -> torch.Tensor:
            return torch.repeat_interleave(torch.tensor(values), torch.tensor(lengths))

        lengths = [len(one) for one in full]
        last = torch.cat([torch.arange(n) == n - 1 for n in lengths])
        ended = repeat([int(one.terminated) for one in full])
        return Columns(
            x=join([one.observations[:-1] for one in full]),
            y=join([one.actions.astype(np.int64) for one in full]),
            reward=join([one.rewards.astype(np.float32) for one in full]),
            next_x=join([one.observations[1:] for one in full]),
            terminal=(last & (ended == 1)).float(),
            level=repeat([one.level for one in full]),
            episode=repeat(list(range(len(full)))),
            step=torch.cat([torch.arange(n) for n in lengths]),
        )


def require_minari() -> Any:
    """The module, or what installs it."""
    try:
        import minari
    except ImportError as error:
        raise MissingExtra(
            "Logged data in Minari's format need the package minari.",
            why="it reads and writes them.",
            fix="pip install 'unseen[rl]'",
        ) from error
    return minari


def open_minari(source: str | Path) -> Any:
    """The data set in a folder, or the local one of that name."""
    minari = require_minari()
    folder = Path(source)
    # Minari's own data sets keep their files in a folder `data`
    for place in (folder, folder / "data"):
        if (place / "metadata.json").is_file():
            refuse_other_format(place)
            return minari.MinariDataset(place)
    local = minari.list_local_datasets()
    if str(source) in local:
        return minari.load_dataset(str(source))
    if folder.exists():
        raise InvalidData(
            f"`{source}` is no Minari data set: it has no metadata.json.",
            why="logged episodes are read in Minari's HDF5 format.",
            fix="give the folder that minari.create_dataset_from_buffers wrote, or its name.",
        )
    if not local:
        raise MissingFile(
            f"There is no folder and no local Minari data set `{source}`.",
            why="no Minari data set is installed.",
            fix=f"minari download {source}, or give the folder of your own.",
        )
    raise UnknownName.near("local Minari data set", str(source), local)


def refuse_other_format(folder: Path) -> None:
    """Minari's arrow files could not be read back reliably; HDF5 is the only format here."""
    found = json.loads((folder / "metadata.json").read_text("utf-8")).get("data_format", "hdf5")
    if found != "hdf5":
        raise InvalidData(
            f"The data set in `{folder}` is stored as {found}.",
            why="only Minari's HDF5 format is read.",
            fix='write it again with data_format="hdf5".',
        )


def discrete_actions(space: Any) -> int:
    """The number of actions of a Gymnasium space, which begins at 0."""
    from gymnasium import spaces

    if not isinstance(space, spaces.Discrete) or space.start != 0:
        raise InvalidData(
            f"The actions are {space}.",
            why="these methods choose one of finitely many actions, numbered from 0.",
            fix="give an environment with a Discrete action space, or divide the actions into a "
            "few before logging.",
        )
    return int(space.n)


Convert = Callable[[Any], ndarray]


def converter(space: Any) -> Convert:
    """Makes an array of an observation: boxes as they are, numbers as one-hot vectors, the parts of
    a dictionary or tuple one behind the other.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        return partial_array
    if isinstance(space, spaces.Discrete):
        n, first = int(space.n), int(space.start)
        return lambda seen: (np.arange(n) == int(seen) - first).astype(np.float32)
    if isinstance(space, spaces.MultiBinary):
        return lambda seen: np.asarray(seen, dtype=np.float32).reshape(-1)
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner: Any = space.spaces
        keys = list(inner) if isinstance(space, spaces.Dict) else range(len(inner))
        parts = [(key, converter(inner[key])) for key in keys]
        return lambda seen: np.concatenate(
            [part(seen[key]).astype(np.float32).reshape(-1) for key, part in parts]
        )
    raise InvalidData(
        f"Observations in {space} cannot be read by a network.",
        why="boxes, numbers and dictionaries of them can; texts and graphs cannot.",
        fix="wrap the environment before logging, for example with minigrid.wrappers."
        "ImgObsWrapper, and give it as file.py:make.",
    )


def partial_array(seen: Any) -> ndarray:
    """Bytes stay bytes, other numbers become float32."""
    array = np.asarray(seen)
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def unstack(observations: Any, steps: int) -> Iterator[Any]:
    """The observations of an episode one by one, as the environment gave them."""
    if isinstance(observations, dict):
        parts = {key: list(unstack(value, steps)) for key, value in observations.items()}
        yield from ({key: values[k] for key, values in parts.items()} for k in range(steps))
    elif isinstance(observations, tuple):
        columns = [list(unstack(value, steps)) for value in observations]
        yield from (tuple(column[k] for column in columns) for k in range(steps))
    else:
        yield from observations


def read_minari(source: str | Path, levels: str = LEVEL) -> LoggedData:
    """The episodes of a Minari data set, each with the level that its infos hold under `levels`.

    `levels="seed"` takes the seed with which Minari reset the environment.
    """
    data = open_minari(source)
    actions = discrete_actions(data.action_space)
    convert = converter(data.observation_space)
    seeds = [one.get(SEED) for one in data.storage.get_episode_metadata(data.episode_indices)]
    found = []
    for number, one in enumerate(data.iterate_episodes()):
        steps = len(one.actions)
        seen = [convert(part) for part in unstack(one.observations, steps + 1)]
        found.append(
            Episode(
                observations=np.stack(seen),
                actions=np.asarray(one.actions, dtype=np.int64).reshape(steps),
                rewards=np.asarray(one.rewards, dtype=np.float64).reshape(steps),
                terminated=bool(steps and one.terminations[-1]),
                level=level_of(one.infos, seeds[number], levels, number),
            )
        )
    return LoggedData(tuple(found), actions)


def level_of(infos: Any, seed: int | None, name: str, episode: int) -> int:
    """The level of an episode: one number for all its steps."""
    value = infos.get(name) if isinstance(infos, dict) else None
    if value is None and name == SEED:
        value = seed
    if value is None:
        others = sorted(infos) if isinstance(infos, dict) else []
        says = f"infos hold {', '.join(others)}" if others else "there are no infos"
        hint = (
            f'; levels="{SEED}" takes the recorded seeds of the resets' if seed is not None else ""
        )
        raise InvalidData(
            f"No `{name}` in infos of episode {episode}: {says}.",
            why="episodes are split by level, so each must say its own.",
            fix=f"pass levels= (--levels), the name of what holds the level{hint}.",
        )
    numbers = set(np.asarray(value).reshape(-1).tolist())
    if len(numbers) != 1 or not is_whole(next(iter(numbers))):
        raise InvalidData(
            f"`{name}` of episode {episode} is {sorted(numbers)[:5]}.",
            why="an episode is played on one level, and its number is whole.",
            fix="log the seed that the environment was reset with.",
        )
    return int(next(iter(numbers)))


def is_whole(value: Any) -> bool:
    """A number without a fraction; text, NaN and infinity are none."""
    return isinstance(value, int | float) and float(value).is_integer()


def write_minari(data: LoggedData, folder: str | Path, name: str, make: Callable[[], Any]) -> Path:
    """Writes the episodes as a Minari data set (HDF5, nothing lossy), level in `infos`; `make`
    gives the environment that they are of.
    """
    minari = require_minari()
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    env = make()
    # Minari looks for the files below the folder once more where the path is relative
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    storage = MinariStorage.new(
        folder, env.observation_space, env.action_space, data_format="hdf5", jpeg_encoding=False
    )
    storage.update_metadata({"dataset_id": name, "minari_version": minari.__version__})
    storage.update_episodes(
        EpisodeBuffer(
            id=number,
            seed=one.level,
            observations=one.observations,
            actions=one.actions,
            rewards=one.rewards,
            terminations=np.arange(len(one)) == (len(one) - 1 if one.terminated else -1),
            truncations=np.arange(len(one)) == (-1 if one.terminated else len(one) - 1),
            infos={LEVEL: np.full(len(one) + 1, one.level)},
        )
        for number, one in enumerate(data.episodes)
    )
    return folder
