"""The network and the length of training of a subject that brings none of its own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import false_discovery_control
from scipy.stats import t as student
from torch import Tensor, nn

from unseen.engine.batches import length, once
from unseen.engine.loop import Budget, Optimizer
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.feature_reliance import association
from unseen.models.mlp import SelectInputs, mlp
from unseen.task import Task, Use

HIDDEN = (64, 32)
"""Hidden units of the network."""
PASSES = 15
"""How often the training examples are read, about."""
ROWS_PER_INPUT = 5
"""With fewer rows per input the network reads only some of them."""
FALSE_DISCOVERIES, FEWEST_INPUTS = 0.1, 5
READINGS = 20
"""How often the selection loss is read, about."""
OPTIMIZERS = {Optimizer.SGD: "SGD", Optimizer.ADAM: "Adam", Optimizer.ADAMW: "AdamW"}


def small_network(inputs: int, outputs: int, chosen: Sequence[int] | None = None) -> nn.Sequential:
    """A multilayer perceptron with two hidden layers, of all inputs or of chosen ones."""
    if chosen is None:
        return mlp([inputs, *HIDDEN, outputs])
    return nn.Sequential(SelectInputs(chosen), mlp([len(chosen), *HIDDEN, outputs]))


def telling_inputs(
    x: Float[Tensor, "n input"], y: Shaped[Tensor, "n *output"]
) -> Sequence[int] | None:
    """Which inputs the network reads where there is one for every five rows or fewer: those
    associated with the target (sure independence screening, Fan & Lv, 2008), each alone at a false
    discovery rate of 10 %; None: all. Of 300 inputs, 293 of them noise, and 440 rows all give AUC
    0.57, these 0.80. What tells the target only beside another input is lost.
    """
    n, inputs = x.flatten(1).shape
    if inputs * ROWS_PER_INPUT < n:
        return None
    r = association(x, y).numpy().clip(0, 1 - 1e-9)
    p = 2 * student.sf(r * np.sqrt((n - 2) / (1 - r**2)), n - 2)
    count = max(FEWEST_INPUTS, int((false_discovery_control(p) <= FALSE_DISCOVERIES).sum()))
    return sorted(np.argsort(p, kind="stable")[:count].tolist())


def sizes(task: Task) -> tuple[int, int]:
    """Numbers per input, and outputs: classes, or the dimension of the target."""
    x: Tensor | None = None
    outputs = 0
    for split in task.splits.values():
        for batch in once(split.data, 4096, Lab()):
            has_target = "y" in batch
            is_numeric = "x" in batch and batch["x"].is_floating_point()
            if not is_numeric or not (has_target or split.use is Use.ADAPT):
                raise InvalidData(
                    f"Task `{task.name}` has no numbers `x` with targets `y`.",
                    why="the ready network is a multilayer perceptron.",
                    fix="give a model of your own: unseen compare my_model.py:subject.",
                )
            x = batch["x"]
            if has_target:
                y = batch["y"]
                classes = y[0].numel() if y.is_floating_point() else int(y.max()) + 1
                outputs = max(outputs, classes)
    assert x is not None  # a task has a split to fit, and `once` refuses empty ones
    return x[0].numel(), outputs


def budget_for(examples: int, per_step: int, batch_size: int, least: int, most: int) -> Budget:
    """About fifteen passes of AdamW over the examples, `per_step` of them in each of `least` to
    `most` steps.
    """
    steps = int(np.clip(PASSES * examples / per_step, least, most))
    return Budget(steps=steps, batch_size=batch_size, lr=2e-3, weight_decay=1e-2)


def budget_for_rows(examples: int) -> Budget:
    """For rows that are trained on as one split; large tables in larger minibatches."""
    batch_size = 64 if examples < 5_000 else 256
    return budget_for(examples, batch_size, batch_size, 60, 3_000)


def budget_for_table(examples: int) -> Budget:
    """The same for the ready network of a table: the weights with the lowest loss on the rows that
    select are evaluated, of twenty readings. The last ones are too sure of themselves: on tables
    of 240 to 1,200 rows, where nothing is wrong, their log odds were 1.1 to 10 times too far from
    zero.
    """
    budget = budget_for_rows(examples)
    # 0.01 shrinks nothing in a few hundred steps of AdamW
    return replace(budget, weight_decay=1.0, select_every=select_interval(budget.steps))


def select_interval(steps: int) -> int:
    """Steps from one reading of the selection loss to the next."""
    return max(1, steps // READINGS)


def budget_for_domains(task: Task) -> Budget:
    """For a training split per domain: 32 examples of each in a step, 64 of a single one."""
    examples = [length(split.data) or 10_000 for split in task.of(Use.TRAIN).values()]
    batch_size = 32 if len(examples) > 1 else 64
    return budget_for(sum(examples), batch_size * len(examples), batch_size, 100, 2_000)


NETWORK = "The network is a multilayer perceptron"
TEXT_MODEL = "The model reads the text"
"""How sentences on what is trained begin."""


def describe_network(
    inputs: int,
    outputs: int,
    budget: Budget,
    *,
    per_domain: bool = False,
    chosen: Sequence[int] | None = None,
) -> str:
    """What is trained, and for how long, unless a search says otherwise."""
    read = inputs if chosen is None else len(chosen)
    layers = "-".join(map(str, (read, *HIDDEN, outputs)))
    if chosen is not None:
        layers += (
            f" (there are {inputs} inputs, more than one for {ROWS_PER_INPUT} training rows: it "
            f"reads the {read} that are each associated with the target there, at a false "
            "discovery rate of 10 %)"
        )
    each = " of each domain" if per_domain else ""
    return (
        f"{NETWORK} {layers}, trained with "
        f"{OPTIMIZERS[budget.optimizer]} for "
        f"{budget.steps} steps of {budget.batch_size} examples{each}; {_evaluated_weights(budget)} "
        "are evaluated."
    )


def _evaluated_weights(budget: Budget) -> str:
    if not budget.select_every:
        return "its last weights"
    return (
        f"of the weights at {READINGS} moments those with the lowest loss on the rows that select "
        "(early stopping)"
    )


def describe_other_steps(decisions: Sequence[str], before: Budget, steps: int) -> list[str]:
    """The same decisions where the network is trained for so many steps instead."""
    size = f"steps of {before.batch_size}"
    return [
        text.replace(f"{before.steps} {size}", f"{steps} {size}")
        if text.startswith((NETWORK, TEXT_MODEL))
        else text
        for text in decisions
    ]
