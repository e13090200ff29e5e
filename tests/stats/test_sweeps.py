"""Statistics of many trained models against loops over pairs, oracles and refusals."""

import math
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers
from scipy import stats as scipy_stats

from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.stats.sweeps import (
    Sweep,
    conditional_information,
    evaluate_measures,
    granulated_correlations,
    kendall,
    out_of_fold_gain,
    sign_error,
)

AXES = ("depth", "width", "batch")


def table(seed: int = 0, *, levels: tuple[int, ...] = (3, 2, 2), seeds: int = 3) -> pd.DataFrame:
    """A full grid with a gap that depends on depth and width, and four measures."""
    rng = np.random.default_rng(seed)
    grid = np.repeat(np.array(list(product(*(range(n) for n in levels)))), seeds, axis=0)
    rows = pd.DataFrame(grid, columns=list(AXES))
    rows["gap"] = 0.1 * rows.depth + 0.05 * rows.width + 0.03 * rng.standard_normal(len(rows))
    rows["oracle"] = rows.gap
    rows["reverse"] = -rows.gap
    rows["noisy"] = rows.gap + 0.05 * rng.standard_normal(len(rows))
    rows["random"] = rng.standard_normal(len(rows))
    rows["size"] = rows.depth * 2.0 + rows.width
    return rows.sample(frac=1, random_state=seed, ignore_index=True)


def sweep(rows: pd.DataFrame, *measures: str) -> Sweep:
    return Sweep.of(rows, gap="gap", axes=AXES, measures=measures)


def slow_psi(rows: pd.DataFrame, name: str) -> dict[str, float]:
    """ψ by loops: lines, pairs, means."""
    found = {}
    for axis in AXES:
        taus = []
        for _, line in rows.groupby([other for other in AXES if other != axis]):
            signs = [
                np.sign(a[name] - b[name]) * np.sign(a.gap - b.gap)
                for (_, a), (_, b) in combinations(line.iterrows(), 2)
                if a[axis] != b[axis] and a.gap != b.gap
            ]
            changes = any(
                a[name] != b[name]
                for (_, a), (_, b) in combinations(line.iterrows(), 2)
                if a[axis] != b[axis]
            )
            if signs and changes:
                taus.append(np.mean(signs))
        found[axis] = np.mean(taus) if taus else math.nan
    return found


def slow_information(rows: pd.DataFrame, name: str) -> float:
    """𝒦 by a loop over all ordered pairs and a dictionary of counts."""
    best = math.inf
    records = rows.to_dict("records")
    for size in range(3):
        for chosen in combinations(AXES, size):
            counts: dict[tuple, dict[tuple[float, float], int]] = {}
            for a in records:
                for b in records:
                    if a["gap"] == b["gap"]:
                        continue
                    cell = tuple((a[axis], b[axis]) for axis in chosen)
                    pair = float(np.sign(a[name] - b[name])), float(np.sign(a["gap"] - b["gap"]))
                    inside = counts.setdefault(cell, {})
                    inside[pair] = inside.get(pair, 0) + 1
            total = sum(sum(inside.values()) for inside in counts.values())
            shared = uncertainty = 0.0
            for inside in counts.values():
                n = sum(inside.values())
                by_mu: dict[float, int] = {}
                by_gap: dict[float, int] = {}
                for (mu, g), count in inside.items():
                    by_mu[mu] = by_mu.get(mu, 0) + count
                    by_gap[g] = by_gap.get(g, 0) + count
                uncertainty -= sum(c / total * math.log(c / n) for c in by_gap.values())
                shared += sum(
                    c / total * math.log(c * n / (by_mu[mu] * by_gap[g]))
                    for (mu, g), c in inside.items()
                )
            if uncertainty > 1e-9:
                best = min(best, shared / uncertainty)
    return best


def slow_sign_error(rows: pd.DataFrame, name: str, n_test: int, least: float) -> np.ndarray:
    configurations = [group for _, group in rows.groupby(list(AXES))]
    found = []
    for first, second in combinations(configurations, 2):
        if sum(first.iloc[0][axis] != second.iloc[0][axis] for axis in AXES) != 1:
            continue
        errors, weights = [], []
        for _, a in first.iterrows():
            for _, b in second.iterrows():
                half = abs(a.gap - b.gap) / 2
                w = max(0.0, 1 - 2 * math.exp(-2 * n_test * half**2)) ** 2
                weights.append(max(0.0, w - 0.5))
                errors.append((1 - np.sign(a[name] - b[name]) * np.sign(a.gap - b.gap)) / 2)
        total, squares = sum(weights), sum(w * w for w in weights)
        if squares and total**2 / squares >= least:
            found.append(np.dot(errors, weights) / total)
    return np.array(found)


