"""Performance at a site without labels, against brute force and against labels that were hidden."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import rankdata

from unseen.errors import InvalidData
from unseen.measures.site_shift import expected_performance as module
from unseen.measures.site_shift.expected_performance import (
    KnownScores,
    calibrate,
    expected_auc,
    expected_performance,
)

REPEATS = 200
LEAST = 0.93 - 2 * np.sqrt(0.93 * 0.07 / REPEATS)


def test_the_area_is_the_share_of_ordered_pairs_of_different_rows():
    rng = np.random.default_rng(0)
    score = rng.integers(0, 4, 9).astype(float)
    p = rng.random((2, 9))
    weights = np.array([np.ones(9), rng.integers(0, 3, 9)])
    for draw in range(2):
        won = pairs = 0.0
        for i in range(9):
            for j in range(9):
                if i != j:
                    both = weights[draw, i] * weights[draw, j] * p[draw, i] * (1 - p[draw, j])
                    pairs += both
                    won += both * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
                else:  # copies of a row in a resample are different draws of the same score
                    copies = (
                        weights[draw, i] * (weights[draw, i] - 1) * p[draw, i] * (1 - p[draw, i])
                    )
                    pairs += copies
                    won += 0.5 * copies
        assert expected_auc(score, p, weights)[draw] == pytest.approx(won / pairs)


def test_certain_rows_have_a_known_area_and_accuracy():
    score = np.array([0.0, 1.0, 2.0, 3.0])
    assert expected_auc(score, np.array([[0.0, 0, 1, 1]]), np.ones((1, 4)))[0] == 1
    assert expected_auc(score, np.array([[1.0, 1, 0, 0]]), np.ones((1, 4)))[0] == 0


def test_calibration_undoes_a_factor():
    rng = np.random.default_rng(1)
    x = rng.normal(size=20_000)
    y = (rng.random(x.size) < expit(1.2 * x - 0.3)).astype(float)
    known = KnownScores(3 * x + 1, y)
    p = calibrate(known, 3 * x + 1, np.ones((1, x.size)))[0]
    np.testing.assert_allclose(p, expit(1.2 * x - 0.3), atol=0.02)


def test_separable_classes_keep_finite_probabilities():
    x = np.linspace(-3, 3, 60)
    found = expected_performance(KnownScores(x, (x > 0) * 1.0), x, np.random.default_rng(0))
    assert found["AUC"].high <= 1
    assert 0.9 < found["accuracy"].value < 1


@pytest.mark.parametrize(("known", "new"), [(60, 50), (200, 300)])
def test_intervals_hold_what_hidden_labels_say(known, new, monkeypatch):
    """Under covariate shift, for a model that is overconfident by a factor."""
    monkeypatch.setattr(module, "DRAWS", 200)
    monkeypatch.setattr(module, "FEWEST_OF_A_CLASS", 10)
    rng = np.random.default_rng(1)
    x = rng.normal(0.7, 1.3, 400_000)
    y, s = rng.random(x.size) < expit(1.2 * x - 0.3), 2 * x + 0.2
    ranks, positives = rankdata(s), y.sum()
    area = (ranks[y].sum() - positives * (positives + 1) / 2) / (positives * (~y).sum())
    truth = {"accuracy": ((s > 0) == y).mean(), "AUC": area}
    hits = dict.fromkeys(truth, 0)
    for repeat in range(REPEATS):
        rng = np.random.default_rng([known, new, repeat])
        x = rng.normal(0, 1, known)
        labels = (rng.random(known) < expit(1.2 * x - 0.3)).astype(float)
        site = 2 * rng.normal(0.7, 1.3, new) + 0.2
        found = expected_performance(KnownScores(2 * x + 0.2, labels), site, rng)
        for metric, value in truth.items():
            hits[metric] += found[metric].low <= value <= found[metric].high
    assert min(hits.values()) / REPEATS >= LEAST


def test_few_rows_are_refused():
    rng = np.random.default_rng(0)
    x = rng.normal(size=100)
    y = (np.arange(100) < 10).astype(float)
    with pytest.raises(InvalidData, match="10 of the rarer outcome"):
        expected_performance(KnownScores(x, y), x, rng)
    with pytest.raises(InvalidData, match="has 3 rows"):
        expected_performance(KnownScores(x, (np.arange(100) < 50) * 1.0), x[:3], rng)
