"""Answers as values: for each query the examples that help and harm it most, with how they look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unseen.questions.influence.target_words import TargetKind
from unseen.reading import Reading
from unseen.subjects.examples import Shown


@dataclass(frozen=True)
class SurfaceRank:
    """Where a text stands among all scored ones by what needs no gradient; 1 is the nearest."""

    words: int
    """By the words that it shares with the query (BM25)."""
    embedding: int
    """By the model's last features."""
    of: int
    """How many were ranked."""


@dataclass(frozen=True, kw_only=True)
class Influencer:
    """A training example with what one added copy of it does to a query."""

    index: int
    """Its number among all training examples."""
    score: float
    """What a straight line from the final weights says per added copy: for the order."""
    source: str
    """Where the user finds it: split and row, or file, line and window."""
    shown: Shown
    label: str = ""
    copy_of: str = ""
    """Where the first of those listed with the same text stands; empty: it is the first."""
    pieces: Sequence[tuple[str, float]] = ()
    """A text token by token, with what each adds to the score."""
    surface: SurfaceRank | None = None
    retrained: Reading | None = None
    """Nats per added copy by retraining, mean over seeds; None where nothing was retrained."""

    @property
    def has_size(self) -> bool:
        """Whether retraining says the size within a factor of two."""
        if self.retrained is None:
            return False
        low, high = sorted(abs(limit) for limit in (self.retrained.low, self.retrained.high))
        size = abs(self.retrained.value)
        is_signed = self.retrained.low > 0 or self.retrained.high < 0
        return is_signed and size / 2 <= low and high <= 2 * size


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What leaving out the first examples of a query does to it, by retraining without them."""

    role: str
    """ "helpful" or "harmful"."""
    rows: Sequence[int]
    """Their numbers among all training examples."""
    estimate: float
    """Minus the sum of their scores."""
    effect: Reading
    """Of the queried value: without them minus with them, mean over seeds."""
    kind: TargetKind = TargetKind.LIKELIHOOD


@dataclass(frozen=True, kw_only=True)
class QueryInfluence:
    """A query, the behaviour's value, and who pushed it up and down."""

    title: str
    asked: Shown
    """The prompt, the row or the image."""
    completion: str = ""
    is_written: bool = False
    """Whether the model wrote the completion."""
    label: str = ""
    predicted: str = ""
    log_probability: float
    """Of the completion or label, in nats; for other targets minus the loss (`TargetKind`)."""
    helpful: Sequence[Influencer]
    """Those that help at all, most first."""
    harmful: Sequence[Influencer]
    confirmations: Sequence[Confirmation] = ()
    """Retraining without the first of them, where that was asked for."""


@dataclass(frozen=True, kw_only=True)
class InfluenceReport:
    name: str
    """Model and data."""
    answers: Sequence[QueryInfluence]
    examples: int
    """Training examples that the scores are about."""
    scored: int
    """Of these, how many were looked at."""
    kind: TargetKind = TargetKind.LIKELIHOOD
    """What the queried values and the sizes are about."""
    settings: Mapping[str, str] = field(default_factory=dict)
    caveat: str = ""
    """Why the scores are no sizes."""
    sizes: str = ""
    """Where the sizes come from, or why there are none."""
    decisions: Sequence[str] = ()
    """What was left out or decided, for the report."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Seconds, tokens per second, memory."""
