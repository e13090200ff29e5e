"""Wrong labels: how many, at which site, and which; honest hard problems raise no alarm."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from unseen.errors import InvalidData
from unseen.measures.site_shift import label_noise as rating
from unseen.measures.site_shift.label_noise import LabelNoise

SITES, FLIPS = 4, 30


def label_noise(p, y, site, seed: int = 0) -> LabelNoise:
    return rating.label_noise(p, y, site, np.random.default_rng(seed))


def drawn(seed: int, flips: int, strong: float = 2.5, n: int = 900):
    """Out-of-fold probabilities of a logistic regression, labels, sites, and which are wrong: so
    many labels of site 1 are flipped.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    z = strong * x[:, :4] @ np.array([1.0, -0.8, 0.6, 0.5])
    y, site = (rng.random(n) < expit(z)).astype(int), rng.integers(0, SITES, n)
    wrong = np.zeros(n, bool)
    wrong[rng.choice(np.flatnonzero(site == 1), flips, replace=False)] = True
    y = np.where(wrong, 1 - y, y)
    p = np.zeros((n, 2))
    for fit, rest in StratifiedKFold(3, shuffle=True, random_state=0).split(x, y):
        p[rest] = LogisticRegression().fit(x[fit], y[fit]).predict_proba(x[rest])
    return p, y, site, wrong


def test_flipped_labels_are_found_their_site_named_and_the_precision_stated():
    found = [(label_noise(p, y, s), w, s) for p, y, s, w in (drawn(k, FLIPS) for k in range(10))]
    hits = np.array([wrong[noise.suspects].sum() for noise, wrong, _ in found])
    precision = np.array([wrong[noise.suspects].mean() for noise, wrong, _ in found])
    assert (hits >= 20).mean() >= 0.8
    assert precision.mean() >= 0.4
    stated = np.mean([noise.precision for noise, _, _ in found])
    assert stated == pytest.approx(precision.mean(), abs=0.07)
    assert np.mean([noise.p_values[1] * SITES < 0.002 for noise, _, _ in found]) >= 0.8
    covered = [
        noise.rates[1].low <= FLIPS / (site == 1).sum() <= noise.rates[1].high
        for noise, _, site in found
    ]
    assert np.mean(covered) >= 0.9


def test_honest_labels_raise_no_alarm():
    """The level of the audit, 0.002: of 30 null tables at most one."""
    least = [min(label_noise(*drawn(k, 0)[:3]).p_values) * SITES for k in range(30)]
    assert sum(p < 0.002 for p in least) <= 1


def test_a_class_that_is_commoner_at_a_site_is_no_wrong_label():
    """By 1.5 in the log odds, 1,000 rows per site: named in 0 of 15 draws, 13 without a constant
    per site.
    """
    for seed in range(4):
        rng, site = np.random.default_rng(seed), np.repeat(np.arange(3), 1_000)
        z = 2 * rng.normal(size=site.size)
        y = rng.random(site.size) < expit(z + 1.5 * (site == 0))
        noise = label_noise(np.stack([expit(-z), expit(z)], 1), y.astype(int), site)
        assert min(noise.p_values) * 3 > 0.002


def test_the_rate_is_that_of_labels_written_by_the_model():
    """With the true probabilities given, and a tenth of the labels of site 0 turned: no bias, and
    the 95 % interval holds the truth (29 of 30 draws did).
    """
    found = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        q, site = expit(3 * rng.normal(size=4_000)), rng.integers(0, 2, 4_000)
        y = (rng.random(q.size) < q) ^ ((rng.random(q.size) < 0.1) & (site == 0))
        found.append(label_noise(np.stack([1 - q, q], 1), y.astype(int), site).rates)
    assert np.mean([rates[0].value for rates in found]) == pytest.approx(0.1, abs=0.006)
    assert np.mean([rates[0].low <= 0.1 <= rates[0].high for rates in found]) >= 0.93
    assert np.mean([rates[1].value for rates in found]) < 0.005


def test_names_of_classes_and_order_of_rows_do_not_matter():
    p, y, site, _ = drawn(3, FLIPS)
    one, renamed = label_noise(p, y, site), label_noise(p[:, ::-1], 1 - y, site)
    assert renamed.wrong == pytest.approx(one.wrong, abs=1e-9)
    order = np.random.default_rng(0).permutation(len(y))
    moved = label_noise(p[order], y[order], site[order])
    assert moved.wrong == pytest.approx(one.wrong[order], abs=1e-6)
    assert {*order[moved.suspects].tolist()} == {*one.suspects.tolist()}


def test_what_has_no_rate_is_refused():
    few = np.full((10, 2), 0.5)
    with pytest.raises(InvalidData, match="10 examples"):
        label_noise(few, np.zeros(10, int), np.zeros(10, int))
    broken = np.full((60, 2), np.nan)
    with pytest.raises(InvalidData, match="not finite"):
        label_noise(broken, np.zeros(60, int), np.zeros(60, int))


def test_of_many_rows_a_sample_gives_the_rates_and_every_row_is_rated(monkeypatch):
    p, y, site, wrong = drawn(0, 300, n=9_000)
    exact = label_noise(p, y, site)
    monkeypatch.setattr(rating, "MOST_RATED", 3_000)
    found, again, other = (label_noise(p, y, site, seed) for seed in (0, 0, 1))
    assert len(found.wrong) == 9_000
    assert sum(rate.n for rate in found.rates) == 3_000
    assert (found.wrong == again.wrong).all()
    assert (found.wrong != other.wrong).any()
    # the other rows' rate lies within the sample's interval, and the same labels are suspected
    assert found.rates[1].low <= exact.rates[1].value <= found.rates[1].high
    assert np.corrcoef(found.wrong, exact.wrong)[0, 1] > 0.95
    assert wrong[found.suspects].mean() > 0.4
