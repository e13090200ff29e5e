"""A gap is attributed to the shift that made it, its parts sum to it, and their intervals hold."""

import numpy as np
import pytest

from unseen.errors import InvalidData
from unseen.measures.site_shift.decomposition import area_of, decompose, mean_of
from unseen.stats import auc

PARTS = ("gap", "covariate", "prevalence", "relation")


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def draw(rng: np.random.Generator, kind: str, n: int, m: int):
    """Inputs, target, who is at the site, and the loss of one fixed model."""
    x = rng.normal(size=(n + m, 5))
    here = np.arange(n + m) >= n
    if kind == "covariate":
        x[here, 0] += 1
    z = x[:, 0] + 0.7 * x[:, 1]
    if kind == "prevalence":
        z[here] += 1.5
    if kind == "relation":
        z[here] -= 2 * x[here, 0]
    y = (rng.random(n + m) < sigmoid(z)).astype(float)
    score = 0.8 * x[:, 0] + 0.6 * x[:, 1] - 0.2
    return x, y, here, np.logaddexp(0, score) - y * score


@pytest.mark.parametrize("kind", ["covariate", "prevalence", "relation"])
def test_a_gap_is_attributed_to_what_made_it(kind: str) -> None:
    rng = np.random.default_rng(0)
    x, y, here, loss = draw(rng, kind, 4_000, 4_000)
    found = decompose(mean_of(loss), x, y, here, rng, draws=10)
    values = {part: getattr(found, part).value for part in PARTS}
    assert values["covariate"] + values["prevalence"] + values["relation"] == pytest.approx(
        values["gap"]
    )
    assert values["gap"] == pytest.approx(loss[here].mean() - loss[~here].mean())
    assert values[kind] == pytest.approx(values["gap"], abs=0.03)
    assert abs(values["gap"]) > 0.04


@pytest.mark.parametrize("kind", ["covariate", "prevalence", "relation"])
@pytest.mark.parametrize(("n", "m"), [(120, 150), (60, 40)])
def test_intervals_cover_the_parts(kind: str, n: int, m: int) -> None:
    """At least 93 %, less the error of 40 repeats, of each part."""
    rng = np.random.default_rng(1)
    x, y, here, loss = draw(rng, kind, 50_000, 50_000)
    truth = decompose(mean_of(loss), x, y, here, rng, draws=2)
    repeats, held = 40, dict.fromkeys(PARTS, 0)
    for seed in range(repeats):
        rng = np.random.default_rng(seed + 2)
        x, y, here, loss = draw(rng, kind, n, m)
        found = decompose(mean_of(loss), x, y, here, rng, draws=25)
        for part in PARTS:
            reading = getattr(found, part)
            held[part] += reading.low <= getattr(truth, part).value <= reading.high
    least = 0.93 - 2 * (0.93 * 0.07 / repeats) ** 0.5
    assert all(count / repeats >= least for count in held.values()), held


def test_the_weighted_area_is_the_area() -> None:
    rng = np.random.default_rng(0)
    score, y = rng.integers(0, 9, 80).astype(float), rng.random(80) < 0.4
    rows = rng.integers(80, size=200)
    plain = area_of(score, y)(rows, np.ones(200))
    assert plain == pytest.approx(auc(score[rows], y[rows]).value)
    # twice the weight is twice the row
    weights = 1.0 + (np.arange(80) < 30)
    twice = np.concatenate([np.arange(80), np.arange(30)])
    assert area_of(score, y)(np.arange(80), weights) == pytest.approx(
        area_of(score, y)(twice, np.ones(110))
    )
    assert np.isnan(area_of(score, np.ones(80, bool))(np.arange(80), np.ones(80)))


def test_a_number_as_target_moves_by_its_mean() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4_000, 2))
    here = np.arange(4_000) >= 2_000
    y = x[:, 0] + rng.normal(size=4_000) + 1.0 * here
    error = (y - x[:, 0]) ** 2
    found = decompose(mean_of(error), x, y, here, rng, draws=5)
    assert found.prevalence.value == pytest.approx(1.0, abs=0.15)
    assert abs(found.relation.value) < 0.15


def test_units_of_the_inputs_do_not_matter() -> None:
    x, y, here, loss = draw(np.random.default_rng(0), "covariate", 200, 200)
    first, again = (
        decompose(mean_of(loss), scaled, y, here, np.random.default_rng(1), draws=3)
        for scaled in (x, 100 * x + 7)
    )
    assert first.covariate.value == pytest.approx(again.covariate.value)


@pytest.mark.parametrize("spoil", ["no overlap", "few rows", "NaN"])
def test_a_gap_without_common_inputs_is_refused(spoil: str) -> None:
    rng = np.random.default_rng(0)
    x, y, here, loss = draw(rng, "covariate", 100, 100)
    if spoil == "no overlap":
        x[here] += 20
    elif spoil == "few rows":
        here = np.arange(200) < 10
    else:
        x[0, 0] = np.nan
    with pytest.raises(InvalidData):
        decompose(mean_of(loss), x, y, here, rng)
