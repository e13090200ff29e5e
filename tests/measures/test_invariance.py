"""Invariance of representations: risks by definition, certificates by simulation, gaps of sites
without bias.
"""

from math import log

import numpy as np
import pytest
import torch
from torch import nn

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.invariance import (
    InvarianceGap,
    SiteFeatures,
    environments_for_all,
    excess_risks,
    invariance_failure,
    invariance_gap,
    pac_certificate,
    pooled_heads,
    represent,
    site_gaps,
)
from unseen.method import Trained
from unseen.objectives import classify, regress
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.linear_sem import Intervention, LinearSEM, Sites

LAB = Lab(seed=8, dtype=torch.float64)
SPEC = LinearSEM(nodes=7)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64)


def risk(phi, w, moments, e):
    """E (Y − wᵀΦX)², from the definition."""
    v = phi.T @ w
    return float(moments.yy[e] - 2 * v @ moments.xy[e] + v @ moments.xx[e] @ v)


def test_the_gap_is_the_difference_of_risks():
    moments = SPEC.intervene(6, LAB).moments()
    phi, w = normal(2, 6), normal(2, seed=1)
    gaps = invariance_gap(phi, w, moments.xx, moments.xy)
    for e in range(6):
        inside = phi @ moments.xx[e] @ phi.T
        best = torch.linalg.solve(inside, phi @ moments.xy[e])
        expected = risk(phi, w, moments, e) - risk(phi, best, moments, e)
        assert float(gaps[e]) == pytest.approx(expected, abs=1e-10)


