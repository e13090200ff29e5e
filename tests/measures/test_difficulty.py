from dataclasses import replace
from itertools import combinations, pairwise
from math import comb, exp, inf, log, log2

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.difficulty import (
    EASY,
    NOTHING_LEFT,
    Control,
    Difficulty,
    FunctionSpace,
    class_separation,
    example,
    extrapolated_separation,
    few_shot_space,
    log_harmonics,
    union,
)
from unseen.measures.duplicates import closest_pair, distinct_rows, neighbours
from unseen.measures.inductive_bias.quadratic_form import QuadraticForm
from unseen.measures.intrinsic_dimension import IntrinsicDimension, intrinsic_dimension
from unseen.objectives import classify
from unseen.reading import Reading
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.images import Collection, Images

MNIST = FunctionSpace(
    log_n=log(60_000),
    radius=17.179,
    dimension=14,
    separation=2.39871,
    combinations=10,
    log_outputs=log(9),
)
DOUBLE = Lab(dtype=torch.float64)


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=Lab(seed).generator(), dtype=torch.float64)


def task(x, y):
    return Task(
        name="t",
        axis=Axis.IID,
        splits={"train": Split(Columns(x=x, y=y), Use.TRAIN)},
        objective=classify,
    )


def bands(n=300, seed=0, scale=1.0):
    x = normal(n, 3, seed)
    x = (x / x.norm(dim=1, keepdim=True))[(x[:, 0] / x.norm(dim=1)).abs() > 0.1]
    return task(scale * x, (x[:, 0] > 0).long())


def test_the_published_constants_of_mnist():
    found = Difficulty(eps=1e-3)(MNIST, Lab())
    assert found.value == pytest.approx(1.485e16, rel=1e-3)
    assert found.log2_bits == pytest.approx(log2(found.value))


def test_the_published_cart_pole_and_reacher():
    # the authors' code: two observations of the cart-pole, and Reacher
    pole = Difficulty(eps=1e-3)(Control(observations=4, steps=1e4), Lab()).value
    assert pole == pytest.approx(3.33e17, rel=1e-2)
    m, delta, n = 6, 1e-3, 1e6
    ball = np.pi**3 / 6
    bits = log2(4 * np.pi**2 / 6**0.5) + 1 + 0.5 * log2(m) - 2 * log2(delta) - log2(n) / m
    wanted = 2 * (2 * (2 * np.pi / delta) ** m * ball - n) * bits
    found = Difficulty(eps=1e-3)(Control(observations=6, actions=2), Lab()).value
    assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("m", [1, 2, 3, 7])
def test_harmonics_up_to_a_degree_are_counted(m):
    # dim H_k(S^m) = C(m + k, m) − C(m + k − 2, m)
    dimensions = [comb(m + k, m) - (comb(m + k - 2, m) if k >= 2 else 0) for k in range(7)]
    for degree in range(7):
        assert exp(log_harmonics(m, degree)) == pytest.approx(sum(dimensions[: degree + 1]))
    assert exp(log_harmonics(1, 5)) == pytest.approx(11)
    assert exp(log_harmonics(2, 5)) == pytest.approx(36)


def test_the_degree_solves_its_equation():
    for m, separation in ((1, 0.3), (14, 2.4), (1000, 0.01)):
        space = replace(MNIST, dimension=m, separation=separation)
        square = (2 * np.pi * space.radius / separation) ** 2
        assert space.degree * (space.degree + m - 1) == pytest.approx(square, rel=1e-9)


def test_a_thousand_dimensions_do_not_overflow():
    found = Difficulty()(replace(MNIST, dimension=1000.0, separation=0.1), Lab())
    assert found.unit == "log₂ bits"
    assert found.value == found.log2_bits
    assert found.value > 1000


def test_difficulty_changes_in_the_right_direction():
    bits = MNIST.log2_bits(1e-3)
    assert replace(MNIST, log_n=MNIST.log_n + 1).log2_bits(1e-3) < bits
    assert MNIST.log2_bits(1e-2) < bits
    assert replace(MNIST, separation=3.0).log2_bits(1e-3) < bits
    assert replace(MNIST, dimension=15.0).log2_bits(1e-3) > bits


def test_the_slope_in_the_number_of_examples():
    small = replace(MNIST, dimension=2.0, separation=10.0, log_n=log(200))
    more = replace(small, log_n=log(201))
    change = 2 ** more.log2_bits(1e-3) - 2 ** small.log2_bits(1e-3)
    free = exp(small.log_free_dimensions)
    wanted = -9 * small.bits_per_dimension(1e-3) - free / (200 * 2 * log(2))
    assert change == pytest.approx(wanted, rel=0.01)


