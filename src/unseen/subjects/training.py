"""Training runs of an audit: paired by seed, and kept, so that an interrupted audit goes on where
it stopped.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.batches import model_to_device
from unseen.errors import Divergence, InvalidData
from unseen.identity import Identity, Structure, identify
from unseen.lab import Lab
from unseen.method import Method, Trained
from unseen.subjects.fresh_models import MAKE_FRESH, fresh_model
from unseen.subjects.stacking import step_of, train_together
from unseen.subjects.subject import Subject
from unseen.task import Use

log = logging.getLogger("unseen")

CURVE = "curve: "
"""Before the names of curves that are kept beside weights."""


class TrainingRuns:
    """Trains the subject's model with any method. Initialisation and data order depend on the seed
    only.
    """

    def __init__(self, subject: Subject, lab: Lab) -> None:
        self.subject, self.lab = subject, lab
        self._last: nn.Module | None = None
        self._refits: set[str] = set()
        self._waiting: Sequence[int] = ()
        """Seeds that are trained together if one of them must be."""
        self._finished: dict[int, Trained | Divergence] = {}
        """Those of them that are trained, and not asked for yet."""

    def seeds(self, method: Method, n: int) -> list[Trained]:
        """One run per seed. Those that are not cached are trained together where the method allows
        it.
        """
        self._waiting = range(n) if step_of(method) is not None else ()
        try:
            return [self(method, seed) for seed in range(n)]
        finally:
            self._waiting, self._finished = (), {}

    def _fit(self, method: Method, model: nn.Module, seed: int) -> Trained:
        """Trains the model, and with it those of the seeds that wait."""
        if seed not in self._finished:
            later = [other for other in self._waiting if other > seed]
            if not later:
                return method.fit(model, self.subject.task, self.lab.child("fit", seed))
            models = [model, *map(self.initial_model, later)]
            labs = [self.lab.child("fit", each) for each in (seed, *later)]
            results = train_together(method, models, self.subject.task, labs)
            self._finished = dict(zip((seed, *later), results, strict=True))
        result = self._finished.pop(seed)
        if isinstance(result, Divergence):
            raise result
        return result

    def __call__(self, method: Method, seed: int) -> Trained:
        model, task, lab = self.initial_model(seed), self.subject.task, self.lab.child("fit", seed)
        if not parameters.trainable(model):
            return self._fit(method, model, seed)
        key = identify(
            "training run",
            model=model,
            method=method,
            task=self.task,
            lab=lab.signature,
            code=TrainingRuns,
        )
        start, made = parameters.copy_parameters(model), list[Trained]()

        def make() -> dict[str, Tensor]:
            before = identify("before", model=Structure(model))
            made.append(self._fit(method, model, seed))
            if identify("before", model=Structure(made[0].model)) == before:
                return parameters.state(made[0].model) | _curves_as_tensors(made[0].curves)
            # the method rebuilt the model, or training changed more than its weights: only it can
            # do so again
            self._warn(type(method).__name__)
            return {}

        weights = lab.keep(key, make)
        if made:
            return made[0]
        curves = {
            name.removeprefix(CURVE): values.tolist()
            for name, values in weights.items()
            if name.startswith(CURVE)
        }
        weights = {name: w for name, w in weights.items() if not name.startswith(CURVE)}
        if weights.keys() != model.state_dict().keys():
            return self._fit(method, model, seed)
        model.load_state_dict(weights)
        return Trained(model_to_device(model, lab).eval(), task, curves=curves, start=start)

    def _warn(self, method: str) -> None:
        if method not in self._refits:
            self._refits.add(method)
            log.warning(
                "No training run of %s is kept, an interrupted command starts anew: it changes "
                "more of the model than "
                "its weights and buffers.",
                method,
            )

    def initial_model(self, seed: int) -> nn.Module:
        """The untrained model of a seed."""
        with self.lab.child("init", seed).seeded():
            model = fresh_model(self.subject)
        if self._last is not None and parameters.shares_weights(model, self._last):
            raise InvalidData(
                "The subject's function returned the same model twice.",
                why="every seed and every remedy starts from a fresh one.",
                fix=MAKE_FRESH,
            )
        self._last = model
        return model

    @cached_property
    def task(self) -> Identity:
        """Everything of the task that a method may read: the objective, and all but the evaluation
        examples.
        """
        task = self.subject.task
        splits = {
            name: split for name, split in task.splits.items() if split.use is not Use.EVALUATE
        }
        return identify("task", objective=task.objective, axis=task.axis, splits=splits)


def _curves_as_tensors(curves: Mapping[str, Sequence[float]]) -> dict[str, Tensor]:
    """Measures read them of a repeated run, too. Numbers keep their kind: counts stay counts."""
    return {f"{CURVE}{name}": torch.from_numpy(np.array(values)) for name, values in curves.items()}
