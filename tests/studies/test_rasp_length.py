"""The study of RASP-L: the interpolator of least degree passes through what it is given, and is
wrong on the Boolean task that is trained.
"""

import numpy as np

from unseen.lab import Lab
from unseen.models import rasp
from unseen.studies.rasp_length import (
    LINES,
    Boolean,
    Group,
    hardest_puzzle,
    least_degree,
    run,
    strings,
    study,
)
from unseen.study import Scale, pick
from unseen.study.grid import Cell

SMOKE = study.scales[Scale.SMOKE]


def test_the_interpolator_is_right_where_it_is_given_the_answers():
    x = strings(6)
    few = (x == 0).sum(1) <= 2
    for line in LINES.values():
        y = line(x)[:, -1]
        guess = least_degree(x[few], y[few], x[few], 2)
        np.testing.assert_array_equal(guess, y[few])


def test_of_a_conjunction_the_quadratic_is_positive_again_beyond_two_zeros():
    # p(z) = (1 − z)(2 − z) / 2 at z zeros: 1, 0, 0, 1, 3, …
    puzzle = hardest_puzzle(Boolean())
    assert (puzzle.line, puzzle.zeros, puzzle.right) == ("minimum(x)", 2, 0.0)
    assert rasp.program_length(rasp.minimum) == 1


def test_rows_of_an_exercise_and_of_the_boolean_task():
    arms = {cell.arm for cell in study.cells(SMOKE)}
    count = next(arm for arm in arms if getattr(arm, "name", "") == "count")
    rows = list(run(Cell(SMOKE, count, 0), Lab()))
    assert {row["at"]: row["length"] for row in rows} == {
        "inside": 30,
        "+10": 40,
        "×1.5": 45,
        "×2": 60,
    }
    assert rows[0]["program"] == rasp.program_length(rasp.count)
    boolean = next(arm for arm in arms if isinstance(arm, Boolean))
    (outside,) = pick(list(run(Cell(SMOKE, boolean, 0), Lab())), at="outside")
    assert outside["group"] is Group.BOOLEAN
    assert outside["interpolator"] < 0.5
