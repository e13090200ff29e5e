"""Does a language model fine-tuned with instructions use them on tasks that it never saw?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.text_overlap import SCORES, Overlap
from unseen.models.pretrained import CausalLM
from unseen.models.response_loss import response_loss
from unseen.reading import Reading
from unseen.subjects.instruction_tuning import InstructionTuning
from unseen.tasks.instructions import (
    NONE,
    By,
    EncodedPrompt,
    Encoding,
    Example,
    Instance,
    InstructionTask,
    TaskSplit,
    draw_instances,
    split_by_name,
    split_tasks,
)

Array = NDArray[np.float64]


class Condition(StrEnum):
    """What the prompt of an unseen task shows."""

    NONE = "no instruction"
    INSTRUCTION = "instruction"
    EXAMPLES = "instruction and examples"
    OTHER = "another task's instruction"


@dataclass(frozen=True)
class InstructionRequest:
    """What is asked."""

    tasks: tuple[InstructionTask, ...]
    by: By = By.TASK
    share: float = 0.25
    unseen: tuple[str, ...] = ()
    """Names of the unseen tasks; empty: a share is drawn."""
    n_train: int = 40
    """Instances of each seen task."""
    n_test: int = 20
    """Of each unseen one."""
    shots: int = 1
    """Examples in a prompt."""
    tuning: InstructionTuning = field(default_factory=InstructionTuning)
    before: bool = True
    """Whether the model answers before it is tuned, too."""

    def __post_init__(self) -> None:
        if min(self.n_train, self.n_test, self.shots) < 1:
            raise InvalidConfig(
                f"{self.n_train} training and {self.n_test} test instances of a task, "
                f"{self.shots} examples.",
                why="each is at least one.",
                fix="--train-items 40 --test-items 20 --shots 1",
            )

    def encodings(self) -> dict[Condition, Encoding]:
        return {
            Condition.NONE: NONE,
            Condition.INSTRUCTION: Encoding(),
            Condition.EXAMPLES: Encoding(positive=self.shots),
            Condition.OTHER: Encoding(),
        }


@dataclass(frozen=True)
class TaskAnswers:
    """What the model wrote for the instances of one unseen task, by when and condition."""

    task: InstructionTask
    instances: tuple[Instance, ...]
    texts: Mapping[tuple[str, Condition], tuple[str, ...]]

    def scores(self, when: str, condition: Condition, overlap: Overlap) -> Array:
        pairs = zip(self.texts[when, condition], self.instances, strict=True)
        return np.array([SCORES[overlap](text, one.outputs) for text, one in pairs])

    @property
    def is_short(self) -> bool:
        """Whether right outputs are single words: ROUGE-L is exact match there."""
        return all(len(text.split()) == 1 for one in self.instances for text in one.outputs)


@dataclass(frozen=True)
class InstructionResults:
    """Answers to every unseen task, and what went into the training."""

    request: InstructionRequest
    split: TaskSplit
    answers: tuple[TaskAnswers, ...]
    train_examples: int
    train_tokens: int
    target_tokens: int
    examples_cut: int
    """Examples that did not fit into prompts."""
    inputs_shortened: int
    loss: tuple[float, float]
    """Of some training examples, before and after."""

    @property
    def moments(self) -> list[str]:
        return list(dict.fromkeys(when for when, _ in self.answers[0].texts))

    def conditions(self, when: str) -> list[Condition]:
        return [one for moment, one in self.answers[0].texts if moment == when]

    def score(self, when: str, condition: Condition, overlap: Overlap) -> Reading:
        """Mean over unseen tasks, tasks counting once."""
        means = [one.scores(when, condition, overlap).mean() for one in self.answers]
        return stats.mean(means, within=(0.0, 1.0), unit="fraction")

    def difference(
        self, overlap: Overlap, of: tuple[str, Condition], against: tuple[str, Condition]
    ) -> Reading:
        """Paired over tasks."""
        left, right = (
            [one.scores(*arm, overlap).mean() for one in self.answers] for arm in (of, against)
        )
        return stats.difference(left, right, unit="fraction")

    def benefit(self, overlap: Overlap) -> Reading:
        """What the instruction adds after tuning."""
        return self.difference(overlap, (AFTER, Condition.INSTRUCTION), (AFTER, Condition.NONE))


BEFORE, AFTER = "before tuning", "after tuning"


def with_examples(task: InstructionTask, shots: int) -> InstructionTask:
    """The task with at least one right example: without any the first instances are taken, and
    are not asked any more.
    """
    if task.positive or len(task.instances) <= shots:
        return task
    first = tuple(Example(one.input, one.outputs[0]) for one in task.instances[:shots])
    return InstructionTask(
        task.name, task.fields, task.instances, first, task.negative, task.category, task.dataset
    )


def compare_instructions(
    model: CausalLM,
    request: InstructionRequest,
    lab: Lab,
    after_training: Callable[[], None] = lambda: None,
) -> InstructionResults:
    """Fine-tunes a copy of the model on the seen tasks and lets it answer the unseen ones, which
    may take longer than the training.
    """
    tasks = [with_examples(task, request.shots) for task in request.tasks]
    split = (
        split_by_name(tasks, request.by, request.unseen)
        if request.unseen
        else split_tasks(tasks, request.by, request.share, lab)
    )
    refuse_no_instruction(split)
    tuning = request.tuning
    prompts: list[EncodedPrompt] = []
    exchanges = []
    # every condition but the control is trained on in turn: no prompt of the test has a new form
    forms = [request.encodings()[c] for c in Condition if c is not Condition.OTHER]
    for task in split.seen:
        drawn = draw_instances(task, request.n_train, lab.child("train", task.name))
        for one, encoding in zip(drawn, cycle(forms)):
            prompts.append(tuning.prompt(model, task, one.input, encoding))
            exchanges.append(tuning.exchange(model, prompts[-1], one))
    data = tuning.encode(model, exchanges)
    # before the training: what cannot be asked is refused before the long work
    asked = [
        TaskPrompts.of(
            model,
            task,
            split.unseen[k - 1],
            tuple(draw_instances(task, request.n_test, lab.child("test", task.name))),
            request,
        )
        for k, task in enumerate(split.unseen)
    ]
    tuned = tuning.fit(model, {"seen tasks": data.columns}, lab.child("fit"))
    after_training()
    models = {BEFORE: model, AFTER: tuned} if request.before else {AFTER: tuned}
    told = lab.sink.track((*lab.path, "answers"), asked, len(asked))
    answers = [answer_task(models, one, tuning) for one in told]
    prompts += [prompt for one in asked for shown in one.prompts.values() for prompt in shown]
    ends = [mean_loss(one, data.columns, lab) for one in (model, tuned)]
    return InstructionResults(
        request=request,
        split=split,
        answers=tuple(answers),
        train_examples=len(exchanges),
        train_tokens=data.tokens,
        target_tokens=data.targets,
        examples_cut=sum(one.examples_cut for one in prompts),
        inputs_shortened=sum(one.is_shortened for one in prompts),
        loss=(ends[0], ends[1]),
    )


def refuse_no_instruction(split: TaskSplit) -> None:
    """Without instructions every prompt is that of no instruction."""
    for task in split.unseen:
        if not task.fields:
            raise InvalidData(
                f"The unseen task `{task.name}` has no instruction.",
                why="its answers with and without one are compared.",
                fix="write an `instruction` into its lines, or leave the task out.",
            )


SAMPLE = 32
"""Training examples whose loss is read."""


def mean_loss(model: CausalLM, data: Columns, lab: Lab) -> float:
    """Nats per token of the answers, over examples from all over the data."""
    step = max(1, len(data) // SAMPLE)
    few = data.subset(slice(None, step * SAMPLE, step))
    return float(per_example(model, few, response_loss, lab, batch_size=4).mean())


@dataclass(frozen=True)
class TaskPrompts:
    """Instances of an unseen task, and their prompts by condition."""

    task: InstructionTask
    instances: tuple[Instance, ...]
    prompts: Mapping[Condition, list[EncodedPrompt]]

    @classmethod
    def of(
        cls,
        model: CausalLM,
        task: InstructionTask,
        other: InstructionTask,
        instances: tuple[Instance, ...],
        request: InstructionRequest,
    ) -> "TaskPrompts":
        """`other` is the task whose instruction is the control."""

        def prompt(condition: Condition, encoding: Encoding, one: Instance) -> EncodedPrompt:
            instruction = other if condition is Condition.OTHER else None
            return request.tuning.prompt(model, task, one.input, encoding, instruction)

        prompts = {
            condition: [prompt(condition, encoding, one) for one in instances]
            for condition, encoding in request.encodings().items()
        }
        return cls(task, instances, prompts)


def answer_task(
    models: Mapping[str, CausalLM], asked: TaskPrompts, tuning: InstructionTuning
) -> TaskAnswers:
    """What the models write in every condition."""
    texts: dict[tuple[str, Condition], tuple[str, ...]] = {}
    for when, model in models.items():
        for condition, prompts in asked.prompts.items():
            if when == BEFORE and condition not in (Condition.NONE, Condition.INSTRUCTION):
                continue  # what tuning adds is read from these two
            texts[when, condition] = tuple(tuning.write(model, prompts))
    return TaskAnswers(asked.task, asked.instances, texts)
