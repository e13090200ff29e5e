"""What a claim may ask, what decides nothing, and how often verdicts are false."""

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

from unseen import stats
from unseen.errors import InvalidConfig
from unseen.reading import Reading
from unseen.runs import catalog
from unseen.runs.overview import missing
from unseen.study import Claim, Groups, Judgement, Scale, Unit, Verdict, average, gap
from unseen.study.claim import after_holm, p_beyond
from unseen.study.effects import highest, highest_of, lowest_of, minimum, worst

UNDECIDED, SUPPORTED, REFUTED = Verdict.UNDECIDED, Verdict.SUPPORTED, Verdict.REFUTED


def judge(reading: Reading, unit: Unit = Unit.SEED, **margins) -> Judgement:
    return Claim("…", lambda _: reading, unit=unit, **margins).judge([], Scale.LAPTOP)


@pytest.mark.parametrize(
    ("margins", "why"),
    [
        ({}, "has no margin"),
        ({"above": 0.2, "below": 0.1}, "above 0.2 and below 0.1"),
        ({"above": nan, "below": 0.1}, "above nan"),
        ({"above": 0.0}, "no reason for it"),
        ({"below": 0.0}, "no reason for it"),
        ({"above": 0.1, "sign_because": "…"}, "a reason for a sign"),
    ],
)
def test_what_cannot_be_claimed(margins, why):
    with pytest.raises(InvalidConfig, match=why):
        Claim("…", average("x"), **margins)


@pytest.mark.parametrize(
    ("reading", "why"),
    [
        (Reading(0.5, 0.5, 0.5, 5), "every seed gave 0.5: an interval over equal values says"),
        (Reading(0.5, 0.6, 0.4, 5), "wrong way round"),
        (Reading(nan, 0.4, 0.6, 5), "is no number"),
        (Reading(0.5, nan, nan, 5), "has no interval"),
        (Reading(0.5, 0.4, nan, 5), "has no interval"),
        (Reading(0.5, 0.4, 0.6, 1), "single unit"),
    ],
)
def test_what_decides_nothing(reading, why):
    for margins in ({"above": 0.1}, {"below": 0.1}):
        found = judge(reading, **margins)
        assert found.verdict is UNDECIDED
        assert why in found.because
        groups = Groups.of({"a": Reading(0.5, 0.4, 0.6, 5), "b": reading}, lambda one: one.value)
        assert judge(groups, **margins).verdict is UNDECIDED


def test_two_identical_methods_neither_beat_each_other_nor_are_worse():
    rows = [{"seed": s, "method": m, "y": 0.1 * s} for s in range(5) for m in "ab"]
    effect = gap("y", {"method": "a"}, {"method": "b"})
    for side in ("above", "below"):
        claim = Claim("…", effect, **{side: 0.0}, sign_because="a test")
        assert claim.judge(rows, Scale.LAPTOP).verdict is UNDECIDED
    touching = Reading(0.1, 0.0, 0.2, 9)
    assert judge(touching, Unit.ITEM, above=0.0, sign_because="a test").verdict is UNDECIDED
    found = judge(Reading(0.1, 0.05, 0.2, 9), above=0.0, sign_because="a test")
    assert found.verdict is SUPPORTED
    assert "above 0 (sign)" in found.because


def test_one_run_is_enough_where_a_fixed_model_is_evaluated_and_one_model_is_reported():
    rows = [{"seed": 0, "item": k, "y": 0.5 + 0.01 * k} for k in range(9)]
    effect = average("y", pair="item")
    judged = {
        unit: Claim("…", effect, above=0.3, unit=unit).judge(rows, Scale.LAPTOP) for unit in Unit
    }
    assert "single seed" in judged[Unit.SEED].because
    assert judged[Unit.SEED].verdict is UNDECIDED
    for unit in (Unit.ITEM, Unit.TASK, Unit.LANGUAGE):
        assert judged[unit].verdict is SUPPORTED
    assert judged[Unit.MODEL].verdict is Verdict.NOT_JUDGED
    assert "reported, not judged" in judged[Unit.MODEL].because
    assert judged[Unit.MODEL].reading.n == 9


