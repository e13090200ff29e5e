"""The XOR study: its reduced rows are those of the trained network, and smoke runs end to end."""

import pytest
import torch

from unseen.engine.evaluate import scores
from unseen.lab import Lab
from unseen.measures.grokking import NeuronAlignment, Oddness
from unseen.methods.gradient_descent import GradientDescent
from unseen.models.two_layer import TwoLayer
from unseen.studies.xor_grokking import (
    BOUNDARY,
    STRONG,
    Network,
    Setting,
    at_least,
    shortfall,
    strength,
    study,
    worst_setting,
)
from unseen.study import Scale, Verdict, average, pick
from unseen.study.grid import Cell, resize
from unseen.tasks.xor_clusters import XorClusters

LAB = Lab(seed=2, dtype=torch.float64)


def test_rows_are_the_readings_of_the_network_trained_step_by_step():
    spec = XorClusters(n=30, dim=900, mean_norm2=100.0, noise=0.2, n_evaluate=80)
    cell = Cell(Setting(spec, lr=0.02), Network(width=20, init=1e-3, times=(0, 1, 4, 12)), seed=2)
    rows = list(study.run(cell, LAB))
    task = spec.build(LAB.child("data"))
    for t in (1, 4, 12):
        with LAB.child("init").seeded():
            model = TwoLayer(900, 20, init=1e-3)
        trained = GradientDescent(steps=t, lr=0.02).fit(model, task, LAB)
        (row,) = pick(rows, model="network", t=t)
        found = scores(trained, LAB)
        assert row["train"] == pytest.approx(found["train"].value)
        assert row["test"] == pytest.approx(found["test"].value)
        assert (
            row["flipped_correct"]
            == found["train"].detail[task.splits["train"].data.columns["flipped"]].sum()
        )
        assert row["oddness"] == pytest.approx(Oddness()(trained, LAB).value, abs=1e-9)
        assert row["aligned"] == pytest.approx(NeuronAlignment()(trained, LAB).value)


def test_smoke_runs_and_every_claim_reads_it_as_laptop_rows(smoke_runs):
    rows = smoke_runs.rows(study.name)
    assert all(
        isinstance(value, str | int | float | bool) for row in rows for value in row.values()
    )
    assert {claim.judge(rows, Scale.SMOKE).verdict for claim in study.claims} == {
        Verdict.NOT_JUDGED
    }
    assert len(study.table(rows)) == 2
    for figure in study.figures:
        assert figure(rows).title
    # no margin here: one step is a coin, later steps are not, logistic regression stays one
    strong = [row for row in rows if row["signal"] == 3_200]
    late = average("test", model="network", t=100)(strong).value
    assert abs(average("test", model="network", t=1)(strong).value - 0.5) < 0.1 < late - 0.85
    assert abs(average("test", model="logistic", t=300)(strong).value - 0.5) < 0.1
    assert shortfall(t=300)(rows).n == 2


def test_strong_settings_are_those_of_a_strong_signal():
    rows = [
        {"setting": label, "signal": signal, "seed": seed, "v": value}
        for label, signal, value in (("a", 5000.0, 0.99), ("b", 2000.0, 0.95), ("c", 100.0, 0.2))
        for seed in range(2)
    ]
    assert worst_setting(average("v"), 1.0)(rows).value == pytest.approx(0.2)
    assert at_least(BOUNDARY, worst_setting(average("v"), 1.0))(rows).value == pytest.approx(0.95)
    assert at_least(STRONG, worst_setting(average("v"), 1.0))(rows).value == pytest.approx(0.99)
    assert [strength(row) for row in rows[::2]] == ["strong", "boundary", "weak"]


def test_equal_cells_give_equal_rows():
    (first, *_) = study.cells(resize(study.scales[Scale.SMOKE], network={"times": (0, 1, 3)}))
    assert list(study.run(first, Lab(seed=7))) == list(study.run(first, Lab(seed=7)))
