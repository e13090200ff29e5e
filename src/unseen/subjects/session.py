"""A subject with its trained models, and what was already computed about them: all that a question
is asked of.
"""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from unseen.attribution import Attribution, Attributor
from unseen.attributions.influence import InfluenceScores
from unseen.engine.batches import Columns, gather, length, model_to_device, once, to_device
from unseen.engine.gradient_check import gradient_sentences
from unseen.errors import InvalidData, UnseenError, UnsupportedLayer, reason
from unseen.lab import Lab
from unseen.method import Method, Trained
from unseen.methods.erm import ERM
from unseen.methods.fit_estimator import FitEstimator
from unseen.models.estimator import Estimator
from unseen.models.recorded import RecordedModel
from unseen.subjects.estimators import wrap_estimators
from unseen.subjects.examples import Example, Shown
from unseen.subjects.model_outputs import in_dtype_of, probability_warnings
from unseen.subjects.predictions import SplitPredictions, predict
from unseen.subjects.site_rows import SiteRows, site_rows
from unseen.subjects.subject import Subject, validate
from unseen.subjects.training import TrainingRuns
from unseen.task import Batch, Split, Task, Use

T = TypeVar("T")


@dataclass
class Session:
    """The trained models of a subject with their cached predictions; made by `open_session`."""

    subject: Subject
    runs: TrainingRuns
    models: Sequence[Trained]
    """The given model, or one per seed."""
    retrained: Sequence[Trained]
    """One per seed, trained here: what remedies are compared with."""
    tries_remedies: bool = False
    """Whether parts may train further models to see what helps."""
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    """Part → why it could not be done."""
    caps: list[str] = field(default_factory=list)
    """What was computed from a part of the data only: sentences for the report."""
    _predictions: dict[str, SplitPredictions] = field(default_factory=dict)
    _baseline: dict[str, SplitPredictions] = field(default_factory=dict)
    _attributors: dict[str, Attributor] = field(default_factory=dict)

    @property
    def lab(self) -> Lab:
        return self.runs.lab

    @property
    def task(self) -> Task:
        return self.subject.task

    @property
    def first(self) -> Trained:
        return self.models[0]

    @cached_property
    def evaluation_splits(self) -> dict[str, Split]:
        """Evaluated splits that can be scored; without any, the selection splits, else the fitted
        ones.
        """
        chosen = self.task.of(Use.EVALUATE) or self.task.of(Use.SELECT) or self.task.of(Use.TRAIN)
        found, errors = dict[str, Split](), list[Exception]()
        for name, split in chosen.items():
            try:
                self.predictions(name)
                found[name] = split
            except Exception as error:  # one split that fails must not end the audit
                self.skipped[f"split `{name}`"] = reason(error)
                errors.append(error)
        if not found:
            if isinstance(errors[0], UnseenError) and len({str(error) for error in errors}) == 1:
                raise errors[0]
            raise InvalidData(
                "No split can be evaluated.",
                why="; ".join(self.skipped.values()),
                fix="fix the items listed above.",
            )
        return found

    def attempt(self, name: str, part: Callable[[], T]) -> T | None:
        """The part's result; None, and its reason in `skipped`, where it fails. One failure must
        not end the audit.
        """
        try:
            return part()
        except Exception as error:  # the subject's own code may raise anything
            self.skipped[name] = reason(error)
            return None

    def note_cap(self, sentence: str) -> None:
        """Remembers, once, that something was computed from a part of the data."""
        if sentence not in self.caps:
            self.caps.append(sentence)

    @cached_property
    def reference_split(self) -> str | None:
        """The split that stands for "more of the same": evaluated, at a position where something
        was fitted.
        """
        judge = self.task.of(Use.EVALUATE)
        return next(
            (
                name
                for name in self.evaluation_splits
                if name in judge and name not in self.task.unseen
            ),
            None,
        )

    @cached_property
    def unseen(self) -> dict[str, Split]:
        """Evaluated splits at positions where nothing was fitted."""
        return {
            name: split
            for name, split in self.evaluation_splits.items()
            if name in self.task.unseen
        }

    def attributor(self, attribution: Attribution, most: int | None = None) -> Attributor:
        """What answers queries about the first model; prepared once. It is asked about all training
        examples, or `most` of a split.
        """
        key = f"{attribution!r} of {most}"
        if key not in self._attributors:
            trained = self.first
            if most is not None:
                few = {
                    name: replace(split, data=self.sample(name, most)[0])
                    for name, split in self.task.of(Use.TRAIN).items()
                }
                task = replace(trained.task, splits={**trained.task.splits, **few})
                trained = replace(trained, task=task)
            self._attributors[key] = attribution.prepare(trained, self.lab.child("attribution"))
        return self._attributors[key]

    def gradient_sentences(self) -> list[str]:
        """What a report has to say about the gradients behind its numbers."""
        found = gradient_sentences(self.first.model) if self.models else []
        for attributor in self._attributors.values():
            if isinstance(attributor, InfluenceScores):
                found += attributor.sentences()
        return list(dict.fromkeys(found))

    @property
    def training_split(self) -> str:
        """The first split to fit."""
        return next(iter(self.task.of(Use.TRAIN)))

    def has(self, split: str, *columns: str) -> bool:
        """Whether the split's examples hold these columns."""
        return all(
            column in next(once(self.task.split(split).data, 1, self.lab)) for column in columns
        )

    @property
    def classifies(self) -> bool:
        """Whether the target is a class: scores are 0 or 1, and `y` is an integer."""
        at = next(iter(self.evaluation_splits))
        if not self.has(at, "y") or not self.predictions(at).is_accuracy:
            return False
        return not next(once(self.task.split(at).data, 1, self.lab))["y"].is_floating_point()

    @cached_property
    def site_rows(self) -> SiteRows:
        """The rows of all sites beside each other."""
        return site_rows(self.subject, self.unseen, self.lab)

    @cached_property
    def main_split(self) -> str:
        """The evaluation split that matters most: unseen if there is one, else the last."""
        return next(iter(self.unseen), list(self.evaluation_splits)[-1])

    @property
    def has_gradients(self) -> bool:
        """Whether the audited model is a network, and no estimator."""
        return not isinstance(self.first.model, Estimator | RecordedModel)

    def require_model(self) -> None:
        """Refuses predictions whose model was not given."""
        if isinstance(self.first.model, RecordedModel):
            raise InvalidData(
                "Only predictions were given.",
                why="this part asks the model itself, or trains it.",
                fix="give the model: --model file.py:make, or unseen.audit(model, frame, …).",
            )

    def require_probabilities(self) -> None:
        """Refuses predicted classes."""
        if not getattr(self.first.model, "is_probability", True):
            raise InvalidData(
                "Only classes were predicted.",
                why="this part compares probabilities with outcomes.",
                fix="name the columns of the probabilities.",
            )

    def require_gradients(self) -> None:
        """Refuses estimators, and predictions without a model."""
        self.require_model()
        if isinstance(self.first.model, Estimator):
            name = type(self.first.model.estimator).__name__
            raise UnsupportedLayer(
                f"{name} has no gradients.",
                why="this part is computed from, or trained by, gradients of the loss.",
                fix="audit a network to see it: the table without a model.",
            )

    def require_columns(self, split: str, *columns: str) -> None:
        """Refuses examples without these tensors."""
        missing = [column for column in columns if not self.has(split, column)]
        if missing:
            known = next(once(self.task.split(split).data, 1, self.lab))
            raise InvalidData(
                f"The examples of `{split}` have no `{'` and no `'.join(missing)}`.",
                why="this part reads "
                + " and ".join(f"`{column}`" for column in columns)
                + f"; the columns are {', '.join(f'`{column}`' for column in known)}.",
                fix="add them to the dataset if this kind of data has them; otherwise this part "
                "does not apply.",
            )

    def require_length(self, split: str) -> int:
        """The number of examples of a split; refuses streams."""
        return require_length(split, self.task.split(split))

    def sample(self, split: str, most: int) -> tuple[Dataset[Any], Tensor | None]:
        """The examples of a split, or `most` evenly spaced ones with their positions."""
        data = self.task.split(split).data
        n = length(data)
        if n is None or n <= most:
            return data, None
        positions = torch.linspace(0, n - 1, most, dtype=torch.float64).round().long()
        return Columns(**gather(data, positions)), positions

    def training_example(self, position: int, value: float) -> Example:
        """The example at a position among all training examples, split after split, as attributions
        count them.
        """
        for name in self.task.of(Use.TRAIN):
            n = self.require_length(name)
            if position < n:
                return self.example(name, position, value)
            position -= n
        raise IndexError(position)

    def worst_examples(self, split: str, count: int) -> list[int]:
        """Positions of the examples with the largest mean loss, largest first."""
        losses = self.predictions(split).loss.mean(0)
        return [int(k) for k in np.argsort(-losses, kind="stable")[:count]]

    def predictions(self, split: str) -> SplitPredictions:
        """What the audited models did on a split (computed once)."""
        if split not in self._predictions:
            models = [run.model for run in self.models]
            self._predictions[split] = predict(
                models, self.task, self.task.split(split), self.lab, self.subject.unit
            )
        return self._predictions[split]

    def baseline_predictions(self, split: str) -> SplitPredictions:
        """What the retrained models did on a split."""
        if self.models is self.retrained:
            return self.predictions(split)
        if split not in self._baseline:
            models = [run.model for run in self.retrained]
            self._baseline[split] = predict(
                models, self.task, self.task.split(split), self.lab, self.subject.unit
            )
        return self._baseline[split]

    def example(
        self, split: str, index: int, value: float, *, is_predicted: bool = False
    ) -> Example:
        """An example with its label, its appearance and, if asked, the audited model's word."""
        self.require_length(split)
        row = gather(self.task.split(split).data, torch.tensor([index]))
        shown: Shown = f"{split}[{index}]"
        if self.subject.show:
            made = self.attempt("showing examples", lambda: self.subject.show(split, index))  # type: ignore[misc]
            shown = shown if made is None else made
        number = int(row["index"].flatten()[0]) if "index" in row else None
        return Example(
            split=split,
            index=index,
            shown=shown,
            label=self._label_text(row["y"]) if "y" in row else "",
            predicted=self._prediction_text(row) if is_predicted else "",
            value=value,
            row=number,
        )

    def _label_text(self, y: Tensor) -> str:
        """A target as the user knows it."""
        if y.numel() != 1:
            return ""
        names = self.subject.classes
        if self.classifies:
            return str(names[int(y)]) if 0 <= int(y) < len(names) else str(int(y))
        return f"{self.subject.centre + self.subject.unit * float(y):.4g}"

    @torch.no_grad()
    def _prediction_text(self, row: Batch) -> str:
        if "x" not in row or "y" not in row:
            return ""
        z = self.first.model(to_device(row, self.lab)["x"])
        if not isinstance(z, Tensor) or z.dim() > 2:
            return ""
        z = z.flatten().cpu()
        if self.classifies:
            z = (z > 0).long() if z.numel() == 1 else z.argmax()
        return self._label_text(z)


