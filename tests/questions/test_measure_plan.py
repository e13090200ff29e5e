"""Which measures are read in a given time: estimated, the cheapest first, the others by name."""

from dataclasses import replace

import pytest
import torch

import unseen
from unseen.errors import InvalidConfig
from unseen.models.tiny_causal import tiny_causal
from unseen.questions.measure import plan
from unseen.questions.measure.catalogue import catalogue
from unseen.questions.measure.plan import Setting, plan_measures
from unseen.reading import Direction, MeasureEntry, Work
from unseen.tasks.text_corpus import Cut

SETTING = Setting(operations=1e9, weights=1_000_000)


def entry(name: str, shared: str = "", **work: float) -> MeasureEntry:
    return MeasureEntry(
        name=name,
        measure=lambda trained, lab: None,
        meaning="…",
        direction=Direction.LOWER,
        family="sharpness",
        passes=1,
        work=Work(**work, shared=shared),
    )


def planned(entries: list[MeasureEntry], minutes: float) -> plan.Plan:
    return plan_measures(entries, lambda e: SETTING.seconds(e.effort, 70), SETTING, minutes)


def test_seconds_are_passes_and_touched_weights():
    # 70 examples of a billion operations at 7e10 a second are one second a pass
    assert SETTING.seconds(Work(forward=2), 70) == 2
    assert SETTING.seconds(Work(gradients=2), 70) == 6
    assert SETTING.seconds(Work(products=1), 70) == 9
    assert SETTING.seconds(Work(sweeps=500), 70) == pytest.approx(1)
    assert replace(SETTING, is_core=False).seconds(Work(forward=2), 70) == 0.02


def test_the_cheapest_are_read_first_and_the_others_are_named_with_their_time():
    found = planned(
        [entry("long", forward=400), entry("short", forward=3), entry("mid", forward=50)], 1
    )
    assert [e.name for e, _ in found.steps] == ["short", "mid"]
    assert "about 7 min of one core" in found.left_out["long"]
    assert '--measure "long"' in found.left_out["long"]
    assert "together may take 60 s" in found.left_out["long"]
    assert not planned([entry("long", forward=400)], 7).left_out


def test_what_several_measures_share_is_spent_once():
    both = [entry("one", "noise", forward=50), entry("two", "noise", forward=50)]
    found = planned([*both, entry("alone", forward=5)], 1)
    assert not found.left_out
    assert [count for _, count in found.steps][2] < 5  # nothing is left to do
    reasons = planned(both, 0.5).left_out
    assert {*reasons} == {"one", "two"}
    (why,) = {*reasons.values()}  # one note for both
    assert "for noise. " in why
    assert '--measure "one" and --measure "two"' in why


def test_progress_is_in_shares_of_the_time():
    found = planned([entry("long", forward=30), entry("short", forward=10)], 1)
    ticks = list(found.ticks())
    assert len(ticks) == found.total == pytest.approx(1_000, abs=2)
    names = {k: one.name for k, one in enumerate(ticks) if one is not None}
    assert list(names.values()) == ["short", "long"]
    assert list(names)[1] / found.total == pytest.approx(0.25, abs=0.01)


def test_what_does_not_fit_into_memory_is_refused_before_it_is_killed(monkeypatch):
    monkeypatch.setattr(plan, "physical_memory", lambda: 1.0)
    found = planned([entry("basis", copies=300), entry("few", copies=3)], float("inf"))
    assert [e.name for e, _ in found.steps] == ["few"]
    assert "about 1 GB" in found.left_out["basis"]
    assert "this machine has 1 GB" in found.left_out["basis"]


def test_measures_that_share_an_effort_take_the_same():
    by_effort: dict[str, set[Work]] = {}
    for one in catalogue():
        if one.effort.shared:
            by_effort.setdefault(one.effort.shared, set()).add(one.effort)
    assert len(by_effort) >= 5
    assert all(len(efforts) == 1 for efforts in by_effort.values())


def test_a_language_model_has_what_fits_into_its_minutes(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    (tmp_path / "a.txt").write_text("The house stands on a hill. " * 12)
    model = tiny_causal()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.1)

    def measured(minutes: float | None, *names: str) -> unseen.Answer:
        return unseen.measure_of_text(
            model,
            tmp_path / "a.txt",
            length=32,
            windows=2,
            cut=Cut.SKIP,
            minutes=minutes,
            measures=names,
            progress=False,
        )

    (few,) = measured(1e-5).results
    (more,) = measured(None).results
    (named,) = measured(1e-5, "Hessian trace").results  # whatever it costs
    names = {m.name for m in few.measurements}
    assert "parameters" in names
    assert "of one core" in few.left_out["Hessian trace"]
    assert "Hessian trace" in {m.name for m in more.measurements}
    assert [m.name for m in named.measurements] == ["Hessian trace"]
    order = [one.name for one in catalogue()]
    shown = [m.name for m in more.measurements if m.name in order]
    assert shown == sorted(shown, key=order.index)
    for minutes in (0.0, float("nan")):
        with pytest.raises(InvalidConfig, match="minutes="):
            measured(minutes)
