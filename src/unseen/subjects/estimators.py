"""scikit-learn estimators as subjects: wrapped as models, so that every part can evaluate them or
say why it cannot.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from torch import nn

from unseen.engine.batches import once
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.models.estimator import Estimator
from unseen.objectives import classify, regress
from unseen.subjects.networks import NETWORK
from unseen.subjects.subject import Subject
from unseen.task import Use


def with_estimator(subject: Subject, estimator: str | BaseEstimator) -> Subject:
    """The same subject with a scikit-learn estimator as its model: itself, or named
    `package.module:Class`.
    """
    if isinstance(estimator, str):
        estimator = import_estimator(estimator)
    name = type(estimator).__name__
    decisions = [text for text in subject.decisions if not text.startswith(NETWORK)]
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        estimator = CalibratedClassifierCV(estimator)
        decisions.append(calibrated_sentence(name))
    return replace(subject, name=name, model=estimator, trained=None, decisions=decisions)


def calibrated_sentence(name: str) -> str:
    return (
        f"{name} gives no probabilities: they are fitted to its decision values in five folds "
        "of the training examples (CalibratedClassifierCV)."
    )


def import_estimator(name: str) -> BaseEstimator:
    """A new estimator of the class `package.module:Class`."""
    module, _, kind = name.rpartition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # as for `python`: a person's own module lies in the working folder
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), kind)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InvalidConfig(
            f"`{name}` cannot be made: {error}.",
            why="an estimator is named package.module:Class and made without arguments.",
            fix="for example --estimator sklearn.ensemble:RandomForestClassifier; others through a "
            "Python subject.",
        ) from error


def wrap_estimators(subject: Subject, lab: Lab) -> Subject:
    """The subject with every estimator wrapped as a model, named by its class unless it has a
    name.
    """
    made = subject.model if isinstance(subject.model, BaseEstimator) else None
    if made is None and callable(subject.model) and not isinstance(subject.trained, nn.Module):
        with lab.child("kind").seeded():
            first = subject.model()
        made = first if isinstance(first, BaseEstimator) else None
    given = subject.trained if isinstance(subject.trained, BaseEstimator) else None
    if made is None and given is None:
        return subject
    classes = _classes(subject, made if made is not None else given, lab)
    name = (
        type(given if given is not None else made).__name__
        if subject.name == "network"
        else subject.name
    )
    trained = Estimator(given, classes) if given is not None else subject.trained
    model = subject.model if made is None else _maker(subject.model, classes)
    return replace(subject, name=name, model=model, trained=trained)


def _maker(model: Any, classes: int | None) -> Callable[[], nn.Module]:
    if isinstance(model, BaseEstimator):
        return lambda: Estimator(clone(model), classes)
    return lambda: Estimator(model(), classes)


def _classes(subject: Subject, estimator: BaseEstimator | None, lab: Lab) -> int | None:
    """How many classes the task has, None if its target is a number; refuses what does not fit the
    task.
    """
    name, objective = type(estimator).__name__, subject.task.objective
    if objective is regress and not is_classifier(estimator):
        return None
    if objective is not classify or not is_classifier(estimator):
        raise InvalidData(
            f"{name} does not fit the objective of task `{subject.task.name}`.",
            why="a classifier is evaluated by `classify`, a regressor by `regress` "
            "(unseen.objectives).",
            fix="give the task the objective that fits, or choose another estimator.",
        )
    if not hasattr(estimator, "predict_proba"):
        raise InvalidData(
            f"{name} gives no probabilities.",
            why="loss and calibration need the probability of each class.",
            fix="use an estimator with predict_proba, for example CalibratedClassifierCV around "
            "it.",
        )
    if subject.classes:
        return len(subject.classes)
    uses = (Use.TRAIN, Use.EVALUATE, Use.SELECT)
    splits = [split for use in uses for split in subject.task.of(use).values()]
    return 1 + max(
        int(torch.as_tensor(batch["y"]).max())
        for split in splits
        for batch in once(split.data, 4096, lab)
    )