@pytest.mark.parametrize("seed", range(3))
def test_granulated_correlations_equal_loops(seed):
    rows = table(seed)
    rows.loc[:5, "gap"] = rows.gap.round(1)  # some ties
    names = ("noisy", "random", "size")
    for name, found in zip(
        names, granulated_correlations(sweep(rows, *names), permutations=0), strict=True
    ):
        slow = slow_psi(rows, name)
        for axis in AXES:
            assert found.axes[axis].value == pytest.approx(slow[axis], nan_ok=True), (name, axis)
        known = [x for x in slow.values() if not math.isnan(x)]
        assert found.total.value == pytest.approx(np.mean(known))
        assert found.total.n == len(known)


def test_oracle_its_negative_and_chance():
    rows = table()
    oracle, reverse, random = granulated_correlations(sweep(rows, "oracle", "reverse", "random"))
    assert (oracle.total.value, reverse.total.value) == pytest.approx((1, -1), abs=1e-12)
    assert oracle.p == reverse.p == oracle.p_family == 1 / 200
    psi = np.array(
        [
            granulated_correlations(sweep(table(seed), "random"), permutations=0)[0].total.value
            for seed in range(60)
        ]
    )
    assert abs(psi.mean()) < 3 * psi.std(ddof=1) / np.sqrt(len(psi))
    assert random.p_family >= random.p
    information = conditional_information(sweep(rows, "oracle", "reverse", "random"))
    assert information[0].total.value == pytest.approx(1)
    assert information[1].total.value == pytest.approx(1)
    assert 0 <= information[2].total.value < 0.1
    errors = sign_error(sweep(rows, "oracle", "reverse"), None, least=9)
    assert (errors[0].worst.value, errors[1].mean.value) == (0.0, 1.0)


def test_permutation_p_values_are_uniform_under_chance():
    p = [
        granulated_correlations(sweep(table(seed, seeds=1), "random"), permutations=19, seed=seed)[
            0
        ].p
        for seed in range(400)
    ]
    # a valid p value: P(p ≤ a) ≤ a, here within three binomial errors
    for a in (0.05, 0.1, 0.25, 0.5):
        assert np.mean(np.array(p) <= a + 1e-9) <= a + 3 * math.sqrt(a * (1 - a) / 400)


@given(seed=integers(0, 999))
@settings(deadline=None, max_examples=10)
def test_information_equals_a_loop_over_pairs(seed):
    rows = table(seed, seeds=2)
    rows["gap"] = rows.gap.round(2)
    rows["tied"] = rows.noisy.round(1)
    names = ("noisy", "tied", "size")
    for name, found in zip(names, conditional_information(sweep(rows, *names)), strict=True):
        assert found.total.value == pytest.approx(max(0, slow_information(rows, name)), abs=1e-9)
        assert 0 <= found.total.value <= 1


def test_information_of_a_function_of_the_hyperparameters_is_zero():
    found = conditional_information(sweep(table(), "size"))[0]
    assert found.total.value == pytest.approx(0, abs=1e-12)
    assert set(found.given) == {"depth", "width"}


@pytest.mark.parametrize("seed", range(2))
def test_sign_error_equals_loops(seed):
    rows = table(seed)
    found = sign_error(sweep(rows, "noisy", "size"), 500, least=2)
    for name, one in zip(("noisy", "size"), found, strict=True):
        slow = slow_sign_error(rows, name, 500, 2)
        assert one.mean.n == len(slow)
        assert one.mean.value == pytest.approx(slow.mean())
        assert one.quantile.value == pytest.approx(np.quantile(slow, 0.9))
        assert one.worst.value == pytest.approx(slow.max())


@given(seed=integers(0, 99), n=integers(3, 30))
@settings(deadline=None, max_examples=20)
def test_tau_equals_scipy_without_ties(seed, n):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, n))
    expected = scipy_stats.kendalltau(x, y).statistic
    assert kendall(x, y).value == pytest.approx(expected)
    tied = np.round(x)
    if np.ptp(tied):
        product = np.sign(np.subtract.outer(tied, tied)) * np.sign(np.subtract.outer(y, y))
        assert kendall(tied, y).value == pytest.approx(product.sum() / (n * (n - 1)))


def test_gain_is_that_of_refitting_without_the_configurations():
    rows = table(seeds=4)
    found = out_of_fold_gain(sweep(rows, "noisy", "random", "size"))
    assert found[0].value > 0.1
    assert found[1].value < 0.05
    assert abs(found[2].value) < 1e-6  # what the hyperparameters say, it says, too
    order = np.random.default_rng(0).permutation(12)
    codes = rows[list(AXES)].to_numpy()
    number = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    fold = (np.argsort(order) % 10)[number]
    base = pd.get_dummies(rows[list(AXES)].astype(str), drop_first=True).to_numpy(float)
    ranks = scipy_stats.zscore(scipy_stats.rankdata(rows.noisy))
    errors = []
    for x in (base, np.column_stack([base, ranks])):
        x, total = np.column_stack([np.ones(len(x)), x]), 0.0
        for k in range(10):
            inside = fold != k
            beta = np.linalg.lstsq(x[inside], rows.gap[inside], rcond=None)[0]
            total += ((rows.gap[~inside] - x[~inside] @ beta) ** 2).sum()
        errors.append(total)
    assert found[0].value == pytest.approx(1 - errors[1] / errors[0])


