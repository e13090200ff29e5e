"""How well the model does on every split, and the gap from known to other sites, as measurements:
the numbers of the audit.
"""

from unseen.questions.audit.performance import performance
from unseen.questions.measure.results import Measurement
from unseen.reading import Direction, Reading
from unseen.subjects.session import Session

FAMILY = "performance"
TO_TRAINING = "to the training data"
MEANINGS = {
    "accuracy": ("Share of examples that are answered right.", Direction.HIGHER),
    "score": ("Mean score of the task.", Direction.HIGHER),
    "AUC": (
        "How often an example of the second class gets the higher probability of a pair: ½ is "
        "chance.",
        Direction.HIGHER,
    ),
    "R²": ("Share of the target's variance that is explained.", Direction.HIGHER),
    "mean absolute error": ("Mean distance from the target, in its unit.", Direction.LOWER),
    "loss": ("What training lowers, per example.", Direction.LOWER),
}


def performance_names() -> list[str]:
    """What a person may ask for by name; which of them a task has, its target decides."""
    gaps = [f"gap of {name}" for name in MEANINGS]
    return [*MEANINGS, *gaps, *(f"{gap} {TO_TRAINING}" for gap in gaps)]


def performance_measurements(session: Session) -> list[Measurement]:
    """Scores of every split, then gaps; of several trainings together."""
    found = performance(session)
    model = session.subject.name
    scores = [
        _measurement(session, score.metric, score.split, score.reading)
        for score in found.scores
        if score.model == model and not score.group
    ]
    gaps = [
        _gap(session, gap.metric, gap.split, gap.reference, gap.worse)
        for gap in found.gaps
        if gap.split in session.unseen or gap.reference == session.training_split
    ]
    return [*scores, *gaps]


def interval_over(session: Session) -> str:
    """Trainings are drawn only where there are several."""
    return "examples and trainings" if len(session.models) > 1 else "examples"


def _measurement(session: Session, metric: str, split: str, reading: Reading) -> Measurement:
    meaning, direction = MEANINGS.get(metric, ("", Direction.NEITHER))
    return Measurement(
        name=metric,
        family=FAMILY,
        split=split,
        reading=reading,
        meaning=meaning,
        direction=direction,
        passes=1,
        interval=interval_over(session),
    )


def _gap(session: Session, metric: str, split: str, reference: str, worse: Reading) -> Measurement:
    is_of_training = reference == session.training_split
    than = "the training data" if is_of_training else "new examples of known sites"
    return Measurement(
        name=f"gap of {metric}" + (f" {TO_TRAINING}" if is_of_training else ""),
        family=FAMILY,
        split=split,
        reading=worse,
        meaning=f"How much worse than on {than}: below zero is better.",
        direction=Direction.LOWER,
        passes=2,
        interval=interval_over(session),
        is_of_model=False,
    )
