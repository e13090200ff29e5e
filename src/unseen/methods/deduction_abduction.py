"""Deduction and abduction: the neural-symbolic recursive machine as a method (Li et al., 2024,
arXiv:2210.01603).
"""

from dataclasses import dataclass, field

from torch import nn

from unseen.engine.batches import once
from unseen.engine.parameters import copy_parameters
from unseen.engine.token_pairs import END, Pair, Vocabulary, encode_pairs, pair
from unseen.errors import UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.neural_symbolic import Learning, NeuralSymbolicRecursiveMachine
from unseen.models.neural_symbolic.machine import read_row
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use


@dataclass(frozen=True)
class DeductionAbduction:
    """Fits a `NeuralSymbolicRecursiveMachine` on a task of token pairs.

    Given is what the machine was built with, the number of children of every symbol, and the pairs.
    """

    learning: Learning = field(default_factory=Learning)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        if not isinstance(model, NeuralSymbolicRecursiveMachine) or model.vocabulary is None:
            raise UnsupportedLayer(
                f"{type(model).__name__} is no machine with a vocabulary.",
                why="deduction and abduction learn the programs of its symbols.",
                fix="NeuralSymbolicRecursiveMachine(arity, vocabulary=spec.vocabulary).",
            )
        start = copy_parameters(model)
        pairs = training_pairs(task, model.vocabulary, lab)
        report = model.fit(pairs, lab, self.learning)
        curves = {
            "right": [epoch.right for epoch in report.epochs],
            "solved": [float(epoch.solved) for epoch in report.epochs],
        }
        return Trained(model.eval(), task, curves, start)


def training_pairs(task: Task, vocabulary: Vocabulary, lab: Lab) -> list[Pair]:
    """The pairs of the TRAIN splits as tokens."""
    found = []
    for split in task.of(Use.TRAIN).values():
        for batch in once(split.data, 1024, lab):
            for row in batch["tokens"].tolist():
                source, start = read_row(row, vocabulary)
                target = row[start + 1 : row.index(END, start)]
                found.append(Pair(source, vocabulary.decode(target)))
    return found


def example() -> tuple[DeductionAbduction, Trained]:
    """Two verbs that may be repeated, as a task and an untrained machine for it."""
    times = {"": 1, "twice": 2, "thrice": 3}
    pairs = [
        pair(f"{verb} {word}", " ".join([verb.upper()] * n))
        for verb in ("walk", "run", "jump", "look")
        for word, n in times.items()
    ]
    words = Vocabulary.of(pairs)
    shown, asked = pairs[:10], pairs[10:]
    task = Task(
        name="verbs",
        axis=Axis.COMPOSITION,
        objective=exact_match,
        splits={
            "train": Split(encode_pairs(shown, words), Use.TRAIN, "shown"),
            "unseen": Split(encode_pairs(asked, words), Use.EVALUATE, "new"),
        },
    )
    arity = {**dict.fromkeys(("walk", "run", "jump", "look"), 0), "twice": 1, "thrice": 1}
    with Lab().seeded():
        machine = NeuralSymbolicRecursiveMachine(arity, vocabulary=words)
    return DeductionAbduction(Learning(epochs=8, sample=20)), Trained(machine, task)
