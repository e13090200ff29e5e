"""The constant answer: what a model reaches that tells every example the same, and whether the
audited model is better.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import nan

from sklearn.dummy import DummyClassifier, DummyRegressor
from torch import nn

from unseen.document import Note, Tone
from unseen.engine.batches import whole
from unseen.models.estimator import TokenEstimator
from unseen.objectives import classify
from unseen.questions.audit.results import Findings, evaluation_sites, gain
from unseen.reading import Reading
from unseen.stats import average, widen
from unseen.subjects.session import Session
from unseen.subjects.table_predictions import MODE as AS_GIVEN
from unseen.text import format_reading, join_words

CONSTANT = "constant answer"
CHANCE = 0.5
"""AUC of one answer for everyone."""
OTHER_CLASS = (
    "A model that orders the examples the wrong way round has learned something: turned around "
    "(1 − p) it would be better than chance. Check which class the probability is of and how the "
    "target is coded, and audit again; nothing below can be read before."
)
PROBABILITY = re.compile(r"read as the probability of|^Probabilities stand in")
"""How the decisions on recorded predictions name the column and its class."""


def constant_model(session: Session) -> nn.Module | None:
    """The training frequencies of the classes (or the training mean) for every example; None where
    the loss is another than classification or a plain number.
    """
    split = session.main_split
    if not (session.has(split, "x") and session.has(split, "y")):
        return None
    if session.classifies and session.task.objective is classify:
        return TokenEstimator(DummyClassifier(strategy="prior"), _count_classes(session))
    is_number = session.subject.references and not session.subject.classes
    return TokenEstimator(DummyRegressor(strategy="mean")) if is_number else None


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
    if asked := ask_for_class(findings):
        return [Note(asked, Tone.BAD, OTHER_CLASS)]
    mean = _mean_change(findings, metric)
    if mean is None:
        return []
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


def _mean_change(findings: Sequence[Findings], metric: str) -> Reading | None:
    """The constant answer minus the model, on average over the sites."""
    changes = [_change(one, split, metric) for one in findings for split in _sites(one)]
    known = [change for change in changes if change is not None]
    return average(known) if known else None


def _about_single_sites(findings: Sequence[Findings], metric: str) -> list[Note]:
    """The sites where the model is clearly worse than the constant answer."""
    worse = [str(one.sites.get(split, split)) for one, split in _worse_sites(findings, metric)]
    if not worse:
        return []
    text = f"At {join_words(worse)} one answer for everyone has a better {metric}."
    return [Note(text, Tone.BAD, "Do not use the model there.")]


def _worse_sites(findings: Sequence[Findings], metric: str) -> list[tuple[Findings, str]]:
    pairs = [(one, split) for one in findings for split in _sites(one)]
    return [
        (one, split)
        for one, split in pairs
        if (change := _change(one, split, metric)) is not None
        and widen(gain(metric, change), len(pairs)).low > 0
    ]


def useless_sites(findings: Sequence[Findings], metric: str) -> list[tuple[Findings, str]]:
    """Where the model is no better than one answer for everyone: a score that holds there is no
    good news. All sites, where it is not better on average.
    """
    mean = _mean_change(findings, metric)
    if ask_for_class(findings) or (mean is not None and gain(metric, mean).high >= 0):
        return [(one, split) for one in findings for split in evaluation_sites(one)]
    return _worse_sites(findings, metric)


def is_useless(sites: Sequence[tuple[Findings, str]], one: Findings, split: str) -> bool:
    """Whether the site is one of those of `useless_sites`."""
    return any(at is one and name == split for at, name in sites)


def ask_for_class(findings: Sequence[Findings]) -> str:
    """A question where the model ranks the classes the wrong way round at every site, beyond
    chance and the number of sites: probabilities of the other class do so.
    """
    scores = [one.score(split, "AUC") for one in findings for split in evaluation_sites(one)]
    known = [score for score in scores if score is not None]
    if not known or len(known) < len(scores):
        return ""
    if not all(widen(score, len(known)).high < CHANCE for score in known):
        return ""
    most = max(known, key=lambda score: score.value)
    found = f"AUC is clearly below {CHANCE} at every site (at most {format_reading(most)})"
    if as_read := _as_read(findings[0]):
        return f"{found}: {as_read}. Is it that of the other class?"
    return f"{found}: are the probabilities those of the other class?"


def _as_read(one: Findings) -> str:
    """Of recorded predictions: which columns hold the probability of which class."""
    if one.mode != AS_GIVEN:
        return ""
    said = (text.partition(";")[0] for text in one.decisions)
    return next((text for text in said if PROBABILITY.search(text)), "")


def _sites(one: Findings) -> list[str]:
    return list(one.unseen) or list(one.known)[-1:]


def _change(one: Findings, split: str, metric: str) -> Reading | None:
    """The constant answer minus the model."""
    wanted = (CONSTANT, split, metric)
    found = (o.change for o in one.comparisons if (o.remedy, o.split, o.metric) == wanted)
    return next(found, None)
