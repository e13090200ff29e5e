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
from typing import Any, TypeVar

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
    if not shown:
        return NoWatcher()
    if stream is None and (display := _notebook_display()) is not None:
        return Notebook(display)
    stream = stream or sys.stderr
    return ProgressBars(Console(file=stream)) if stream.isatty() else Lines(stream)


def estimate(elapsed: float, done: float, total: float) -> str:
    """Time left if the rest goes like what is done; nothing before there is something to go by."""
    if done <= 0 or total <= 0:
        return ""
    left = elapsed / done * (total - done)
    if left < 90:
        return f"{left:.0f} s left"
    return f"{left / 60:.0f} min left" if left < 5400 else f"{left / 3600:.1f} h left"


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
    def says(self) -> str:
        left = estimate(
            time.monotonic() - self.started, self.computed + self.share, self.total - self.stored
        )
        parts = [
            f"{self.study} {self.stored + self.computed}/{self.total} {self.unit}",
            f"{self.failed} failed",
            left,
        ]
        return " · ".join(part for part in parts if part and part != "0 failed")


class Lines:
    """For logs and pipes: a line at most every twenty seconds; a run shorter than that says
    nothing.
    """

    def __init__(self, stream: Any, every: float = _SPEAK) -> None:
        self.stream, self.every = stream, every
        self.cells, self.spoke = Cells(), time.monotonic()
        self.sink: Sink = Shares(self._share)

    def begin(self, study: str, total: int, stored: int, unit: str = "cells") -> None:
        self.cells, self.spoke = Cells(study, total, stored, unit=unit), time.monotonic()

    def on_finish(self, outcome: object) -> None:
        self.cells.computed, self.cells.share = self.cells.computed + 1, 0.0
        self.cells.failed += isinstance(outcome, Failure)
        self._speak()

    def end(self) -> None: ...

    def _share(self, path: tuple[str, ...], share: float) -> None:
        self.cells.share = share
        self._speak()

    def _speak(self) -> None:
        now = time.monotonic()
        if now - self.spoke >= self.every:
            self.spoke = now
            print(self.cells.says, file=self.stream, flush=True)


class ProgressBars:
    """For terminals: a bar over cells and one over the steps of the cell at work, gone at the
    end.
    """

    def __init__(self, console: Console) -> None:
        self.cells = Cells()
        self.progress = Progress(
            BarColumn(40),
            TextColumn("{task.fields[says]}"),
            console=console,
            transient=True,
        )
        self.all: TaskID | None = None
        self.sink: Sink = Shares(self._share)

    def begin(self, study: str, total: int, stored: int, unit: str = "cells") -> None:
        self.cells = Cells(study, total, stored, unit=unit)
        if stored < total:
            self.progress.start()
            self.all = self.progress.add_task(
                study, total=total, completed=stored, says=self.cells.says
            )

    def on_finish(self, outcome: object) -> None:
        self.cells.computed, self.cells.share = self.cells.computed + 1, 0.0
        self.cells.failed += isinstance(outcome, Failure)
        self._draw("")

    def end(self) -> None:
        self.progress.stop()

    def _share(self, path: tuple[str, ...], share: float) -> None:
        self.cells.share = share
        self._draw(" ".join(path[1:])[:40])

    def _draw(self, at: str) -> None:
        if self.all is not None:
            done = self.cells.stored + self.cells.computed + self.cells.share
            self.progress.update(self.all, completed=done, says=f"{self.cells.says}  {at}")


class Notebook:
    """For notebooks: a bar with its line in the cell's output, replaced as it grows."""

    def __init__(self, display: Callable[..., Any]) -> None:
        self.display, self.handle = display, None
        self.cells, self.drawn = Cells(), 0.0
        self.sink: Sink = Shares(self._share)

    def begin(self, study: str, total: int, stored: int, unit: str = "cells") -> None:
        self.cells = Cells(study, total, stored, unit=unit)
        self._draw()

    def on_finish(self, outcome: object) -> None:
        self.cells.computed, self.cells.share = self.cells.computed + 1, 0.0
        self.cells.failed += isinstance(outcome, Failure)
        self._draw()

    def end(self) -> None:
        """The last state stays, so that the notebook tells what was computed."""
        self._draw()

    def _share(self, path: tuple[str, ...], share: float) -> None:
        self.cells.share = share
        if time.monotonic() - self.drawn >= _REDRAW:
            self._draw()

    def _draw(self) -> None:
        self.drawn = time.monotonic()
        done = self.cells.stored + self.cells.computed + self.cells.share
        bar = f'<progress value="{done:.3f}" max="{max(self.cells.total, 1)}"></progress>'
        bundle = {"text/plain": self.cells.says, "text/html": f"{bar} {escape(self.cells.says)}"}
        if self.handle is None:
            self.handle = self.display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)


def _notebook_display() -> Callable[..., Any] | None:
    """IPython's `display` where a notebook's kernel runs this code; IPython is never imported for
    it.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return importlib.import_module("IPython.display").display


class Shares:
    """The lab's sink: tells a listener, at most ten times a second, which share of a loop is
    done.
    """

    def __init__(self, tell: Callable[[tuple[str, ...], float], None]) -> None:
        self.tell = tell

    def log(self, path: tuple[str, ...], scalars: Mapping[str, float]) -> None:
        log.info(
            "%s %s",
            "/".join(path),
            " ".join(f"{name}={value:.6g}" for name, value in scalars.items()),
        )

    def track(self, path: tuple[str, ...], items: Iterable[T], total: int | None) -> Iterator[T]:
        told = time.monotonic()
        for n, item in enumerate(items, 1):
            yield item
            if total and time.monotonic() - told >= _REDRAW:
                told = time.monotonic()
                self.tell(path, n / total)
