"""Selection rules against brute force, and their limits."""

from fractions import Fraction

import numpy as np
import pytest

from unseen.engine.programs import read_number
from unseen.engine.teaching import Explanations, LearnByTeaching, Rule, score_rules
from unseen.errors import InvalidConfig, InvalidData


def brute_force(rule, answers, scores):
    """Every answer's statistic and count by loops; of equals the first given."""
    best = None
    for answer in dict.fromkeys(a for a in answers if a is not None):
        own = [s for a, s in zip(answers, scores, strict=True) if a == answer]
        key = {
            Rule.COUNT: len(own),
            Rule.MAX: max(own),
            Rule.SUM: sum(own),
            Rule.MEAN: sum(own) / len(own),
        }[rule]
        if best is None or (key, len(own)) > best[0]:
            best = ((key, len(own)), answer)
    return None if best is None else best[1]


def tables(n, seed=0):
    """Few answers and few scores, so that there are ties; some explanations have no answer."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        size = int(rng.integers(1, 9))
        answers = [None if rng.random() < 0.1 else int(a) for a in rng.integers(0, 4, size)]
        yield Explanations(tuple(answers), tuple(rng.integers(0, 4, size).tolist()))


@pytest.mark.parametrize("rule", Rule)
def test_rules_equal_brute_force_on_a_thousand_tables(rule):
    ties = 0
    for one in tables(1000):
        assert LearnByTeaching(rule).select(one) == brute_force(rule, one.answers, one.scores)
        ties += len(set(one.scores)) < len(one.scores)
    assert ties > 500


def test_students_that_say_nothing_leave_the_majority():
    """All scores equal, all 0, or no exam at all: every rule gives the most frequent answer."""
    for one in tables(200, seed=1):
        majority = LearnByTeaching(Rule.COUNT).select(one)
        n = len(one.answers)
        for rule in (Rule.MAX, Rule.SUM, Rule.MEAN):
            for scores in ((0,) * n, (2,) * n, None):
                other = Explanations(one.answers, scores)
                assert LearnByTeaching(rule).select(other) == majority


def test_no_rule_is_better_than_the_oracle_and_a_perfect_student_reaches_it():
    rng = np.random.default_rng(2)
    problems = [one for one in tables(300, seed=3) if any(a is not None for a in one.answers)]
    truth = [int(a) for a in rng.integers(0, 4, len(problems))]
    found = score_rules(problems, truth)
    assert all(value <= found.oracle for value in found.rules.values())
    perfect = [
        Explanations(one.answers, tuple(3 * (a == t) for a in one.answers))
        for one, t in zip(problems, truth, strict=True)
    ]
    reached = score_rules(perfect, truth)
    assert reached.rules[Rule.MAX] == reached.rules[Rule.SUM] == reached.oracle


def test_answers_are_compared_by_value():
    answers = tuple(read_number(text) for text in ("0.5", "1/2", ".50", "2"))
    assert LearnByTeaching(Rule.COUNT).select(Explanations(answers)) == Fraction(1, 2)


def test_pairs_have_at_least_the_margin():
    problems = [
        Explanations((1, 2, 3), (3.0, 1.0, 2.0)),
        Explanations((1, 1)),  # no exam
        Explanations((1, 2), (1.0, 1.0)),
    ]
    found = LearnByTeaching(margin=1.0).preferences(problems)
    assert {(p.problem, p.better, p.worse, p.margin) for p in found} == {
        (0, 0, 1, 2.0),
        (0, 0, 2, 1.0),
        (0, 2, 1, 1.0),
    }
    assert LearnByTeaching(margin=2.0).preferences(problems) == [found[0]]
    assert score_rules(problems, [1, 1, 1]).unexamined == 1


def test_refined_demonstrations_never_get_worse_and_find_the_best():
    """Demonstration d teaches the questions it divides; a proposal replaces one by a failed one."""
    questions = (4, 6, 9, 25)
    seen = []

    def exam(shown):
        seen.append(shown)
        return [any(q % d == 0 for d in shown) for q in questions]

    def propose(shown, wrong):
        return [(*shown[:k], questions[q], *shown[k + 1 :]) for q in wrong for k in (0, 1)]

    found = LearnByTeaching().refine((2, 7), exam, propose, rounds=3)
    assert found.rounds[0] == (2, 7)
    assert found.scores[0] == 0.5
    assert list(found.scores) == sorted(found.scores)
    assert found.scores[-1] == 0.75
    assert sum(exam(found.best)) / 4 == found.scores[-1]
    assert found.oracle == 1.0
    assert len(seen) == len(set(seen)) + 1 == found.examined + 1  # nothing is examined twice
    table = [[any(q % d == 0 for d in shown) for shown in set(seen)] for q in questions]
    assert found.majority == sum(2 * sum(row) > len(row) for row in table) / 4


def test_refining_keeps_the_earlier_of_equals_and_stops_proposing_without_errors():
    found = LearnByTeaching().refine(
        "a", lambda shown: [True, False], lambda shown, wrong: [(*shown, "b")], rounds=2
    )
    assert found.best == ("a",)
    assert found.scores == (0.5, 0.5, 0.5)
    never = LearnByTeaching().refine("a", lambda shown: [True], lambda *_: 1 / 0, rounds=2)
    assert never.examined == 1
    with pytest.raises(InvalidConfig, match="rounds=0"):
        LearnByTeaching().refine("a", lambda shown: [True], lambda *_: [], rounds=0)
    with pytest.raises(InvalidData, match="no question"):
        LearnByTeaching().refine("a", lambda shown: [], lambda *_: [])


def test_what_is_missing_is_named():
    with pytest.raises(InvalidData, match="`p 7` has no explanation"):
        Explanations((), name="p 7")
    with pytest.raises(InvalidData, match="2 answers and 1 scores"):
        Explanations((1, 2), (1.0,))
    with pytest.raises(InvalidConfig, match="margin=0"):
        LearnByTeaching(margin=0.0)
    with pytest.raises(InvalidData, match="0 problems"):
        score_rules([], [])
