"""The main job: how well does a model generalize, why, and what helps? Composed from the plugs."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import NoReturn, TypeVar

from unseen.attribution import Attribution
from unseen.engine.batches import length
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.questions.audit import model, training_data
from unseen.questions.audit import performance as performances
from unseen.questions.audit import remedies as changes
from unseen.questions.audit.checks import checks
from unseen.questions.audit.remedy_methods import Remedy, applicable, standard_remedies
from unseen.questions.audit.results import (
    Calibration,
    Coherence,
    Comparisons,
    Feature,
    Findings,
    Outcome,
    Overlap,
    Performance,
    WorstError,
)
from unseen.questions.audit.trial_sample import trial_session
from unseen.questions.measure.results import Measurement
from unseen.reading import Measure
from unseen.runs.progress import WithoutShares
from unseen.subjects.examples import Example
from unseen.subjects.session import Session, open_session
from unseen.subjects.subject import Subject
from unseen.task import Use

T = TypeVar("T")
PARTS = (
    "scores",
    "calibration",
    "overlap of splits",
    "coherence",
    "self-influence",
    "measures of the model",
    "worst errors",
    "retraining without the examples behind them",
    "explanation of the worst errors",
    "features",
    "comparison models",
)
"""What every audit does, in this order; checks come after the first two, remedies last.
"""
STEPS = {
    "scores": 4,
    "calibration": 2,
    "why sites differ": 4,
    "suspected labels": 2,
    "labels of a site": 4,
    "measures of the model": 8,
    "retraining without the examples behind them": 10,
    "explanation of the worst errors": 6,
    "features": 2,
    "comparison models": 3,
    "remedy": 5,
}
"""As how many steps of the progress a part counts that takes longer than others: about so many
times half a second with a table of 1,000 rows.
"""
TRAININGS = {
    "suspected labels": 0.75,
    "labels of a site": 0.2,
    "measures of the model": 1.2,
    "explanation of the worst errors": 0.4,
    "remedy: site-wise fine-tuning": 0.1,
    "remedy": 1.2,
}
"""How long a part takes beyond that, by the time that the training of the audited models took
(measured with a convolutional network).
"""
MANY_PASSES = (
    "suspected labels",
    "labels of a site",
    "coherence",
    "self-influence",
    "measures of the model",
    "worst errors",
    "retraining without the examples behind them",
    "explanation of the worst errors",
    "features",
)
"""Parts that train the model many times, take the gradient of each example or ask it for many
changed inputs: left out for a model that is costly.
"""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Takes a subject and returns findings; a part that fails alone is named in `skipped`, not the
    end of the audit.
    """

    seeds: int = 3
    remedies: Mapping[str, Remedy] = field(default_factory=standard_remedies)
    measures: Mapping[str, Measure[Trained]] | None = None
    """Numbers about the trained model, by the name they get in the report (None: those of `unseen
    measure`).
    """
    attribution: Attribution | None = None
    """Which training examples made an error (None: as `unseen influence` does it); with influence
    functions also which examples stand against the rest.
    """
    top: int = 10
    """How many conflicting examples and suspects are listed."""
    worst: int = 5
    """How many of the worst errors are explained."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InvalidConfig(
                f"seeds={self.seeds}.",
                why="at least one model must be trained.",
                fix="use --seeds 3 or more.",
            )
        if not isinstance(self.remedies, Mapping):
            raise InvalidConfig(
                f"remedies={self.remedies!r}.",
                why="remedies are methods by name.",
                fix='use remedies={} for none, or {"SAM": lambda budget: SAM(budget=budget)}.',
            )

    def __call__(self, subject: Subject, lab: Lab) -> Findings:
        training = replace(lab, sink=WithoutShares(lab.sink))
        session = open_session(subject, training, seeds=self.seeds, retrain=bool(self.remedies))
        session.runs.lab = replace(session.lab, sink=lab.sink)  # its dtype is the model's
        asked = applicable(self.remedies, session)
        remedies = {f"remedy: {name}": make for name, make in asked.items()}
        trial = cache(lambda: trial_session(session))
        further: dict[str, Callable[[], list[Outcome]]] = {}
        if remedies:
            without = "remedy: without flagged features"
            further[without] = lambda: changes.leave_features_out(trial(), checked)
        if remedies and session.has_gradients:
            tuned = "remedy: site-wise fine-tuning"
            further[tuned] = lambda: changes.local_finetuning(trial())
        parts = Parts(session, self._order([*remedies, *further]))
        performance = parts("scores", partial(performances.performance, session), Performance())
        calibration = parts(
            "calibration", partial(performances.calibration, session), Calibration()
        )
        checked = {
            check.part: found
            for check in checks()
            if (found := parts(check.part, partial(check.find, session), None)) is not None
        }
        overlaps = parts(
            "overlap of splits", partial(training_data.overlaps, session), list[Overlap]()
        )
        coherence = parts(
            "coherence", partial(training_data.coherence, session, self.top), Coherence()
        )
        influential = parts(
            "self-influence",
            partial(training_data.self_influential, session, self.attribution, self.top),
            list[Example](),
        )
        nothing: tuple[list[Measurement], dict[str, str]] = ([], {})
        measured, unmeasured = parts(
            "measures of the model", partial(model.measures, session, self.measures), nothing
        )
        worst = parts(
            "worst errors",
            partial(model.worst_errors, session, self.attribution, self.worst),
            list[WorstError](),
        )
        worst = parts(
            "retraining without the examples behind them",
            partial(model.confirm_errors, session, worst),
            worst,
        )
        explanation = parts(
            "explanation of the worst errors",
            partial(model.error_explanation, session, self.worst),
            None,
        )
        features = parts("features", partial(model.features, session), list[Feature]())
        rivals = parts(
            "comparison models", partial(performances.references, session), Comparisons()
        )
        outcomes = [
            outcome
            for name, (part, make) in zip(asked, remedies.items(), strict=True)
            for outcome in parts(part, partial(_remedy, trial, name, make), list[Outcome]())
        ]
        for name, part in further.items():
            outcomes += parts(name, part, list[Outcome]())
        parts.finish()
        subject, task = session.subject, session.task
        known = {one.name: replace(one.reading, detail=None) for one in measured if not one.split}
        return Findings(
            name=subject.name,
            task=task.name,
            score_name=session.predictions(next(iter(session.evaluation_splits))).score_name,
            seeds=len(session.models),
            mode=subject.mode,
            decisions=[
                *subject.decisions,
                *session.gradient_sentences(),
                *session.caps,
            ],
            conversions=subject.conversions,
            sizes={name: length(split.data) or 0 for name, split in task.splits.items()}
            | {
                name: session.predictions(name).score.shape[1] for name in session.evaluation_splits
            },
            sites={
                name: str(split.at) for name, split in task.splits.items() if split.at is not None
            },
            unseen=list(session.unseen),
            known=[
                name
                for name in session.evaluation_splits
                if name in task.of(Use.EVALUATE) and name not in session.unseen
            ],
            scores=[*performance.scores, *rivals.scores],
            gaps=performance.gaps,
            readings={**calibration.readings, **coherence.readings, **known},
            curves=calibration.curves,
            calibration_p_values=calibration.p_values,
            conflicting=coherence.conflicting,
            self_influential=influential,
            overlaps=overlaps,
            checked=checked,
            measured=measured,
            unmeasured=unmeasured,
            worst=worst,
            error_explanation=explanation,
            features=features,
            outcomes=outcomes,
            comparisons=rivals.changes,
            skipped=session.skipped,
            warnings=list(subject.warnings),
            small_groups=performance.warnings,
            seconds={"training": session.seconds, **parts.seconds},
            predictions={name: session.predictions(name) for name in session.evaluation_splits},
        )

    def _order(self, last: Sequence[str]) -> list[str]:
        """The names of the parts as they are run."""
        known = PARTS.index("overlap of splits")
        found = (check.part for check in checks())
        return [*PARTS[:known], *found, *PARTS[known:], *last]


def _remedy(trial: Callable[[], Session], name: str, make: Remedy) -> list[Outcome]:
    """The remedy's changes; its session is trained when the first remedy asks for it."""
    return changes.remedy(trial(), name, make)


