"""Learning by teaching: explanations are chosen by how well students do with them (Ning et al.,
2024, arXiv:2406.14629).

A teacher samples explanations of a problem, each with an answer; students who read one of them
answer exam questions of the same kind, and an explanation's score is how many they get right.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from unseen.errors import InvalidConfig, InvalidData

Shown = TypeVar("Shown")
Exam = Callable[[tuple[Shown, ...]], Sequence[bool]]
"""Which exam questions a student gets right with these demonstrations in front."""
Proposal = Callable[[tuple[Shown, ...], Sequence[int]], Sequence[tuple[Shown, ...]]]
"""A teacher's other demonstrations, from these and the questions that went wrong with them."""


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
class Refinement(Generic[Shown]):
    """The best demonstrations after every round, from the start on."""

    rounds: tuple[tuple[Shown, ...], ...]
    scores: tuple[float, ...]
    """Share of exam questions right; never falling, since the best so far stays."""
    majority: float
    """Share of questions that more than half of all examined demonstrations get right."""
    oracle: float
    """Share that at least one of them gets right."""
    examined: int

    @property
    def best(self) -> tuple[Shown, ...]:
        return self.rounds[-1]


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

    def refine(
        self,
        start: Sequence[Shown],
        exam: Exam[Shown],
        propose: Proposal[Shown],
        rounds: int = 4,
        beam: int = 2,
    ) -> Refinement[Shown]:
        """Demonstrations improved by what a student gets right: in every round the teacher sees
        what went wrong with the best `beam` and proposes others; the best of all stay, of equals
        the earlier. They fit this student: judge them by another one.
        """
        if rounds < 1 or beam < 1:
            raise InvalidConfig(
                f"refine(rounds={rounds}, beam={beam}).",
                why="at least one set of demonstrations is kept, and improved once.",
                fix="refine(start, exam, propose, rounds=4, beam=2)",
            )
        results: dict[tuple[Shown, ...], tuple[bool, ...]] = {}

        def examine(shown: tuple[Shown, ...]) -> None:
            if shown not in results:
                results[shown] = _exam_results(exam(shown))

        examine(tuple(start))
        best = [tuple(start)]
        history = [best[0]]
        for _ in range(rounds):
            for shown in best:
                wrong = [k for k, right in enumerate(results[shown]) if not right]
                for other in propose(shown, wrong) if wrong else ():
                    examine(other)
            # sorted keeps the order of equals: the earlier one stays
            best = sorted(results, key=lambda shown: -sum(results[shown]))[:beam]
            history.append(best[0])
        questions = list(zip(*results.values(), strict=True))
        n = len(questions)
        return Refinement(
            tuple(history),
            tuple(sum(results[shown]) / n for shown in history),
            sum(2 * sum(one) > len(one) for one in questions) / n,
            sum(map(any, questions)) / n,
            len(results),
        )


def _exam_results(right: Sequence[bool]) -> tuple[bool, ...]:
    if not right:
        raise InvalidData(
            "The exam has no question.",
            why="demonstrations are compared by how many a student gets right.",
            fix="give the student at least one.",
        )
    return tuple(right)


@dataclass(frozen=True)
class SelectionScores:
    """Share of problems whose chosen answer is right, by rule, with what frames it."""

    rules: dict[Rule, float]
    oracle: float
    """One of the explanations is right: pass@n."""
    unexamined: int
    """Problems without an exam question, decided by count."""


def right_choices(
    problems: Sequence[Explanations], truth: Sequence[Hashable]
) -> dict[Rule, list[bool]]:
    """Whether each rule chooses the right answer, problem by problem."""
    _refuse_unpaired(problems, truth)
    return {
        rule: [
            LearnByTeaching(rule).select(one) == answer
            for one, answer in zip(problems, truth, strict=True)
        ]
        for rule in Rule
    }


def score_rules(problems: Sequence[Explanations], truth: Sequence[Hashable]) -> SelectionScores:
    """Every rule beside self-consistency (`Rule.COUNT`) and the oracle."""
    right = right_choices(problems, truth)
    n = len(problems)
    oracle = sum(t in one.answers for one, t in zip(problems, truth, strict=True)) / n
    unexamined = sum(one.scores is None for one in problems)
    return SelectionScores({rule: sum(one) / n for rule, one in right.items()}, oracle, unexamined)


def _refuse_unpaired(problems: Sequence[Explanations], truth: Sequence[Hashable]) -> None:
    if not problems or len(problems) != len(truth):
        raise InvalidData(
            f"There are {len(problems)} problems and {len(truth)} true answers.",
            why="answer k is that of problem k.",
            fix="give two sequences of equal length with at least one entry.",
        )
