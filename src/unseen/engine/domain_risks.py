"""Minibatches as environments: one per TRAIN split, together or each with its own risk."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.engine.loop import Draw
from unseen.errors import InvalidData
from unseen.task import Batch, Objective


def environments(draw: Draw, who: str) -> list[Batch]:
    """The minibatches of the TRAIN splits, at least two."""
    require_domains(len(draw.fit), who)
    return list(draw.fit.values())


def require_domains(domains: int, who: str) -> None:
    """Raises `InvalidData` for one domain."""
    if domains < 2:
        raise InvalidData(
            f"{who} needs at least two training domains, and the task has one split to fit.",
            why="it compares domains, and of one domain nothing can be compared.",
            fix="give one TRAIN split per domain (`unseen.tasks.domains`), or use a method without "
            "domains.",
        )


def risks(model: nn.Module, draw: Draw, objective: Objective) -> Float[Tensor, " domain"]:
    """The mean loss of each TRAIN split's minibatch."""
    return torch.stack(
        [losses.mean() for losses in losses_by_domain(model, list(draw.fit.values()), objective)]
    )


def losses_by_domain(
    model: nn.Module, batches: Sequence[Batch], objective: Objective
) -> list[Tensor]:
    """The losses of every example, by minibatch: of all in one pass where that is the same."""
    if not mergeable(model, batches):
        return [objective.loss(model, batch) for batch in batches]
    return list(
        objective.loss(model, merge_batches(batches)).split([size(batch) for batch in batches])
    )


def mergeable(model: nn.Module, batches: Sequence[Batch]) -> bool:
    """Whether one pass over all minibatches gives what one pass over each gives: equal columns, no
    batch statistics.
    """
    shapes = [{key: column.shape[1:] for key, column in batch.items()} for batch in batches]
    mixing = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    return not mixing and all(shape == shapes[0] for shape in shapes)


def merge_batches(batches: Iterable[Batch], axis: int = 0) -> Batch:
    """All examples as one minibatch, with the columns that every one of them has."""
    batches = list(batches)
    shared = [key for key in batches[0] if all(key in batch for batch in batches)]
    return {key: torch.cat([batch[key] for batch in batches], axis) for key in shared}


def inputs_of(batch: Batch, who: str) -> Tensor:
    """The column `x`, if its values can be moved a little."""
    x = batch.get("x")
    if x is None or not x.is_floating_point():
        raise InvalidData(
            f"{who} got inputs {'without a column `x`' if x is None else f'of type {x.dtype}'} "
            "(columns: "
            f"{', '.join(batch)}).",
            why="it adds to inputs or mixes them, and names and token numbers have no in-between.",
            fix="give floating-point inputs as `x`, for example the embeddings of the tokens.",
        )
    return x


def penalized_risk(
    values: Float[Tensor, " domain"], penalty: Tensor, weight: Tensor | float
) -> Float[Tensor, ""]:
    """(mean value + weight · penalty) / max(1, weight): a large penalty makes no large step."""
    weight = torch.as_tensor(weight, dtype=values.dtype, device=values.device)
    return (values.mean() + weight * penalty) / weight.clamp(min=1)


def anneal(weight: Tensor | float, step: int, until: int) -> Tensor | float:
    """1 in the first `until` steps (or the weight, if it is smaller), the weight afterwards."""
    return weight if step >= until else torch.as_tensor(weight, dtype=torch.float64).clamp(max=1)
