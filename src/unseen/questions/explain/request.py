"""What is asked about a model: which examples, by which method, and the one number per example that
is explained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from unseen.attributions.explanation.guide import Question
from unseen.engine.batches import to_device
from unseen.errors import InvalidConfig, InvalidData
from unseen.objectives import sequence_log_probability
from unseen.subjects.session import Session
from unseen.task import Batch, PerExample

EXPLAINED = "explained"
"""The column with the class, or token, whose log-odds are explained: fixed while the input is
perturbed.
"""


@dataclass(frozen=True, kw_only=True)
class ExplainRequest:
    """What is to be explained."""

    split: str = ""
    """Where examples are taken from; empty: the evaluation split that matters most."""
    rows: Sequence[int] = ()
    """Rows of the user's table, or positions in the split; empty: `examples` of the split, drawn at
    random.
    """
    examples: int = 8
    method: str = ""
    """One of the eight; empty: the most faithful one."""
    question: Question = Question.REMOVE
    sample: int = 64
    """Inputs on which methods are compared."""
    draws: int = 1_000
    """Perturbations per input."""
    sigma: float = 0.25
    """Of the noise, for the question "change", in standard deviations of the fitted inputs."""
    target: int | None = None
    """Class to explain; None: the predicted one of each example."""
    baseline: float | None = None
    """What a removed feature becomes; None: the mean of the fitted inputs; for tokens the
    tokenizer's padding.
    """


@dataclass(frozen=True)
class TargetFunction:
    """A function of model and batch, in words and with its unit."""

    f: PerExample
    says: str
    unit: str
    column: str = "x"


def target_function(session: Session, batch: Batch, target: int | None) -> TargetFunction:
    """What is explained: log-odds of a class, a predicted number in its own unit, the
    log-probability of an answer.
    """
    column = "x" if "x" in batch else "tokens"
    if column not in batch:
        raise InvalidData(
            f"Examples hold {', '.join(batch)}.",
            "inputs are the column `x` or `tokens`.",
            "rename the input column.",
        )
    if column == "tokens" and "mask" in batch:
        return TargetFunction(
            sequence_log_probability, "log-probability of the marked tokens", "nats", column
        )
    with torch.no_grad():
        z = session.first.model(to_device({column: batch[column][:1]}, session.lab)[column])
    if column == "tokens" and z.dim() == 3:
        return TargetFunction(
            partial(_next_token, column),
            "log-probability of the most likely next token",
            "nats",
            column,
        )
    if session.classifies:
        names = session.subject.classes
        told = (
            "the predicted class"
            if target is None
            else (names[target] if target < len(names) else f"class {target}")
        )
        return TargetFunction(partial(_log_odds, column), f"log-odds of {told}", "log-odds", column)
    if z.numel() != 1:
        raise InvalidData(
            f"The model has {z.numel()} outputs per example, and the targets are no classes.",
            why="what is explained is one number per example.",
            fix="explain one output with unseen.attributions.explanation from Python.",
        )
    scale, centre = session.subject.unit, session.subject.centre
    return TargetFunction(
        lambda m, b: centre + scale * m(b[column]).reshape(len(b[column])),
        "predicted value",
        "",
        column,
    )


def _log_odds(column: str, model: nn.Module, batch: Batch) -> Tensor:
    """log p/(1 − p) of the class in `explained`: unlike p it does not saturate, unlike one logit it
    means something.
    """
    z, chosen = model(batch[column]), batch[EXPLAINED]
    if z.dim() == 1 or z.shape[1] == 1:
        return z.reshape(len(z)) * (2 * chosen - 1)
    own = z.gather(1, chosen[:, None])[:, 0]
    return own - z.scatter(1, chosen[:, None], float("-inf")).logsumexp(1)


def _next_token(column: str, model: nn.Module, batch: Batch) -> Tensor:
    return model(batch[column])[:, -1].log_softmax(-1).gather(1, batch[EXPLAINED][:, None])[:, 0]


@torch.no_grad()
def with_target(
    session: Session, batch: Batch, behaviour: TargetFunction, target: int | None
) -> Batch:
    """The batch with the class, or token, to explain."""
    batch = to_device(batch, session.lab)
    z = session.first.model(batch[behaviour.column])
    z = z[:, -1] if z.dim() == 3 else z
    if target is not None:
        most = 2 if z.dim() == 1 or z.shape[1] == 1 else z.shape[1]
        if not 0 <= target < most:
            raise InvalidConfig(
                f"target={target} of {most} classes.", "classes count from 0.", "correct the class."
            )
        chosen = torch.full((len(z),), target, device=z.device)
    elif z.dim() == 1 or z.shape[1] == 1:
        chosen = (z.reshape(len(z)) > 0).long()
    else:
        chosen = z.argmax(1)
    return {**batch, EXPLAINED: chosen}
