"""Seen and unseen tasks: by task, or by what tasks share."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.tasks.instructions.source import InstructionTask
from unseen.text import count_noun

FEWEST = 2
"""Tasks on a side."""
FIRST, COUNT = 60, 100
"""The published evaluation: so many instances from this index on."""


class By(StrEnum):
    """What is whole on one side."""

    TASK = "task"
    CATEGORY = "category"
    DATASET = "dataset"


@dataclass(frozen=True)
class TaskSplit:
    """Tasks for training and for evaluation."""

    by: By
    seen: tuple[InstructionTask, ...]
    unseen: tuple[InstructionTask, ...]

    def __post_init__(self) -> None:
        for side, tasks in (("seen", self.seen), ("unseen", self.unseen)):
            if len(tasks) < FEWEST:
                raise InvalidData(
                    f"The {side} side has {count_noun(len(tasks), 'task')}.",
                    why="another task's instruction needs a second one, and an interval over "
                    "tasks needs two.",
                    fix="give more tasks, or another share.",
                )
        both = self.overlap(self.by)
        if both:
            raise InvalidData(
                f"The {self.by} `{both[0]}` is on both sides.",
                why=f"what shares its {self.by} is not unseen.",
                fix="put all its tasks on one side"
                + ("." if self.by is By.TASK else ", or split by task."),
            )

    def overlap(self, by: By) -> list[str]:
        """What stands on both sides, for example data sets where tasks are split."""
        names = [{_group(task, by) for task in side} - {""} for side in (self.seen, self.unseen)]
        return sorted(names[0] & names[1])


def _group(task: InstructionTask, by: By) -> str:
    return {By.TASK: task.name, By.CATEGORY: task.category, By.DATASET: task.dataset}[by]


def split_tasks(tasks: Sequence[InstructionTask], by: By, share: float, lab: Lab) -> TaskSplit:
    """Whole groups drawn for the unseen side until it has `share` of the tasks."""
    if not 0 < share < 1:
        raise InvalidConfig(
            f"A share of {share} of the tasks for evaluation.",
            why="both sides need tasks.",
            fix="--share 0.2",
        )
    groups: dict[str, list[InstructionTask]] = {}
    for task in tasks:
        groups.setdefault(task.group(by), []).append(task)
    names = list(groups)
    if len(names) < 2:
        raise InvalidData(
            f"All tasks have the {by} `{names[0]}`.",
            why="one side would be empty.",
            fix="split by task, or add others.",
        )
    wanted = max(FEWEST, round(share * len(tasks)))
    unseen: list[str] = []
    count = 0
    for k in lab.child("split").numpy().permutation(len(names)):
        size = len(groups[names[k]])
        fits = count + size <= max(wanted, FEWEST) or not unseen
        if count < wanted and fits and len(tasks) - count - size >= FEWEST:
            unseen.append(names[k])
            count += size
    return TaskSplit(
        By(by),
        tuple(task for name in names if name not in unseen for task in groups[name]),
        tuple(task for name in names if name in unseen for task in groups[name]),
    )


EVALUATION = (2, 3, 5, 8, 22, 33, 34, 39, 40, 44, 45, 52)
"""Numbers of the twelve tasks that the published split of version 1 evaluates."""


def published_split(tasks: Sequence[InstructionTask]) -> TaskSplit:
    """The split of Mishra et al. (2022) by the numbers in the tasks' names (`subtask003_…`); tasks
    that are not there are missing on their side.
    """

    def is_evaluated(task: InstructionTask) -> bool:
        number = task.name.removeprefix("subtask").split("_")[0]
        return number.isdigit() and int(number) in EVALUATION

    return TaskSplit(
        By.TASK,
        tuple(task for task in tasks if not is_evaluated(task)),
        tuple(task for task in tasks if is_evaluated(task)),
    )


def split_by_name(tasks: Sequence[InstructionTask], by: By, unseen: Sequence[str]) -> TaskSplit:
    """The named tasks unseen, the others seen."""
    names = [task.name for task in tasks]
    for name in unseen:
        if name not in names:
            raise UnknownName.near("task", name, names)
    return TaskSplit(
        By(by),
        tuple(task for task in tasks if task.name not in unseen),
        tuple(task for task in tasks if task.name in unseen),
    )


def published_indices(n: int) -> list[int]:
    """60, 60 + s, …: a hundred instances of n at steps of s = ⌊(n − 60) / 100⌋."""
    step = (n - FIRST) // COUNT
    if step < 1:
        raise InvalidData(
            f"{n} instances are too few for the published rule.",
            why=f"it takes {COUNT} at equal steps from index {FIRST} on, and the step would be 0.",
            fix=f"give at least {FIRST + COUNT}, or evaluate others.",
        )
    return [FIRST + k * step for k in range(COUNT)]
