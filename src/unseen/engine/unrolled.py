"""What the weight of an example does to a behaviour through every step of a finished descent.

Reverse mode by hand (Maclaurin et al., 2015, arXiv:1502.03492; as an attribution: Ilyas & Engstrom,
2025, arXiv:2503.13751). With momentum μ, weight decay δ and rate η_t of a step,

    m ← μ m + ∇L(θ) + δ θ,    θ ← θ − η_t m,    L = mean over the minibatch of w_z ℓ_z

and ∂f/∂w_z = Σ over the steps with z of ⟨c_t, ∇ℓ_z(θ_t)⟩ / batch, where c_t = ∂f/∂m_t.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from unseen.engine.batches import gather, length, orders, to_device
from unseen.engine.example_gradients import ModelAsArgument, double_differentiable
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.engine.parameters import copy_parameters, trainable
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, PerExample, Task, Use


@dataclass(frozen=True, eq=False)
class Descent:
    """A trained model and its way there."""

    trained: Trained
    budget: Budget
    weights: Sequence[dict[str, Tensor]]
    """Before every step."""
    rows: Sequence[Int[Tensor, " b"]]
    """The examples of every step."""

    def rate(self, step: int) -> float:
        """η of a step."""
        return self.budget.lr * self.budget.rate(step)


def record_descent(model: nn.Module, task: Task, budget: Budget, lab: Lab) -> Descent:
    """`train` of a model, which remembers all its weights: for small ones."""
    splits = task.of(Use.TRAIN)
    plain = budget.optimizer is Optimizer.SGD and budget.clip == math.inf and budget.decay_vectors
    if not plain or len(splits) != 1 or budget.bfloat16 or budget.select_every:
        raise InvalidConfig(
            f"{budget} on {len(splits)} TRAIN splits is not unrolled.",
            why="the backward steps are those of plain SGD on one split.",
            fix="use optimizer=Optimizer.SGD without clip, selection and autocast.",
        )
    weights: list[dict[str, Tensor]] = []

    def remember(model: nn.Module) -> float:
        weights.append(copy_parameters(model))
        return 0.0

    watched = replace(budget, watch_at=tuple(range(budget.steps + 1)))
    trained = train(model, task, erm_step, watched, lab, {"weights": remember})
    ((name, split),) = splits.items()
    drawn = orders(length(split.data) or 0, budget.batch_size, lab.child(name))
    return Descent(trained, budget, weights[:-1], list(islice(drawn, budget.steps)))


def unrolled_effects(
    descent: Descent, queries: Batch, behaviour: PerExample, lab: Lab
) -> Float[Tensor, "q n"]:
    """∂f_q/∂w_z, the effect of the first added copy of z on every query: exact."""
    model, budget = descent.trained.model, descent.budget
    (split,) = descent.trained.task.of(Use.TRAIN).values()
    loss = descent.trained.task.objective.loss
    wrapped = ModelAsArgument(model)

    def evaluate(f: PerExample, values: Mapping[str, Tensor], batch: Batch) -> Tensor:
        given = {f"model.{name}": tensor for name, tensor in values.items()}
        return functional_call(wrapped, given, (f, batch))

    def query_gradient(example: Batch) -> dict[str, Tensor]:
        one = {name: tensor[None] for name, tensor in example.items()}
        return grad(lambda values: evaluate(behaviour, values, one).sum())(last)

    def step_back(theta: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """⟨c, ∇ℓ_z⟩ of every example of the batch, and H c, for every c."""

        def mean_gradient(values: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
            def mean(values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
                losses = evaluate(loss, values, batch)
                return losses.mean(), losses

            return grad(mean, has_aux=True)(values)

        def along(c: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            curved, moved = jvp(mean_gradient, (dict(theta),), (dict(c),))[1]
            return moved, curved

        return vmap(along)(momentum)

    last = {name: p.detach() for name, p in trainable(model).items()}
    with torch.no_grad(), double_differentiable():
        weights = vmap(query_gradient)(dict(queries))
        q = len(next(iter(weights.values())))
        momentum = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        found = next(iter(weights.values())).new_zeros(q, length(split.data) or 0)
        for step in reversed(range(len(descent.rows))):
            rows, rate = descent.rows[step], descent.rate(step)
            momentum = {name: c - rate * weights[name] for name, c in momentum.items()}
            batch = to_device(gather(split.data, rows), lab)
            moved, curved = step_back(descent.weights[step], batch)
            found[:, rows] += moved / len(rows)
            for name, c in momentum.items():
                weights[name] = weights[name] + curved[name] + budget.weight_decay * c
            momentum = {name: budget.momentum * c for name, c in momentum.items()}
    return found
