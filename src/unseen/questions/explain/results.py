"""What an explanation run found, as values: the chosen method and why, and every example with its
credits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from unseen.attributions.explanation.guide import Choice, Question
from unseen.subjects.examples import Example


@dataclass(frozen=True)
class ExampleExplanation:
    """One explained example."""

    example: Example
    output: float
    base: float
    """The behaviour with every feature at its baseline."""
    credits: Mapping[str, float]
    """What each feature adds, against its baseline."""
    unexplained: float
    """Share of the behaviour's variation around this example that the explanation leaves."""
    gap: float
    """The change of the behaviour, output − base, less the sum of the credits: 0 where they are
    complete."""
    heat: Sequence[Sequence[float]] = ()
    """Credits as a picture, for images."""
    picture: Tensor | None = None
    """The image itself, grey."""
    pieces: Sequence[str] = ()
    """Tokens as text."""


@dataclass(frozen=True)
class ExplanationReport:
    """Everything that the report shows."""

    name: str
    task: str
    behaviour: str
    unit: str
    removed: str
    """What a removed feature becomes, in words."""
    choice: Choice
    used: str
    """The method that explains the examples: the chosen one, or the asked one."""
    question: Question
    examples: Sequence[ExampleExplanation]
    decisions: Sequence[str] = ()
    warnings: Sequence[str] = ()
    seconds: float = 0.0
