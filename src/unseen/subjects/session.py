"""The models and data of one audit, with what was already computed about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeVar

import torch
from torch import Tensor

from unseen.attribution import Attribution, Attributor
from unseen.engine.batches import gather, length, once, place
from unseen.errors import InvalidData, UnseenError
from unseen.lab import Lab
from unseen.method import Trained
from unseen.subjects.examples import Example, Shown
from unseen.subjects.predictions import Judged, judged
from unseen.subjects.subject import Subject
from unseen.subjects.training import Runs
from unseen.task import Batch, Split, Task, Use

T = TypeVar("T")


@dataclass
class Scene:
    subject: Subject
    runs: Runs
    audited: Sequence[Trained]
    """The given model, or one per seed."""
    retrained: Sequence[Trained]
    """One per seed, trained here: what remedies are compared with."""
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    """Part → why it could not be done."""
    _judged: dict[str, Judged] = field(default_factory=dict)
    _base: dict[str, Judged] = field(default_factory=dict)
    _attributors: dict[str, Attributor] = field(default_factory=dict)

    @property
    def lab(self) -> Lab:
        return self.runs.lab

    @property
    def task(self) -> Task:
        return self.subject.task

    @property
    def first(self) -> Trained:
        return self.audited[0]

    @cached_property
    def judged(self) -> dict[str, Split]:
        """Judged splits that can be scored; without any, the selection splits, else the fitted ones."""
        chosen = self.task.of(Use.JUDGE) or self.task.of(Use.SELECT) or self.task.of(Use.FIT)
        found = {
            name: split for name, split in chosen.items() if self.attempt(f"split `{name}`", partial(self.at, name))
        }
        if not found:
            raise InvalidData(
                "No split can be judged.", why="; ".join(self.skipped.values()), fix="mend what is named here first."
            )
        return found

    def attempt(self, name: str, part: Callable[[], T]) -> T | None:
        """The part's result; None, and its reason in `skipped`, where it fails. One failure must not end the audit."""
        try:
            return part()
        except Exception as error:  # the subject's own code may raise anything
            self.skipped[name] = reason(error)
            return None

    @cached_property
    def seen(self) -> str | None:
        """The split that stands for "more of the same": judged, at a position where something was fitted."""
        judge = self.task.of(Use.JUDGE)
        return next((name for name in self.judged if name in judge and name not in self.task.unseen), None)

    @cached_property
    def unseen(self) -> dict[str, Split]:
        """Judged splits at positions where nothing was fitted."""
        return {name: split for name, split in self.judged.items() if name in self.task.unseen}

    def attributor(self, attribution: Attribution) -> Attributor:
        """What answers queries about the first model; prepared once."""
        if repr(attribution) not in self._attributors:
            self._attributors[repr(attribution)] = attribution.prepare(self.first, self.lab.child("attribution"))
        return self._attributors[repr(attribution)]

    @property
    def fitted(self) -> str:
        """The first split to fit."""
        return next(iter(self.task.of(Use.FIT)))

    def has(self, split: str, *columns: str) -> bool:
        """Whether the split's examples hold these columns."""
        return all(column in next(once(self.task.split(split).data, 1, self.lab)) for column in columns)

    @property
    def classifies(self) -> bool:
        """Whether the target is a class: scores are 0 or 1, and `y` is an integer."""
        at = next(iter(self.judged))
        if not self.has(at, "y") or not self.at(at).is_accuracy:
            return False
        return not next(once(self.task.split(at).data, 1, self.lab))["y"].is_floating_point()

    @cached_property
    def hardest(self) -> str:
        """The judged split that matters most: unseen if there is one, else the last."""
        return next(iter(self.unseen), list(self.judged)[-1])

    def at(self, split: str) -> Judged:
        """What the audited models did on a split (computed once)."""
        if split not in self._judged:
            models = [run.model for run in self.audited]
            self._judged[split] = judged(models, self.task, self.task.split(split), self.lab, self.subject.unit)
        return self._judged[split]

    def base(self, split: str) -> Judged:
        """What the retrained models did on a split."""
        if self.audited is self.retrained:
            return self.at(split)
        if split not in self._base:
            models = [run.model for run in self.retrained]
            self._base[split] = judged(models, self.task, self.task.split(split), self.lab, self.subject.unit)
        return self._base[split]

    def example(self, split: str, index: int, value: float, *, is_predicted: bool = False) -> Example:
        """An example with its label, its appearance and, if asked, the audited model's word."""
        if length(self.task.split(split).data) is None:
            raise InvalidData(
                f"Split `{split}` is a stream.",
                why="single examples cannot be looked up in it.",
                fix="give a dataset with a length.",
            )
        row = gather(self.task.split(split).data, torch.tensor([index]))
        shown: Shown = f"{split}[{index}]"
        if self.subject.show:
            made = self.attempt("showing examples", lambda: self.subject.show(split, index))  # type: ignore[misc]
            shown = shown if made is None else made
        number = int(row["index"].flatten()[0]) if "index" in row else None
        return Example(
            split=split,
            index=index,
            shown=shown,
            label=self._word(row["y"]) if "y" in row else "",
            predicted=self._predicted(row) if is_predicted else "",
            value=value,
            row=number,
        )

    def _word(self, y: Tensor) -> str:
        """A target as the user knows it."""
        if y.numel() != 1:
            return ""
        names = self.subject.classes
        if self.classifies:
            return str(names[int(y)]) if 0 <= int(y) < len(names) else str(int(y))
        return f"{self.subject.centre + self.subject.unit * float(y):.4g}"

    @torch.no_grad()
    def _predicted(self, row: Batch) -> str:
        if "x" not in row or "y" not in row:
            return ""
        z = self.first.model(place(row, self.lab)["x"])
        if not isinstance(z, Tensor) or z.dim() > 2:
            return ""
        z = z.flatten().cpu()
        if self.classifies:
            z = (z > 0).long() if z.numel() == 1 else z.argmax()
        return self._word(z)


def reason(error: Exception) -> str:
    """What, why and fix, or the kind of error and its text."""
    return str(error) if isinstance(error, UnseenError) else f"{type(error).__name__}: {error}"
