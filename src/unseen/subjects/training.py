"""Training runs of an audit: paired by seed, and kept, so that an interrupted audit goes on where it stopped."""

import hashlib
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.batches import Columns
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Method, Trained
from unseen.subjects.subject import Subject
from unseen.task import Use


class TrainingRuns:
    """Trains the subject's model with any method. Initialisation and data order depend on the seed only."""

    def __init__(self, subject: Subject, lab: Lab) -> None:
        self.subject, self.lab = subject, lab
        self._last: nn.Module | None = None

    def __call__(self, method: Method, seed: int) -> Trained:
        model, task, lab = self.fresh(seed), self.subject.task, self.lab.child("fit", seed)
        if self.data is None or not parameters.trainable(model):
            return method.fit(model, task, lab)
        key = f"run {_hash(model.state_dict())} {self.data} {method!r} {'/'.join(lab.path)} {lab.seed}"
        kept: list[Trained] = []

        def make() -> dict[str, Tensor]:
            kept.append(method.fit(model, task, lab))
            return parameters.state(kept[0].model)

        weights = lab.keep(key, make)
        if kept:
            return kept[0]
        if weights.keys() != model.state_dict().keys():  # the method rebuilt the model: only it can do so again
            return method.fit(model, task, lab)
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
