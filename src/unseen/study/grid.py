"""Cells of a study: every setting with every arm and seed, seed by seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

Setting = TypeVar("Setting")
Arm = TypeVar("Arm")
Config = TypeVar("Config")


@dataclass(frozen=True)
class Cell(Generic[Setting, Arm]):
    """One job: data and training, what is compared on them, and the seed."""

    setting: Setting
    arm: Arm
    seed: int


@dataclass(frozen=True)
class Grid(Generic[Setting, Arm]):
    """Settings × arms × seeds. Seeds come first: a killed run has whole seeds, which pair."""

    settings: Sequence[Setting]
    arms: Sequence[Arm]
    seeds: int

    def __iter__(self) -> Iterator[Cell[Setting, Arm]]:
        for seed in range(self.seeds):
            yield from self.at(seed)

    def at(self, seed: int) -> Iterator[Cell[Setting, Arm]]:
        """The cells of one seed; none from `seeds` on."""
        if seed < self.seeds:
            for setting in self.settings:
                for arm in self.arms:
                    yield Cell(setting, arm, seed)


def interleave(*grids: Grid[Any, Any]) -> Iterator[Cell[Any, Any]]:
    """The cells of several grids, seed by seed."""
    for seed in range(max(grid.seeds for grid in grids)):
        for grid in grids:
            yield from grid.at(seed)


def resize(config: Config, **changes: Any) -> Config:
    """The configuration with these fields replaced; a mapping changes fields of what stands there.

    `resize(LAPTOP, budget={"steps": 10}, seeds=1)` is the laptop scale with a shorter budget.
    """
    fields = {
        name: resize(getattr(config, name), **value) if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    return replace(config, **fields)  # type: ignore[type-var]