def standard_audit(seeds: int, has_remedies: bool) -> Audit:
    """What another process audits with: it cannot be sent the remedies."""
    return Audit(seeds=seeds) if has_remedies else Audit(seeds=seeds, remedies={})


class Parts:
    """Runs the parts of an audit one after the other, as steps of the lab's progress; one that
    fails gives its default.
    """

    def __init__(self, session: Session, names: Sequence[str]) -> None:
        self.session = session
        self.seconds: dict[str, float] = {}
        done = round(2 * session.seconds)
        self._counts = {name: _steps_of(name, session.seconds) for name in names}
        total = done + sum(self._counts.values())
        self._steps = iter(session.lab.track(range(total), total))
        for _ in range(done):
            next(self._steps)

    def __call__(self, name: str, part: Callable[[], T], default: T) -> T:
        next(self._steps, None)
        began = time.perf_counter()
        if name in MANY_PASSES and self.session.subject.is_costly:
            part = refuse_costly
        found = self.session.attempt(name, part)
        self.seconds[name] = time.perf_counter() - began
        for _ in range(self._counts[name] - 1):
            next(self._steps, None)
        return default if found is None else found

    def finish(self) -> None:
        """The last step is done."""
        next(self._steps, None)


def refuse_costly() -> NoReturn:
    """Says why a part is left out."""
    raise InvalidConfig(
        "The model is large and trained as a whole.",
        why="this part trains it many times, or takes the gradient of each example: hours.",
        fix="audit it with --frozen (its vectors below a linear head), or a smaller model.",
    )


def _steps_of(name: str, training: float) -> int:
    """As how many steps of the progress a part counts, so that the time left is not that of the
    quick parts.
    """
    kind = name.split(":")[0]
    share = TRAININGS.get(name, TRAININGS.get(kind, 0.0))
    return STEPS.get(name, STEPS.get(kind, 1)) + round(2 * share * training)


__all__ = ["Audit", "Findings", "Subject"]
