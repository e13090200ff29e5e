"""Training runs of an audit: paired by seed, and kept, so that an interrupted audit goes on where it stopped."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.batches import Columns
from unseen.errors import Diverged, InvalidData
from unseen.lab import Lab
from unseen.method import Method, Trained
from unseen.subjects.stacking import step_of, train_together
from unseen.subjects.subject import Subject
from unseen.task import Use


class TrainingRuns:
    """Trains the subject's model with any method. Initialisation and data order depend on the seed only."""

    def __init__(self, subject: Subject, lab: Lab) -> None:
        self.subject, self.lab = subject, lab
        self._last: nn.Module | None = None
        self._waiting: Sequence[int] = ()
        """Seeds that are trained together if one of them must be."""
        self._finished: dict[int, Trained | Diverged] = {}
        """Those of them that are trained, and not asked for yet."""

    def seeds(self, method: Method, n: int) -> list[Trained]:
        """One run per seed. Those that are not cached are trained together where the method allows it."""
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
            models = [model, *map(self.fresh, later)]
            labs = [self.lab.child("fit", each) for each in (seed, *later)]
            results = train_together(method, models, self.subject.task, labs)
            self._finished = dict(zip((seed, *later), results, strict=True))
        result = self._finished.pop(seed)
        if isinstance(result, Diverged):
            raise result
        return result

    def __call__(self, method: Method, seed: int) -> Trained:
        model, task, lab = self.fresh(seed), self.subject.task, self.lab.child("fit", seed)
        if self.data is None or not parameters.trainable(model):
            return self._fit(method, model, seed)
        key = f"run {_hash(model.state_dict())} {self.data} {method!r} {'/'.join(lab.path)} {lab.seed}"
        kept: list[Trained] = []

        def make() -> dict[str, Tensor]:
            kept.append(self._fit(method, model, seed))
            return parameters.state(kept[0].model)

        weights = lab.keep(key, make)
        if kept:
            return kept[0]
        if weights.keys() != model.state_dict().keys():  # the method rebuilt the model: only it can do so again
            return self._fit(method, model, seed)
        model.load_state_dict(weights)
        return Trained(model.to(lab.device, lab.dtype).eval(), task)

    def fresh(self, seed: int) -> nn.Module:
        """The untrained model of a seed."""
        with self.lab.child("init", seed).seeded():
            model = self.subject.model()
        if model is self._last:
            raise InvalidData(
                "The subject's function returned the same model twice.",
                why="every seed and every remedy starts from a fresh one.",
                fix="make it inside the function: model=lambda: nn.Linear(…), and give a trained one as trained=….",
            )
        self._last = model
        return model

    @cached_property
    def data(self) -> str | None:
        """A hash of everything a method may read, or None where it cannot be known (streams, own datasets)."""
        found = []
        for name, split in self.subject.task.splits.items():
            if split.use is Use.JUDGE:
                continue
            if not isinstance(split.data, Columns):
                return None
            found.append(f"{name} {split.use} {_hash(split.data.columns)}")
        return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
