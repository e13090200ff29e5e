"""The main job: how well does a model generalize, why, and what helps? Composed from the plugs."""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from unseen.attribution import Attribution
from unseen.attributions.influence import Influence
from unseen.engine.batches import length
from unseen.errors import InvalidConfig, InvalidData, UnseenError
from unseen.lab import Lab
from unseen.measures.sharpness import SAMSharpness, TopEigenvalue
from unseen.method import Trained
from unseen.methods.erm import ERM
from unseen.methods.fit_estimator import FitEstimator
from unseen.models.estimator import Estimator
from unseen.questions.audit import model, performance, remedies, training_data
from unseen.questions.audit.remedy_methods import Remedy, standard
from unseen.questions.audit.results import Findings
from unseen.reading import Measure
from unseen.subjects.estimators import as_networks
from unseen.subjects.session import Scene, reason
from unseen.subjects.subject import Subject
from unseen.subjects.training import Runs
from unseen.task import Use


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Takes a subject and returns findings; a part that fails alone is named in `skipped`, not the end of the audit."""

    seeds: int = 3
    remedies: Mapping[str, Remedy] = field(default_factory=standard)
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
        scene = self.scene(as_networks(checked(subject), lab), lab)
        found, seconds = self._about(scene), {}

        def attempt(name: str, part: Callable[[], dict[str, Any]]) -> None:
            began = time.perf_counter()
            for key, value in (scene.attempt(name, part) or {}).items():
                found[key] = (
                    {**found.get(key, {}), **value} if isinstance(value, dict) else [*found.get(key, ()), *value]
                )
            seconds[name] = time.perf_counter() - began

        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "scores": partial(performance.performance, scene),
            "calibration": partial(performance.calibration, scene),
            "overlap of splits": partial(training_data.overlaps, scene),
            "coherence": partial(training_data.coherence, scene, self.top),
            "suspected labels": partial(training_data.suspects, scene, self.top),
            "self-influence": partial(training_data.self_influential, scene, self.attribution, self.top),
            **{name: partial(model.measured, scene, name, measure) for name, measure in self.measures.items()},
            "worst errors": partial(model.worst_errors, scene, self.attribution, self.worst),
            "explanation of the worst errors": partial(model.looked, scene, self.worst),
            "features": partial(model.features, scene),
            "comparison models": partial(performance.references, scene),
            **{f"remedy: {name}": partial(remedies.remedy, scene, name, make) for name, make in self.remedies.items()},
        }
        if self.remedies:
            steps["remedy: site-wise fine-tuning"] = partial(remedies.local_finetuning, scene)
        for name, part in lab.track(list(steps.items()), len(steps)):
            attempt(name, part)
        return Findings(**found, skipped=scene.skipped, seconds={"training": scene.seconds, **seconds})

    def scene(self, subject: Subject, lab: Lab) -> Scene:
        """Trains what is missing: one model per seed, or none if a trained model without remedies is given."""
        began = time.perf_counter()
        runs, retrained = Runs(subject, lab), []
        try:
            method = FitEstimator() if isinstance(runs.fresh(0), Estimator) else ERM(subject.budget)
            # fitted estimators are judged as they are: no remedy trains one
            if subject.trained is None or (self.remedies and not isinstance(method, FitEstimator)):
                retrained = [runs(method, seed) for seed in range(self.seeds)]
        except UnseenError:
            raise
        except Exception as error:  # the subject's own model
            raise InvalidData(
                f"Training the subject's model raised {reason(error)}",
                why="every finding needs a model that runs on the subject's batches.",
                fix="try task.objective.loss(model(), batch) on one batch of your FIT split.",
            ) from error
        audited = retrained
        if subject.trained is not None:  # a copy: the caller's model keeps its mode and place
            model = deepcopy(subject.trained).to(lab.device, lab.dtype).eval()
            audited = [Trained(model, subject.task)]
        return Scene(subject, runs, audited, retrained, time.perf_counter() - began)

    def _about(self, scene: Scene) -> dict[str, Any]:
        task = scene.subject.task
        return {
            "name": scene.subject.name,
            "task": task.name,
            "score_name": scene.at(next(iter(scene.judged))).score_name,
            "seeds": len(scene.audited),
            "decisions": list(scene.subject.decisions),
            "warnings": list(scene.subject.warnings),
            "sizes": {name: length(split.data) or 0 for name, split in task.splits.items()}
            | {name: scene.at(name).score.shape[1] for name in scene.judged},
            "places": {name: str(split.at) for name, split in task.splits.items() if split.at is not None},
            "unseen": list(scene.unseen),
            "known": [name for name in scene.judged if name in task.of(Use.JUDGE) and name not in scene.unseen],
            "readings": {},
        }


def checked(subject: Subject) -> Subject:
    """The subject, unless its examples are not tensors by name."""
    for name, split in subject.task.splits.items():
        if length(split.data) == 0:
            raise InvalidData(f"Split `{name}` is empty.", why="nothing can be done with it.", fix="leave it out.")
        row = split.data[0] if length(split.data) else next(iter(split.data))
        if not isinstance(row, Mapping):
            raise InvalidData(
                f"An example of split `{name}` is a {type(row).__name__}.",
                why="objectives, measures and groups read tensors by name.",
                fix='return a dictionary, for example {"x": image, "y": label}, or use engine.batches.Columns.',
            )
    return subject


__all__ = ["Audit", "Findings", "Subject"]
