"""Algorithms on sequences: trained up to one length, evaluated at longer ones.

Training examples are drawn anew for every step, one length per minibatch, lengths equally often.
Columns of every split: `tokens`, `mask` (the answer, its end included) and `length`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from unseen.engine.evaluate import score
from unseen.engine.mixture import Mixture
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import exact_match
from unseen.reading import Reading
from unseen.task import Axis, Batch, Split, Task, Use
from unseen.tasks.algorithmic.problems import (
    FIRST,
    PROBLEMS,
    Addition,
    Carry,
    Copy,
    Count,
    Fill,
    Increment,
    Minimum,
    Mode,
    Occurrences,
    Parity,
    Problem,
    Sort,
    Successor,
    problem,
    refuse_length,
)

__all__ = [
    "PROBLEMS",
    "Addition",
    "Algorithmic",
    "Carry",
    "Copy",
    "Count",
    "Fill",
    "Increment",
    "Minimum",
    "Mode",
    "Occurrences",
    "Parity",
    "Problem",
    "Sort",
    "Successor",
    "length_curve",
    "problem",
]


@dataclass(frozen=True)
class Algorithmic:
    """A problem, trained at lengths `shortest` … `longest` and evaluated at `lengths`.

    Splits are called "length 20". Training draws without end: at short lengths, where there are few
    examples, evaluation meets some of them again.
    """

    problem: Problem = field(default_factory=Sort)
    longest: int = 10
    lengths: tuple[int, ...] = ()
    """Evaluated lengths; none given: the longest one of training and twice that."""
    n: int = 500
    """Examples per evaluated length."""
    shortest: int = 1
    context: int | None = None
    """Tokens that the model can read; None: no limit."""

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest or self.n < 1:
            raise InvalidConfig(
                f"Algorithmic trains at lengths {self.shortest} to {self.longest} and evaluates "
                f"{self.n} examples.",
                why="lengths begin at 1, and there is at least one example.",
                fix="for example Algorithmic(Sort(), longest=10, lengths=(10, 20)).",
            )
        for n in (self.longest, *self.test_lengths):
            refuse_length(self.problem, n)
            self._refuse_context(n)

    @property
    def test_lengths(self) -> tuple[int, ...]:
        return self.lengths or (self.longest, 2 * self.longest)

    def _refuse_context(self, n: int) -> None:
        if self.context is not None and self.width(n) > self.context:
            raise InvalidConfig(
                f"`{self.problem.name}` at length {n} takes {self.width(n)} tokens.",
                why=f"the context has {self.context}, enough for lengths up to {self.reach()}.",
                fix="evaluate shorter ones, or raise the context.",
            )

    @property
    def recalls(self) -> frozenset[str]:
        return frozenset(split_name(n) for n in self.test_lengths if n <= self.longest)

    @property
    def vocabulary(self) -> int:
        return FIRST + self.problem.symbols

    def width(self, n: int) -> int:
        """Tokens of a sequence at length n, the longest where they differ."""
        return int(self.draw(n, 1, torch.Generator())["tokens"].shape[1])

    def reach(self) -> int:
        """The largest length that fits the context and the values; 0: none does."""
        high = self.problem.longest
        if self.context is not None:
            # every problem takes at least one token per unit of length
            high = min(high, self.context)
        fits = [n for n in range(1, high + 1) if self.context is None or self.fits(n)]
        return max(fits, default=0)

    def fits(self, n: int) -> bool:
        return self.context is None or self.width(n) <= self.context

    def draw(self, n: int, size: int, generator: torch.Generator) -> Batch:
        """So many examples of length n."""
        return self.problem.draw(n, size, generator).columns

    def at_length(self, *lengths: int) -> "Algorithmic":
        """The same training, evaluated at these lengths."""
        return replace(self, lengths=lengths)

    def build(self, lab: Lab) -> Task:
        trained = range(self.shortest, self.longest + 1)
        stream = Mixture(
            {str(n): sampler(self.problem, n) for n in trained},
            width=self.width(self.longest),
            lab=lab.child("train"),
        )
        splits = {"train": Split(stream, Use.TRAIN, self.longest)}
        for n in self.test_lengths:
            generator = lab.child("length", n).generator()
            data = self.problem.draw(n, self.n, generator)
            # every length of training is the trained position on the axis
            splits[split_name(n)] = Split(data, Use.EVALUATE, max(n, self.longest))
        return Task(name=self.problem.name, axis=Axis.LENGTH, splits=splits, objective=exact_match)


def split_name(n: int) -> str:
    return f"length {n}"


def sampler(problem: Problem, n: int) -> "partial[Batch]":
    """Draws examples of one length."""
    return partial(_draw_columns, problem, n)


def _draw_columns(problem: Problem, n: int, size: int, generator: torch.Generator) -> Batch:
    return problem.draw(n, size, generator).columns


def length_curve(
    trained: Trained, spec: Algorithmic, lengths: Sequence[int], lab: Lab
) -> dict[int, Reading]:
    """Exact match by length, on examples of the lab's stream that are the same for every model."""
    task = spec.at_length(*lengths).build(lab)
    return {
        n: score(trained.model, task, task.split(split_name(n)), lab)
        for n in dict.fromkeys(lengths)
    }


def example() -> Algorithmic:
    return Algorithmic(Sort(values=20), longest=4, lengths=(4, 6), n=20)