def test_a_claim_whose_rows_need_an_option_is_judged_with_them_only():
    effect = average("y", {"arm": "online"})
    claim = Claim("…", effect, above=0.3, option="--online")
    rows = [{"seed": k, "arm": "other", "y": 0.0} for k in range(5)]
    without = claim.judge(rows, Scale.LAPTOP)
    assert without.verdict is Verdict.NOT_JUDGED
    assert without.because == "its rows are computed with --online only"
    online = [{"seed": k, "arm": "online", "y": 0.5 + 0.01 * k} for k in range(5)]
    assert claim.judge(rows + online, Scale.LAPTOP).verdict is SUPPORTED
    line = {"verdict": "not judged", "because": without.because}
    assert missing({"rows": "", "claims": [line, line]}) == ["2 with --online"]
    single = {"verdict": "not judged", "because": "one model stands behind it"}
    assert missing({"rows": "", "claims": [line, single]}) == ["1 with --online", "1 of one model"]


@pytest.mark.parametrize(
    ("low", "high", "verdict", "near"),
    [
        (0.16, 0.66, SUPPORTED, False),  # a tenth of the width is 0.05
        (0.12, 0.62, UNDECIDED, True),
        (0.08, 0.58, UNDECIDED, True),
        (0.04, 0.54, UNDECIDED, False),
        (-0.42, 0.08, UNDECIDED, True),
        (-0.46, 0.04, REFUTED, False),
    ],
)
def test_an_interval_that_ends_near_the_margin_is_left_to_more_seeds(low, high, verdict, near):
    found = judge(Reading((low + high) / 2, low, high, 5), above=0.1)
    assert (found.verdict, found.is_near) == (verdict, near)
    # a claim whose interval lies on both sides of the margin is said to reach across it
    assert ("another processor" in found.because) == (near and not low < 0.1 < high)
    assert ("reaches across" in found.because) == (low < 0.1 < high)
    items = judge(Reading((low + high) / 2, low, high, 5), Unit.ITEM, above=0.1)
    assert not items.is_near  # nothing is trained: the numbers do not move


def test_a_claim_about_groups_is_refuted_by_one_and_says_which():
    rows = [
        {"seed": s, "setting": g, "y": y + 0.01 * s}
        for g, y in (("a", 0.5), ("b", 0.9))
        for s in range(5)
    ]
    effect = worst(average("y"), "setting", 0.5)
    found = Claim("…", effect, above=0.4, below=0.7).judge(rows, Scale.LAPTOP)
    assert found.verdict is REFUTED
    assert found.because.startswith("setting b: 0.92")
    assert Claim("…", effect, above=0.4).judge(rows, Scale.LAPTOP).verdict is SUPPORTED
    because = Claim("…", effect, above=0.4).judge(rows, Scale.LAPTOP).because
    assert because.startswith("setting a: 0.52")
    assert because.endswith("lies above 0.4, as does the other group")


WIDE, CLEAR = Reading(0.5, -2.0, 3.0, 5), Reading(0.4, 0.35, 0.45, 5)
CONSTANT = Reading(1.0, 1.0, 1.0, 5)


@pytest.mark.parametrize(
    ("readings", "because"),
    [
        # the value shown is the lowest group's, but another one reaches across
        ({"few": CLEAR, "many": WIDE}, "many: 0.5 [-2, 3] reaches across: above 0.1 asked"),
        # a group whose values are equal stands behind one that reaches across
        ({"few": CONSTANT, "many": WIDE}, "many: 0.5 [-2, 3] reaches across: above 0.1 asked"),
        (
            {"few": CONSTANT, "many": CLEAR},
            "few: every seed gave 1: an interval over equal values says nothing, so it is not "
            "decided; above 0.1 asked",
        ),
        (
            {"few": CLEAR, "many": Reading(0.05, 0.0, 0.099, 5, freedom=4.0)},
            "many: 0.05 [0, 0.099], widened for 2 groups [-0.01295, 0.1117], reaches across: above "
            "0.1 asked",
        ),
        (
            {"a": CLEAR, "b": Reading(0.3, 0.2, 0.4, 5), "c": CLEAR},
            "b: 0.3 [0.2, 0.4] lies above 0.1, as do the other 2 groups",
        ),
    ],
)
def test_the_reason_is_that_of_the_group_that_decides(readings, because):
    found = judge(Groups.of(readings, lambda one: -one.value), above=0.1)
    assert found.because == because


