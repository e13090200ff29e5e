"""One measure of one model. The audit and `unseen measure` both read measures here, so that they
show the same number for the same model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from inspect import get_annotations
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unseen.engine.batches import length, once, size
from unseen.engine.parameters import real_view
from unseen.errors import InvalidData, UnseenError, reason
from unseen.identity import Identity, identify
from unseen.lab import Lab
from unseen.measures.bounds import GeneralizationMeasure, SharedPass
from unseen.measures.bounds.weights import CONVOLUTIONS
from unseen.method import Trained
from unseen.models.ensemble_model import Committee, MeanProbability
from unseen.objectives import negative_absolute_error
from unseen.questions.measure.plan import MINUTES, Setting, plan_measures
from unseen.questions.measure.results import Measurement
from unseen.reading import Measure, MeasureEntry, Need, Reading, Scope
from unseen.subjects.session import Session
from unseen.task import Task

TRAINING_FIELDS = ("fitted", "reference")
"""Fields of measures that name a training split beside the evaluated one."""
GROUP = "group"
"""The column of groups; of a table `group:` and what the user named."""
WORTH_KEEPING = 0.2
"""Estimated seconds from which on a reading is kept for an interrupted run."""


class NumbersPass(SharedPass):
    """What measures read of a model of a number: it has no margins, and no accuracy that changes of
    the weights lower, also where the numbers are all 0 or 1.
    """

    @cached_property
    def margins(self) -> Tensor:
        raise self._without_classes

    @cached_property
    def _flatness(self) -> NoReturn:
        raise self._without_classes

    @property
    def _without_classes(self) -> InvalidData:
        return InvalidData(
            "The target is a number.",
            why="this measure reads by how much the right class leads.",
            fix="give targets that are classes, as integers.",
        )


@dataclass(frozen=True)
class MeasureReader:
    """Reads measures of the models of a session."""

    session: Session
    minutes: float = MINUTES
    """What all measures of a model may take, as estimated before they are read; infinite where
    measures were named."""
    _shared: dict[int, SharedPass] = field(default_factory=dict)
    """What the generalization measures of a training read together."""
    _settings: dict[int, Identity] = field(default_factory=dict)

    def __call__(
        self, entries: Sequence[MeasureEntry], trainings: bool
    ) -> tuple[list[Measurement], dict[str, str]]:
        """Every entry on every split that it is for; what fails is left out with its reason. With
        `trainings` the value of each training stands beside that of the first model.
        """
        found, left_out = list[Measurement](), dict[str, str]()
        able = [entry for entry in entries if self._meets_needs(entry, left_out)]
        plan = plan_measures(able, self.seconds, self._setting_of_time, self.minutes)
        left_out |= plan.left_out
        for entry in self.session.lab.track(plan.ticks(), plan.total):
            if entry is None:
                continue
            for split in self.splits(entry):
                try:
                    found.append(self.measurement(entry, split, trainings))
                except Exception as error:  # the subject's own code may raise anything
                    left_out[self._place(entry, split)] = reason(error)
        order = {entry.name: k for k, entry in enumerate(entries)}
        found.sort(key=lambda one: order[one.name])
        return found, left_out

    def _meets_needs(self, entry: MeasureEntry, left_out: dict[str, str]) -> bool:
        """Whether any split has what the measure asks for; else the reasons are noted."""
        unmet: dict[str, str] = {}
        splits = self.splits(entry)
        for split in splits:
            try:
                refuse_unmet_needs(self.session, entry, split)
            except Exception as error:  # the subject's own code may raise anything
                unmet[self._place(entry, split)] = reason(error)
        if len(unmet) < len(splits):
            return True
        left_out.update(unmet)
        return False

    @staticmethod
    def _place(entry: MeasureEntry, split: str) -> str:
        return f"{entry.name} on `{split}`" if entry.scope is Scope.SITES else entry.name

    def splits(self, entry: MeasureEntry) -> list[str]:
        """Where the measure is read: every evaluated split, or the training split."""
        if entry.scope is Scope.SITES:
            return list(self.session.evaluation_splits)
        return [self.session.training_split]

    def measurement(self, entry: MeasureEntry, split: str, trainings: bool) -> Measurement:
        refuse_unmet_needs(self.session, entry, split)
        first = self.reading(entry, split, self.session.first)
        several = trainings and self.session.has_gradients and not self._reads_all(entry)
        others = self.session.models[1:] if several else ()
        more = self._readings_of(others, entry, split)
        return Measurement(
            name=entry.name,
            family=entry.family,
            split=split if entry.scope is Scope.SITES else "",
            reading=first,
            trainings=[first, *more] if more else (),
            meaning=entry.meaning,
            direction=entry.direction,
            passes=entry.passes,
            interval=entry.interval,
            covered=self._share_of_parameters(entry),
            is_of_model=not _reads_task(entry.measure),
        )

    def _readings_of(
        self, others: Sequence[Trained], entry: MeasureEntry, split: str
    ) -> list[Reading]:
        """Of other trainings; nothing where one of them has none (a margin below zero)."""
        try:
            return [self.reading(entry, split, run) for run in others]
        except UnseenError as error:
            self.session.note_cap(f"{entry.name}: not all trainings have it. {error.what}")
            return []

    def reading(self, entry: MeasureEntry, split: str, trained: Trained) -> Reading:
        """The measure of one model on a split, kept where it takes long."""
        measure = on_split(entry, split, self.session)
        lab = self._lab(entry, split)
        self._tell_sample(entry, split)

        def read() -> Reading:
            return measure(self._subject(entry, split, trained), lab)

        if self._seconds_on(entry, split) < WORTH_KEEPING:
            return read()
        key = identify(
            "measurement",
            setting=self._setting(trained),
            measure=measure,
            settings=(split, entry.most),
            lab=lab.signature,
            code=(type(measure), MeasureReader),
        )
        found: list[Reading] = []

        def make() -> dict[str, Tensor]:
            found.append(read())
            return as_tensors(found[0])

        tensors = self.session.lab.keep(key, make)
        return found[0] if found else from_tensors(tensors)

    def seconds(self, entry: MeasureEntry) -> float:
        """About how long the measure takes for one training, on all splits that it is for."""
        return sum(self._seconds_on(entry, split) for split in self.splits(entry))

    def _seconds_on(self, entry: MeasureEntry, split: str) -> float:
        n = min(length(self.session.task.split(split).data) or 0, entry.examples)
        return self._setting_of_time.seconds(entry.effort, n)

    @cached_property
    def _setting_of_time(self) -> Setting:
        model = self.session.first.model if self.session.has_gradients else None
        return Setting(
            self._operations_per_example,
            0 if model is None else sum(p.numel() for p in model.parameters()),
            is_core=self.session.lab.device.type == "cpu",
        )

    def _subject(
        self, entry: MeasureEntry, split: str, trained: Trained
    ) -> Trained | Task | SharedPass:
        """What the measure is called with."""
        if isinstance(entry.measure, GeneralizationMeasure):
            return self._shared_pass(trained)
        if _reads_task(entry.measure):
            return self.session.task
        if Need.MEMBERS in entry.needs:
            trained = replace(trained, model=committee(self.session))
        return self._shorter(entry, split, trained)

    def _shorter(self, entry: MeasureEntry, split: str, trained: Trained) -> Trained:
        """The model with at most so many evenly spaced examples of each split that is read."""
        session, splits = self.session, dict(self.session.task.splits)
        for name in self._splits_to_sample(entry, split):
            splits[name] = replace(splits[name], data=session.sample(name, entry.most)[0])
        return replace(trained, task=replace(session.task, splits=splits))

    def _tell_sample(self, entry: MeasureEntry, split: str) -> None:
        """Says which splits `_shorter` cuts, of a kept reading, too."""
        for name in self._splits_to_sample(entry, split):
            self.session.note_cap(
                f"{entry.name.capitalize()}: {entry.most:,} of the "
                f"{self.session.require_length(name):,} examples of `{name}`, evenly spaced."
            )

    def _splits_to_sample(self, entry: MeasureEntry, split: str) -> list[str]:
        """Of the splits that the measure reads those with too many examples, in a fixed order."""
        is_whole = isinstance(entry.measure, GeneralizationMeasure) or _reads_task(entry.measure)
        if is_whole or not entry.most:
            return []
        reads_training = any(hasattr(entry.measure, name) for name in TRAINING_FIELDS)
        names = dict.fromkeys([split, *([self.session.training_split] if reads_training else [])])
        lengths = {name: length(self.session.task.split(name).data) or 0 for name in names}
        return [name for name, n in lengths.items() if n > entry.most]

    def _lab(self, entry: MeasureEntry, split: str) -> Lab:
        """A stream for every site, and one for what is measured on the training data."""
        lab = self.session.lab
        return lab.child(entry.family, split) if entry.scope is Scope.SITES else lab

    @cached_property
    def _operations_per_example(self) -> float:
        """Operations of a forward pass of one example; 0 where the model has no gradients."""
        session = self.session
        if not session.has_gradients:
            return 0.0
        batch = next(once(session.task.split(session.training_split).data, 4, session.lab))
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            session.task.objective.loss(session.first.model, batch)
        return counter.get_total_flops() / size(batch)

    def _shared_pass(self, trained: Trained) -> SharedPass:
        is_number = trained.task.objective.score is negative_absolute_error
        kind = NumbersPass if is_number else SharedPass
        return self._shared.setdefault(id(trained), kind(trained, self.session.lab))

    def _share_of_parameters(self, entry: MeasureEntry) -> float | None:
        """Which share of the model's parameters the measure reads; None where it reads outputs."""
        trained = self.session.first
        if isinstance(entry.measure, GeneralizationMeasure):
            coverage = entry.measure.coverage(self._shared_pass(trained), self.session.lab)
            if coverage.left_out:
                self.session.note_cap(f"{entry.name} leaves out {', '.join(coverage.left_out)}.")
            return coverage.share
        if entry.covers is None:
            return None
        total = sum(real_view(p).numel() for p in trained.model.parameters())
        covered = sum(real_view(p).numel() for p in entry.covers(trained.model).values())
        return covered / total if total else None

    @staticmethod
    def _reads_all(entry: MeasureEntry) -> bool:
        """Whether the measure is of all trainings together, or of none."""
        return Need.MEMBERS in entry.needs or _reads_task(entry.measure)

    def _setting(self, trained: Trained) -> Identity:
        """What decides the readings of a training, found once: it reads all weights."""
        if id(trained) not in self._settings:
            self._settings[id(trained)] = identify(
                "setting",
                model=trained.model,
                start=trained.start,
                objective=self.session.task.objective,
                splits=self.session.task.splits,
            )
        return self._settings[id(trained)]