def test_the_unit_of_the_inputs_does_not_matter():
    bits = Difficulty(eps=0.01)(bands(), DOUBLE)
    other = Difficulty(eps=0.01)(bands(scale=1000.0), DOUBLE)
    assert other.value == pytest.approx(bits.value, rel=1e-9)
    assert other.low == pytest.approx(bits.low, rel=1e-9)
    assert bits.low < bits.value < bits.high


def test_more_examples_than_the_space_has_leave_nothing():
    full = replace(MNIST, log_n=log(1e30))
    found = Difficulty()(full, Lab())
    assert (found.value, found.notes) == (0, (NOTHING_LEFT,))
    easy = Difficulty(eps=1e9)(MNIST, Lab())
    assert (easy.value, easy.notes) == (0, (EASY,))
    assert found.at(1e-5).value == 0


def test_what_a_model_s_test_error_supplies():
    found = Difficulty(eps=1e-3)(MNIST, Lab())
    supplied = found.bits_supplied(Reading(0.05, 0.04, 0.06, 1000))
    assert supplied.value == pytest.approx(2 ** MNIST.log2_bits(0.05))
    assert supplied.low < supplied.value < supplied.high < found.value
    assert supplied.high == pytest.approx(2 ** MNIST.log2_bits(0.04))
    assert found.bits_supplied(Reading(0.05, 0.0, 0.06, 50)).high == inf
    with pytest.raises(InvalidData, match="No error was seen among 50"):
        found.bits_supplied(Reading(0.0, 0.0, 0.07, 50))


def test_few_shot_tasks_and_unions_are_harder():
    shots = few_shot_space(
        ways=20, within=22, across=29, radius=49.4, separation=5.477, log_n=log(1e40)
    )
    inner = log_harmonics(22, replace(MNIST, radius=49.4, separation=5.477, dimension=22.0).degree)
    assert shots.log_outputs == pytest.approx(log(760) + inner)
    assert (shots.dimension, shots.bound) == (29 + 19 * 22, 380**0.5)
    assert shots.log2_bits(1e-2) > MNIST.log2_bits(1e-2)
    both = union(MNIST, MNIST)
    assert (both.dimension, both.combinations, both.log_n) == (28, 100, 2 * MNIST.log_n)
    assert both.radius == pytest.approx(MNIST.radius * 2**0.5)


@pytest.mark.parametrize(("n", "d", "k"), [(300, 3, 5), (60, 40, 1), (40, 1, 4)])
def test_neighbours_equal_brute_force(n, d, k, monkeypatch):
    monkeypatch.setattr("unseen.measures.duplicates.CHUNK", 7 * n)
    x, q = normal(n, d) + 100, normal(20, d, 1) + 100
    squares = (q[:, None] - x[None]).square().sum(2)
    index, distance = neighbours(q, x, k)
    wanted = squares.topk(k, largest=False)
    assert_close(distance, wanted.values.sqrt(), rtol=1e-12, atol=1e-15)
    assert (index == wanted.indices).all()
    own = neighbours(x, x, k, own=torch.arange(n))[0]
    assert (own != torch.arange(n)[:, None]).all()


def test_rows_closer_than_rounding_are_ordered_exactly():
    # 30 rows within 1e-6 at norm 1000: float32 products see them all at distance 0
    x = torch.cat([1000 + 1e-7 * normal(30, 5), normal(50, 5, 1)])
    index, distance = neighbours(x[:30], x, 3, own=torch.arange(30))
    squares = (x[:30, None] - x[None]).square().sum(2)
    squares[torch.arange(30), torch.arange(30)] = inf
    wanted = squares.topk(3, largest=False)
    assert (index == wanted.indices).all()
    assert (distance > 0).all()
    assert_close(distance, wanted.values.sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_the_closest_pair_equals_the_double_loop(seed):
    x, y = normal(40, 4, seed), torch.arange(40) % 3
    pairs = [(i, j) for i, j in combinations(range(40), 2) if y[i] != y[j]]
    wanted = min(pairs, key=lambda pair: float((x[pair[0]] - x[pair[1]]).norm()))
    found = closest_pair(x, y)
    assert {int(found.a), int(found.b)} == set(wanted)
    assert float(found.distance) == pytest.approx(float((x[wanted[0]] - x[wanted[1]]).norm()))


def test_equal_rows_count_once():
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0], [2.0, 3.0], [5.0, 5.0]]).double()
    assert distinct_rows(x).tolist() == [0, 1, 4]


def isometry(x, d=100):
    basis = torch.linalg.qr(normal(d, x.shape[1], 7))[0]
    return x @ basis.T


def sphere(m, n=5_000, seed=0):
    x = normal(n, m + 1, seed)
    return isometry(x / x.norm(dim=1, keepdim=True))


