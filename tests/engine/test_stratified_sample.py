"""Samples that keep every stratum, with its share."""

import numpy as np
import pytest
import torch

from unseen.engine.batches import Columns
from unseen.engine.stratified_sample import sample_columns, stratified_sample
from unseen.errors import InvalidConfig

STRATA = np.repeat([4, 9, 2, 7], [5_000, 3_000, 1_997, 3])


def test_shares_are_whole_numbers_next_to_the_exact_ones_and_nobody_is_left_out():
    rows = stratified_sample(STRATA, 101, np.random.default_rng(0))
    counts = {k: int((STRATA[rows] == k).sum()) for k in (4, 9, 2, 7)}
    # 50.5, 30.3, 20.17 and 0.03: one more row for the stratum that would have none
    assert counts == {4: 51, 9: 30, 2: 20, 7: 1}
    assert (np.diff(rows) > 0).all()


def test_a_seed_gives_the_same_rows_and_another_one_others():
    draws = [stratified_sample(STRATA, 500, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


def test_every_row_of_a_stratum_is_as_likely():
    rng, counts = np.random.default_rng(0), np.zeros(40)
    for _ in range(2_000):
        counts[stratified_sample(np.repeat([0, 1], 20), 10, rng)] += 1
    # a fourth of 2,000, deviation 19.4: five of them
    assert np.abs(counts - 500).max() < 97


def test_where_there_are_no_more_rows_all_are_taken():
    assert (stratified_sample(STRATA, len(STRATA), np.random.default_rng(0)) == range(10_000)).all()
    data = Columns(x=torch.zeros(5, 2))
    assert sample_columns(data, 5, np.random.default_rng(0)) is data


def test_columns_are_drawn_within_site_and_class():
    y, site = torch.arange(1_000) % 2, (torch.arange(1_000) >= 996).long()
    data = Columns(x=torch.arange(1_000.0), y=y, site=site)
    drawn = sample_columns(data, 50, np.random.default_rng(0)).columns
    assert torch.equal(y[drawn["x"].long()], drawn["y"])
    found = set(zip(drawn["site"].tolist(), drawn["y"].tolist(), strict=True))
    assert found == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert 50 <= len(drawn["y"]) <= 52
    # a number is no class
    sample_columns(Columns(y=torch.rand(100)), 50, np.random.default_rng(0))


def test_a_sample_of_nothing_is_refused():
    with pytest.raises(InvalidConfig, match="0 rows"):
        stratified_sample(STRATA, 0, np.random.default_rng(0))