def test_effects_of_a_claim_about_groups_have_names():
    rows = [{"seed": s, "a": 0.5 + 0.01 * s, "b": 0.9 + 0.01 * s} for s in range(5)]
    halves = {"first half": average("a"), "second half": average("b")}
    low, high = lowest_of(halves)(rows), highest_of(halves)(rows)
    assert low.readings == high.readings == {name: of(rows) for name, of in halves.items()}
    assert (low.value, high.value) == (pytest.approx(0.52), pytest.approx(0.92))


def verdict_shares(means, margins, effect_of, n=5, draws=4_000, scales=1.0):
    """How often a claim about groups with these means (n seeds) comes out how."""
    rng = np.random.default_rng(0)
    found = dict.fromkeys(Verdict, 0)
    for _ in range(draws):
        y = rng.normal(np.array(means)[:, None], scales, (len(means), n))
        readings = {str(k): stats.mean(row) for k, row in enumerate(y)}
        claim = Claim("…", lambda _, r=readings: effect_of(r), unit=Unit.ITEM, **margins)
        found[claim.judge([], Scale.LAPTOP).verdict] += 1
    return {verdict: count / draws for verdict, count in found.items()}


FARTHEST = {
    "lowest": lambda readings: Groups.of(readings, lambda one: -one.value),
    "highest": lambda readings: Groups.of(readings, lambda one: one.value),
}


@pytest.mark.parametrize("n", [3, 10])
@pytest.mark.parametrize(
    ("means", "margins"),
    [
        ((0.0, 0.0, 0.0, 0.0), {"above": 0.0}),  # all at the margin
        ((0.0, 5.0, 5.0, 5.0), {"above": 0.0}),  # one at the margin: the least favourable
        ((0.0, 0.1, 0.2, 0.3), {"above": 0.0}),
        ((0.0, 9.0, 9.0), {"above": 0.0, "below": 18.0}),
    ],
)
def test_claims_about_every_group_are_rarely_false_at_the_margin(means, margins, n):
    """Supported although one group violates the margin (by nothing yet), refuted although none
    does: before, the reading of the farthest group alone gave 18 to 27 and 6 to 14 %."""
    reasons = {} if "below" in margins else {"sign_because": "a test"}
    found = verdict_shares(means, {**margins, **reasons}, FARTHEST["lowest"], n, 1_500)
    assert found[SUPPORTED] <= 0.025 + 3 * (0.025 * 0.975 / 1_500) ** 0.5
    assert found[REFUTED] <= 0.025 + 3 * (0.025 * 0.975 / 1_500) ** 0.5
    planted = verdict_shares((-3, 9, 9), {"above": 1.0}, FARTHEST["lowest"], 10, 200)
    assert planted[REFUTED] > 0.95


def test_one_violating_group_among_four_is_not_overlooked():
    """Four groups, one below the margin by half a standard deviation."""
    found = verdict_shares((0.5, 0.7, 0.7, 0.7), {"above": 1.0}, FARTHEST["lowest"], 10, 1_500)
    assert found[SUPPORTED] <= 0.05
    found = verdict_shares((0.5, 0.7, 0.7, 1.5), {"below": 1.0}, FARTHEST["highest"], 10, 1_500)
    assert found[SUPPORTED] <= 0.05


