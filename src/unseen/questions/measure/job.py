"""The measures of one subject: trains its model where none is given, and reads everything that
applies.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from unseen.errors import InvalidConfig, reason
from unseen.lab import Lab
from unseen.questions.measure.catalogue import select_measures
from unseen.questions.measure.differences import differences
from unseen.questions.measure.evaluate import MeasureReader
from unseen.questions.measure.performance import FAMILY, performance_measurements, performance_names
from unseen.questions.measure.plan import MINUTES
from unseen.questions.measure.results import Measurement, MeasureReport
from unseen.subjects.session import Session, open_session
from unseen.subjects.subject import Subject
from unseen.text import join_words

NO_SUCH_SCORE = "This model on these data has no such score: the target decides which there are."


@dataclass(frozen=True, kw_only=True)
class MeasureJob:
    """Takes a subject and returns its measures."""

    seeds: int = 3
    names: Sequence[str] = ()
    """Only these measures, whatever they cost; empty: all that apply."""
    minutes: float | None = None
    """What all measures of a model may take, as estimated before they are read; those beyond it are
    left out. None: ten. Named ones are read however long they take."""
    against: Callable[[Lab], list[Subject]] | None = None
    """Reads the models that each is compared with."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InvalidConfig(
                f"seeds={self.seeds}.",
                why="at least one model must be trained.",
                fix="use --seeds 3 or more.",
            )
        if self.minutes is not None and not self.minutes > 0:
            raise InvalidConfig(
                f"minutes={self.minutes}.",
                why="it is the time that all measures of a model may take.",
                fix="use --minutes 10 or more.",
            )
        select_measures(self.names, performance_names())

    def __call__(self, subject: Subject, lab: Lab) -> MeasureReport:
        session = open_session(subject, lab, seeds=self.seeds)
        report = self.report(session)
        if self.against is None:
            return report
        other = counterpart(subject, self.against(lab))
        there = open_session(other, lab.child("against"), seeds=self.seeds)
        against = self.report(there)
        found = differences(session, there, report.measurements, against.measurements)
        return replace(report, against=against, differences=found)

    def report(self, session: Session) -> MeasureReport:
        began = time.perf_counter()
        found, left_out = list[Measurement](), dict[str, str]()
        scores = [name for name in self.names if name in performance_names()]
        if scores or not self.names:
            try:
                found += [
                    one
                    for one in performance_measurements(session)
                    if not scores or one.name in scores
                ]
            except Exception as error:  # the subject's own code may raise anything
                left_out[FAMILY] = reason(error)
        allowed = MINUTES if self.minutes is None else self.minutes
        reader = MeasureReader(session, inf if self.names else allowed)
        absent = [name for name in scores if name not in {one.name for one in found}]
        if FAMILY not in left_out:
            left_out |= dict.fromkeys(absent, NO_SUCH_SCORE)
        entries = select_measures(self.names, performance_names())
        more, missing = reader(entries, trainings=len(session.models) > 1)
        subject = session.subject
        return MeasureReport(
            name=subject.name,
            task=subject.task.name,
            dataset=subject.data_name,
            held_out=subject.held_out,
            splits={
                name: str(split.at) if name in session.unseen else name
                for name, split in session.task.splits.items()
            },
            unseen=list(session.unseen),
            trainings=len(session.models),
            parameters=sum(p.numel() for p in session.first.model.parameters()),
            measurements=[*found, *more],
            left_out={**left_out, **missing, **session.skipped},
            decisions=[*subject.decisions, *session.gradient_sentences(), *session.caps],
            warnings=list(subject.warnings),
            seconds={"training": session.seconds, "measures": time.perf_counter() - began},
        )


def counterpart(subject: Subject, among: Sequence[Subject]) -> Subject:
    """The subject of another model that holds out the same site."""
    same = [one for one in among if one.held_out == subject.held_out]
    if len(same) == 1:
        return same[0]
    names = join_words([one.held_out or one.task.name for one in among][:6])
    raise InvalidConfig(
        f"There is no model to compare with that holds out {subject.held_out or 'nothing'} "
        f"({names}).",
        why="two models are compared where both were trained without the same site.",
        fix="give both with the same sites, or one subject each.",
    )
