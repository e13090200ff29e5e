"""Learning by teaching: explanations are chosen by how well students do with them (Ning et al.,
2024, arXiv:2406.14629).

A teacher samples explanations of a problem, each with an answer; students who read one of them
answer exam questions of the same kind, and an explanation's score is how many they get right.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from unseen.errors import InvalidConfig, InvalidData


class Rule(StrEnum):
    """What decides between the different answers."""

    COUNT = "count"
    """How often an answer was given: self-consistency; scores are not read."""
    MAX = "max"
    """The best score of an explanation with this answer."""
    SUM = "sum"
    """The scores of all of them."""
    MEAN = "mean"
    """The sum over the count."""


@dataclass(frozen=True)
class Explanations:
    """What a teacher wrote for one problem, and how students did with each."""

    answers: tuple[Hashable, ...]
    """By value: 0.5 and 1/2 are one answer. None counts as no answer and is never chosen."""
    scores: tuple[float, ...] | None = None
    """None: there was no exam question, so that the count decides."""
    name: str = ""

    def __post_init__(self) -> None:
        if not self.answers:
            raise InvalidData(
                f"Problem `{self.name}` has no explanation.",
                why="one of them is chosen.",
                fix="sample at least one.",
            )
        if self.scores is not None and len(self.scores) != len(self.answers):
            raise InvalidData(
                f"Problem `{self.name}` has {len(self.answers)} answers and "
                f"{len(self.scores)} scores.",
                why="score k is that of explanation k.",
                fix="give two sequences of equal length, or None where there was no exam.",
            )


@dataclass(frozen=True)
class Preference:
    """Two explanations of a problem, of which students did better with the first."""

    problem: int
    better: int
    worse: int
    margin: float


@dataclass(frozen=True)
class LearnByTeaching:
    """Chooses among explanations by their scores, and makes pairs to learn from."""

    rule: Rule = Rule.SUM
    margin: float = 1.0
    """Least difference of scores in a pair."""

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise InvalidConfig(
                f"LearnByTeaching(margin={self.margin:g}).",
                why="students must do better with the first of a pair.",
                fix="use 1: one more right answer.",
            )

    def select(self, problem: Explanations) -> Hashable | None:
        """The chosen answer: of equals by the rule the more frequent one, then the first given.
        None where no explanation has an answer.
        """
        given = [k for k, answer in enumerate(problem.answers) if answer is not None]
        if not given:
            return None
        where: dict[Hashable, list[int]] = {}
        for k in given:
            where.setdefault(problem.answers[k], []).append(k)
        statistic = self._statistic(problem.scores)
        # max keeps the first of equals
        return max(where, key=lambda answer: (statistic(where[answer]), len(where[answer])))

    def _statistic(self, scores: Sequence[float] | None) -> Callable[[Sequence[int]], float]:
        if scores is None or self.rule is Rule.COUNT:
            return lambda rows: float(len(rows))
        if self.rule is Rule.MAX:
            return lambda rows: max(scores[k] for k in rows)
        if self.rule is Rule.SUM:
            return lambda rows: sum(scores[k] for k in rows)
        return lambda rows: sum(scores[k] for k in rows) / len(rows)

    def preferences(self, problems: Sequence[Explanations]) -> list[Preference]:
        """All pairs of explanations of one problem whose scores differ by `margin` or more, for
        `response_losses.dpo`. Problems without an exam give none.
        """
        return [
            Preference(p, better, worse, gain)
            for p, problem in enumerate(problems)
            if problem.scores is not None
            for better, high in enumerate(problem.scores)
            for worse, low in enumerate(problem.scores)
            if (gain := high - low) >= self.margin
        ]


@dataclass(frozen=True)
class SelectionScores:
    """Share of problems whose chosen answer is right, by rule, with what frames it."""

    rules: dict[Rule, float]
    oracle: float
    """One of the explanations is right: pass@n."""
    unexamined: int
    """Problems without an exam question, decided by count."""


def score_rules(problems: Sequence[Explanations], truth: Sequence[Hashable]) -> SelectionScores:
    """Every rule beside self-consistency (`Rule.COUNT`) and the oracle."""
    if not problems or len(problems) != len(truth):
        raise InvalidData(
            f"There are {len(problems)} problems and {len(truth)} true answers.",
            why="answer k is that of problem k.",
            fix="give two sequences of equal length with at least one entry.",
        )
    pairs = list(zip(problems, truth, strict=True))
    rules = {
        rule: sum(LearnByTeaching(rule).select(one) == answer for one, answer in pairs) / len(pairs)
        for rule in Rule
    }
    oracle = sum(answer in one.answers for one, answer in pairs) / len(pairs)
    return SelectionScores(rules, oracle, sum(one.scores is None for one in problems))
