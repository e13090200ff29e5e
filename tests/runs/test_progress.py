"""Progress tells how far a study is, and stays quiet where nobody looks."""

import io
import logging
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as some
from rich.console import Console

from unseen.lab import Lab, Sink
from unseen.runs.progress import (
    CellProgress,
    Cells,
    Lines,
    ProgressBars,
    Shares,
    estimate,
    watcher,
)
from unseen.runs.runner import Watcher
from unseen.runs.store import Failure, Run

DONE = Run(study="s", key="k", cell={}, rows=())
FAILED = Failure(study="s", key="k", cell={}, kind="E", what="")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_watcher_suits_the_stream():
    assert isinstance(watcher(Terminal()).view, ProgressBars)
    assert isinstance(watcher(io.StringIO()).view, Lines)
    for one in (watcher(Terminal()), watcher(io.StringIO())):
        assert isinstance(one, Watcher)
        assert isinstance(one.sink, Sink)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time that progress reads; a test moves it."""
    now = [1_000.0]
    monkeypatch.setattr("unseen.runs.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_short_runs_say_nothing_in_a_pipe(clock):
    stream = io.StringIO()
    lines = CellProgress(Lines(stream))
    lines.begin("s", 2, 0)
    clock[0] += 19
    lines.on_finish(DONE)
    lines.end()
    assert stream.getvalue() == ""


def test_long_runs_say_how_far_they_are(clock):
    stream = io.StringIO()
    lines = CellProgress(Lines(stream))
    lines.begin("s", 5, 2)
    lines.cells.started = clock[0]
    clock[0] += 60
    lines.on_finish(DONE)
    clock[0] += 20
    lines.on_finish(FAILED)
    assert stream.getvalue().splitlines() == [
        "s 3/5 cells · 2 min left",
        "s 4/5 cells · 1 failed · 40 s left",
    ]


def test_the_bar_shows_cells_and_is_gone_at_the_end():
    stream = Terminal()
    drawn = CellProgress(ProgressBars(Console(file=stream, force_terminal=True, width=120)))
    drawn.begin("study", 2, 1)
    drawn.on_finish(DONE)
    drawn.view.progress.refresh()
    drawn.end()
    assert "study 2/2 cells" in stream.getvalue()


def test_nothing_is_drawn_when_nothing_is_to_do():
    stream = Terminal()
    drawn = CellProgress(ProgressBars(Console(file=stream, force_terminal=True)))
    drawn.begin("study", 2, 2)
    drawn.end()
    assert "study" not in stream.getvalue()


@pytest.mark.parametrize(
    ("elapsed", "done", "total", "says"),
    [
        (10, 0, 5, ""),
        (10, 0.09, 5, ""),
        (10, 0.1, 5, "8 min left"),
        (10, 1, 5, "40 s left"),
        (600, 1, 5, "40 min left"),
        (3600, 1, 5, "4.0 h left"),
        (1, 1, 1, "0 s left"),
    ],
)
def test_estimates(elapsed, done, total, says):
    assert estimate(elapsed, done, total) == says


@given(total=some.integers(1, 50), seconds=some.floats(0.1, 100))
def test_estimates_fall_linearly_when_cells_are_equal(total, seconds):
    cells = Cells("s", total)
    assert cells.says.startswith(f"s 0/{total} cells")
    assert estimate(seconds * total, total, total) == "0 s left"


def test_loops_come_through_unchanged_and_report_their_share(clock):
    told = []
    lab = Lab(sink=Shares(lambda path, share: told.append((path, share)))).child("s", "fit")
    seen = []
    for item in lab.track(iter(range(4)), 4):
        seen.append(item)
        clock[0] += 0.06
    assert seen == [0, 1, 2, 3]
    assert told == [(("s", "fit"), 0.5), (("s", "fit"), 1.0)]
    told.clear()
    assert list(lab.track(iter("ab"))) == ["a", "b"]  # a stream of unknown length
    assert not told


def test_scalars_go_to_the_log(caplog):
    with caplog.at_level(logging.INFO, "unseen"):
        Lab(sink=Shares(lambda *_: None)).child("s", "fit").log(loss=0.25, step=3)
    assert caplog.messages == ["s/fit loss=0.25 step=3"]


def test_of_loops_within_loops_the_outermost_tells_its_share(monkeypatch):
    monkeypatch.setattr("unseen.runs.progress._REDRAW", 0.0)
    told = []
    lab = Lab(sink=Shares(lambda path, share: told.append((path, share)))).child("s")
    for _ in lab.track(range(2), 2):
        assert list(lab.child("fit").track(range(3), 3)) == [0, 1, 2]
    assert told == [(("s",), 0.5), (("s",), 1.0)]
    for _ in lab.track(range(2), 2):
        break  # a loop that is left early has ended, too
    told.clear()
    assert list(lab.track(range(1), 1)) == [0]
    assert told == [(("s",), 1.0)]
