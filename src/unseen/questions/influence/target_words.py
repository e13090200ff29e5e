"""What influence is about, in words that are true for the kind of target: the probability of a
class or text, the squared error of a number, or a loss of the user's own.
"""

from dataclasses import dataclass
from enum import StrEnum

from unseen.objectives import cross_entropy, logistic_loss, mean_token_loss, squared_error
from unseen.task import PerExample
from unseen.wording import number

LIKELIHOODS = (cross_entropy, logistic_loss, mean_token_loss)


class TargetKind(StrEnum):
    """What minus the loss is."""

    LIKELIHOOD = "log-probability"
    SQUARED_ERROR = "half squared error"
    """½ (error / s.d.)² where the target was standardised; else in its own unit."""
    LOSS = "loss"
    """A loss of the user's own, of which nothing else is known."""


@dataclass(frozen=True)
class TargetWords:
    """Words about a size, about an order without sizes, and about the change by retraining."""

    unit: str
    meaning: str
    order: str
    changes: str
    """The quantity that retraining changes, and a place for its change."""


ORDER = "Examples stand in the order of their influence: the first helped (or harmed) most. More "
SCALE = (
    "in units of the fitted target's standard deviation, or of the target as given where it was "
    "not standardised"
)
WORDS = {
    TargetKind.LIKELIHOOD: TargetWords(
        unit="nats per added copy",
        meaning="A size is in nats per added copy: with one more copy of the example among the "
        "training examples, the model gives the queried answer a log-probability that is higher by "
        "it (+0.01: a probability 1 % higher); a negative size lowers it.",
        order=f"{ORDER}copies of one that helped would make the queried answer likelier, of one "
        "that harmed less likely.",
        changes="the log-probability changes by {} nats",
    ),
    TargetKind.SQUARED_ERROR: TargetWords(
        unit="half squared error less per added copy",
        meaning="A size is about half the squared error of the queried prediction, ½ (error / "
        f"s.d.)², {SCALE}: with one more copy of the example among the training examples it is "
        "smaller by the size; a negative size enlarges it.",
        order=f"{ORDER}copies of one that helped would make the squared error of the queried "
        "prediction smaller, of one that harmed larger.",
        changes="minus half the squared error (higher is better) changes by {}",
    ),
    TargetKind.LOSS: TargetWords(
        unit="loss less per added copy",
        meaning="A size is in units of the loss: with one more copy of the example among the "
        "training examples, the loss of the queried example is lower by it; a negative size "
        "raises it.",
        order=f"{ORDER}copies of one that helped would make the loss of the queried example "
        "smaller, of one that harmed larger.",
        changes="minus the loss (higher is better) changes by {}",
    ),
}


def target_kind(loss: PerExample) -> TargetKind:
    """What minus this loss is."""
    if loss is squared_error:
        return TargetKind.SQUARED_ERROR
    return TargetKind.LIKELIHOOD if loss in LIKELIHOODS else TargetKind.LOSS


def value_in_words(kind: TargetKind, value: float) -> str:
    """A query's value, minus its loss, in words."""
    if kind is TargetKind.LIKELIHOOD:
        return f"log-probability {number(value)} nats"
    if kind is TargetKind.SQUARED_ERROR:
        return f"half squared error {number(-value)}: {number((-2 * value) ** 0.5)} s.d."
    return f"loss {number(-value)}"