# invariances


def test_nothing_depends_on_order_units_or_labels_of_values():
    rows = table()
    names = ("noisy", "random")
    first = evaluate_measures(rows, gap="gap", axes=AXES, measures=names, n_test=500)
    other = rows.sample(frac=1, random_state=5, ignore_index=True)
    other["depth"] = other.depth.map({0: "one", 1: "three", 2: "two"})
    other["noisy"] = np.exp(other.noisy)
    other["random"] = 7 * other.random - 3
    for a, b in zip(
        first,
        evaluate_measures(other, gap="gap", axes=AXES, measures=names, n_test=500),
        strict=True,
    ):
        assert a.tau.value == pytest.approx(b.tau.value)
        assert a.granulated.total.value == pytest.approx(b.granulated.total.value)
        assert a.information.total.value == pytest.approx(b.information.total.value)
        assert a.sign_error == b.sign_error


def test_a_model_without_a_measure_is_left_out_for_it():
    rows = table()
    whole = evaluate_measures(rows, gap="gap", axes=AXES, measures=["noisy"])[0]
    rows["holes"] = rows.noisy.where(rows.index > 3)
    rows["none"] = np.nan
    found = evaluate_measures(rows, gap="gap", axes=AXES, measures=["noisy", "holes", "none"])
    assert found[0] == whole
    assert found[1].models == len(rows) - 4
    part = evaluate_measures(rows[4:], gap="gap", axes=AXES, measures=["noisy"])[0]
    assert found[1].tau == part.tau
    assert found[1].granulated == part.granulated
    assert math.isnan(found[2].tau.value)
    assert "exists for 0 of 36 models" in found[2].tau.reason


# what does not exist has a reason


def test_all_ties_have_a_reason_and_no_zero():
    rows = table()
    rows["same"] = 1.0
    found = evaluate_measures(rows, gap="gap", axes=AXES, measures=["same"])[0]
    for outcome in (found.tau, found.granulated.total, found.information.total, found.gain):
        assert math.isnan(outcome.value)
        assert outcome.reason
    assert "never changes along `depth` (4 lines)" in found.granulated.axes["depth"].reason
    assert math.isnan(found.granulated.p)
    rows["gap"] = 0.1
    found = evaluate_measures(rows, gap="gap", axes=AXES, measures=["noisy"], n_test=100)[0]
    assert "same gap" in found.tau.reason
    assert "same gap" in found.information.total.reason
    assert "no environment" in found.sign_error.worst.reason


def test_one_model_per_line_has_a_reason_and_the_count():
    rows = pd.DataFrame({axis: np.arange(4) for axis in AXES})
    rows["gap"], rows["mu"] = [0.1, 0.2, 0.3, 0.4], [1.0, 3.0, 2.0, 4.0]
    found = evaluate_measures(rows, gap="gap", axes=AXES, measures=["mu"])[0]
    assert found.tau.value == pytest.approx(2 / 3)
    assert math.isnan(found.granulated.total.value)
    assert found.granulated.total.n == 0
    assert "no two models differ in `depth` alone" in found.granulated.total.reason
    assert "do not fix" in found.gain.reason


def test_refusals():
    rows = table()
    with pytest.raises(UnknownName, match="widths"):
        Sweep.of(rows, gap="gap", axes=["widths"], measures=["noisy"])
    with pytest.raises(InvalidData, match="0 hyperparameters"):
        Sweep.of(rows, gap="gap", axes=[], measures=["noisy"])
    with pytest.raises(InvalidData, match="2 models"):
        sweep(rows[:2], "noisy")
    with pytest.raises(InvalidData, match="1 of 36 gaps"):
        sweep(rows.assign(gap=rows.gap.where(rows.index > 0)), "noisy")
    with pytest.raises(InvalidData, match="`width` has 36 values"):
        sweep(rows.assign(width=np.arange(36)), "noisy")
    with pytest.raises(InvalidConfig, match="permutations"):
        granulated_correlations(sweep(rows, "noisy"), permutations=-1)
    with pytest.raises(InvalidConfig, match="n_test"):
        sign_error(sweep(rows, "noisy"), 0)
    with pytest.raises(InvalidConfig, match="folds"):
        out_of_fold_gain(sweep(rows, "noisy"), folds=1)
