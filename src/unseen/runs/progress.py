"""Progress: a line with an estimate on a terminal or in a notebook, a rare plain line elsewhere;
scalars go to the log.
"""

import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Protocol, TypeVar, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from unseen.lab import Sink
from unseen.runs.runner import NoWatcher, Watcher
from unseen.runs.store import Failure

T = TypeVar("T")
log = logging.getLogger("unseen")
_REDRAW, _SPEAK = 0.1, 20.0


def watcher(stream: Any = None, shown: bool = True) -> Watcher:
    """The one that suits the stream (default: the notebook if there is one, else the standard
    error).
    """
    return CellProgress(view(stream)) if shown else NoWatcher()


def view(stream: Any = None) -> "View":
    """Where progress is shown: a notebook's cell, a terminal, or a log (default: the standard
    error).
    """
    if stream is None and (display := _notebook_display()) is not None:
        return Notebook(display)
    stream = stream or sys.stderr
    return ProgressBars(Console(file=stream)) if stream.isatty() else Lines(stream)


def estimate(elapsed: float, done: float, total: float) -> str:
    """Time left if the rest goes like what is done; nothing before a fiftieth is: what starts
    slowly would be multiplied.
    """
    if total <= 0 or done < total / 50:
        return ""
    return f"{duration(elapsed / done * (total - done))} left"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass
class Cells:
    """How far a study is: cells stored at the start, computed since, and the share done of the one
    at work.
    """

    study: str = ""
    total: int = 0
    stored: int = 0
    computed: int = 0
    failed: int = 0
    share: float = 0.0
    started: float = field(default_factory=time.monotonic)
    unit: str = "cells"

    @property
    def position(self) -> float:
        return self.stored + self.computed + self.share

    @property
    def says(self) -> str:
        elapsed = time.monotonic() - self.started
        left = estimate(elapsed, self.computed + self.share, self.total - self.stored)
        parts = [
            f"{self.study} {self.stored + self.computed}/{self.total} {self.unit}",
            f"{self.failed} failed",
            left,
        ]
        return " · ".join(part for part in parts if part and part != "0 failed")


@runtime_checkable
class View(Protocol):
    """Where the state of a study is shown; `at` says which loop is at work."""

    def begin(self, cells: Cells) -> None: ...
    def draw(self, cells: Cells, at: str = "") -> None: ...
    def end(self, cells: Cells) -> None: ...


class CellProgress:
    """The watcher that counts cells and shares of cells, and has them shown in a view."""

    def __init__(self, view: View) -> None:
        self.view, self.cells = view, Cells()
        self.sink: Sink = Shares(self._share)

    def begin(self, study: str, total: int, stored: int, unit: str = "cells") -> None:
        self.cells = Cells(study, total, stored, unit=unit)
        self.view.begin(self.cells)

    def on_finish(self, outcome: object) -> None:
        self.cells.computed, self.cells.share = self.cells.computed + 1, 0.0
        self.cells.failed += isinstance(outcome, Failure)
        self.view.draw(self.cells)

    def end(self) -> None:
        self.view.end(self.cells)

    def _share(self, path: tuple[str, ...], share: float) -> None:
        self.cells.share = share
        self.view.draw(self.cells, " ".join(path[1:])[:40])


class Lines:
    """For logs and pipes: a line at most every twenty seconds; a run shorter than that says
    nothing.
    """

    def __init__(self, stream: Any, every: float = _SPEAK) -> None:
        self.stream, self.every = stream, every
        self.spoke = time.monotonic()

    def begin(self, cells: Cells) -> None:
        self.spoke = time.monotonic()

    def draw(self, cells: Cells, at: str = "") -> None:
        now = time.monotonic()
        if now - self.spoke >= self.every:
            self.spoke = now
            print(cells.says, file=self.stream, flush=True)

    def end(self, cells: Cells) -> None: ...


class ProgressBars:
    """For terminals: a bar over cells with the loop of the cell at work, gone at the end."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            BarColumn(40),
            TextColumn("{task.fields[says]}"),
            console=console,
            transient=True,
        )
        self.all: TaskID | None = None

    def begin(self, cells: Cells) -> None:
        if cells.stored < cells.total:
            self.progress.start()
            self.all = self.progress.add_task(
                cells.study, total=cells.total, completed=cells.stored, says=cells.says
            )

    def draw(self, cells: Cells, at: str = "") -> None:
        if self.all is not None:
            self.progress.update(self.all, completed=cells.position, says=f"{cells.says}  {at}")

    def end(self, cells: Cells) -> None:
        self.progress.stop()


class Notebook:
    """For notebooks: a bar with its line in the cell's output, replaced as it grows. The last state
    stays, so that the notebook tells what was computed.
    """

    def __init__(self, display: Callable[..., Any]) -> None:
        self.display, self.handle = display, None

    def begin(self, cells: Cells) -> None:
        self.draw(cells)

    def draw(self, cells: Cells, at: str = "") -> None:
        bar = f'<progress value="{cells.position:.3f}" max="{max(cells.total, 1)}"></progress>'
        bundle = {"text/plain": cells.says, "text/html": f"{bar} {escape(cells.says)}"}
        if self.handle is None:
            self.handle = self.display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)

    def end(self, cells: Cells) -> None:
        self.draw(cells)


def _notebook_display() -> Callable[..., Any] | None:
    """IPython's `display` where a notebook's kernel runs this code; IPython is never imported for
    it.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return importlib.import_module("IPython.display").display


@dataclass(frozen=True)
class WithoutShares:
    """A sink for loops that are an unknown part of the whole: they are shown to run, without a
    share, from which a time left would be told.
    """

    sink: Sink

    def log(self, path: tuple[str, ...], scalars: Mapping[str, float]) -> None:
        self.sink.log(path, scalars)

    def track(self, path: tuple[str, ...], items: Iterable[T], total: int | None) -> Iterator[T]:
        return self.sink.track(path, items, None)


class Shares:
    """The lab's sink: tells a listener, at most ten times a second, which share of a loop is done;
    of loops within loops, of the outermost, else the share would run to and fro.
    """

    def __init__(self, tell: Callable[[tuple[str, ...], float], None]) -> None:
        self.tell = tell
        self._open = 0
        """Loops that have begun and not ended."""

    def log(self, path: tuple[str, ...], scalars: Mapping[str, float]) -> None:
        log.info(
            "%s %s",
            "/".join(path),
            " ".join(f"{name}={value:.6g}" for name, value in scalars.items()),
        )

    def track(self, path: tuple[str, ...], items: Iterable[T], total: int | None) -> Iterator[T]:
        told, is_outermost = time.monotonic(), self._open == 0
        self._open += 1
        try:
            for n, item in enumerate(items, 1):
                yield item
                if is_outermost and time.monotonic() - told >= _REDRAW:
                    told = time.monotonic()
                    self.tell(path, n / total if total else 0.0)
        finally:
            self._open -= 1
