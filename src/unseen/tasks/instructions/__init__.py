"""Tasks described by instructions, some for training and others for evaluation (Mishra et al.,
2022, arXiv:2104.08773; Wang et al., 2022, arXiv:2204.07705).

`read_instructions` reads JSON lines of one's own or the files of Natural Instructions,
`split_tasks` keeps tasks, categories or data sets from training, an `Encoding` says what a prompt
shows, and `Instructions` is the task.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unseen.engine.responses import Exchange, encode_exchanges
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.instructions.encoding import (
    INSTRUCTION,
    NONE,
    VARIANTS,
    EncodedPrompt,
    Encoding,
)
from unseen.tasks.instructions.source import (
    Example,
    Instance,
    InstructionTask,
    read_instructions,
)
from unseen.tasks.instructions.splits import (
    By,
    TaskSplit,
    published_indices,
    published_split,
    split_by_name,
    split_tasks,
)

__all__ = [
    "INSTRUCTION",
    "NONE",
    "VARIANTS",
    "By",
    "EncodedPrompt",
    "Encoding",
    "Example",
    "Instance",
    "InstructionTask",
    "Instructions",
    "TaskSplit",
    "draw_instances",
    "published_indices",
    "published_split",
    "read_instructions",
    "split_by_name",
    "split_tasks",
]

Encode = Callable[[str], Sequence[int]]


def byte_tokens(text: str) -> list[int]:
    """Bytes as token numbers from 1 on; 0 is left for the end."""
    return [byte + 1 for byte in text.encode()]


@dataclass(frozen=True)
class Instructions:
    """Instances of seen tasks for training, one split per unseen task for evaluation."""

    split: TaskSplit
    encoding: Encoding = INSTRUCTION
    encode: Encode = byte_tokens
    end: int | None = 0
    """The token that closes a response."""
    length: int = 512
    """Tokens of prompt and response."""
    response: int = 128
    """Of which a prompt leaves so many free."""
    n_train: int | None = None
    """Instances of each seen task; None: all."""
    n_test: int | None = None

    def build(self, lab: Lab) -> Task:
        train = [
            exchange
            for task in self.split.seen
            for exchange in self.exchanges(task, self.n_train, lab.child("train", task.name))
        ]
        data = encode_exchanges(train, self.encode, self.length, self.end).columns
        splits = {"seen tasks": Split(data, Use.TRAIN, "seen tasks")}
        for task in self.split.unseen:
            asked = self.exchanges(task, self.n_test, lab.child("test", task.name))
            columns = encode_exchanges(asked, self.encode, self.length, self.end).columns
            splits[task.name] = Split(columns, Use.EVALUATE, task.name)
        return Task(name="instructions", axis=Axis.TASK, splits=splits, objective=exact_match)

    def exchanges(self, task: InstructionTask, n: int | None, lab: Lab) -> list[Exchange]:
        return [
            Exchange(
                self.encoding.prompt(
                    task,
                    one.input,
                    size=lambda text: len(self.encode(text)),
                    most=self.length - self.response,
                ).text,
                " " + one.outputs[0],
            )
            for one in draw_instances(task, n, lab)
        ]


def draw_instances(task: InstructionTask, n: int | None, lab: Lab) -> list[Instance]:
    """n different instances in random order; all where there are fewer."""
    order = lab.numpy().permutation(len(task.instances))
    return [task.instances[k] for k in order[:n]]


def arithmetic_tasks() -> list[InstructionTask]:
    """Six small tasks on the same inputs: only the instruction says which."""
    rules: dict[str, tuple[str, Callable[[int, int], int]]] = {
        "sum": ("Add the numbers.", lambda a, b: a + b),
        "difference": ("Subtract the second number from the first.", lambda a, b: a - b),
        "product": ("Multiply the numbers.", lambda a, b: a * b),
        "larger": ("Write the larger number.", max),
        "smaller": ("Write the smaller number.", min),
        "first": ("Write the first number.", lambda a, b: a),
    }
    cells = [(a, b) for a in range(9, 4, -1) for b in range(5)]
    return [
        InstructionTask(
            name,
            (("Instruction", text),),
            tuple(Instance(f"{a} {b}", (str(rule(a, b)),)) for a, b in cells[1:]),
            (Example("9 0", str(rule(9, 0))),),
            category="selection" if rule in (max, min) or name == "first" else "arithmetic",
            dataset="made up",
        )
        for name, (text, rule) in rules.items()
    ]


def example() -> Instructions:
    split = split_tasks(arithmetic_tasks(), By.TASK, 0.4, Lab())
    return Instructions(split, n_train=4, n_test=3, length=96, response=8)
