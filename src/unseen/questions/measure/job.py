"""The measures of one subject: trains its model where none is given, and reads everything that
applies.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from unseen.errors import InvalidConfig, reason
from unseen.lab import Lab
from unseen.questions.measure.catalogue import select_measures
from unseen.questions.measure.evaluate import MeasureReader
from unseen.questions.measure.performance import FAMILY, performance_measurements
from unseen.questions.measure.results import Measurement, MeasureReport
from unseen.subjects.session import Session, open_session
from unseen.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True)
class MeasureJob:
    """Takes a subject and returns its measures."""

    seeds: int = 3
    names: Sequence[str] = ()
    """Only these measures, whatever they cost; empty: all that apply and take minutes at most."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InvalidConfig(
                f"seeds={self.seeds}.",
                why="at least one model must be trained.",
                fix="use --seeds 3 or more.",
            )
        select_measures(self.names)

    def __call__(self, subject: Subject, lab: Lab) -> MeasureReport:
        session = open_session(subject, lab, seeds=self.seeds)
        return self.report(session)

    def report(self, session: Session) -> MeasureReport:
        began = time.perf_counter()
        found, left_out = list[Measurement](), dict[str, str]()
        if not self.names:
            try:
                found += performance_measurements(session)
            except Exception as error:  # the subject's own code may raise anything
                left_out[FAMILY] = reason(error)
        reader = MeasureReader(session, inf) if self.names else MeasureReader(session)
        more, missing = reader(select_measures(self.names), trainings=len(session.models) > 1)
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
