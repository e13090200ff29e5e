"""The estimate of a run of many studies: what ledgers recorded, corrected by this machine."""

import json
from types import SimpleNamespace

import pytest

from unseen.runs import schedule
from unseen.runs.progress import Lines
from unseen.runs.schedule import (
    AllStudies,
    StudyPlan,
    describe_plans,
    plan_studies,
    recorded_seconds,
)
from unseen.runs.store import Failure
from unseen.study import Scale


class Clock:
    """Monotonic time that a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(schedule, "time", clock)
    return clock


class View:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, cells) -> None:
        cells.started = 0.0

    def draw(self, cells, at="") -> None:
        self.lines.append(cells.says)

    def end(self, cells) -> None: ...


def plan(name: str, cells: int, missing: int, seconds: float) -> StudyPlan:
    return StudyPlan(name=name, cells=cells, missing=missing, seconds=seconds, is_recorded=True)


def test_the_estimate_starts_from_the_ledgers_and_ends_at_nothing(clock):
    plans = [plan("a", 4, 2, 200.0), plan("b", 1, 1, 300.0), plan("c", 5, 0, 900.0)]
    watcher = AllStudies(View(), plans, jobs=2)
    here = watcher.schedule
    # two cells of 50 s at once, then one of 300 s, which two jobs do not share
    assert here.seconds_left == pytest.approx(50 + 300)
    watcher.start_study(1)
    watcher.begin("a", 4, 2)
    clock.now = 100.0  # four times as slow: 25 of the expected seconds took 100
    watcher.on_finish(object())
    prior = schedule.PRIOR * 350
    assert here.seconds_left == pytest.approx(325 * (100 + prior) / (25 + prior))
    watcher.on_finish(object())
    watcher.begin("a", 8, 4)  # seeds that were added: no plan foresaw them
    watcher.on_finish(object())
    assert (here.computed_seconds, here.ahead) == (50, 300)
    watcher.start_study(2)
    assert (here.computed_seconds, here.ahead) == (50, 300)
    watcher.begin("b", 1, 0)
    watcher.on_finish(object())
    assert (here.computed_seconds, here.ahead) == (350, 0)
    watcher.start_study(3)
    assert here.seconds_left == 0
    assert here.position == here.total


def test_a_study_that_fails_at_once_is_no_evidence_of_speed(clock):
    watcher = AllStudies(View(), [plan("a", 1, 1, 100.0), plan("b", 1, 1, 100.0)], jobs=1)
    watcher.start_study(1)
    watcher.start_study(2)
    clock.now = 1.0
    assert watcher.schedule.computed_seconds == 0
    assert watcher.schedule.ahead == 100
    assert watcher.schedule.seconds_left == pytest.approx(100 * (1 + 10) / 10)


def test_seeds_added_to_a_study_that_was_stored_say_nothing_of_speed(clock):
    watcher = AllStudies(
        View(), [plan("a", 4, 0, 100.0), plan("b", 4, 1, 80.0), plan("c", 1, 1, 100.0)], jobs=1
    )
    here = watcher.schedule
    assert here.seconds_left == pytest.approx(120)
    watcher.start_study(1)
    watcher.begin("a", 4, 4)
    watcher.begin("a", 8, 4)
    clock.now = 70.0
    watcher.on_finish(object())
    assert here.seconds_left == pytest.approx(120)
    watcher.start_study(2)
    assert here.seconds_left == pytest.approx(120)
    watcher.begin("b", 4, 3)
    clock.now += 20.0  # as its ledger says
    watcher.on_finish(object())
    watcher.begin("b", 8, 4)
    clock.now += 40.0  # a quarter of these is in what was expected
    watcher.on_finish(object())
    prior = schedule.PRIOR * 120
    expected = pytest.approx(100 * (30 + prior) / (20 + prior))
    assert here.seconds_left == expected
    watcher.start_study(3)
    assert here.seconds_left == expected


def test_one_line_says_which_study_how_far_and_until_when(clock):
    view = View()
    watcher = AllStudies(view, [plan("a", 4, 4, 7200.0)], jobs=1)
    watcher.start_study(1)
    watcher.begin("a", 4, 0)
    watcher.on_finish(object())
    assert view.lines[-1].startswith("study 1 of 1: a 1/4 cells · about ")
    assert " left, until " in view.lines[-1]
    watcher.on_finish(Failure(study="a", key="0", cell={}, kind="Divergence", what=""))
    assert " · 1 cell failed · " in view.lines[-1]
    assert isinstance(Lines(SimpleNamespace()), schedule.View)


def test_ledgers_of_another_scale_and_damaged_ones_do_not_count(tmp_path):
    for name, text in {
        "a": {"study": "a", "scale": "laptop", "claims": [], "seconds": 10},
        "b": {"study": "b", "scale": "smoke", "claims": [], "seconds": 1},
        "c": {"nothing": "of the kind"},
        "d": {"study": "d", "scale": "laptop", "claims": [], "seconds": 30},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(text))
    recorded = recorded_seconds(tmp_path, Scale.LAPTOP)
    assert recorded == {"a": 10, "d": 30}
    plans = plan_studies({"a": (2, 1), "e": (4, 4), "f": (3, 0)}, recorded, Scale.LAPTOP)
    assert [one.remaining for one in plans] == [5, 20, 0]
    said = describe_plans(plans, 2)
    assert said.startswith("2 of 3 studies have missing cells: about 25 s of CPU time")
    assert "1 of them without a ledger: a guess" in said
    assert plan_studies({"a": (1, 1)}, {}, Scale.SMOKE)[0].remaining == 5
    assert describe_plans(plan_studies({"a": (1, 0)}, {}, Scale.SMOKE), 1) == (
        "all cells are in the store"
    )
