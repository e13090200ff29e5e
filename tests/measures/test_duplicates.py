import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.duplicates import (
    NearOverlap,
    Overlap,
    chance_distance,
    equal_rows,
    exact_pairs,
    fingerprints,
    near_pairs,
    near_threshold,
    nearest,
    reference_rows,
    scale_to_common_units,
)
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


def normal(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=Lab(seed).generator(), dtype=torch.float64)


def task(a: torch.Tensor, b: torch.Tensor) -> Task:
    splits = {
        "train": Split(Columns(x=a, y=torch.zeros(len(a))), Use.TRAIN),
        "test": Split(Columns(x=b, y=torch.zeros(len(b))), Use.EVALUATE),
    }
    return Task(name="t", axis=Axis.IID, splits=splits, objective=classify)


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 3), (50, 70, 40), (5, 9, 1)])
def test_nearest_equals_sklearn(n, m, d, monkeypatch):
    monkeypatch.setattr("unseen.measures.duplicates.CHUNK", 7 * n)  # many chunks
    x, q = (
        normal(n, d) + 100,
        normal(m, d, 1) + 100,
    )  # an offset: cancellation in ‖q‖² + ‖x‖² − 2 q·x
    index, distance = nearest(q, x)
    wanted, where = (
        NearestNeighbors(n_neighbors=1, algorithm="brute")
        .fit(x.numpy() - 100)
        .kneighbors(q.numpy() - 100)
    )
    assert_close(distance, torch.tensor(wanted[:, 0]), rtol=1e-7, atol=1e-9)
    assert (index.numpy() == where[:, 0]).all()
    own_index, own = nearest(x, x, own=torch.arange(n))
    wanted = (
        NearestNeighbors(n_neighbors=2, algorithm="brute")
        .fit(x.numpy() - 100)
        .kneighbors(x.numpy() - 100)[0]
    )
    assert_close(own, torch.tensor(wanted[:, 1]), rtol=1e-7, atol=1e-9)
    assert (own_index != torch.arange(n)).all()


def test_exact_pairs_equal_the_double_loop():
    a, b = (torch.randint(3, (n, 3), generator=Lab(n).generator()).double() for n in (30, 25))
    b[0], b[1] = -a[0].abs() * 0, a[2] + 1e-9  # a negative zero and a difference below the rounding
    found = exact_pairs(a, b)
    wanted = {(i, j) for i in range(30) for j in range(25) if np.allclose(a[i], b[j], atol=1e-7)}
    assert set(zip(found.a.tolist(), found.b.tolist(), strict=True)) == wanted
    assert len(wanted) > 10


def test_noisy_copies_are_found_and_strangers_are_not():
    a, fresh = normal(600, 8), normal(300, 8, 1)
    source = torch.arange(0, 40)
    copies = a[source] + 0.02 * normal(40, 8, 2)
    found = near_pairs(
        a * 7, torch.cat([copies, fresh]) * 7
    )  # the unit of the columns does not matter
    assert set(found.b.tolist()) >= set(range(40))
    pairs = dict(zip(found.b.tolist(), found.a.tolist(), strict=True))
    assert all(pairs[j] == j for j in range(40))
    assert len(found) <= 42
    assert found.distance.tolist() == sorted(found.distance.tolist())


@pytest.mark.parametrize("d", [1, 2, 5])
def test_chance_of_strangers_is_as_asked(d):
    """Uniform data, where the law is exact up to edges: 3 % asked, 4,000 strangers."""
    g = Lab(d).generator()
    a, b = (torch.rand(n, d, generator=g, dtype=torch.float64) for n in (4_000, 4_000))
    x, y = scale_to_common_units(a, b, tabular=True)
    share = float((nearest(y, x)[1] <= chance_distance(x, 0.03)).double().mean())
    assert 0.02 < share < 0.045


def test_threshold_survives_duplicates_within_the_reference():
    a = normal(500, 5)
    doubled = torch.cat([a, a[:150] + 1e-4 * normal(150, 5, 3)])
    assert 0.5 < chance_distance(doubled) / chance_distance(a) < 1.5
    assert chance_distance(torch.ones(10, 2, dtype=torch.float64)) == 0.0


