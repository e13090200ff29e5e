"""What is fitted to the labels on a representation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import skip_init

from unseen.engine.features import FixedOutput
from unseen.errors import Divergence, InvalidConfig, InvalidData
from unseen.objectives import squared_error
from unseen.task import Batch, Objective


def descend(parameters: Sequence[Tensor], loss: Callable[[], Tensor], steps: int) -> float:
    """L-BFGS with a line search until the loss is stationary, at most `steps`; the last loss."""
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        last = float(loss())
    if not torch.isfinite(torch.tensor(last)):
        raise Divergence(
            f"The loss is {last} after {steps} steps.",
            why="the objective has no finite minimum on this representation.",
            fix="give the head a penalty: LinearHead(decay=1e-3).",
        )
    return last


def linear_layer(weight: Float[Tensor, "c r"], bias: Float[Tensor, " c"]) -> nn.Linear:
    """x ↦ W x + b. `nn.Linear` would draw weights of its own first, from the global generator."""
    outputs, inputs = weight.shape
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs, dtype=weight.dtype)
    layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
    return layer


def refuse_one_class(y: Tensor) -> None:
    """Refuses labels of a single class."""
    if not y.is_floating_point() and len(y.unique()) < 2:
        raise InvalidData(
            f"All {len(y)} labelled examples have label {int(y.flatten()[0])}.",
            why="with one class there is nothing to tell apart.",
            fix="add labelled examples of another class.",
        )


@dataclass(frozen=True)
class LinearHead:
    """argmin of the mean training loss + `decay`/2 · ‖w‖² over linear functions of the
    representation; the intercept is free.

    Squared error is solved exactly (with more numbers than examples: the solution of least norm).
    """

    decay: float = 0.0
    steps: int = 500

    def __post_init__(self) -> None:
        if not self.decay >= 0 or self.steps < 1:
            raise InvalidConfig(
                f"LinearHead(decay={self.decay}, steps={self.steps}) is out of range.",
                why="a penalty is not negative, and a step is made.",
                fix="use decay ≥ 0 and steps ≥ 1.",
            )

    def fit(
        self, z: Float[Tensor, "n r"], batch: Batch, objective: Objective, outputs: int
    ) -> nn.Module:
        refuse_one_class(batch["y"])
        if objective.loss is squared_error:
            weight, bias = ridge(z, batch["y"].reshape(len(z), -1).to(z), self.decay)
            return linear_layer(weight.T, bias)
        head = linear_layer(z.new_zeros(outputs, z.shape[1]), z.new_zeros(outputs))

        def loss() -> Tensor:
            penalty = self.decay / 2 * head.weight.square().sum()
            return objective.loss(FixedOutput(head(z)), batch).mean() + penalty

        descend(list(head.parameters()), loss, self.steps)
        return head


def ridge(
    z: Float[Tensor, "n r"], y: Float[Tensor, "n c"], decay: float
) -> tuple[Float[Tensor, "r c"], Float[Tensor, " c"]]:
    """argmin ½ mean ‖y − zW − b‖² + `decay`/2 ‖W‖², and b."""
    centre, level = z.mean(0), y.mean(0)
    u, s, v = torch.linalg.svd(z - centre, full_matrices=False)
    # as lstsq: directions below rounding have no coefficient
    large = s > s.max().clamp_min(1e-300) * 1e-12
    gain = torch.where(large, s / (s.square() + decay * len(z)), torch.zeros_like(s))
    weight = v.T @ (gain[:, None] * (u.T @ (y - level)))
    return weight, level - centre @ weight


class ComponentTable(nn.Module):
    """Shares of components → log p(y) = log Σ_k p(k | x) p(y | k)."""

    table: Tensor

    def __init__(self, table: Float[Tensor, "k c"]) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, shares: Float[Tensor, "n k"]) -> Float[Tensor, "n c"]:
        return (shares @ self.table).clamp_min(1e-30).log()


@dataclass(frozen=True)
class ComponentLabels:
    """For every component the classes of the labelled examples in it: p(y | k), of which the most
    frequent decides.

    `prior` examples with the classes of all labelled ones are added to each, so that a component
    without a label says what they say. Needs classes, and shares of components as representation.
    """

    prior: float = 1.0

    def __post_init__(self) -> None:
        if not self.prior > 0:
            raise InvalidConfig(
                f"ComponentLabels(prior={self.prior}).",
                why="a component without a labelled example must say something.",
                fix="use prior > 0.",
            )

    def fit(
        self, z: Float[Tensor, "n k"], batch: Batch, objective: Objective, outputs: int
    ) -> nn.Module:
        y = batch["y"]
        if y.is_floating_point() or outputs < 2:
            raise InvalidData(
                "ComponentLabels got numbers as targets, or a model with one output.",
                why="it counts the classes in every component.",
                fix="use LinearHead().",
            )
        refuse_one_class(y)
        if bool((z < 0).any()) or not torch.allclose(z.sum(1), z.new_ones(len(z)), atol=1e-6):
            raise InvalidData(
                "The representation is no share of components.",
                why="labels are counted in components, which share every example.",
                fix="use MixtureEM as density, or LinearHead() as head.",
            )
        return ComponentTable(count_labels(z, y, outputs, self.prior))


def count_labels(
    z: Float[Tensor, "n k"], y: Int[Tensor, " n"], classes: int, prior: float
) -> Float[Tensor, "k c"]:
    """p(y | k) = (Σ_i p(k | x_i) 1[y_i = y] + prior · p(y)) / (Σ_i p(k | x_i) + prior)."""
    labels = F.one_hot(y.flatten().long(), classes).to(z)
    counts = z.T @ labels + prior * labels.mean(0)
    return counts / counts.sum(1, keepdim=True)