def test_many_representations_at_once_are_each_alone():
    moments = SPEC.intervene(5, LAB).moments()
    phi, w = normal(4, 3, 6), normal(4, 3, seed=1)
    together = invariance_gap(phi, w, moments.xx, moments.xy)
    alone = [invariance_gap(p, v, moments.xx, moments.xy) for p, v in zip(phi, w, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", list(Intervention))
@pytest.mark.parametrize("sites", list(Sites))
def test_the_parents_are_invariant_and_a_child_is_not(kind, sites):
    spec = LinearSEM(nodes=9, kind=kind, sites=sites, edges=EDGES, target=4)
    base, moments = spec.mechanisms(LAB), spec.intervene(60, LAB).moments()
    eye = torch.eye(8, dtype=torch.float64)
    for chosen, low, high in ((base.parents, 0, 1e-20), ([*base.parents, 4], 0.02, np.inf)):
        inside, across = represent(eye[chosen], moments.xx, moments.xy)
        gaps = excess_risks(pooled_heads(inside, across), inside, across)
        assert low <= float(gaps.max()) <= high


EDGES = (*((j, j + 1, 0.9) for j in range(8)), (2, 4, -0.7))


def test_a_change_of_basis_changes_nothing_also_of_latent_variables():
    moments = SPEC.intervene(5, LAB).moments()
    phi, turn = normal(2, 6), normal(2, 2, seed=4)
    inside, across = represent(phi, moments.xx, moments.xy)
    plain = excess_risks(pooled_heads(inside, across), inside, across)
    inside, across = represent(turn @ phi, moments.xx, moments.xy)
    torch.testing.assert_close(excess_risks(pooled_heads(inside, across), inside, across), plain)
    a = normal(12, 6, seed=5)
    seen = moments.seen_through(a)
    inside, across = represent(phi @ torch.linalg.pinv(a), seen.xx, seen.xy)
    torch.testing.assert_close(excess_risks(pooled_heads(inside, across), inside, across), plain)


def test_failures_are_counted():
    gaps = torch.tensor([[0.0, 0.05, 0.2], [0.3, 0.3, 0.3]], dtype=torch.float64)
    assert invariance_failure(gaps, 0.05).tolist() == pytest.approx([1 / 3, 1.0])
    with pytest.raises(InvalidConfig, match="eps=0"):
        invariance_failure(gaps, 0.0)


def test_certificates_in_closed_form():
    assert pac_certificate(20, 0, 0.05) == pytest.approx(1 - 0.05 ** (1 / 20))
    assert pac_certificate(20, 20) == 1
    assert pac_certificate(1_000, 0) == pytest.approx(log(20) / 1_000, rel=0.01)
    assert pac_certificate(50, 3) > pac_certificate(50, 2) > pac_certificate(100, 2)
    assert environments_for_all(0.1, 6) > environments_for_all(0.1, 3) > log(20) / 0.1


@pytest.mark.parametrize("bad", [(0, 0, 0.05), (5, 6, 0.05), (5, -1, 0.05), (5, 1, 0.0)])
def test_impossible_certificates_are_refused(bad):
    with pytest.raises(InvalidConfig, match="certificate"):
        pac_certificate(*bad)


def test_the_certificate_holds_within_binomial_error():
    """500 draws of 20 environments, representation and head fixed before: the true failure lies
    above what is certified in at most η + 3 √(η(1 − η)/500) of them.
    """
    eta, draws, n = 0.05, 500, 20
    eye = torch.eye(6, dtype=torch.float64)
    for chosen in ([0], [1, 4], [2, 3, 5]):
        moments = SPEC.intervene(draws * n, LAB).moments()
        base = SPEC.mechanisms(LAB).moments()
        phi = eye[chosen]
        w = torch.linalg.solve(phi @ base.xx @ phi.T, phi @ base.xy)
        fails = invariance_gap(phi, w, moments.xx, moments.xy) > 0.1
        # 10,000 environments: its own error of 0.004 is small beside that of 20
        truth = float(fails.double().mean())
        counts = fails.view(draws, n).sum(1).tolist()
        exceeded = sum(truth > pac_certificate(n, int(k), eta) for k in counts) / draws
        assert exceeded <= eta + 3 * (eta * (1 - eta) / draws) ** 0.5


def test_a_singular_representation_is_refused():
    moments = SPEC.intervene(3, LAB).moments()
    phi = normal(2, 6)
    double = torch.cat([phi, phi.sum(0, keepdim=True)])
    with pytest.raises(InvalidData, match="singular"):
        represent(double, moments.xx, moments.xy)


def sites(shift, n=120, number=4, seed=0):
    """Linear data in which the slope of the first feature differs between sites by `shift`."""
    found = []
    for k in range(number):
        z = normal(n, 3, seed=seed * 97 + k)
        noise = normal(n, seed=seed * 97 + k + 50)
        y = (1 + shift * (-1) ** k) * z[:, 0] + z[:, 1] + noise
        found.append(SiteFeatures(z, y[:, None]))
    return found


def values_of(parts):
    return [gap.value for gap in site_gaps(parts)]


def test_what_chance_makes_of_a_gap_is_as_large_as_said():
    gaps = [gap for seed in range(80) for gap in site_gaps(sites(0.0, seed=seed))]
    said = np.mean([gap.chance for gap in gaps])
    # of 320 values, four of a draw dependent
    assert np.std([gap.value for gap in gaps]) == pytest.approx(said, rel=0.25)


def test_where_sites_do_not_differ_the_gap_is_zero_on_average():
    values = np.array([values_of(sites(0.0, seed=seed)) for seed in range(80)])
    assert abs(values.mean()) < 3 * values.mean(1).std() / 80**0.5 + 1e-4
    assert (values < 0).any()  # chance is taken off, and nothing is cut at zero


def test_a_slope_of_a_site_is_found_at_its_size():
    # at an even site: the others' slope is the mean of three, two of which are of the other kind
    shift, found = 0.5, []
    for seed in range(40):
        found.append(values_of(sites(shift, n=400, seed=seed))[0])
    others = 1 + shift * (1 - 2) / 3
    gap = (1 + shift - others) ** 2
    variance = (1 + shift) ** 2 + 1 + 1
    assert np.mean(found) == pytest.approx(gap / variance, rel=0.1)


def test_scale_and_basis_of_the_features_do_not_matter():
    plain, turn = sites(0.5), torch.linalg.qr(normal(3, 3, seed=9)).Q
    other = [SiteFeatures(5 * site.z @ turn + 3, -2 * site.y + 1) for site in plain]
    assert values_of(other) == pytest.approx(values_of(plain), rel=1e-6)


def trained(objective, y_of, column=None, number=3):
    splits = {}
    for k, site in enumerate(sites(0.8, number=number)):
        more = {column: torch.full((120,), k)} if column else {}
        at = None if column else f"site {k}"
        splits[f"s{k}"] = Split(Columns(x=site.z, y=y_of(site.y), **more), Use.EVALUATE, at)
    splits["train"] = Split(splits["s0"].data, Use.TRAIN, "elsewhere")
    outputs = 1 if objective is regress else 2
    model = nn.Sequential(nn.Linear(3, outputs)).double()
    return Trained(model, Task(name="own", axis=Axis.SITE, splits=splits, objective=objective))


@pytest.mark.parametrize("column", [None, "site", "domain"])
def test_of_a_model_its_last_features_at_every_site_are_read(column):
    reading = InvarianceGap()(trained(regress, lambda y: y[:, 0], column), LAB)
    expected = values_of(sites(0.8, number=3))
    assert reading.detail[:, 0].tolist() == pytest.approx(expected)
    assert reading.detail[:, 2].tolist() == [120, 120, 120]
    assert (reading.n, reading.value) == (3, pytest.approx(np.mean(expected)))
    classes = InvarianceGap()(trained(classify, lambda y: (y[:, 0] > 0).long(), column), LAB)
    assert classes.value > 0.02


def test_one_site_few_rows_and_constant_features_are_refused():
    with pytest.raises(InvalidData, match="from 1 site"):
        site_gaps(sites(0.0, number=1))
    with pytest.raises(InvalidData, match="smallest site has 9 rows"):
        site_gaps(sites(0.0, n=9))
    flat = [SiteFeatures(torch.ones_like(site.z), site.y) for site in sites(0.0)]
    with pytest.raises(InvalidData, match="features are the same"):
        site_gaps(flat)
    single = [SiteFeatures(site.z, torch.ones_like(site.y)) for site in sites(0.0)]
    with pytest.raises(InvalidData, match="target is the same"):
        site_gaps(single)
