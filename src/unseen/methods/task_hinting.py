"""Task hinting: a simpler task beside the main one (Awasthi and Gupta, 2023, arXiv:2310.00726)."""

from dataclasses import dataclass, replace

from torch import nn

from unseen.engine.batches import forever
from unseen.engine.loop import Budget, Schedule, erm_step, train
from unseen.engine.mixture import Mixture
from unseen.engine.toy import toy_subject, toy_task
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Split, Task, TaskSpec, Use


@dataclass(frozen=True)
class TaskHinting:
    """Every minibatch is one of the hint with `probability`, else one of the task; loss and score
    are the task's for both.

    The hint has to share the task's tokens. At equal steps a model with hints sees fewer batches
    of its task; `at_equal_batches` gives it as many.
    """

    hint: TaskSpec
    probability: float = 0.5
    budget: Budget = Budget(lr=2e-3, schedule=Schedule.COSINE, warmup=100, clip=1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.probability < 1:
            raise InvalidConfig(
                f"TaskHinting(probability={self.probability}).",
                why="it is the share of the hint's minibatches, and the task needs some, too.",
                fix="choose a number from 0 up to, and without, 1; 0.5 is the usual one.",
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        hint = self.hint.build(lab.child("hint"))
        trained = train(model, self.mix(task, hint, lab), erm_step, self.budget, lab)
        return replace(trained, task=task)

    def at_equal_batches(self) -> "TaskHinting":
        """The same with so many more steps that the task gets the batches of training without
        hints.
        """
        steps = round(self.budget.steps / (1 - self.probability))
        return replace(self, budget=replace(self.budget, steps=steps))

    def mix(self, task: Task, hint: Task, lab: Lab) -> Task:
        """The task with its training data and the hint's as one mixture."""
        parts = {"task": train_data(task), "hint": train_data(hint)}
        _refuse_columns(task, hint, self.budget, lab)
        shares = {"task": 1 - self.probability, "hint": self.probability}
        at = next(iter(task.of(Use.TRAIN).values())).at
        splits = {name: s for name, s in task.splits.items() if s.use is not Use.TRAIN}
        return replace(
            task, splits={"train": Split(Mixture(parts, shares), Use.TRAIN, at), **splits}
        )


def train_data(task: Task) -> Mixture:
    """The TRAIN splits, equally often."""
    return Mixture({name: split.data for name, split in task.of(Use.TRAIN).items()})


def _refuse_columns(task: Task, hint: Task, budget: Budget, lab: Lab) -> None:
    one, other = (
        sorted(next(forever(train_data(part), budget.batch_size, lab))) for part in (task, hint)
    )
    if one != other:
        raise InvalidData(
            f"Examples of `{task.name}` have the columns {one}, those of the hint `{hint.name}` "
            f"{other}.",
            why="one loss reads both.",
            fix="give the hint as a task in the same format.",
        )


@dataclass(frozen=True)
class ToyHint:
    """The toy task, as the hint of itself."""

    def build(self, lab: Lab) -> Task:
        return toy_task(lab)


def example() -> tuple[TaskHinting, Trained]:
    return TaskHinting(ToyHint(), budget=Budget(steps=20, batch_size=8)), toy_subject()
