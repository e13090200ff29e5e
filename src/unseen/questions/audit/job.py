"""The main job: how well does a model generalize, why, and what helps? Composed from the plugs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from unseen.attribution import Attribution
from unseen.attributions.influence import Influence
from unseen.engine.batches import length
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.measures.sharpness import SAMSharpness, TopEigenvalue
from unseen.method import Trained
from unseen.questions.audit import model, performance, remedies, training_data
from unseen.questions.audit.remedy_methods import Remedy, standard_remedies
from unseen.questions.audit.results import Findings
from unseen.reading import Measure
from unseen.subjects.session import Session, open_session
from unseen.subjects.subject import Subject
from unseen.task import Use


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Takes a subject and returns findings; a part that fails alone is named in `skipped`, not the end of the audit."""

    seeds: int = 3
    remedies: Mapping[str, Remedy] = field(default_factory=standard_remedies)
    measures: Mapping[str, Measure[Trained]] = field(
        default_factory=lambda: {
            "sharpness within radius 0.05": SAMSharpness(most=2_000),
            "largest curvature": TopEigenvalue(most=1_000, products=40, tolerance=1e-2),
        }
    )
    """Further numbers about the trained model, by the name they get in the report."""
    attribution: Attribution = Influence(draws=4, damping=1.0, batch_size=128, most=5_000)
    """Which training examples made an error; with influence functions also which examples stand against the rest."""
    top: int = 10
    """How many conflicting examples and suspects are listed."""
    worst: int = 5
    """How many of the worst errors are explained."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InvalidConfig(
                f"seeds={self.seeds}.", why="at least one model must be trained.", fix="use --seeds 3 or more."
            )

    def __call__(self, subject: Subject, lab: Lab) -> Findings:
        session = open_session(subject, lab, seeds=self.seeds, retrain=bool(self.remedies))
        found, seconds = self._about(session), {}

        def attempt(name: str, part: Callable[[], dict[str, Any]]) -> None:
            began = time.perf_counter()
            for key, value in (session.attempt(name, part) or {}).items():
                found[key] = (
                    {**found.get(key, {}), **value} if isinstance(value, dict) else [*found.get(key, ()), *value]
                )
            seconds[name] = time.perf_counter() - began

        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "scores": partial(performance.performance, session),
            "calibration": partial(performance.calibration, session),
            "overlap of splits": partial(training_data.overlaps, session),
            "coherence": partial(training_data.coherence, session, self.top),
            "suspected labels": partial(training_data.suspects, session, self.top),
            "self-influence": partial(training_data.self_influential, session, self.attribution, self.top),
            **{name: partial(model.measured, session, name, measure) for name, measure in self.measures.items()},
            "worst errors": partial(model.worst_errors, session, self.attribution, self.worst),
            "explanation of the worst errors": partial(model.looked, session, self.worst),
            "features": partial(model.features, session),
            "comparison models": partial(performance.references, session),
            **{
                f"remedy: {name}": partial(remedies.remedy, session, name, make) for name, make in self.remedies.items()
            },
        }
        if self.remedies:
            steps["remedy: site-wise fine-tuning"] = partial(remedies.local_finetuning, session)
        for name, part in lab.track(list(steps.items()), len(steps)):
            attempt(name, part)
        return Findings(**found, skipped=session.skipped, seconds={"training": session.seconds, **seconds})

    def _about(self, session: Session) -> dict[str, Any]:
        task = session.subject.task
        return {
            "name": session.subject.name,
            "task": task.name,
            "score_name": session.predictions(next(iter(session.evaluated))).score_name,
            "seeds": len(session.models),
            "decisions": list(session.subject.decisions),
            "warnings": list(session.subject.warnings),
            "sizes": {name: length(split.data) or 0 for name, split in task.splits.items()}
            | {name: session.predictions(name).score.shape[1] for name in session.evaluated},
            "places": {name: str(split.at) for name, split in task.splits.items() if split.at is not None},
            "unseen": list(session.unseen),
            "known": [name for name in session.evaluated if name in task.of(Use.JUDGE) and name not in session.unseen],
            "readings": {},
        }


__all__ = ["Audit", "Findings", "Subject"]
