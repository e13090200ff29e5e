"""Selection protocols on tables made by hand: who is chosen, and by what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers

from unseen.errors import InvalidData
from unseen.questions.compare.protocols import MethodScores, Protocol, best_draws, mean_over_domains
from unseen.questions.compare.statistics import scores_of_chosen

nan = np.nan


def test_the_highest_draw_of_every_seed_is_chosen():
    validation = np.array([[0.1, 0.3, 0.2], [0.9, 0.3, 0.8]])
    assert best_draws(validation).tolist() == [1, 0]


def test_a_tie_keeps_the_earlier_draw_so_the_defaults_stay():
    assert best_draws(np.array([[0.5, 0.5, 0.4], [0.2, 0.7, 0.7]])).tolist() == [0, 1]


def test_diverged_draws_are_never_chosen():
    assert best_draws(
        np.array([[nan, 0.1, 0.2], [nan, nan, nan], [np.inf, 0.1, 0.0]])
    ).tolist() == [2, -1, 1]


@given(seed=integers(0, 999), draws=integers(1, 8))
def test_the_order_of_draws_does_not_change_what_is_reached(seed, draws):
    rng = np.random.default_rng(seed)
    validation, order = rng.random((3, draws)), rng.permutation(draws)
    best, again = best_draws(validation), best_draws(validation[:, order])
    rows = np.arange(3)
    assert (validation[rows, best] == validation[:, order][rows, again]).all()
    assert (validation[rows, best] == validation.max(1)).all()


def test_a_table_without_draws_is_refused():
    with pytest.raises(InvalidData, match="one column per draw"):
        best_draws(np.zeros((2, 0)))


def three_ways() -> MethodScores:
    """Each protocol prefers another draw; the judged scores tell which one was taken."""
    return MethodScores(
        validation={
            Protocol.TRAINING: np.array([[0.9, 0.5, 0.5]]),
            Protocol.LEFT_OUT: mean_over_domains(
                [np.array([[0.1, 0.9, 0.2]]), np.array([[0.9, 0.7, 0.2]])]
            ),
            Protocol.ORACLE: np.array([[0.2, 0.3, 0.4]]),
        },
        score={"here": np.array([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])},
        diverged=np.zeros((1, 3), bool),
    )


@pytest.mark.parametrize(
    ("protocol", "draw", "reached"), [(p, k, k / 2) for k, p in enumerate(Protocol)]
)
def test_protocols_differ_only_in_what_they_choose_by(protocol, draw, reached):
    sheet = three_ways()
    assert sheet.selected_draws(protocol).tolist() == [draw]
    assert scores_of_chosen(sheet, protocol, sheet.score["here"])[0].mean() == reached


def test_leave_one_domain_out_validation_is_the_mean_over_domains_and_needs_all_of_them():
    value = mean_over_domains([np.array([[0.2, 0.4]]), np.array([[0.6, nan]])])
    assert value[0, 0] == pytest.approx(0.4)
    assert np.isnan(value[0, 1])


def test_a_sheet_without_the_protocol_chooses_nothing():
    sheet = MethodScores(validation={}, score={}, diverged=np.zeros((2, 3), bool))
    assert sheet.selected_draws(Protocol.ORACLE).tolist() == [-1, -1]
    assert scores_of_chosen(sheet, Protocol.ORACLE, np.zeros((2, 3, 4))) == {}
