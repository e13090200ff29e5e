"""Other units, codes for "unknown" and empty columns are named; honest differences are not."""

import numpy as np
import pytest

from unseen.errors import InvalidData
from unseen.measures.site_shift.recording import (
    FAHRENHEIT,
    Kind,
    convert,
    recording_changes,
)
from unseen.stats import LEVEL

N = 600
SITE = np.repeat(np.arange(4), N // 4)
HERE = SITE == 3


def columns(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "creatinine": np.exp(0.2 * rng.normal(size=N)),
        "weight": rng.normal(80, 15, N),
        "temperature": rng.normal(37, 0.7, N),
        "score": rng.normal(size=N),
        "grade": rng.integers(0, 4, N).astype(float),
        "smoker": (rng.random(N) < 0.3).astype(float),
        "zeros": np.where(rng.random(N) < 0.6, 0.0, rng.gamma(2, size=N)),
    }


PLANTED = {
    "creatinine": (lambda v: 88.42 * v, Kind.UNIT, 88.42, "µmol/l for mg/dl (creatinine)"),
    "weight": (lambda v: 2.20462 * v, Kind.UNIT, 2.20462, "pounds for kilograms"),
    "temperature": (lambda v: 32 + 1.8 * v, Kind.UNIT, 1.8, FAHRENHEIT),
    "score": (lambda v: v / 1000, Kind.UNIT, 0.001, ""),
    "grade": (lambda v: 10 * v, Kind.UNIT, 10.0, ""),
    "smoker": (lambda v: np.full_like(v, np.nan), Kind.MISSING, np.nan, ""),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("seed", range(3))
def test_a_change_is_named_with_its_site_and_nowhere_else(name: str, seed: int) -> None:
    change, kind, value, meaning = PLANTED[name]
    table = columns(seed)
    before = table[name].copy()
    table[name] = np.where(HERE, change(table[name]), table[name])
    (found,) = recording_changes(table, SITE, 3)
    assert (found.feature, found.kind, found.meaning) == (name, kind, meaning)
    assert found.value == pytest.approx(value, nan_ok=True)
    if kind is Kind.UNIT:
        assert convert(table[name][HERE], found) == pytest.approx(before[HERE])
        assert found.size.value == pytest.approx(value, rel=0.15)
    for other in range(3):
        assert recording_changes(table, SITE, other) == []


def test_factors_that_the_rows_do_not_tell_apart_are_all_given() -> None:
    values = np.tile(np.exp(np.linspace(-2, 2, N // 4)), 4)
    values[HERE] *= 95
    (found,) = recording_changes({"value": values}, SITE, 3)
    assert {88.42, 100.0} <= {found.value, *found.alternatives}
    assert not found.is_sure


@pytest.mark.parametrize("n", [80, 150, 1_000])
@pytest.mark.parametrize("seed", range(5))
def test_children_are_no_adults_in_months(n: int, seed: int) -> None:
    """Ages of 5 ± 2 and 60 ± 12 years: 1/12 of the mean, and twice the spread for it."""
    rng = np.random.default_rng(seed)
    age = np.concatenate([rng.normal(60, 12, 3 * n), np.abs(rng.normal(5, 2, n))])
    assert recording_changes({"age": age}, np.repeat(np.arange(4), n), 3) == []


def test_few_ratios_of_one_shape_are_units_and_fewer_are_sure() -> None:
    """Ratios of 2 to 1,000, evenly in their logarithm, of columns of 150 rows per site."""
    found, sure = 0, 0
    ratios = np.exp(np.linspace(np.log(2.2), np.log(1_000), 100))
    for seed, ratio in enumerate(ratios):
        values = np.exp(0.15 * np.random.default_rng(seed).normal(size=N))
        values[HERE] *= ratio
        changes = recording_changes({"value": values}, SITE, 3)
        found += len(changes)
        sure += sum(change.is_sure for change in changes)
    assert found <= 50
    assert sure <= 25


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_another_spread_is_no_unit(spread: float) -> None:
    rng = np.random.default_rng(1)
    values = np.exp(0.2 * rng.normal(size=N))
    values[HERE] = 100 * np.exp(0.2 * spread * rng.normal(size=HERE.sum()))
    assert recording_changes({"value": values}, SITE, 3) == []


def test_a_power_of_ten_beside_an_honest_difference_is_unsure() -> None:
    values = np.tile(np.exp(np.linspace(-0.6, 0.6, N // 4)), 4)
    values[HERE] *= 1_200
    (found,) = recording_changes({"creatinine": values}, SITE, 3)
    assert found.value == 1_000
    assert not found.is_sure


def test_a_column_that_one_site_alone_records_is_named_there_only() -> None:
    table = columns(0)
    table["score"][~HERE] = np.nan
    (found,) = recording_changes(table, SITE, 3)
    assert (found.kind, found.size.value, found.elsewhere) == (Kind.MISSING, 0.0, 1.0)
    assert recording_changes(table, SITE, 0) == []


@pytest.mark.parametrize(("name", "code"), [("weight", -999.0), ("creatinine", 0.0)])
def test_a_code_for_unknown_is_named(name: str, code: float) -> None:
    table = columns(5)
    gone = HERE & (np.random.default_rng(0).random(N) < 0.12)
    table[name][gone] = code
    (found,) = recording_changes(table, SITE, 3)
    assert (found.feature, found.kind, found.value) == (name, Kind.REPEATED, code)
    assert found.size.value == pytest.approx(gone[HERE].mean())


@pytest.mark.parametrize("seed", range(15))
def test_honest_columns_raise_nothing(seed: int) -> None:
    table = columns(100 + seed)
    rng = np.random.default_rng(seed)
    for name in table:  # missing at random, and one site of other means
        table[name][rng.random(N) < 0.1] = np.nan
    table["weight"][HERE] += 20
    table["smoker"][HERE] = (rng.random(HERE.sum()) < 0.5).astype(float)
    for site in range(4):
        assert recording_changes(table, SITE, site) == []
    small = rng.integers(0, 20, N)
    assert [recording_changes(table, small, site) for site in range(20)] == [[]] * 20


@pytest.mark.parametrize("n", [50, 150])
def test_the_interval_of_a_factor_covers_it(n: int) -> None:
    """At least 93 %, less the error of 100 repeats; lognormal values, whose medians are skewed."""
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        values = np.exp(0.3 * rng.normal(size=4 * n)) * 5
        site = np.repeat(np.arange(4), n)
        values[site == 3] *= 10
        (found,) = recording_changes({"value": values}, site, 3)
        held += found.size.low <= 10 <= found.size.high
    assert held / 100 >= LEVEL - 0.02 - 2 * (0.93 * 0.07 / 100) ** 0.5


def test_order_of_rows_does_not_matter() -> None:
    table = columns(1)
    table["weight"][HERE] *= 1000
    order = np.random.default_rng(0).permutation(N)
    (first,) = recording_changes(table, SITE, 3)
    (again,) = recording_changes({k: v[order] for k, v in table.items()}, SITE[order], 3)
    assert (first.feature, first.value, first.size.value) == (
        again.feature,
        again.value,
        again.size.value,
    )


def test_rows_without_a_comparison_are_refused() -> None:
    with pytest.raises(InvalidData):
        recording_changes(columns(0), np.zeros(N, int), 0)
