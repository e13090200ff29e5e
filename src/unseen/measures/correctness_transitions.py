"""What an ensemble makes of its members' mistakes, and how sure it is (Lin et al., 2024,
arXiv:2309.17230).

False-false-true (FFT): both members are wrong and the ensemble is right. True-true-false is its
reverse.
"""

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import once
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.ensemble_model import log_probabilities, members_of
from unseen.reading import Reading
from unseen.task import Task

Right = Bool[Tensor, " n"]


def transitions(first: Right, second: Right, ensemble: Right) -> dict[str, Reading]:
    """The shares of the eight patterns "TTT" … "FFF" (first, second, ensemble) among all examples;
    they sum to 1.
    """
    if not len(first) or not len(first) == len(second) == len(ensemble):
        raise InvalidData(
            f"Transitions got {len(first)}, {len(second)} and {len(ensemble)} answers.",
            why="they compare the same examples, of which there is at least one.",
            fix="evaluate all three on one split.",
        )
    found = {}
    for pattern in product((True, False), repeat=3):
        here = (first == pattern[0]) & (second == pattern[1]) & (ensemble == pattern[2])
        found["".join("T" if right else "F" for right in pattern)] = stats.proportion(
            int(here.sum()), len(here)
        )
    return found


def transitions_of(
    first: nn.Module, second: nn.Module, ensemble: nn.Module, task: Task, split: str, lab: Lab
) -> dict[str, Reading]:
    """`transitions` of three models on one split, for averages of weights, which do not contain
    their members.
    """
    return transitions(*(right(model, task, split, lab) for model in (first, second, ensemble)))


def right(model: nn.Module, task: Task, split: str, lab: Lab) -> Right:
    """Where the task's score is 1."""
    score = per_example(model, task.split(split).data, task.objective.score, lab)
    return right_of(score)


def right_of(score: Float[Tensor, " n"]) -> Right:
    if not bool(((score == 0) | (score == 1)).all()):
        raise InvalidData(
            "The score is not 0 or 1 for every example.",
            why="right and wrong are all that a transition knows.",
            fix="evaluate with an accuracy; look for inputs or weights that are not finite.",
        )
    return score == 1


def answers(committee: nn.Module, task: Task, split: str, lab: Lab) -> Bool[Tensor, "member n"]:
    """Where each member of a committee is right."""
    return torch.stack([right(member, task, split, lab) for member in members_of(committee)])


@dataclass(frozen=True)
class FalseFalseTrue:
    """Share of all examples on which every member of a committee is wrong and the committee is
    right.

    0 for a committee of one. Print `TrueTrueFalse` beside it: what is gained here may be lost
    there.
    """

    split: str = "test"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        each = answers(subject.model, subject.task, self.split, lab)
        together = right(subject.model, subject.task, self.split, lab)
        return stats.proportion(int((~each.any(0) & together).sum()), len(together))


@dataclass(frozen=True)
class TrueTrueFalse:
    """Share of all examples on which every member of a committee is right and the committee is
    wrong.
    """

    split: str = "test"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        each = answers(subject.model, subject.task, self.split, lab)
        together = right(subject.model, subject.task, self.split, lab)
        return stats.proportion(int((each.all(0) & ~together).sum()), len(together))


@dataclass(frozen=True)
class Overconfidence:
    """Mean probability of the most likely class − accuracy: 0 if certainty is earned, above 0 if it
    is not.

    `detail` holds the confidence of each example. `CalibrationError` also sees errors that cancel
    here.
    """

    split: str = "test"

    @torch.no_grad()
    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        model, was_training, parts = subject.model, subject.model.training, []
        model.eval()
        try:
            for batch in once(subject.task.split(self.split).data, 1024, lab):
                parts.append(log_probabilities(model(batch["x"]).double()).exp().amax(-1).cpu())
        finally:
            model.train(was_training)
        confidence, hit = torch.cat(parts), right(model, subject.task, self.split, lab)
        reading = stats.mean((confidence - hit.double()).numpy())
        return Reading(
            reading.value, reading.low, reading.high, reading.n, "probability", confidence
        )


def example() -> Overconfidence:
    """On the evaluation split of the contract battery's task."""
    return Overconfidence(split="same")