def test_a_group_that_varies_more_is_judged_where_another_is_farthest():
    """One group violates the margin but varies ten times as much as three that clear it: half the
    time it is not the lowest, and the lowest group's interval alone supported the claim then."""
    means, scales = (-0.1, 0.5, 0.5, 0.5), np.array([3.0, 0.3, 0.3, 0.3])[:, None]
    margins = {"above": 0.0, "sign_because": "a test"}
    found = verdict_shares(means, margins, FARTHEST["lowest"], 10, 600, scales)
    assert found[SUPPORTED] <= 0.05
    assert found[REFUTED] <= 0.05

    def lowest_alone(readings):
        return min(readings.values(), key=lambda one: one.value)

    assert verdict_shares(means, margins, lowest_alone, 10, 600, scales)[SUPPORTED] > 0.18


def test_the_smallest_of_several_effects_has_an_interval_for_the_smallest():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(1_000):
        y = rng.normal(0.0, 1.0, (6, 8))
        effects = [lambda _, row=row: stats.mean(row) for row in y]
        found = minimum(*effects)([])
        inside += found.low <= 0 <= found.high
        assert found.value == y.mean(1).min()
    assert inside >= 930


def test_the_p_value_of_a_margin_is_that_of_a_t_test():
    x = np.random.default_rng(1).normal(0.6, 1.0, 8)
    from scipy.stats import ttest_1samp

    assert p_beyond(stats.mean(x), 0.1, above=True) == pytest.approx(ttest_1samp(x, 0.1).pvalue)
    assert p_beyond(stats.mean(-x), -0.1, above=False) == pytest.approx(ttest_1samp(x, 0.1).pvalue)
    assert p_beyond(stats.mean(x), 5.0, above=True) == 1.0
    assert p_beyond(stats.mean(x), -inf, above=True) == 0.0
    limit = Reading(0.5, 0.3, 0.9, 6)
    assert p_beyond(limit, 0.3, above=True) == pytest.approx(0.05)  # where the interval ends
    assert p_beyond(limit, 0.9, above=False) == pytest.approx(0.05)


def test_holm_counts_the_claims_that_are_judged():
    tight, wide = Reading(1.0, 0.9, 1.1, 50, freedom=49), Reading(1.0, 0.2, 1.8, 50, freedom=49)
    found = [
        judge(tight, above=0.0001),
        judge(wide, above=0.0001),
        judge(wide, Unit.MODEL, above=1),
    ]
    assert [one.verdict for one in found] == [SUPPORTED, SUPPORTED, Verdict.NOT_JUDGED]
    assert after_holm(found) == [True, True, False]
    many = [*found, *[judge(wide, above=0.9)] * 30]
    assert after_holm(many)[:3] == [True, False, False]
    assert not any(after_holm(many)[3:])  # what is undecided holds nowhere
    assert stats.holm([0.01, 0.04, 0.03]) == [True, False, False]
    assert stats.holm([0.01, 0.02, 0.03]) == [True, True, True]
    assert stats.holm([]) == []
    assert stats.holm([nan, 0.001, 0.02]) == [False, True, True]
    assert stats.holm([nan, 0.001, 0.03]) == [False, True, False]


def test_the_larger_of_two_shares_is_shown_and_both_are_claimed():
    rows = [{"seed": s, "a": 0.1 + s / 100, "b": 0.4 + s / 100} for s in range(4)]
    found = highest(average("a"), average("b"))(rows)
    assert found.value == pytest.approx(0.415)
    assert [*found.readings] == ["1.", "2."]


def test_claims_without_a_value_or_with_equal_values_are_missing_in_the_table():
    def line(reading):
        found = judge(reading, above=0.1)
        return {"verdict": found.verdict.value, "because": found.because}

    def fail(rows):
        raise InvalidConfig("Two networks did not fit.", why="…", fix="…")

    failed = Claim("…", fail, above=0.1).judge([], Scale.LAPTOP)
    lines = [line(Reading(0.5, 0.5, 0.5, 5)), line(Reading(0.5, -1.0, 2.0, 5))]
    lines.append({"verdict": failed.verdict.value, "because": failed.because})
    assert missing({"rows": "", "claims": lines}) == ["1 with equal values", "1 without a value"]


def test_a_claim_made_twice_is_refused():
    study = catalog.load("influence_economy")
    with pytest.raises(InvalidConfig, match="makes a claim twice"):
        replace(study, claims=[*study.claims, study.claims[0]])