def refuse_unmet_needs(session: Session, entry: MeasureEntry, split: str) -> None:
    """Raises what keeps the measure from this model."""
    if Need.MODEL in entry.needs:
        session.require_model()
    if Need.GRADIENTS in entry.needs:
        session.require_gradients()
    if Need.INPUTS in entry.needs:
        session.require_columns(split, "x")
    if Need.CLASSES in entry.needs and not session.classifies:
        raise InvalidData(
            "The target is not a class.",
            why="this measure compares decisions or probabilities of classes.",
            fix="nothing to do.",
        )
    if Need.PROBABILITIES in entry.needs:
        session.require_probabilities()
    if Need.CONVOLUTIONS in entry.needs and not _has_convolutions(session):
        raise InvalidData(
            "The model has no convolution.",
            why="a matrix has one spectral norm, the reshaped one.",
            fix="read the measure of the same name.",
        )
    if Need.START in entry.needs and session.first.start is None:
        raise InvalidData(
            "The weights before training are not known.",
            why="the model was given as it is, and this measure starts from them.",
            fix="give a function that makes the untrained model, which is then trained here.",
        )


def _has_convolutions(session: Session) -> bool:
    return any(isinstance(one, CONVOLUTIONS) for one in session.first.model.modules())


def group_column(session: Session, split: str) -> str:
    """The examples' own column of groups, or the first that the user named."""
    named = [f"{GROUP}:{spec}" for spec in session.subject.groups]
    for column in (GROUP, *named):
        if session.has(split, column):
            return column
    raise InvalidData(
        f"The examples of `{split}` are in no groups.",
        why="the lowest score of a group is read.",
        fix="name their column: --group COLUMN (in a dataset of your own: a column `group`).",
    )


