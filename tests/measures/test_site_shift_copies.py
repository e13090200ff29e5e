"""Copies across sites are counted as rows; coincidences of coarse columns are told from them."""

import numpy as np
import pytest

from unseen.errors import InvalidData
from unseen.measures.site_shift.copies import copies_across_sites

SITE = np.repeat([0, 1, 2], 100)


def table(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(300, 4)), rng.integers(0, 2, 300)


def test_copies_are_counted_once_by_pair_of_sites() -> None:
    x, y = table(0)
    x[100:105], y[100:105] = x[:5], y[:5]  # five rows of site 0 stand at site 1, too …
    x[200], y[200] = x[0], 1 - y[0]  # … one of them at site 2 with another target
    x[51] = x[50]  # a copy within a site is none across
    found = copies_across_sites(x, y, SITE, np.random.default_rng(0))
    assert sorted(found.rows.tolist()) == [*range(5), *range(100, 105), 200]
    assert found.within == 2
    assert found.by_sites == {(0, 1): 5, (0, 2): 1, (1, 2): 1}
    assert found.same_target == pytest.approx(10 / 11)
    assert not found.are_coincidences


def test_coarse_columns_coincide() -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 3, (300, 3)).astype(float)
    found = copies_across_sites(x, rng.integers(0, 2, 300), SITE, rng)
    assert len(found.rows) > 200
    assert found.are_coincidences
    # 300 · 299 / 2 pairs of rows, 27 equally likely rows
    assert found.expected == pytest.approx(44_850 / 27, rel=0.2)


def test_copies_among_coarse_columns_are_told_by_where_they_stand() -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(0, 12, (300, 4)).astype(float)
    x[100:130] = x[:30]
    found = copies_across_sites(x, np.zeros(300), SITE, rng)
    assert found.expected > 1e-3
    assert found.p <= 0.01
    assert not found.are_coincidences


def test_different_rows_have_no_copies_whatever_their_order() -> None:
    x, y = table(3)
    assert len(copies_across_sites(x, y, SITE, np.random.default_rng(0)).rows) == 0
    x[150] = x[20]
    order = np.random.default_rng(4).permutation(300)
    found = copies_across_sites(x[order], y[order], SITE[order], np.random.default_rng(0))
    assert sorted(order[found.rows].tolist()) == [20, 150]


def test_rows_without_numbers_are_refused() -> None:
    x, y = table(0)
    x[0, 0] = np.nan
    with pytest.raises(InvalidData):
        copies_across_sites(x, y, SITE, np.random.default_rng(0))
