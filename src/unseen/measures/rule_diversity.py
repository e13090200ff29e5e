"""How many different instructions a set holds: their number, their entropy, and the kinds they are
of (Zhang et al., 2024, arXiv:2410.04717, for rewriting rules).
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from math import log2

import torch

from unseen.engine.batches import Columns
from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.reading import Reading
from unseen.task import Axis, Split, Task, Use


@dataclass(frozen=True)
class Diversity:
    """Of a list of instructions, one per example."""

    examples: int
    rules: int
    """Different ones."""
    entropy: float
    """−Σ p log₂ p in bits over the examples: log₂(rules) if all are equally frequent."""
    families: int
    """Different kinds of rules."""

    @property
    def effective(self) -> float:
        """2^entropy: as many equally frequent rules are as diverse."""
        return 2.0**self.entropy


def rule_diversity(
    rules: Iterable[Hashable], family: Callable[[Hashable], Hashable] | None = None
) -> Diversity:
    """The diversity of the rule (instruction, template, skill) of every example; `family` says what
    kind a rule is of.
    """
    counts = Counter(rules)
    n = counts.total()
    if not n:
        raise InvalidData(
            "There are no instructions.", why="nothing can be counted.", fix="give some."
        )
    entropy = -sum(c / n * log2(c / n) for c in counts.values())
    kinds = {family(rule) for rule in counts} if family else {""}
    return Diversity(n, len(counts), abs(entropy), len(kinds))


@dataclass(frozen=True)
class RuleDiversity:
    """2^entropy of a column of the training examples that numbers their rules; without an interval,
    since the examples are the ones that there are.
    """

    column: str = "rule"
    split: str = "train"

    def __call__(self, subject: Task, lab: Lab) -> Reading:
        data = subject.split(self.split).data
        columns = data.columns if isinstance(data, Columns) else {}
        if self.column not in columns:
            raise UnknownName.near("column", self.column, columns)
        found = rule_diversity(columns[self.column].tolist())
        return Reading(found.effective, n=found.examples, unit="rules")


def example() -> tuple[RuleDiversity, Task]:
    """Eight examples of three rules."""
    rule = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    data = Columns(x=torch.randn(8, 2, generator=Lab().generator()), y=rule % 2, rule=rule)
    splits = {"train": Split(data, Use.TRAIN, "rules")}
    task = Task(name="three rules", axis=Axis.TASK, splits=splits, objective=classify)
    return RuleDiversity(), task