def cube(m, n=5_000, seed=0):
    x = torch.rand(n, m, generator=Lab(seed).generator(), dtype=torch.float64)
    return isometry(x)


@pytest.mark.parametrize("m", [1, 2, 4, 6, 8])
def test_the_dimension_of_spheres(m):
    found = [intrinsic_dimension(sphere(m, seed=seed), Lab()) for seed in range(3)]
    # a mean: one sample of 5,000 has a standard error of 1 % and, at m = 8, a bias of −4 %
    assert np.mean([one.value for one in found]) == pytest.approx(m, rel=0.05)
    assert all(one.low < one.value < one.high for one in found)


@pytest.mark.parametrize("m", [2, 3, 4, 6])
def test_the_dimension_of_cubes(m):
    assert intrinsic_dimension(cube(m), Lab()).value == pytest.approx(m, rel=0.1)


def test_cubes_of_many_dimensions_are_mostly_edge():
    found = [intrinsic_dimension(cube(8, seed=seed), Lab()) for seed in range(4)]
    assert np.mean([one.value for one in found]) / 8 - 1 == pytest.approx(-0.115, abs=0.02)
    assert all(one.high < 8 for one in found)  # the interval is of chance, not of this


def test_the_interval_holds_the_dimension_of_circles():
    held = 0
    for seed in range(100):
        angle = 2 * np.pi * torch.rand(300, generator=Lab(seed).generator(), dtype=torch.float64)
        found = intrinsic_dimension(torch.stack([angle.cos(), angle.sin()], 1), Lab(seed))
        held += found.low <= 1 <= found.high
    assert held >= 88  # 95 of 100 expected, less chance


def test_copies_do_not_change_the_dimension():
    x = sphere(2, 500)
    assert intrinsic_dimension(torch.cat([x, x[:200]]), Lab()).n == 500
    assert IntrinsicDimension()(task(torch.cat([x, x]), torch.zeros(1000)), DOUBLE).n == 500


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (torch.zeros(50, 2), "1 different rows"),
        (normal(6, 2), "6 different rows"),
        (torch.eye(50), "equally far"),
    ],
)
def test_points_without_a_dimension_are_refused(x, what):
    with pytest.raises(InvalidData, match=what):
        intrinsic_dimension(x.double(), Lab())
    with pytest.raises(InvalidConfig, match="k=1"):
        intrinsic_dimension(normal(50, 2), Lab(), k=1)


def test_extreme_values_come_near_the_smallest_distance():
    images = Images(Collection.FASHION_MNIST_SMALL, n_train=1_500, n_test=10, standardise=False)
    batch = images.build(Lab()).splits["train"].data[:]
    x, y = batch["x"].flatten(1).double(), batch["y"]
    exact = float(class_separation(x, y).distance)
    for seed in range(3):
        found = extrapolated_separation(x, y, Lab(seed), pairs=100_000, largest=1_000)
        assert 1 / 1.5 < found / exact < 1.5


def test_equal_inputs_of_different_classes_are_named():
    x, y = normal(60, 3), torch.arange(60) % 2
    x[41] = x[12]
    with pytest.raises(InvalidData, match="examples 12 and 41 have equal inputs") as error:
        Difficulty()(task(x, y), DOUBLE)
    assert "(0 and 1)" in str(error.value)
    assert Difficulty(separation=0.1)(task(x, y), DOUBLE).pair is None


def test_numbers_as_targets_need_a_separation():
    x = normal(200, 3)
    y = x[:, :1] + 10
    with pytest.raises(InvalidData, match="numbers, not classes"):
        Difficulty()(task(x, y), DOUBLE)
    found = Difficulty(separation=0.5)(task(x, y), DOUBLE)
    assert found.space.bound == pytest.approx(float(y.max()))
    assert found.space.combinations == 1


def test_binary_targets_in_floating_point_are_classes():
    t = bands()
    data = t.splits["train"].data
    as_float = task(data.columns["x"], data.columns["y"].double()[:, None])
    assert str(Difficulty()(as_float, DOUBLE)) == str(Difficulty()(t, DOUBLE))


def test_of_many_examples_some_are_drawn():
    found = Difficulty(most=100)(bands(1_000), DOUBLE)
    assert found.n == 100
    assert "100 were drawn" in found.notes[0]
    pair = [bands(1_000).splits["train"].data[i]["x"] for i in found.pair]
    assert float((pair[0] - pair[1]).norm()) == pytest.approx(found.space.separation)


