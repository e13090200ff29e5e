"""Returns of a policy on levels: normalised, and the gap from training levels to unseen ones
(Mediratta, You, Jiang & Raileanu, 2024, arXiv:2312.05742).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import cross_entropy
from unseen.reading import Reading
from unseen.task import Axis, Batch, Objective, Split, Task, Use


def normalised_return(value: float, worst: float, best: float) -> float:
    """(R − R_min) / (R_max − R_min): 0 for the worst player, 1 for the best."""
    if not worst < best:
        raise InvalidData(
            f"Returns from {worst} to {best} are no range.",
            why="a return is a share of the way from the worst to the best.",
            fix="give the return of a random player and the largest possible one.",
        )
    return (value - worst) / (best - worst)


@dataclass(frozen=True)
class LevelGap:
    """Mean return on the levels of one split minus that on another: 0 where nothing is lost on
    levels that training did not show.

    Returns are the scores of a task of levels; the two sides are other levels, so their intervals
    add as of independent samples.
    """

    split: str = "training levels"
    unseen: str = "unseen levels"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        score = subject.task.objective.score
        seen, unseen = (
            per_example(subject.model, subject.task.split(name).data, score, lab)
            for name in (self.split, self.unseen)
        )
        return stats.welch(seen.double().numpy(), unseen.double().numpy(), unit="return")


class _Door(nn.Module):
    """Opens every door up to one: a policy of numbers of levels, for the example."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(4.5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x * 0, self.limit - x], 1)


def _opens(model: nn.Module, batch: Batch) -> Tensor:
    if batch["level"].is_floating_point() and not torch.isfinite(batch["level"]).all():
        raise InvalidData("A level is not finite.", why="it is a number.", fix="check the split.")
    weight = next(model.parameters())
    if not torch.isfinite(weight):
        raise InvalidData("A weight is not finite.", why="it decides.", fix="train again.")
    x = batch["level"].to(weight)
    return (model(x).argmax(-1) == 1).to(weight) + 0.1 * (x % 3)


def example() -> tuple[LevelGap, Trained]:
    """A policy that opens the doors of training levels only."""
    levels = [Columns(level=torch.arange(k, k + 4.0)) for k in (0, 4)]
    transitions = Columns(level=torch.zeros(2), x=torch.zeros(2), y=torch.ones(2).long())
    splits = {
        "train": Split(transitions, Use.TRAIN, "training levels"),
        "training levels": Split(levels[0], Use.EVALUATE, "training levels"),
        "unseen levels": Split(levels[1], Use.EVALUATE, "unseen levels"),
    }
    objective = Objective(loss=cross_entropy, score=_opens)
    task = Task(name="doors", axis=Axis.LEVEL, splits=splits, objective=objective)
    return LevelGap(), Trained(_Door(), task)
