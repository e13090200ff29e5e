"""Per-example gradients as a loop: one example, one ordinary backward pass. Imports nothing from
unseen.engine.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def per_example_gradients(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    f: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
) -> dict[str, Tensor]:
    """∂f(example)/∂p for each example and trainable parameter p, `[b, *shape]` by name."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for k in range(len(next(iter(batch.values())))):
        value = f(model, {name: tensor[k : k + 1] for name, tensor in batch.items()}).sum()
        for (name, p), grad in zip(
            parameters.items(),
            torch.autograd.grad(value, list(parameters.values()), allow_unused=True),
            strict=True,
        ):
            rows[name].append(torch.zeros_like(p) if grad is None else grad)
    return {name: torch.stack(grads) for name, grads in rows.items()}


def flattened(gradients: Mapping[str, Tensor]) -> Tensor:
    """`[b, p]` over all parameters."""
    return torch.cat([grad.flatten(1) for grad in gradients.values()], 1)


def coherence(g: Tensor) -> float:
    """‖mean gradient‖² / mean ‖gradient‖² of the rows of g."""
    return (g.mean(0).square().sum() / g.square().sum(1).mean()).item()


def pairwise_coherence(g: Tensor) -> float:
    """The unbiased form by its definition: mean of g_i·g_j over i ≠ j, over the mean of ‖g_i‖²."""
    n, pairs = len(g), 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                pairs += (g[i] @ g[j]).item()
    return pairs / (n * (n - 1)) / g.square().sum(1).mean().item()
