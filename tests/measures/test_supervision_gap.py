"""Supervision gap recovered: its values, and where it does not exist."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.supervision_gap import SupervisionGapRecovered, gap_share, supervision_gap


def hits(accuracy, items=200, runs=1):
    return ((torch.arange(items) % 20 < round(20 * accuracy)).double()).expand(runs, items)


@pytest.mark.parametrize(
    ("easy", "hard", "unsupervised", "share"),
    [(0.6, 0.65, 0.4, 0.8), (0.65, 0.65, 0.4, 1.0), (0.4, 0.65, 0.4, 0.0), (0.7, 0.65, 0.4, 1.2)],
)
def test_the_share_of_the_gap(easy, hard, unsupervised, share):
    found = supervision_gap(hits(easy), hits(hard), hits(unsupervised), Lab(), draws=500)
    assert found.recovered is not None
    assert found.recovered.value == pytest.approx(share)
    numbers = (torch.tensor(x) for x in (easy, hard, unsupervised))
    assert gap_share(*numbers).item() == pytest.approx(share)
    assert found.difference.value == pytest.approx(easy - hard)


def test_a_ratio_of_means_not_a_mean_of_ratios():
    """The second run gains next to nothing: its own ratio is −9."""
    easy = torch.cat([hits(0.6), hits(0.35)])
    hard = torch.cat([hits(0.7), hits(0.45)])
    found = supervision_gap(easy, hard, hits(0.4), Lab(), draws=500)
    assert found.hard_gain.value == pytest.approx(0.175)
    assert found.easy_gain.value == pytest.approx(0.075)


def test_undefined_where_hard_training_gains_nothing_clear():
    found = supervision_gap(hits(0.6), hits(0.45), hits(0.4).flip(1), Lab(), 500)
    assert found.recovered is None
    assert "not clearly above 0" in found.why
    table = {"easy": hits(0.6), "hard": hits(0.4), "unsupervised": hits(0.6)}
    with pytest.raises(InvalidData, match="is not defined"):
        SupervisionGapRecovered(500)(table, Lab())


def test_its_interval_holds_the_truth():
    """Where the gap is clear in nearly every draw; 5 runs, spread between items and runs."""
    rng, held, defined = np.random.default_rng(0), 0, 0
    many = np.random.default_rng(1).normal(0, 1, 100_000)
    means = [float(expit(level + many).mean()) for level in (1.1, 1.3, 0.3)]
    share = (means[0] - means[2]) / (means[1] - means[2])
    for _ in range(80):
        item = rng.normal(0, 1, (1, 200))
        tables = []
        for level, runs in ((1.1, 5), (1.3, 5), (0.3, 1)):
            run = rng.normal(0, 0.02, (runs, 1)) if runs > 1 else 0
            p = np.clip(expit(level + item) + run, 0, 1)
            tables.append(torch.from_numpy((rng.random((runs, 200)) < p).astype(float)))
        found = supervision_gap(*tables, Lab(), draws=300).recovered
        if found is not None:
            defined += 1
            held += found.low <= share <= found.high
    assert defined >= 72
    assert held / defined >= 0.93


def test_tables_that_are_no_answers_are_refused():
    with pytest.raises(InvalidData, match="more than 1"):
        supervision_gap(2 * hits(0.6), hits(0.6), hits(0.4), Lab())
    with pytest.raises(InvalidData, match="tables of shape"):
        supervision_gap(hits(0.6, 20), hits(0.6), hits(0.4), Lab())
