"""The study of eight explanations: its own definitions, its effects, and smoke end to end."""

from itertools import permutations

import pytest
import torch

from unseen.attributions.explanation import eight
from unseen.attributions.explanation.definitions import DEFINITIONS, TIES, Sampling, instances
from unseen.lab import Lab
from unseen.measures.faithfulness import Noise, Order
from unseen.studies.which_explanation import (
    SAMPLED,
    Config,
    is_tied,
    near,
    network,
    output,
    study,
    versus,
)
from unseen.study import Scale, Verdict, pick
from unseen.tasks.sklearn_tables import SklearnDataset, SklearnTable

LAB = Lab(dtype=torch.float64)


def test_the_study_knows_the_eight_methods():
    assert set(DEFINITIONS) == set(instances(Sampling())) == set(eight())
    assert all(tie <= set(eight()) for tie in TIES)


def test_shapley_by_orders_is_the_mean_over_all_orders():
    with LAB.seeded():
        model = network(6, 1).double()
    task = SklearnTable(SklearnDataset.WAVES).build(LAB.child("data"))
    at = near(model, task, output, Config(points=2), LAB)
    found = DEFINITIONS["KernelSHAP"](at, Sampling(masks=16_000), LAB)
    for x, row in zip(at.point, found, strict=True):
        total, orders = torch.zeros(6, dtype=torch.float64), list(permutations(range(6)))
        kept = torch.zeros(len(orders), 7, 6, dtype=torch.float64)
        for k, order in enumerate(orders):
            for size in range(6):
                kept[k, size + 1] = kept[k, size]
                kept[k, size + 1, order[size]] = 1
        f = model((kept * x).flatten(0, 1)).view(len(orders), 7).detach()
        for k, order in enumerate(orders):
            for size, feature in enumerate(order):
                total[feature] += (f[k, size + 1] - f[k, size]) / len(orders)
        assert (row - total).abs().max() < 0.02 * total.abs().max()


def test_smoke_runs_and_every_claim_reads_it(smoke_runs):
    rows = smoke_runs.rows(study.name)
    assert {claim.judge(rows, Scale.SMOKE).verdict for claim in study.claims} == {
        Verdict.NOT_JUDGED
    }
    assert len(pick(rows, part="lunch", seed=0)) == 64
    assert len(study.table(rows)) == 8
    for figure in study.figures:
        assert figure(rows).title
    matched = pick(rows, part="same", matched=True)
    assert all(row["cosine"] < 0.05 for row in matched)
    # what samples nothing is its instance exactly: no claim
    exact = [row["cosine"] for row in matched if row["classic"] not in SAMPLED]
    assert max(exact) < 1e-9
    assert len(exact) == len(matched) / 2


def test_linear_and_logistic_models_are_recovered_by_the_instances_that_must(smoke_runs):
    """Least squares on a linear model: identities, not findings of the study."""
    rows = smoke_runs.rows(study.name)
    additive, multiplicative = (
        pick(rows, part="recovery", additive=additive) for additive in (True, False)
    )
    assert all(row["error_w"] < 1e-8 for row in additive)
    assert all(row["error_wx"] < 1e-8 < 0.2 < row["error_w"] for row in multiplicative)
    logistic, linear = (
        pick(rows, part="logistic", family=family) for family in ("logistic", "linear")
    )
    assert all(row["error_w"] < 1e-8 for row in logistic)
    assert all(row["error_w"] > 0.2 for row in linear)


def test_ties_are_left_out_of_the_mismatched_pairs():
    pairs = [{"classic": a, "instance": b} for a, b in permutations(eight(), 2)]
    assert sum(not is_tied(pair) for pair in pairs) == 8 * 7 - 4


def test_kinds_are_compared_within_table_and_seed():
    rows = [
        {
            "part": "test",
            "order": "top",
            "noise": "binary",
            "kind": kind,
            "table": "a",
            "hidden": 2,
            "seed": seed,
            "change": v,
        }
        for seed in range(3)
        for kind, v in (("binary", 2.0 + seed), ("additive", 1.0 + seed))
    ]
    reading = versus(Order.TOP, Noise.BINARY, "binary", "additive")(rows)
    assert reading.value == pytest.approx(1)
    assert reading.n == 3
