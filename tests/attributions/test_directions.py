"""Directions of marks, variance, weights and labels against closed forms on linear generators."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from unseen.attributions.directions import (
    LatentDirection,
    PCADirections,
    SupervisedDirection,
    WeightEigenDirections,
    check_marks,
    last_marks,
    logistic_fits,
    marked_rows,
    random_directions,
    uncertain_board,
)
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.models.generator import Direction


def latents(n: int, size: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def signs(h: torch.Tensor, along: torch.Tensor) -> dict[int, int]:
    return {k: 1 if value > 0 else -1 for k, value in enumerate((h @ along).tolist())}


TRUE = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 1.0], dtype=torch.float64)


def test_two_thousand_marks_of_a_linear_attribute_give_its_gradient():
    h = latents(2_000)
    found = LatentDirection().fit(h, signs(h, TRUE))
    assert float(found.vector @ TRUE / TRUE.norm()) > 0.99
    assert float(found.vector.norm()) == pytest.approx(1)


def test_the_fit_is_that_of_logistic_regression():
    h = latents(60)
    marks = signs(h, TRUE)
    peer = LogisticRegression(C=0.5, tol=1e-12, max_iter=10_000)
    peer.fit(h.numpy(), [marks[k] for k in range(60)])
    found = LatentDirection(c=0.5).fit(h, marks)
    assert found.weights is not None
    np.testing.assert_allclose(found.weights.numpy(), peer.coef_[0], atol=1e-6)
    assert found.offset == pytest.approx(float(peer.intercept_[0]), abs=1e-6)


def test_many_fits_at_once_are_the_fits_one_by_one():
    h = latents(30, 40).numpy()  # more coordinates than rows
    y = np.sign(np.random.default_rng(0).normal(size=(4, 30)))
    use = (np.random.default_rng(1).random((4, 30)) < 0.8).astype(float)
    together = logistic_fits(h, y, use, 0.5)
    for k in range(4):
        alone = logistic_fits(
            h[use[k] > 0], y[k : k + 1, use[k] > 0], np.ones((1, int(use[k].sum()))), 0.5
        )
        np.testing.assert_allclose(together[k], alone[0], atol=1e-7)


@pytest.mark.parametrize("count", [6, 40])  # means, and logistic regression
def test_order_and_repetition_of_marks_change_nothing(count):
    h = latents(count)
    marks = signs(h, TRUE)
    once = LatentDirection().fit(h, marks).vector
    log = [*reversed(marks.items())] * 3
    assert torch.equal(LatentDirection().fit(h, last_marks(log)).vector, once)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    values = torch.tensor([marks[k] for k in order.tolist()])
    assert torch.equal(LatentDirection().fit(h[order], values).vector, once)
    # the same image under three numbers is one image
    copies = torch.cat([h, h[:1], h[:1]])
    again = {**marks, count: marks[0], count + 1: marks[0]}
    assert torch.equal(LatentDirection().fit(copies, again).vector, once)


@pytest.mark.parametrize("count", [6, 40])
@pytest.mark.parametrize("standardise", [False, True])
def test_more_and_less_exchanged_give_the_opposite_direction(count, standardise):
    h = latents(count)
    marks = signs(h, TRUE)
    one = LatentDirection(standardise=standardise).fit(h, marks)
    other = LatentDirection(standardise=standardise).fit(h, {k: -m for k, m in marks.items()})
    torch.testing.assert_close(other.vector, -one.vector, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.reverse().score(h), other.score(h), atol=1e-5, rtol=0)


def test_the_last_mark_counts_and_unmarked_is_not_less():
    h = latents(20)
    marks = {0: 1, 1: -1, 2: 1}
    assert last_marks([(0, -1), (2, 1), (1, -1), (0, 1), (3, 1), (3, 0)]) == marks
    few = LatentDirection().fit(h, marks)
    alone = LatentDirection().fit(h[:3], marks)
    assert torch.equal(few.vector, alone.vector)


def test_few_marks_give_the_difference_of_means_and_the_score_knows_the_sides():
    h = latents(5)
    found = LatentDirection().fit(h, {0: 1, 1: 1, 2: -1, 3: -1})
    gap = h[:2].mean(0) - h[2:4].mean(0)
    torch.testing.assert_close(found.vector, gap / gap.norm())
    assert float(found.score((h[:2].mean(0) + h[2:4].mean(0))[None] / 2)) == pytest.approx(
        0, abs=1e-9
    )


def test_coordinates_of_a_layer_are_standardised():
    h = latents(200) * torch.tensor([1, 100, 1, 1, 1, 0.0], dtype=torch.float64)
    found = LatentDirection(standardise=True).fit(h, signs(h, torch.eye(6, dtype=torch.float64)[0]))
    assert found.scale == pytest.approx(float((h @ found.vector).std()))
    plain = latents(200)
    same = LatentDirection(standardise=True).fit(plain, signs(plain, torch.eye(6).double()[0]))
    assert float(same.vector[0]) > 0.9
    assert found.vector[5] == 0  # a dead unit is not moved


@pytest.mark.parametrize(
    "marks", [{}, {0: 1}, {0: -1, 1: -1}, {99: 1, 0: -1}, {0: 2, 1: -1}, [1, -1]]
)
def test_marks_without_a_direction_are_refused(marks):
    with pytest.raises(InvalidData):
        LatentDirection().fit(latents(4), marks)


def test_one_empty_side_is_said_in_one_sentence():
    with pytest.raises(InvalidData, match="Mark at least one image in each group"):
        LatentDirection().fit(latents(4), {0: 1})


def test_rows_that_are_not_finite_or_the_same_are_refused():
    h = latents(4)
    h[0, 0] = math.nan
    with pytest.raises(InvalidData, match="not finite"):
        LatentDirection().fit(h, {0: 1, 1: -1})
    with pytest.raises(InvalidData, match="do not differ"):
        LatentDirection().fit(
            torch.stack([h[1], h[2], h[1] + h[2], 0 * h[1]]), {0: 1, 1: 1, 2: -1, 3: -1}
        )


def test_sefa_are_the_eigenvectors_of_the_first_weight():
    weight = latents(20, 6, seed=3)
    found = WeightEigenDirections(count=6).fit(weight)
    vectors = torch.linalg.eigh(weight.T @ weight).eigenvectors
    torch.testing.assert_close(
        (found @ vectors.flip(1)).abs(), torch.eye(6).double(), atol=1e-8, rtol=0
    )
    assert (found.gather(1, found.abs().argmax(1, keepdim=True)) > 0).all()
    rows = weight / weight.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        WeightEigenDirections(count=6, normalise=True).fit(weight),
        WeightEigenDirections(count=6).fit(rows),
    )


def test_pca_of_a_linear_layer_spans_its_top_singular_vectors():
    weight = latents(20, 6, seed=3) @ torch.diag(torch.tensor([8, 6, 4, 1, 0.5, 0.2])).double()
    z = latents(4_000)
    z = torch.linalg.qr(z - z.mean(0)).Q * math.sqrt(
        3_999
    )  # exactly white, so that nothing is sampled
    top = torch.linalg.svd(weight).Vh[:3]
    found = torch.linalg.qr(PCADirections(count=3).fit(z @ weight.T, z).T).Q
    cosines = torch.linalg.svdvals(top @ found)
    assert float(cosines.min().clamp_max(1).arccos()) < 1e-3


@pytest.mark.parametrize("count", [0, 7])
def test_more_directions_than_dimensions_are_refused(count):
    with pytest.raises(InvalidConfig):
        WeightEigenDirections(count=count).fit(latents(20))
    with pytest.raises(InvalidConfig):
        PCADirections(count=count).fit(latents(20))


def test_the_supervised_direction_is_the_gradient_of_a_linear_attribute():
    h = latents(100)
    found = SupervisedDirection().fit(h, h @ TRUE)
    torch.testing.assert_close(found.vector, TRUE / TRUE.norm(), atol=1e-5, rtol=0)
    with pytest.raises(InvalidData):
        SupervisedDirection().fit(h, torch.ones(100).double())


def test_random_clicks_are_not_told_from_chance_and_an_honest_person_is():
    h = latents(60, 16)
    honest = check_marks(h, signs(h, torch.eye(16).double()[0]), Lab())
    assert honest.p < 0.01
    assert honest.auc > 0.8
    rng = np.random.default_rng(0)
    ps = [
        check_marks(h, {k: int(m) for k, m in enumerate(rng.choice([-1, 1], 60))}, Lab(k)).p
        for k in range(20)
    ]
    # under the null p is uniform: 20 of them below 0.2 more than 10 times has probability 0.0006
    assert sum(p < 0.2 for p in ps) <= 10
    with pytest.raises(InvalidData, match="at least 5"):
        check_marks(h, {0: 1, 1: -1}, Lab())


def test_equal_marks_give_equal_tests():
    h = latents(30)
    marks = signs(h, TRUE)
    assert check_marks(h, marks, Lab(3)) == check_marks(h, dict(reversed(marks.items())), Lab(3))


def test_a_board_has_the_least_certain_samples_and_random_ones():
    h = latents(100)
    direction = Direction(TRUE / TRUE.norm())
    candidates = torch.arange(20, 100)
    board = uncertain_board(h, direction, candidates, 8, Lab())
    nearest = candidates[direction.score(h[candidates]).abs().argsort()[:4]]
    assert {*nearest.tolist()} <= {*board.tolist()}
    assert len({*board.tolist()}) == 8
    assert board.min() >= 20
    with pytest.raises(InvalidData):
        uncertain_board(h, direction, candidates, 81, Lab())


def test_random_directions_have_length_one():
    torch.testing.assert_close(random_directions(5, 16, Lab()).norm(dim=1), torch.ones(5))


def test_marked_rows_are_those_with_marks():
    x, y = marked_rows(torch.eye(3), [1, 0, -1])
    assert len(x) == 2
    assert sorted(y) == [-1, 1]


def test_credit_of_a_linear_behaviour_is_its_gradient_times_the_input():
    from unseen.task import Use
    from unseen.testing.stand_ins import first, small_subject

    trained = small_subject()
    linear = nn.Linear(4, 1)
    queries = first(trained.task, Use.EVALUATE, Lab(), 3)
    found = SupervisedDirection().prepare(trained, Lab())(
        queries, lambda model, batch: linear(batch["x"])[:, 0]
    )
    mean = trained.task.splits["train"].data[:]["x"].mean(0)
    torch.testing.assert_close(
        found.scores, ((queries["x"] - mean) * linear.weight).detach(), atol=1e-4, rtol=1e-3
    )
