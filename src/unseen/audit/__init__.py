"""The main job: how well does a model generalize, why, and what helps? Composed from the plugs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from unseen.attribution import Attribution
from unseen.attributions.gradient_similarity import GradientSimilarity
from unseen.audit import parts
from unseen.audit.findings import Findings
from unseen.audit.remedies import Remedy, standard
from unseen.audit.runs import Runs
from unseen.audit.scene import Scene
from unseen.audit.subject import Subject
from unseen.engine.batches import length
from unseen.errors import InvalidConfig, UnseenError
from unseen.lab import Lab
from unseen.measure import Measure
from unseen.measures.sharpness import SAMSharpness, TopEigenvalue
from unseen.method import Trained
from unseen.methods.erm import ERM
from unseen.methods.fit_estimator import FitEstimator
from unseen.models.estimator import Estimator

T = TypeVar("T")


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
    attribution: Attribution = GradientSimilarity()
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
        scene = self.scene(subject, lab)
        found, skipped, seconds = self._about(scene), {}, {}

        def attempt(name: str, part: Callable[[], dict[str, Any]]) -> None:
            began = time.perf_counter()
            try:
                result = part()
            except (UnseenError, RuntimeError, ValueError) as error:  # one part's failure is a finding of its own
                skipped[name] = str(error)
                result = {}
            seconds[name] = time.perf_counter() - began
            for key, value in result.items():
                found[key] = (
                    {**found.get(key, {}), **value} if isinstance(value, dict) else [*found.get(key, ()), *value]
                )

        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "scores": partial(parts.performance, scene),
            "calibration": partial(parts.calibration, scene),
            "overlap of splits": partial(parts.overlaps, scene),
            "coherence": partial(parts.coherence, scene, self.top),
            "suspected labels": partial(parts.suspects, scene, self.top),
            **{name: partial(parts.measured, scene, name, measure) for name, measure in self.measures.items()},
            "worst errors": partial(parts.worst_errors, scene, self.attribution, self.worst),
            "features": partial(parts.features, scene),
            "comparison models": partial(parts.references, scene),
            **{f"remedy: {name}": partial(parts.remedy, scene, name, make) for name, make in self.remedies.items()},
        }
        if self.remedies:
            steps["remedy: site-wise fine-tuning"] = partial(parts.local_finetuning, scene)
        for name, part in lab.track(list(steps.items()), len(steps)):
            attempt(name, part)
        return Findings(**found, skipped=skipped, seconds={"training": scene.seconds, **seconds})

    def scene(self, subject: Subject, lab: Lab) -> Scene:
        """Trains what is missing: one model per seed, or none if a trained model without remedies is given."""
        began = time.perf_counter()
        runs = Runs(subject, lab)
        method = FitEstimator() if isinstance(runs.fresh(0), Estimator) else ERM(subject.budget)
        retrained: list[Trained] = []
        if subject.trained is None or self.remedies:
            retrained = [runs(method, seed) for seed in range(self.seeds)]
        audited = [Trained(subject.trained.eval(), subject.task)] if subject.trained is not None else retrained
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
            "sizes": {name: length(split.data) or 0 for name, split in task.splits.items()},
            "places": {name: str(split.at) for name, split in task.splits.items() if split.at is not None},
            "unseen": list(task.unseen),
            "readings": {},
        }


__all__ = ["Audit", "Findings", "Subject"]
