"""The study of inductive bias: exact bits by hand, and what is not given where too few networks
reach ε.
"""

from dataclasses import replace
from math import log

import numpy as np
import pytest

from unseen.lab import Lab
from unseen.studies.inductive_bias import (
    CLAIMS,
    Losses,
    bits,
    count_rows,
    gaussian_error,
    network_rows,
    study,
)
from unseen.study import Scale, Verdict, pick

SMOKE = study.scales[Scale.SMOKE]


def test_smoke_runs_and_can_be_judged(smoke_runs):
    rows = smoke_runs.rows(study.name)
    verdicts = {claim.judge(rows, Scale.SMOKE).verdict for claim in CLAIMS}
    assert verdicts == {Verdict.NOT_JUDGED}
    for figure in study.figures:
        assert figure(rows).title
    assert study.table(rows)
    mean = {
        d: np.mean([row["bits"] for row in pick(rows, part="dimension", d=d)])
        for d in SMOKE.dimensions.dimensions
    }
    assert mean[8] > mean[2]
    networks = pick(rows, part="networks")
    assert {row["space"] for row in networks} == {"convolutional", "fully connected", "kernel"}
    assert len({row["eps"] for row in networks}) == 1


def test_bits_are_those_of_sampled_functions():
    setting = replace(SMOKE.dimensions, train=10, test=20)
    error = gaussian_error(setting, 2, Lab(3))
    drawn = error.form.sample(50_000, np.random.default_rng(0))
    x = float(np.quantile(drawn, 0.1))
    assert bits(error.form.log_probability(x)) == pytest.approx(-np.log2(0.1), abs=0.05)
    assert drawn.mean() == pytest.approx(error.form.slope(0.0), rel=0.02)
    assert bits(0.0) == 0
    assert bits(-log(8)) == pytest.approx(3)


def test_more_hypotheses_err_less():
    rows = list(count_rows(Losses(counts=(32, 2_048), repetitions=10), Lab(1)))
    assert rows[1]["likelihood"] < rows[0]["likelihood"]
    assert rows[1]["moments"] < rows[0]["moments"]


def test_networks_that_do_not_fit_have_no_bits():
    (setting,) = SMOKE.networks
    rows = list(network_rows(replace(setting, fits=1e-9, hypotheses=8), Lab()))
    assert [row["part"] for row in rows] == ["fit", "fit"]
    assert all(row["fit"] == 0 for row in rows)
    networks = [claim for claim in CLAIMS if "leave" in claim.says]
    assert {claim.judge(rows, Scale.LAPTOP).verdict for claim in networks} == {Verdict.UNDECIDED}
