"""The contract of methods."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Dataset

from unseen.engine.batches import once
from unseen.engine.parameters import state
from unseen.lab import Lab
from unseen.method import Method, Trained
from unseen.task import Use
from unseen.testing.contract import (
    ContractViolation,
    check_plug,
    forbid_global_randomness,
    name_of,
    require,
    same_state,
    scramble_global_rng,
)
from unseen.testing.stand_ins import small_model, small_task


class Tripwire(Dataset[Any]):
    """An evaluation split during training: any look at it raises."""

    def __init__(self, name: str) -> None:
        self.split_name = name

    def __len__(self) -> int:
        raise self._violation()

    def __getitem__(self, index: object) -> Any:
        raise self._violation()

    def __iter__(self) -> Iterator[Any]:
        raise self._violation()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._violation()

    def _violation(self) -> ContractViolation:
        return ContractViolation(
            f"The evaluation split `{self.__dict__.get('split_name')}` was read during training.",
            why="what is evaluated must stay unseen, also for early stopping.",
            fix="read TRAIN, ADAPT and SELECT splits only.",
        )


def check_method(method: Method, subject: Trained | None = None, lab: Lab = Lab()) -> None:
    """Evaluation splits raise when read; the same lab gives the same weights, whatever the global
    generators hold; the loss is finite. `subject` brings another task and a fresh model for it."""
    check_plug(method, "fit")
    task = subject.task if subject else small_task(lab)
    model = subject.model if subject else small_model(task, lab)
    wired = {
        n: replace(s, data=Tripwire(n)) if s.use is Use.EVALUATE else s
        for n, s in task.splits.items()
    }
    guarded = replace(task, splits=wired)
    with forbid_global_randomness("fit"):
        trained = method.fit(copy.deepcopy(model), guarded, lab.child("fit"))
    require(
        isinstance(trained, Trained),
        f"{name_of(method)}.fit returned a {type(trained).__name__}.",
        "fit returns Trained.",
    )
    with scramble_global_rng():
        again = method.fit(copy.deepcopy(model), guarded, lab.child("fit"))
    require(
        same_state(state(trained.model), state(again.model)),
        f"{name_of(method)} gave different weights for the same model, task and lab.",
        "paired comparisons and the store rest on repeatable training.",
        "draw from the lab or the draw's generator; wrap dropout and initialisation in "
        "lab.seeded().",
    )
    for name in task.of(Use.TRAIN):
        with torch.no_grad():
            losses = [
                task.objective.loss(trained.model, batch)
                for batch in once(task.split(name).data, 256, lab)
            ]
        require(
            bool(torch.isfinite(torch.cat(losses)).all()),
            f"The loss on `{name}` is not finite after {name_of(method)}.",
            "a diverged run must raise Diverged.",
        )
