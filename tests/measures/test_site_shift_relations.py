"""A relation that is reversed, features that moved and a prevalence that changed are told from each
other and named; exchangeable sites raise nothing.
"""

import numpy as np
import pytest

from unseen.errors import InvalidData
from unseen.measures.site_shift.classifier import site_classifier
from unseen.measures.site_shift.covariates import feature_shifts
from unseen.measures.site_shift.permutations import permuted_sites, simultaneous_p
from unseen.measures.site_shift.prevalence import prevalence_shift
from unseen.measures.site_shift.relations import LEVEL, relation_changes

N, SITES = 600, 4
NAMES = {f"c{k}": [k] for k in range(8)}
HERE = np.repeat(np.arange(SITES), N // SITES) == 3


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def inputs(rng: np.random.Generator, n: int) -> np.ndarray:
    x = rng.normal(size=(n, 8))
    x[:, 4] = np.exp(x[:, 4])
    x[:, 5] = 0.6 * x[:, 0] + 0.8 * x[:, 5]
    x[:, 6] = x[:, 6] > 1
    return x


def table(seed: int, kind: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Two of eight features carry the target; one is correlated with the first."""
    rng = np.random.default_rng(seed)
    x = inputs(rng, N)
    if kind == "covariate":
        x[HERE, 1] += 1.5
    z = x[:, 0] + 0.7 * x[:, 1]
    if kind == "relation":
        z[HERE] -= 2 * x[HERE, 0]
    y = (rng.random(N) < sigmoid(z - 1.5 * (kind == "prevalence"))).astype(np.int64)
    if kind == "prevalence":  # half of the site's rows are of the class, drawn as elsewhere
        more = inputs(rng, 20 * N)
        target = rng.random(20 * N) < sigmoid(more[:, 0] + 0.7 * more[:, 1] - 1.5)
        half = HERE.sum() // 2
        rows = [np.flatnonzero(group)[:half] for group in (target, ~target)]
        x[HERE], y[HERE] = more[np.concatenate(rows)], np.repeat([1, 0], half)
    return x, y


def found(seed: int, kind: str = "") -> set[str]:
    """What is named at the last site, allowing for four sites."""
    x, y = table(seed, kind)
    rng = np.random.default_rng(seed)
    names = {
        f"{change.feature} {'reversed' if change.is_reversed else 'changed'}"
        for change in relation_changes(x, y, HERE, NAMES, rng)
        if change.p * SITES <= LEVEL
    }
    names |= {
        f"{shift.feature} moved"
        for shift in feature_shifts(x, y, HERE, NAMES, rng)
        if shift.p * SITES <= LEVEL and abs(shift.difference.value) >= 0.5
    }
    return names | ({"prevalence"} if prevalence_shift(x, y, HERE).p * SITES <= LEVEL else set())


DRAWS = 10
WANTED = {"relation": "c0 reversed", "covariate": "c1 moved", "prevalence": "prevalence"}


@pytest.mark.parametrize("kind", WANTED)
def test_what_changed_is_named_in_nine_of_ten_draws_and_nothing_else(kind: str) -> None:
    draws = [found(seed, kind) for seed in range(DRAWS)]
    assert sum(WANTED[kind] in draw for draw in draws) >= 9
    assert sum(bool(draw - {WANTED[kind]}) for draw in draws) <= 1


def test_exchangeable_sites_raise_no_alarm() -> None:
    assert [found(seed) for seed in range(100, 110)] == [set()] * 10


def test_p_values_of_exchangeable_sites_are_uniform() -> None:
    """Of 60 tables without a difference at most as many p-values are below 0.25 as chance allows:
    15 expected, 25 in fewer than 0.3 %.
    """
    smallest = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(120, 20)), rng.integers(0, 2, 120)
        here = np.arange(120) < 40
        names = {str(k): [k] for k in range(20)}
        smallest.append(
            (
                relation_changes(x, y, here, names, rng, 99)[0].p,
                feature_shifts(x, y, here, names, rng, 99)[0].p,
                site_classifier(x, here, names, rng, 99).p,
            )
        )
    assert ((np.array(smallest) <= 0.25).sum(0) <= 25).all()


def test_several_classes_and_numbers_as_targets() -> None:
    rng = np.random.default_rng(0)
    x, _ = table(0)
    slope = np.where(HERE, -1.0, 1.0)
    number = (slope * x[:, 0] + rng.normal(size=N)).astype(np.float32)
    classes = np.digitize(number, [-0.7, 0.7])
    for y in (number, classes):
        first = relation_changes(x, y, HERE, NAMES, rng)[0]
        assert (first.feature, first.p <= LEVEL / SITES) == ("c0", True)
    assert prevalence_shift(x, number, HERE).p > LEVEL / SITES
    higher = prevalence_shift(x, number + 2 * HERE, HERE)
    assert higher.p < 1e-6
    assert higher.change.value == pytest.approx(2, abs=0.3)


def test_prevalence_that_the_features_carry_is_none() -> None:
    """Fisher's test alone would call it a shift of prevalence."""
    x, y = table(3, "covariate")
    shift = prevalence_shift(x, y, HERE)
    assert shift.there.value - shift.elsewhere.value > 0.1
    assert abs(shift.there.value - shift.expected) < 0.08
    assert shift.p > 0.05


def test_order_and_units_of_rows_do_not_matter() -> None:
    x, y = table(1, "relation")
    order = np.random.default_rng(0).permutation(N)
    first = relation_changes(x, y, HERE, NAMES, np.random.default_rng(1))[0]
    again = relation_changes(
        x[order] * 7 - 3, y[order], HERE[order], NAMES, np.random.default_rng(2)
    )[0]
    assert (first.feature, first.p) == (again.feature, again.p)
    assert first.there.value == pytest.approx(again.there.value)


def test_draws_keep_the_counts_of_every_stratum() -> None:
    strata = np.repeat([0, 1, 2], [5, 20, 3])
    here = np.arange(28) % 4 == 0
    here[:5] = True
    drawn = permuted_sites(here, strata, 50, np.random.default_rng(0))
    assert (drawn[0] == here).all()
    for stratum in range(3):
        rows = strata == stratum
        assert (drawn[:, rows].sum(1) == here[rows].sum()).all()


def test_p_values_count_the_largest_of_all_features() -> None:
    statistics = np.array([[3.0, -2.0], [0.0, 2.5], [1.0, -4.0], [0.5, 0.5]])
    assert simultaneous_p(statistics).tolist() == [2 / 4, 3 / 4]


def test_few_rows_of_a_class_have_no_relation() -> None:
    x, y = table(0)
    y[HERE] = 0
    assert relation_changes(x, y, HERE, NAMES, np.random.default_rng(0)) == []


@pytest.mark.parametrize("spoil", ["NaN", "no one there", "position"])
def test_what_cannot_be_compared_is_refused(spoil: str) -> None:
    x, y = table(0)
    here, names, rng = HERE.copy(), NAMES, np.random.default_rng(0)
    if spoil == "NaN":
        x[0, 0] = np.nan
    elif spoil == "no one there":
        here[:] = False
    else:
        names = {"far": [99]}
    for measure in (relation_changes, feature_shifts):
        with pytest.raises(InvalidData):
            measure(x, y, here, names, rng)
    with pytest.raises(InvalidData):
        site_classifier(x, here, names, rng)


def test_a_classifier_names_what_tells_the_sites_apart() -> None:
    x, _ = table(2, "covariate")
    told = site_classifier(x, HERE, NAMES, np.random.default_rng(0))
    assert told.features[0] == "c1"
    assert told.p == 0.001
    assert told.auc.low > 0.7
