"""The models and data of one audit, with what was already computed about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from unseen.audit.findings import Example
from unseen.audit.judged import Judged, judged
from unseen.audit.runs import Runs
from unseen.audit.subject import Subject
from unseen.engine.batches import gather
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Split, Task, Use


@dataclass
class Scene:
    subject: Subject
    runs: Runs
    audited: Sequence[Trained]
    """The given model, or one per seed."""
    retrained: Sequence[Trained]
    """One per seed, trained here: what remedies are compared with."""
    seconds: float = 0.0
    _judged: dict[str, Judged] = field(default_factory=dict)
    _base: dict[str, Judged] = field(default_factory=dict)

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
        """Judged splits; without any, the selection splits."""
        return self.task.of(Use.JUDGE) or self.task.of(Use.SELECT) or self.task.of(Use.FIT)

    @cached_property
    def seen(self) -> str | None:
        """The split that stands for "more of the same": judged, at a position where something was fitted."""
        return next((name for name in self.task.of(Use.JUDGE) if name not in self.task.unseen), None)

    @cached_property
    def hardest(self) -> str:
        """The judged split that matters most: unseen if there is one, else the last."""
        return next(iter(self.task.unseen), list(self.judged)[-1])

    def at(self, split: str) -> Judged:
        """What the audited models did on a split (computed once)."""
        if split not in self._judged:
            models = [run.model for run in self.audited]
            self._judged[split] = judged(models, self.task, self.task.split(split), self.lab)
        return self._judged[split]

    def base(self, split: str) -> Judged:
        """What the retrained models did on a split."""
        if self.audited is self.retrained:
            return self.at(split)
        if split not in self._base:
            models = [run.model for run in self.retrained]
            self._base[split] = judged(models, self.task, self.task.split(split), self.lab)
        return self._base[split]

    def example(self, split: str, index: int, value: float) -> Example:
        """An example with its label and appearance."""
        row = gather(self.task.split(split).data, torch.tensor([index]))
        y = row["y"].flatten()[0].item() if "y" in row else None
        label = "" if y is None else str(self.subject.classes[int(y)]) if self.subject.classes else f"{y:g}"
        shown = self.subject.show(split, index) if self.subject.show else f"{split}[{index}]"
        number = int(row["index"][0]) if "index" in row else None
        return Example(split=split, index=index, shown=shown, label=label, value=value, row=number)