def test_ignored_labels_are_left_out_and_counted():
    data = bands().splits["train"].data
    x, y = data.columns["x"], data.columns["y"].clone()
    y[:5] = -100
    found, alone = Difficulty()(task(x, y), DOUBLE), Difficulty()(task(x[5:], y[5:]), DOUBLE)
    assert found.value == alone.value
    assert found.n == len(x) - 5
    assert found.space.combinations == 2
    assert found.pair == tuple(row + 5 for row in alone.pair)
    assert f"5 of {len(x)} training examples have the label -100" in found.notes[0]
    with pytest.raises(InvalidData, match="No training example has a label"):
        Difficulty()(task(x, torch.full_like(y, -100)), DOUBLE)


def test_a_task_without_labels_is_refused():
    splits = {"train": Split(Columns(x=normal(30, 2)), Use.TRAIN)}
    with pytest.raises(InvalidData, match="have no `y`"):
        Difficulty()(Task(name="t", axis=Axis.IID, splits=splits, objective=classify), DOUBLE)


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        (lambda x, y: (x, torch.zeros_like(y)), InvalidData, "are of class 0"),
        (lambda x, y: (x.fill_(np.nan), y), InvalidData, "hold NaN"),
        (lambda x, y: (x.long(), y), InvalidData, "int64"),
        (lambda x, y: (x[:0], y[:0]), InvalidData, "no training examples"),
    ],
)
def test_tasks_without_a_difficulty_are_refused(change, error, what):
    with pytest.raises(error, match=what):
        Difficulty()(task(*change(normal(30, 2), torch.arange(30) % 2)), DOUBLE)


def test_settings_out_of_range_are_refused():
    for eps in (0.0, -1.0, inf):
        with pytest.raises(InvalidConfig, match="eps"):
            Difficulty(eps=eps)
    with pytest.raises(InvalidConfig, match="separation"):
        Difficulty(separation=0.0)
    with pytest.raises(InvalidConfig, match="radius"):
        replace(MNIST, radius=0.0)
    with pytest.raises(InvalidConfig, match="control"):
        Difficulty()(Control(observations=0), Lab())
    with pytest.raises(UnknownName, match="tokens"):
        Difficulty(column="tokens")(bands(), DOUBLE)


def test_the_difficulty_falls_with_eps():
    measure, subject = example()
    readings = [replace(measure, eps=eps)(subject, DOUBLE).value for eps in (1e-4, 1e-2, 1.0)]
    assert all(a > b for a, b in pairwise(readings))


@pytest.mark.parametrize("eps", [0.1, 0.01])
@pytest.mark.parametrize(("degree", "n"), [(3, 2), (3, 5), (6, 2), (6, 5)])
def test_on_the_circle_the_formula_is_an_upper_bound(degree, n, eps):
    """Functions of 2K + 1 Fourier coefficients whose mean square is 1, given their values at n
    points: the error is a non-central χ² in the null space of those values, and exact.
    """
    space = FunctionSpace(log_n=log(n), radius=1.0, dimension=1.0, separation=2 * np.pi / degree)
    assert space.degree == pytest.approx(degree)
    harmonics = 2 * degree + 1
    # the formula counts every harmonic twice
    assert exp(space.log_free_dimensions) == pytest.approx(2 * harmonics - n)
    for seed in range(10):
        g = Lab(seed).child("circle").generator()
        angle = 2 * np.pi * torch.rand(n, generator=g, dtype=torch.float64)
        phase = angle[:, None] * torch.arange(1, degree + 1)
        values = torch.cat([torch.ones(n, 1) / 2**0.5, phase.cos(), phase.sin()], 1)
        true = torch.randn(harmonics, generator=g, dtype=torch.float64) * harmonics**-0.5
        null = torch.linalg.qr(values.T, mode="complete")[0][:, n:]
        error = QuadraticForm(
            np.array([1 / harmonics]),
            np.array([float(harmonics - n)]),
            np.array([float((null.T @ true).square().sum())]),
        )
        bits = -error.log_probability(eps**2) / log(2)  # ε is a root of a mean square here
        assert 0 < bits < 2 ** space.log2_bits(eps)


@pytest.mark.parametrize("block", [1, 3, 16, 100])
def test_the_closest_pair_does_not_depend_on_blocks(block, monkeypatch):
    monkeypatch.setattr("unseen.measures.duplicates.BLOCK", block)
    x = normal(60, 3)
    for groups in (60, 13, 2):
        y = torch.arange(60) % groups
        distances = torch.cdist(x, x).masked_fill(y[:, None] == y, inf)
        found = closest_pair(x, y)
        assert float(found.distance) == pytest.approx(float(distances.min()), rel=1e-9)
        assert y[found.a] != y[found.b]
    assert len(closest_pair(x, torch.zeros(60, dtype=torch.int64))) == 0
