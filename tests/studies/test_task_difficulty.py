"""The study of task difficulty: its cart-pole, and claims that read its rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unseen.lab import Lab
from unseen.studies.task_difficulty import (
    CLAIMS,
    CartPole,
    advance,
    cart_pole_rows,
    simulate,
    study,
    wants_right,
)
from unseen.study import Scale, Verdict, pick

SMOKE = study.scales[Scale.SMOKE]


def test_smoke_runs_and_can_be_judged(smoke_runs):
    rows = smoke_runs.rows(study.name)
    verdicts = {claim.judge(rows, Scale.SMOKE).verdict for claim in CLAIMS}
    assert verdicts == {Verdict.NOT_JUDGED}
    assert {row["task"] for row in pick(rows, part="images")} == {
        "optdigits",
        "fashion-mnist-small",
    }
    assert {row["task"] for row in pick(rows, part="cart-pole")} == {"state", "positions"}
    assert all(0 <= row["share"] <= 1 for row in pick(rows, part="models"))
    for figure in study.figures:
        assert figure(rows).title
    assert study.table(rows)


def test_a_pole_that_stands_is_pushed_over_and_one_that_leans_falls():
    assert advance(np.zeros(4), 0.0) == pytest.approx(np.zeros(4))
    pushed = advance(np.zeros(4), 10.0)
    assert pushed[1] > 0 > pushed[3]  # the cart goes right, the pole leans left
    leaning = np.array([0.0, 0.0, 0.1, 0.0])
    for _ in range(20):
        leaning = advance(leaning, 0.0)
    assert leaning[2] > 0.1
    mirrored = advance(-np.array([0.1, 0.2, 0.3, 0.4]), -10.0)
    assert mirrored == pytest.approx(-advance(np.array([0.1, 0.2, 0.3, 0.4]), 10.0))


def test_the_controller_keeps_the_pole_up():
    state = np.array([0.5, 0.0, 0.1, 0.0])
    for _ in range(500):
        state = advance(state, 10.0 if wants_right(state) else -10.0)
        assert abs(state[2]) < 0.5
    states, pushes = simulate(CartPole(steps=200), Lab())
    assert states.shape == (200, 4)
    assert 0.2 < pushes.double().mean() < 0.8
    assert torch.equal(simulate(CartPole(steps=200), Lab())[0], states)


def test_positions_and_state_are_of_the_same_situations():
    rows = list(cart_pole_rows(replace(SMOKE, cart_pole=CartPole(steps=400)), Lab(5)))
    assert [row["task"] for row in rows] == ["state", "positions"]
    assert all(1 < row["dimension"] < 7 and row["ratio"] > 1 for row in rows)


def test_claims_read_the_rows():
    hard = {"mnist": 45.0, "fashion-mnist": 60.0, "cifar10": 105.0}
    rows = [
        {"part": "images", "task": task, "log2_bits": bits + seed / 10 * hard[task] / 45}
        | {"seed": seed}
        for task, bits in hard.items()
        for seed in range(3)
    ]
    for seed in range(3):
        for part, task, bits in (
            ("cart-pole", "state", 45.0),
            ("cart-pole", "positions", 62.0 + seed),
            ("few-shot", "omniglot", 211.0 + seed),
        ):
            rows.append({"part": part, "task": task, "log2_bits": bits, "seed": seed})
        for model, share in (("linear", 0.7), ("convolutional", 0.75 + seed / 1000)):
            rows.append({"part": "models", "model": model, "share": share, "seed": seed})
    assert {claim.judge(rows, Scale.LAPTOP).verdict for claim in CLAIMS} == {Verdict.SUPPORTED}
