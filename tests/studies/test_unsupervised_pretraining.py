"""The pretraining study: its claims read its rows, slopes are those of lines, and rivals get every
penalty.
"""

from dataclasses import replace
from math import log

import pytest
import torch

from unseen.engine.batches import whole
from unseen.lab import Lab
from unseen.measures.excess_risk import quadratic_risk
from unseen.methods.pretrain_then_fit.heads import ridge
from unseen.studies.unsupervised_pretraining import PENALTIES, regression, slope, study
from unseen.study import Scale, Verdict, pick

SMOKE = study.scales[Scale.SMOKE]


def test_slopes_of_a_power_law_are_its_exponent():
    rows = [
        {"arm": "pretrain", "part": "labels", "n": n, "seed": seed}
        | {"log_risk": seed - 0.7 * log(n)}
        for n in (20, 50, 100)
        for seed in range(3)
    ]
    rows.append({**rows[0], "n": 10_000, "log_risk": 5.0})  # beyond the range
    assert slope("n", 20, 400, part="labels")(rows).value == pytest.approx(-0.7)


def test_the_rival_has_the_best_of_all_penalties():
    spec, lab = replace(SMOKE.factors, n=25), Lab(seed=4, dtype=torch.float64)
    rows = list(regression(spec, lab))
    data = lab.child("data")
    known = spec.population(data)
    batch = whole(spec.build(data).split("train").data, lab)
    x, y = batch["x"].double(), batch["y"].double()[:, None]
    for penalty in PENALTIES[::6]:
        w, b = ridge(x, y, penalty / 25)
        risk = quadratic_risk(w[:, 0], known.best, known.covariance, float(b))
        assert pick(rows, arm="ridge")[0]["risk"] <= risk + 1e-12
    assert (min(PENALTIES), max(PENALTIES)) == (1e-3, pytest.approx(1e6))


def test_claims_and_figures_read_the_rows(smoke_runs):
    rows = list(smoke_runs.rows("unsupervised_pretraining"))
    assert {claim.judge(rows, Scale.SMOKE).verdict for claim in study.claims} == {
        Verdict.NOT_JUDGED
    }
    made = made_rows()
    assert [claim.judge(made, Scale.LAPTOP).verdict for claim in study.claims] == [
        Verdict.SUPPORTED
    ] * len(study.claims)
    assert study.table(made)
    for figure in study.figures:
        assert figure(rows).title


def made_rows():
    """Rows as the paper has them."""
    rows = []
    for seed in range(4):
        noise = 0.01 * seed
        for part, n, m in (
            *(("labels", n, 2_000) for n in (20, 50, 100, 200, 400)),
            *(("unlabelled", 200, m) for m in (120, 250, 500, 1_000)),
            ("outside", 200, 2_000),
            ("below", 200, 120),
        ):
            facts = {"part": part, "n": n, "m": m, "seed": seed}
            good = -log(n) - log(m) + noise
            better = part in ("labels", "unlabelled")
            rows.append({**facts, "arm": "pretrain", "risk": 1.0, "log_risk": good})
            rival = good + (1 if better else -1) + noise
            rows.append({**facts, "arm": "ridge", "risk": 1.0, "log_risk": rival})
            rows.append({**facts, "kappa": 1.1 + noise})
        for part, errors in (
            ("mixture", {"pretrain": 0.01, "logistic regression": 0.2, "Bayes rule": 0.009}),
            ("views", {"pretrain": 0.2, "logistic regression": 0.3}),
        ):
            facts = {"part": part, "n": 50, "m": 2_000, "seed": seed}
            rows += [{**facts, "arm": arm, "error": e * (1 + noise)} for arm, e in errors.items()]
    return rows