def on_split(entry: MeasureEntry, split: str, session: Session) -> Measure[Any]:
    """The measure with the names that the splits have here."""
    if not is_dataclass(entry.measure):
        return entry.measure
    known = {one.name for one in fields(entry.measure)}
    names = dict.fromkeys(known & {*TRAINING_FIELDS}, session.training_split)
    if getattr(entry.measure, "column", "") == GROUP:
        names["column"] = group_column(session, split)
    if "split" in known and entry.scope is not Scope.TASK:
        names["split"] = split
    return replace(entry.measure, **names) if names else entry.measure


def _reads_task(measure: Measure[Any]) -> bool:
    if not is_dataclass(measure):
        return False
    return Task in get_annotations(type(measure).__call__).values()


def committee(session: Session) -> Committee:
    """The model where it has members, else its trainings as members."""
    model = session.first.model
    if isinstance(model, Committee):
        return model
    if len(session.models) < 2:
        raise InvalidData(
            "The model has one training.",
            why="members of an ensemble, or trainings from several seeds, are compared with each "
            "other.",
            fix="give a function that makes the untrained model, and --seeds 3.",
        )
    # in evaluation mode as its members are: who sets the mode back must not train them
    return Committee([run.model for run in session.models], MeanProbability()).eval()


def as_tensors(reading: Reading) -> dict[str, Tensor]:
    """A reading as what the cache holds."""
    numbers = (reading.value, reading.low, reading.high, float(reading.n), reading.freedom)
    found = {
        "numbers": torch.tensor(numbers, dtype=torch.float64),
        "unit": torch.tensor(list(reading.unit.encode()), dtype=torch.uint8),
    }
    return found if reading.detail is None else {**found, "detail": reading.detail}


def from_tensors(tensors: Mapping[str, Tensor]) -> Reading:
    value, low, high, n, freedom = tensors["numbers"].tolist()
    unit = bytes(tensors["unit"].tolist()).decode()
    return Reading(value, low, high, int(n), unit, tensors.get("detail"), freedom)
