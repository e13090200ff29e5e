"""Margins f(x)[y] − max over j ≠ y of f(x)[j] of classifications, binary ones and next tokens."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.errors import InvalidData
from unseen.objectives import IGNORED
from unseen.task import Batch, Objective


@torch.no_grad()
def logits_of(model: nn.Module, batch: Batch, objective: Objective) -> Tensor:
    """What the model put out last while the objective was evaluated."""
    with recorded_outputs(model) as outputs:
        objective.loss(model, batch)
    return last_logits(outputs)


@contextlib.contextmanager
def recorded_outputs(model: nn.Module) -> Iterator[list[Any]]:
    """What the model puts out inside the block, call by call."""
    outputs: list[Any] = []
    handle = model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def last_logits(outputs: list[Any]) -> Tensor:
    """The last of a model's outputs, refused unless it holds logits."""
    found = outputs[-1] if outputs else None
    found = getattr(found, "logits", found)
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise InvalidData(
            f"The loss read {type(found).__name__} from the model.",
            why="margins are differences of its logits.",
            fix="let the loss call the model, and the model return logits.",
        )
    return found


def margins(model: nn.Module, batch: Batch, objective: Objective) -> Float[Tensor, " n"]:
    """The margin of every example, or of every predicted token, that has a label; in float64."""
    return margins_of(logits_of(model, batch, objective), batch)


def margins_of(logits: Tensor, batch: Batch) -> Float[Tensor, " n"]:
    """The margins of these outputs for the batch."""
    logits = logits.detach().double().cpu()
    if "tokens" in batch:
        logits, labels = _token_targets(logits, batch)
    elif "y" in batch or "labels" in batch:
        labels = batch["y" if "y" in batch else "labels"].cpu()
    else:
        raise _no_margins("the examples have no column `y`")
    if logits.dim() == 2 and logits.shape[1] > 1 and not labels.is_floating_point():
        return class_margins(logits, labels)
    if logits.numel() == len(labels) and bool(((labels == 0) | (labels == 1)).all()):
        return logits.reshape(-1) * (2 * labels.reshape(-1).double() - 1)
    raise _no_margins(
        f"outputs of shape {tuple(logits.shape)} and targets of shape {tuple(labels.shape)}, "
        f"{labels.dtype}"
    )


def class_margins(logits: Float[Tensor, "n classes"], labels: Tensor) -> Float[Tensor, " labelled"]:
    """f(x)[y] − max over j ≠ y of f(x)[j]; rows labelled −100 have none."""
    rows = labels != IGNORED
    logits, labels = logits[rows], labels[rows].long()
    right = logits.gather(1, labels[:, None]).squeeze(1)
    return right - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def _token_targets(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows of logits with the token that follows; −100 where none counts."""
    tokens = batch["tokens"]
    targets = batch.get("labels", tokens)[:, 1:].cpu()
    if "mask" in batch:
        targets = torch.where(batch["mask"][:, 1:].cpu() > 0, targets, IGNORED)
    return logits[:, :-1].flatten(0, 1), targets.flatten()


def _no_margins(found: str) -> InvalidData:
    return InvalidData(
        f"There are no margins: {found}.",
        why="a margin is the lead of the right class over the next one.",
        fix="read the measures without margins of this model.",
    )
