"""How much are general instruction data worth to a target: alone, mixed in, and at several sizes of
target data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.batches import Columns, forever
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.contamination import Contamination, TextSets
from unseen.measures.generalist_gain import LearningCurves
from unseen.measures.text_overlap import SCORES, Overlap
from unseen.models.pretrained import CausalLM
from unseen.reading import Reading
from unseen.subjects.instruction_mixture import GENERAL, TARGET, count_beside, mix
from unseen.subjects.instruction_tuning import InstructionTuning
from unseen.tasks.instructions import INSTRUCTION, Instance, InstructionTask

FEWEST_TEST = 10
FEWEST_TRAIN = 8


class TaskInstance(NamedTuple):
    """An instance with its task."""

    task: InstructionTask
    one: Instance

    @property
    def text(self) -> str:
        return f"{self.one.input}\n{self.one.outputs[0]}"


@dataclass(frozen=True)
class MixtureRequest:
    """What is asked."""

    target: tuple[InstructionTask, ...]
    general: tuple[InstructionTask, ...]
    share: float = 0.5
    sizes: tuple[int, ...] = ()
    """Target examples; empty: a sixteenth, a quarter and all of those that are not of the test."""
    n_test: int = 60
    tuning: InstructionTuning = field(default_factory=InstructionTuning)

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise InvalidConfig(
                f"General data have a share of {self.share}.",
                why="the target needs a part of every step.",
                fix="--share 0.5",
            )
        if self.n_test < 1:
            raise InvalidConfig(
                f"{self.n_test} target examples for a test.",
                why=f"at least {FEWEST_TEST} are asked.",
                fix="--test-items 60",
            )

    def general_examples(self, available: int) -> int:
        """In a step of the mixture, beside the target's."""
        if not self.share:
            return 0
        return min(available, count_beside(self.tuning.budget.batch_size, self.share))


@dataclass(frozen=True)
class MixtureResults:
    """Scores of every arm on the same test items, by overlap."""

    request: MixtureRequest
    sizes: tuple[int, ...]
    scores: Mapping[str, Mapping[Overlap, Float[Tensor, " item"]]]
    contamination: Reading
    general_left_out: int
    n_general: int
    target_tokens: Mapping[int, int]
    """Of answers that the loss has read, by size: the same with and without general data."""

    def curves(self, overlap: Overlap) -> LearningCurves:
        return LearningCurves(
            self.sizes,
            torch.stack([self.scores[specialist_arm(n)][overlap] for n in self.sizes]),
            torch.stack([self.scores[mixture_arm(n)][overlap] for n in self.sizes]),
        )


UNTUNED, GENERALIST = "untuned", "generalist"


def specialist_arm(n: int) -> str:
    return f"specialist, {n}"


def mixture_arm(n: int) -> str:
    return f"mixed, {n}"


def flatten(tasks: Sequence[InstructionTask]) -> list[TaskInstance]:
    return [TaskInstance(task, one) for task in tasks for one in task.instances]


def split_target(
    request: MixtureRequest, lab: Lab
) -> tuple[list[TaskInstance], list[TaskInstance]]:
    """Training examples in random order, of which a size takes the first, and the test."""
    rows = flatten(request.target)
    order = [rows[k] for k in lab.child("target").numpy().permutation(len(rows))]
    n_test = min(request.n_test, len(rows) // 3)
    test, train = order[:n_test], order[n_test:]
    texts = {row.text for row in test}
    train = [row for row in train if row.text not in texts]
    if len(test) < FEWEST_TEST or len(train) < FEWEST_TRAIN:
        raise InvalidData(
            f"{len(rows)} target examples give {len(test)} for a test and {len(train)} others.",
            why=f"at least {FEWEST_TEST} are asked, and {FEWEST_TRAIN} trained on.",
            fix="give more target examples.",
        )
    return train, test


def choose_sizes(request: MixtureRequest, available: int) -> tuple[int, ...]:
    """The sizes asked for, or a sixteenth, a quarter and all."""
    if not request.sizes:
        wanted = (available // 16, available // 4, available)
        return tuple(sorted({max(FEWEST_TRAIN, n) for n in wanted}))
    if min(request.sizes) < 1 or max(request.sizes) > available:
        raise InvalidConfig(
            f"Sizes {', '.join(map(str, request.sizes))} of target data.",
            why=f"{available} target examples are left for training.",
            fix=f"choose sizes from 1 to {available}.",
        )
    return tuple(sorted(set(request.sizes)))


def clean_general(
    request: MixtureRequest, test: Sequence[TaskInstance], lab: Lab
) -> tuple[list[TaskInstance], Reading]:
    """General examples that share no run of 13 words with the test, and how many of the test's
    stood in them.
    """
    rows = flatten(request.general)
    if not rows:
        raise InvalidData(
            "There are no general examples.",
            why="a mixture without them is the specialist.",
            fix="give general data.",
        )
    measure = Contamination()
    found = measure(TextSets([row.text for row in test], [row.text for row in rows]), lab)
    known = {run for row in test for run in measure.runs(row.text)}
    kept = [row for row in rows if known.isdisjoint(measure.runs(row.text))]
    if not kept:
        raise InvalidData(
            "Every general example shares text with the target's test.",
            why="the general data are the test.",
            fix="give other general data.",
        )
    return kept, found


def compare_mixture(
    model: CausalLM,
    request: MixtureRequest,
    lab: Lab,
    on_finish: Callable[[object], None] = lambda _: None,
) -> MixtureResults:
    """Trains the specialist and the mixture at every size, and the generalist."""
    train, test = split_target(request, lab)
    sizes = choose_sizes(request, len(train))
    general, contamination = clean_general(request, test, lab)
    tuning = request.tuning

    def columns(rows: Sequence[TaskInstance]) -> Columns:
        exchanges = [
            tuning.exchange(
                model, tuning.prompt(model, row.task, row.one.input, INSTRUCTION), row.one
            )
            for row in rows
        ]
        return tuning.encode(model, exchanges).columns

    broad = columns(general)
    prompts = [tuning.prompt(model, row.task, row.one.input, INSTRUCTION) for row in test]

    def score(tuned: CausalLM) -> dict[Overlap, Float[Tensor, " item"]]:
        texts = tuning.write(tuned, prompts)
        return {
            overlap: torch.tensor(
                [rule(text, row.one.outputs) for text, row in zip(texts, test, strict=True)],
                dtype=torch.float64,
            )
            for overlap, rule in SCORES.items()
        }

    scores = {UNTUNED: score(model)}
    # "target" names the stream: the target's minibatches are the same in every arm
    scores[GENERALIST] = score(tuning.fit(model, {GENERAL: broad}, lab.child("fit")))
    on_finish(GENERALIST)
    tokens = {}
    for n in sizes:
        own = columns(train[:n])
        tokens[n] = count_targets(own, tuning, lab.child("fit"))
        for name, parts in (
            (specialist_arm(n), mix(own, None, 0.0)),
            (mixture_arm(n), mix(own, broad, request.share)),
        ):
            scores[name] = score(tuning.fit(model, parts, lab.child("fit")))
            on_finish(name)
    left_out = len(flatten(request.general)) - len(general)
    return MixtureResults(request, sizes, scores, contamination, left_out, len(general), tokens)


def count_targets(data: Columns, tuning: InstructionTuning, lab: Lab) -> int:
    """Tokens of answers in the target's minibatches of a training."""
    budget = tuning.budget
    stream = forever(data, budget.batch_size, lab.child(TARGET))
    return sum(int(batch["mask"].sum()) for batch in islice(stream, budget.steps))
