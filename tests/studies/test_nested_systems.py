"""Systems that move their own wires: what they do is what the wirings do, and claims read rows."""

from dataclasses import replace

import pytest
import torch

from unseen.lab import Lab
from unseen.models.nested.machine import connect, run
from unseen.studies.nested_systems import (
    TURNING,
    WIRINGS,
    Failures,
    Growth,
    batches,
    control,
    controllers,
    disturbances,
    study,
    tracking_error,
    watch_error,
    watch_errors,
)
from unseen.study import Scale, Verdict

SMOKE = study.scales[Scale.SMOKE]
LAB = Lab(seed=3)


def test_the_controller_that_fits_follows_the_reference_and_the_other_one_meets_the_wall():
    world = list(disturbances(replace(SMOKE, steps=300), False, LAB))
    errors = {mode: tracking_error(connect(w, controllers()), world) for mode, w in WIRINGS.items()}
    assert errors["towards"] < 0.15
    assert errors["away"] > 1
    assert errors["sum"] == pytest.approx(errors["rest"])  # the two pushes cancel
    turned = [inputs | {"sign": -1.0} for inputs in world]
    assert tracking_error(connect(WIRINGS["away"], controllers()), turned) < 0.15


def test_a_large_error_that_grows_three_times_hands_over():
    state = Growth("towards")
    for error in (0.25, 0.3, 0.35):
        state = watch_error(state, {"towards": {"error": error}})
    assert (state.mode, state.grown) == ("away", 0)
    for error in (0.4, 0.3, 0.5, 0.6):
        state = watch_error(state, {"towards": {"error": error}})
    assert state == Growth("away", 0.6, 2)


def test_without_a_reversal_the_changing_wiring_is_the_fixed_one():
    (row,) = control(SMOKE, False, LAB)
    assert row["best"] == "towards"
    assert row["ratio"] == 1
    world = list(disturbances(SMOKE, False, LAB))
    (*_, (_, state)) = run(connect(TURNING, controllers()), world)
    assert state.mode.mode == "towards"


def test_labels_change_their_meaning_in_every_other_period():
    plain, changing = (list(batches(SMOKE, alternates, LAB)) for alternates in (False, True))
    shifts = [
        ((b["target"] - a["target"]) % 10).unique() for a, b in zip(plain, changing, strict=True)
    ]
    assert [shift.tolist() for shift in shifts] == [
        [0],
        [0],
        [0],
        [5],
        [5],
        [5],
        [0],
        [0],
        [0],
        [5],
    ]


def test_networks_change_after_a_wrong_batch_and_not_at_once_again():
    wrong = {"cost": {"y": torch.eye(10), "target": (torch.arange(10) + 1) % 10}}
    state = watch_errors(Failures("a", 10), wrong)
    assert state == Failures("b", 0)
    assert watch_errors(state, wrong) == Failures("b", 1)
    right = {"cost": {"y": torch.eye(10), "target": torch.arange(10)}}
    assert watch_errors(Failures("a", 50), right).mode == "a"


def test_claims_read_their_rows():
    rows = [
        {"seed": seed, "part": part, "changes": True, "ratio": 0.1 + seed / 100,
         "gain": 0.1 + seed / 100}
        for seed in range(5) for part in ("controllers", "learners")
    ]  # fmt: skip
    verdicts = [claim.judge(rows, Scale.LAPTOP).verdict for claim in study.claims]
    assert verdicts == [Verdict.SUPPORTED] * 2