def test_images_are_compared_in_their_own_unit():
    a = torch.rand(60, 1, 6, 6, generator=Lab(0).generator())
    b = torch.cat([a[:5] + 0.001, torch.rand(20, 1, 6, 6, generator=Lab(1).generator())])
    assert near_pairs(a, b).b.tolist()
    assert set(near_pairs(a, b).b.tolist()) == set(range(5))


def test_measures_read_a_task():
    a = normal(50, 4).float()
    b = torch.cat([a[3:5], normal(8, 4, 1).float()])
    exact, near = Overlap()(task(a, b), Lab()), NearOverlap()(task(a, b + 1e-5), Lab())
    assert exact.value == near.value == 0.2
    assert exact.low < 0.2 < exact.high
    assert_close(exact.detail[:, :2], torch.tensor([[3.0, 0.0], [4.0, 1.0]], dtype=torch.float64))
    shuffled = torch.randperm(50, generator=Lab(4).generator())
    assert Overlap()(task(a[shuffled], b), Lab()).value == exact.value
    assert Overlap()(task(a, b[2:]), Lab()).value == 0


def test_refusals():
    a = normal(5, 2)
    with pytest.raises(InvalidData, match=r"1 of 5 examples in `b`"):
        exact_pairs(a, torch.where(torch.arange(5)[:, None] == 2, torch.nan, a))
    with pytest.raises(InvalidData, match="no examples"):
        near_pairs(a, a[:0])
    with pytest.raises(InvalidData, match="2 examples"):
        near_pairs(a[:2], a)
    with pytest.raises(InvalidConfig, match="chance=0"):
        near_pairs(a, a, chance=0.0)
    with pytest.raises(UnknownName, match="column"):
        Overlap(column="pixels")(task(a, a), Lab())
    with pytest.raises(UnknownName, match="split"):
        Overlap(split="tset")(task(a, a), Lab())


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_nearest_within_is_nearest_where_it_is_near(offset, monkeypatch):
    """An offset of 10,000 costs float32 four digits: rows at the limit must not be lost."""
    monkeypatch.setattr("unseen.measures.duplicates.CHUNK", 7 * 400)
    x = normal(400, 6) + offset
    q = torch.cat([x[:150] + 0.3 * normal(150, 6, 2), normal(150, 6, 1) + offset])
    every_index, every_distance = nearest(q, x)
    for limit in (0.0, 0.5, float(every_distance[40]), 2.0):
        index, distance = nearest(q, x, within=limit)
        is_near = every_distance <= limit
        assert (index[is_near] == every_index[is_near]).all()
        assert (distance[is_near] == every_distance[is_near]).all()
        assert (index[~is_near] == -1).all()
        assert distance[~is_near].isinf().all()


def test_few_distinct_rows_do_not_make_as_many_pairs():
    a = torch.arange(40_000) % 4
    found = equal_rows(a.double(), torch.cat([a, a[:2] + 9]).double())
    assert sorted(found) == list(range(40_000))
    assert found[5] is found[9]
    assert found[5] == list(range(1, 40_000, 4))


def test_reference_rows_are_all_or_evenly_spaced_and_never_cost_more_than_linear():
    assert reference_rows(5_000).tolist() == list(range(5_000))
    for n in (5_001, 200_000, 3_000_000):
        rows = reference_rows(n)
        assert (rows[0], rows[-1]) == (0, n - 1)
        assert rows.unique().numel() == len(rows)
        assert 1_000 <= len(rows) <= 5_000
    assert len(reference_rows(3_000_000)) == 1_000


def test_near_threshold_is_what_near_pairs_takes():
    a, b = 5 * normal(300, 4), 5 * normal(200, 4, 1)
    assert near_threshold(a) == near_pairs(a, b).threshold
    pictures = torch.rand(60, 1, 6, 6, generator=Lab(0).generator())
    assert near_threshold(pictures) == near_pairs(pictures, pictures).threshold


def test_equal_rows_share_a_fingerprint_and_others_do_not():
    rng = np.random.default_rng(0)
    rows = rng.integers(-3, 4, size=(4_000, 6)).astype(float) / 8
    distinct = len(np.unique(rows, axis=0))
    assert len(np.unique(fingerprints(rows))) == distinct
    assert (fingerprints(rows) == fingerprints(rows.copy())).all()
