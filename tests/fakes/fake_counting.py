"""A study whose cells leave a mark each time they are computed, found through an entry point like a
third party's.
"""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fake_helper
import torch

from unseen.errors import Divergence, MissingFile
from unseen.figure import Bars
from unseen.lab import Lab
from unseen.study import Claim, Row, Rows, Scale, Study, average
from unseen.study.source import Source


@dataclass(frozen=True)
class Draws:
    """What is drawn."""

    dim: int = 50
    shift: float = 1.0


@dataclass(frozen=True)
class Config:
    task: Draws = Draws()
    seeds: int = 3
    trouble: str = ""


@dataclass(frozen=True)
class Cell:
    task: Draws
    trouble: str
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        yield Cell(config.task, config.trouble if seed == 1 else "", seed)


def run(cell: Cell, lab: Lab) -> Iterator[Row]:
    mark(cell.seed)
    kept = lab.keep(
        "draws", lambda: {"x": torch.randn(cell.task.dim, generator=lab.child("x").generator())}
    )
    gate(cell.seed, "drawn")
    if cell.trouble and not healed():
        give(cell.trouble)
    for n, x in enumerate(lab.track(kept["x"].split(10), 5)):
        if n == 2:
            gate(cell.seed, "rows")
        yield {
            "seed": cell.seed,
            "n": n,
            "mean": fake_helper.shifted(x, cell.task.shift),
            "first": n == 0,
        }


def mark(seed: int) -> None:
    folder = os.environ.get("FAKE_MARKS")
    if folder:
        with open(Path(folder) / str(seed), "a") as file:
            file.write(f"{os.getpid()}\n")


def gate(seed: int, stage: str) -> None:
    """Waits where a test says so (`Gates` in conftest), so that a cell is unfinished for certain
    when it is killed.
    """
    folder = os.environ.get("FAKE_GATES")
    if not folder:
        return
    (Path(folder) / f"{seed}.{stage}.reached").touch()
    end = time.monotonic() + 1_200
    while not any((Path(folder) / name).exists() for name in ("all.open", f"{seed}.{stage}.open")):
        if time.monotonic() > end:
            raise TimeoutError(f"Nobody opened the gate {seed}.{stage}.")
        time.sleep(0.01)


def healed() -> bool:
    return os.environ.get("FAKE_HEALED", "") != ""


def give(trouble: str) -> None:
    if trouble == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "interrupted":
        raise KeyboardInterrupt
    if trouble == "missing":
        raise MissingFile("There is no file.", why="it is read.", fix="download it.")
    raise Divergence("The loss is not finite.", why="the rate is high.", fix="lower it.")


CLAIMS = (
    Claim(says="The draws are shifted.", effect=average("mean"), above=0.5, needs=Scale.SMOKE),
)


def bars(rows: Rows) -> Bars:
    return Bars(title="means", values={str(row["seed"]): float(row["mean"]) for row in rows})


study = Study(
    name="fake_counting",
    system="00",
    source=Source(key="fake2026", title="Counting", authors=("Doe, Jane",), year=2026),
    scales={Scale.SMOKE: Config(), Scale.LAPTOP: Config(seeds=6)},
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(bars,),
)
