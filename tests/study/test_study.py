"""Judging claims, and the effects that read rows."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis.strategies import floats

from unseen.errors import InvalidData, UnknownName
from unseen.reading import Reading
from unseen.study import Claim, Scale, Unit, Verdict, average, column, gap, pick, rate

ROWS = [
    {"seed": s, "method": m, "accuracy": v, "hits": h, "n": 10}
    for s, m, v, h in [
        (0, "a", 0.9, 9),
        (1, "a", 0.8, 8),
        (0, "b", 0.5, 5),
        (1, "b", 0.6, 6),
        (2, "b", 0.1, 1),
    ]
]


def verdict(
    low: float, high: float, above: float = -inf, below: float = inf, scale: Scale = Scale.LAPTOP
) -> Verdict:
    claim = Claim(
        "…", lambda rows: Reading((low + high) / 2, low, high, 5), above=above, below=below,
        unit=Unit.ITEM,
    )  # fmt: skip
    return claim.judge([], scale).verdict


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "wanted"),
    [
        (0.2, 0.4, 0.1, inf, Verdict.SUPPORTED),
        (0.1, 0.4, 0.1, inf, Verdict.SUPPORTED),  # a limit on the margin clears it
        (0.0, 0.4, 0.1, inf, Verdict.UNDECIDED),
        (-0.2, 0.05, 0.1, inf, Verdict.REFUTED),
        (-0.05, 0.05, -0.1, 0.1, Verdict.SUPPORTED),
        (-0.2, 0.05, -0.1, 0.1, Verdict.UNDECIDED),
        (-0.5, 0.5, -0.1, 0.1, Verdict.UNDECIDED),
        (0.2, 0.5, -0.1, 0.1, Verdict.REFUTED),
        (-0.5, -0.2, -0.1, 0.1, Verdict.REFUTED),
        (nan, nan, 0.1, inf, Verdict.UNDECIDED),
        (0.2, nan, 0.1, inf, Verdict.UNDECIDED),
    ],
)
def test_the_interval_decides(low, high, above, below, wanted):
    assert verdict(low, high, above, below) is wanted


@given(a=floats(-1, 1), b=floats(-1, 1), margin=floats(0.01, 1))
def test_a_claim_and_its_negation_are_never_both_supported_nor_both_refuted(a, b, margin):
    low, high = min(a, b), max(a, b)
    up, down = verdict(low, high, above=margin), verdict(low, high, below=margin)
    if low < margin < high or low == high:
        assert up is down is Verdict.UNDECIDED
    elif low != margin and high != margin:
        assert {up, down} == {Verdict.SUPPORTED, Verdict.REFUTED}


def test_too_small_a_scale_is_not_judged_but_the_value_is_shown():
    claim = Claim(says="…", effect=average("accuracy", method="a"), above=0.99, needs=Scale.PAPER)
    judged = claim.judge(ROWS, Scale.LAPTOP)
    assert judged.verdict is Verdict.NOT_JUDGED
    assert judged.reading.value == pytest.approx(0.85)
    assert claim.judge(ROWS, Scale.PAPER).verdict is not Verdict.NOT_JUDGED
    assert [scale.rank for scale in Scale] == [0, 1, 2]


def test_missing_cells_leave_the_claim_undecided_with_the_reason():
    judged = Claim(says="…", effect=average("accuracy", method="c"), above=0.1).judge(
        ROWS, Scale.LAPTOP
    )
    assert judged.verdict is Verdict.UNDECIDED
    assert judged.reading is None
    assert "method=c" in judged.because


def test_an_error_in_the_effect_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        Claim(says="…", effect=lambda rows: 1 / 0, above=1).judge(ROWS, Scale.LAPTOP)


def test_average_rate_and_gap():
    assert average("accuracy", method="b")(ROWS).value == pytest.approx(0.4)
    reading = rate("hits", "n", method="b")(ROWS)
    assert (reading.value, reading.n) == (0.4, 30)
    pairs = [row for row in ROWS if row["seed"] < 2]
    paired = gap("accuracy", {"method": "a"}, {"method": "b"})(pairs)
    assert (paired.value, paired.n) == (pytest.approx(0.3), 2)
    assert gap("accuracy", {"method": "b"}, {"method": "a"})(pairs).value == pytest.approx(
        -paired.value
    )
    assert (
        gap("accuracy", {"method": "a"}, {"method": "b"}, pair=("seed", "n"))(pairs).value
        == paired.value
    )
    assert len(pick(ROWS, method="a", seed=0)) == 1
    twice = [*pairs, *({**row, "accuracy": row["accuracy"] - 0.2} for row in pairs)]
    assert gap("accuracy", {"method": "a"}, {"method": "b"})(twice).value == pytest.approx(0.3)
    # rows of one seed count as their mean: they are not drawn anew by themselves
    assert average("accuracy", method="a")(twice).n == 2


def test_refusals():
    with pytest.raises(InvalidData, match="No row has method=c"):
        column(ROWS, "accuracy", method="c")
    with pytest.raises(UnknownName, match="no column `acuracy`"):
        column(ROWS, "acuracy")
    with pytest.raises(InvalidData, match="seed 2 is on one side only"):
        gap("accuracy", {"method": "a"}, {"method": "b"})(ROWS)
    with pytest.raises(InvalidData, match="seed 1 has fewer rows of `accuracy` than others"):
        gap("accuracy", {"method": "a"}, {"method": "b"})([*ROWS[:4], ROWS[0]])
