"""The constant answer: what a model reaches that tells every example the same, and whether the
audited model is better.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import nan

from sklearn.dummy import DummyClassifier, DummyRegressor
from torch import nn

from unseen.document import Note, Tone
from unseen.engine.batches import whole
from unseen.models.estimator import Estimator
from unseen.objectives import classify
from unseen.questions.audit.results import Findings, gain
from unseen.reading import Reading
from unseen.stats import average, widen
from unseen.subjects.session import Session
from unseen.text import format_reading, join_words

CONSTANT = "constant answer"


def constant_model(session: Session) -> nn.Module | None:
    """The training frequencies of the classes (or the training mean) for every example; None where
    the loss is another than classification or a plain number.
    """
    split = session.main_split
    if not (session.has(split, "x") and session.has(split, "y")):
        return None
    if session.classifies and session.task.objective is classify:
        return Estimator(DummyClassifier(strategy="prior"), _count_classes(session))
    is_number = session.subject.references and not session.subject.classes
    return Estimator(DummyRegressor(strategy="mean")) if is_number else None


def _count_classes(session: Session) -> int:
    splits = [session.training_split, *session.evaluation_splits]
    data = [session.task.splits[split].data for split in splits]
    return 1 + max(int(whole(one, session.lab)["y"].max()) for one in data)


def constant_score(one: Findings, split: str, metric: str) -> Reading | None:
    """What the constant answer reaches on the split, as a value without interval: it is there to
    be seen beside the model's, the paired change is what is judged.
    """
    found = one.score(split, metric, model=CONSTANT)
    return None if found is None else replace(found, low=nan, high=nan)


def about_constant(findings: Sequence[Findings], metric: str) -> list[Note]:
    """A warning before all others where the model is not clearly better than the constant answer,
    on average over the sites.
    """
    changes = [_change(one, split, metric) for one in findings for split in _sites(one)]
    known = [change for change in changes if change is not None]
    if not known:
        return []
    mean = average(known)
    if gain(metric, mean).high < 0:  # the constant answer is worse
        return _about_single_sites(findings, metric)
    shown = Reading(-mean.value, -mean.high, -mean.low, mean.n, mean.unit)
    name = findings[0].name
    return [
        Note(
            f"The {name} is not clearly better than one answer for everyone: {metric} "
            f"{format_reading(shown, '+')} against the constant answer.",
            Tone.BAD,
            "It must not be used as it is. Check the target and the columns, train longer or on "
            "more data, or report that these columns do not tell the target.",
        )
    ]


def _about_single_sites(findings: Sequence[Findings], metric: str) -> list[Note]:
    """The sites where the model is clearly worse than the constant answer."""
    pairs = [(one, split) for one in findings for split in _sites(one)]
    worse = [
        str(one.sites.get(split, split))
        for one, split in pairs
        if (change := _change(one, split, metric)) is not None
        and widen(gain(metric, change), len(pairs)).low > 0
    ]
    if not worse:
        return []
    text = f"At {join_words(worse)} one answer for everyone has a better {metric}."
    return [Note(text, Tone.BAD, "Do not use the model there.")]


def _sites(one: Findings) -> list[str]:
    return list(one.unseen) or list(one.known)[-1:]


def _change(one: Findings, split: str, metric: str) -> Reading | None:
    """The constant answer minus the model."""
    wanted = (CONSTANT, split, metric)
    found = (o.change for o in one.comparisons if (o.remedy, o.split, o.metric) == wanted)
    return next(found, None)
