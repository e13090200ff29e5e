"""Full-batch gradient descent, and its exact fast path for two-layer networks with a fixed head.

The theory of benign overfitting and grokking on XOR clusters (Xu et al., 2024, arXiv:2310.02541) is
about plain gradient descent: minibatches or Adam follow other dynamics.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.batches import length, whole
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.errors import Divergence, InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.two_layer import TwoLayer
from unseen.task import Batch, Objective, Task, Use

Slope = Callable[[Float[Tensor, " n"]], Float[Tensor, " n"]]
"""∂ℓ_i/∂f_i at given outputs f."""


def full_batch(task: Task) -> int:
    """The batch size with which every TRAIN split is one batch."""
    sizes = {name: length(split.data) for name, split in task.of(Use.TRAIN).items()}
    streams = [name for name, n in sizes.items() if n is None]
    if streams:
        raise InvalidData(
            f"Split `{streams[0]}` is a stream.",
            why="full-batch gradient descent needs all examples in every step.",
            fix="give a map-style dataset, or train on minibatches with ERM.",
        )
    return max(n for n in sizes.values() if n is not None)


@dataclass(frozen=True)
class GradientDescent:
    """w ← w − lr ∇L(w) with L the mean loss over all training examples; no momentum, no weight
    decay.
    """

    steps: int = 100
    lr: float = 1e-3

    def __post_init__(self) -> None:
        _refuse_bad_rate(self.steps, self.lr)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        budget = Budget(
            steps=self.steps, batch_size=full_batch(task), lr=self.lr, optimizer=Optimizer.SGD
        )
        return train(model, task, erm_step, budget, lab)


@dataclass(frozen=True)
class GramDynamics:
    """`GradientDescent` of a `TwoLayer` network in the space of sample coefficients: same weights,
    less work.

    The gradient of every neuron is a combination of the inputs, so W(t) = W(0) + C(t)ᵀX and, with K
    = XXᵀ and H = XW(0)ᵀ + KC, C ← C − (lr/n) ℓ'(f) aᵀ ⊙ 1[H > 0]. A step costs n² m whatever the
    input dimension.
    """

    steps: int = 100
    lr: float = 1e-3

    def __post_init__(self) -> None:
        _refuse_bad_rate(self.steps, self.lr)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        if not isinstance(model, TwoLayer):
            raise UnsupportedLayer(
                f"GramDynamics got a {type(model).__name__}.",
                why="only a network that is linear in front of one ReLU layer stays in the span of "
                "its inputs.",
                fix="use GradientDescent, which trains any model.",
            )
        model.to(lab.device, lab.dtype)
        start = parameters.copy_parameters(model)
        batches = [whole(split.data, lab) for split in task.of(Use.TRAIN).values()]
        batch = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        x, slope = batch["x"], slope_of(task.objective, batch)
        with torch.no_grad():
            hidden = model.hidden(x)
            moments = gram_path(x @ x.T, hidden, model.head, slope, self.lr, self.steps)
            losses = []
            for moment in lab.track(moments, self.steps + 1):
                losses.append(loss_of(task.objective, batch, moment.outputs).mean())
            model.hidden.weight += moment.coefficients.T @ x
        curve = torch.stack(losses)
        if not torch.isfinite(curve).all() or not torch.isfinite(model.hidden.weight).all():
            raise Divergence(
                "The loss or the weights are no longer finite.",
                why=f"lr={self.lr} is too high for these inputs.",
                fix="lower `lr`.",
            )
        model.eval()
        return Trained(model, task, {"loss": curve[:-1].tolist()}, start)


@dataclass(frozen=True)
class Moment:
    """The network after `step` steps, seen through its training inputs."""

    step: int
    coefficients: Float[Tensor, "n neuron"]
    """C with W(t) = W(0) + CᵀX; other inputs Z have pre-activations ZW(0)ᵀ + (ZXᵀ)C."""
    hidden: Float[Tensor, "n neuron"]
    """Pre-activations of the training inputs."""
    outputs: Float[Tensor, " n"]

    def norms2(
        self, start: Float[Tensor, " neuron"], hidden: Float[Tensor, "n neuron"]
    ) -> Float[Tensor, " neuron"]:
        """‖w_j(t)‖² from `start` = ‖w_j(0)‖² and `hidden` = XW(0)ᵀ: start + Σ_i C_ij (hidden +
        H)_ij.
        """
        return start + (self.coefficients * (hidden + self.hidden)).sum(0)


def gram_path(
    kernel: Float[Tensor, "n n"],
    hidden: Float[Tensor, "n neuron"],
    head: Float[Tensor, " neuron"],
    slope: Slope,
    lr: float,
    steps: int,
) -> Iterator[Moment]:
    """The moments t = 0 … `steps` of gradient descent, from K = XXᵀ and the first pre-activations
    XW(0)ᵀ.
    """
    coefficients = torch.zeros_like(hidden)
    n = len(kernel)
    for step in range(steps + 1):
        now = torch.addmm(hidden, kernel, coefficients)
        outputs = now.relu() @ head
        yield Moment(step, coefficients, now, outputs)
        coefficients = coefficients - (lr / n) * torch.outer(slope(outputs), head) * (now > 0)


def linear_path(
    kernel: Float[Tensor, "n n"], slope: Slope, lr: float, steps: int
) -> Iterator[Float[Tensor, " n"]]:
    """Coefficients c, w(t) = Xᵀc, of a linear model f = ⟨w, x⟩ under gradient descent from w = 0, t
    = 0 … `steps`.
    """
    c = kernel.new_zeros(len(kernel))
    for _ in range(steps + 1):
        yield c
        c = c - (lr / len(kernel)) * slope(kernel @ c)


class _FixedOutput(nn.Module):
    """Returns fixed outputs whatever the inputs, so that an objective can be read as a function of
    outputs.
    """

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs


def loss_of(
    objective: Objective, batch: Batch, outputs: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The objective's loss of given outputs."""
    return objective.loss(_FixedOutput(outputs), batch)


def slope_of(objective: Objective, batch: Batch) -> Slope:
    """The derivative of the objective's loss with respect to each example's output."""

    def slope(outputs: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        with torch.enable_grad():
            free = outputs.detach().requires_grad_()
            return torch.autograd.grad(loss_of(objective, batch, free).sum(), free)[0]

    return slope


def _refuse_bad_rate(steps: int, lr: float) -> None:
    if steps < 0 or not lr > 0:
        raise InvalidConfig(
            f"Gradient descent got steps={steps}, lr={lr}.",
            why="steps are at least 0 and the learning rate is positive.",
            fix="correct the value.",
        )


def example() -> GradientDescent:
    """Thirty steps: enough to see the loss fall."""
    return GradientDescent(steps=30, lr=0.1)
