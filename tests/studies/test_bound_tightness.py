"""The study of bound tightness: orders within lines, its claims on made rows, its cells."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from unseen.lab import Lab
from unseen.studies.bound_tightness import (
    Coin,
    Fit,
    fit,
    fits_of,
    lead,
    right,
    study,
    table,
    trade_off,
)
from unseen.study import Scale, Verdict, pick
from unseen.tasks.counterexamples import FiniteField

SMOKE = study.scales[Scale.SMOKE]


def made_rows(seeds: int = 3) -> list[dict]:
    """Fits whose gap falls with depth and rises with noise, and measures of known orders."""
    rows = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        for depth, width, batch, noise in product((1, 2, 3), (64, 128), (32, 128), (0.0, 0.2)):
            gap = 0.2 - 0.01 * depth + 0.5 * noise + 1e-4 * batch + 1e-3 * rng.random()
            rows.append(
                {
                    "seed": seed, "part": "fit", "depth": depth, "width": width, "batch": batch,
                    "noise": noise, "fits": True, "gap": gap, "parameters": depth * width,
                    "distance": gap + 1e-3 * rng.random(), "pac_bayes_flatness": gap**2,
                    "sharpness_flatness": gap**3,
                    "spectral_product": depth + noise + 0.01 * rng.random(),
                }
            )  # fmt: skip
    rows += [
        {"part": "trade-off", "seed": 0, "q": 2, "learner": "memory", "truth": truth}
        | {"error": 0.5, "bound": 0.5, "miss": 0.0}
        for truth in ("linear", "fixed random function")
    ]
    return rows


def test_right_counts_the_pairs_of_each_seed():
    rows = made_rows()
    assert right("distance", "noise")(rows).value == 1
    against = right("spectral_product", "depth")(rows)
    assert against.value == 0
    assert against.n == 3
    # a fit that did not reach the loss takes its pairs along
    rows[0] = {**rows[0], "fits": False, "distance": 99.0}
    assert right("distance", "noise")(rows).value == 1


def test_a_network_that_diverges_reaches_no_loss_and_no_comparison():
    setting = next(cell.setting for cell in SMOKE.cells() if isinstance(cell.setting, Fit))
    row = fit(replace(setting, budget=replace(setting.budget, lr=1e30)), Lab())
    assert row["fits"] is False
    assert fits_of([{"seed": 0, **row}]) == []
    rows = made_rows()
    kept = {name: rows[0][name] for name in ("seed", "part", "depth", "width", "batch", "noise")}
    without = [{**kept, "fits": False}, *rows[1:]]
    assert right("distance", "noise")(without).value == 1
    assert {one["models"] for one in table(without) if "models" in one} == {71}


def test_lead_is_the_paired_difference_of_means_over_axes():
    rows = made_rows()
    # the gap itself has Ψ = 1; the count is against it along depth, unrelated along width and
    # silent along the others
    found = lead("pac_bayes_flatness", "parameters")(rows)
    assert 1 <= found.value <= 1.5
    assert found.n == 3


def test_claims_are_judged_from_their_rows():
    rows = made_rows()
    assert {claim.judge(rows, Scale.SMOKE).verdict for claim in study.claims} == {
        Verdict.NOT_JUDGED
    }
    verdicts = [claim.judge(rows, Scale.LAPTOP).verdict for claim in study.claims]
    assert verdicts == [Verdict.SUPPORTED] * 5
    nothing = [{**row, "fits": False} for row in rows if row["part"] == "fit"]
    assert {claim.judge(nothing, Scale.LAPTOP).verdict for claim in study.claims} == {
        Verdict.UNDECIDED
    }
    summary = table(rows)
    assert [row["truth"] for row in summary[:2]] == ["fixed random function", "linear"]
    assert summary[2]["Ψ"] == pytest.approx(1)


def test_laptop_has_72_fits():
    cells = list(study.cells(study.scales[Scale.LAPTOP]))
    assert sum(isinstance(cell.setting, Fit) for cell in cells) == 72


def test_a_fit_ends_at_its_loss_with_its_measures():
    cell = next(iter(study.cells(SMOKE)))
    easy = replace(cell, setting=replace(cell.setting, loss=1.0, most_noise=20))
    (row,) = study.run(easy, Lab(seed=5))
    assert row["fits"]
    assert row["train_loss"] <= 1
    assert row["steps"] % SMOKE.budget.steps == 0
    assert row["gap"] == pytest.approx(row["test_error"], abs=0.6)
    assert {"distance", "spectral_product", "pac_bayes_flatness"} <= row.keys()


def test_the_trade_off_of_accuracy_and_tightness():
    rows = list(trade_off(Coin(FiniteField(7, 4), 10), Lab()))
    errors = {(row["learner"], row["truth"]): row["error"] for row in rows}
    assert errors["elimination", "linear"] == 0
    others = [error for key, error in errors.items() if key != ("elimination", "linear")]
    assert others == pytest.approx([6 / 7] * 3, abs=0.03)
    misses = {row["learner"]: [] for row in rows}
    for row in rows:
        misses[row["learner"]].append(row["miss"])
    assert max(misses["memory"]) < 0.05
    assert min(misses["elimination"]) > 3 / 7 - 0.05
    assert not pick(rows, part="fit")