def require_length(name: str, split: Split) -> int:
    """The number of examples of a split; refuses streams."""
    n = length(split.data)
    if n is None:
        raise InvalidData(
            f"Split `{name}` is a stream.",
            why="single examples cannot be looked up in it.",
            fix="give a dataset with a length.",
        )
    return n


def plain_method(subject: Subject, model: nn.Module) -> Method:
    """How the subject's model is trained where no remedy is tried."""
    return FitEstimator() if isinstance(model, Estimator) else ERM(subject.budget)


def open_session(subject: Subject, lab: Lab, *, seeds: int = 1, retrain: bool = False) -> Session:
    """Trains what is missing: a model per seed where none is given trained, or where `retrain` asks
    for rivals of it.

    Fitted estimators are evaluated as they are: nothing is trained beside one.
    """
    subject, began = wrap_estimators(validate(subject), lab), time.perf_counter()
    lab = in_dtype_of(subject, lab)
    runs, retrained = TrainingRuns(subject, lab), list[Trained]()
    is_fixed = isinstance(subject.trained, RecordedModel) or subject.mode.startswith("as-it-is")
    if subject.trained is None or (retrain and not is_fixed):
        try:
            method = plain_method(subject, runs.initial_model(0))
            if subject.trained is None or not isinstance(method, FitEstimator):
                retrained = runs.seeds(method, seeds)
        except UnseenError:
            raise
        except Exception as error:  # the subject's own model
            raise InvalidData(
                f"Training the subject's model raised {reason(error)}",
                why="every finding needs a model that runs on the subject's batches.",
                fix="try task.objective.loss(model(), batch) on one batch of your TRAIN split.",
            ) from error
    models = retrained
    if subject.trained is not None:  # a copy: the caller's model keeps its mode and device
        model = model_to_device(deepcopy(subject.trained), lab).eval()
        models = [Trained(model, subject.task)]
    warnings = probability_warnings(models[0].model, subject.task, lab)
    subject = replace(subject, warnings=[*subject.warnings, *warnings])
    return Session(subject, runs, models, retrained, retrain, time.perf_counter() - began)
