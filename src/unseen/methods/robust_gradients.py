"""Robust means of gradients: descent along directions that many examples support.

A direction that few examples ask for barely moves a coordinate-wise winsorized mean or median, so
fitting single examples (mislabelled ones, say) is suppressed while shared patterns are learned
(Chatterjee, 2020, arXiv:2002.10657; Zielinski, Krishnan & Chatterjee, 2020, arXiv:2003.07422).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.engine.gradient_factors import GradientFactor
from unseen.engine.loop import Budget, Draw, Step, mean_loss, train
from unseen.engine.parameters import trainable
from unseen.engine.tap import evaluate_and_reduce
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, Objective, Task

PART = 1 << 19
"""Numbers that are sorted at a time: they should stay in the cache."""


def winsorized_mean(rows: Float[Tensor, "b p"], c: int) -> Float[Tensor, " p"]:
    """Per column: the mean after the c smallest values were raised to the (c + 1)-th smallest, the
    c largest likewise.

    c = 0 is the mean, c = ⌊(b − 1)/2⌋ the median (for even b the mean of the two middle values).
    """
    b = len(rows)
    if not 0 <= 2 * c < b:
        raise InvalidConfig(
            f"Winsorizing {b} gradients at level c={c} is impossible.",
            why="c values are clipped at either end, and one must be left: 0 ≤ 2c < the number of "
            "gradients.",
            fix=f"choose c from 0 to {(b - 1) // 2}, or a larger batch.",
        )
    if c == 0:
        return rows.mean(0)
    return torch.cat([_winsorize(part, c) for part in rows.split(max(1, PART // b), 1)])


def _winsorize(rows: Float[Tensor, "b p"], c: int) -> Float[Tensor, " p"]:
    b = len(rows)
    # a row per parameter: sorting along contiguous memory
    ordered = _sort_rows(rows.T.clone(memory_format=torch.contiguous_format))
    weights = rows.new_ones(b - 2 * c)
    # the c clipped values at either end count as the outermost that is left
    weights[0] += c
    weights[-1] += c
    return ordered[:, c : b - c] @ weights / b


def _sort_rows(x: Float[Tensor, "p b"]) -> Float[Tensor, "p b"]:
    """Each row in ascending order; works in place where it can."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        x.numpy().sort(-1)  # vectorised in numpy: about 30 times faster than torch.sort on a CPU
        return x
    return x.sort(-1).values


def median(gradients: Sequence[Tensor]) -> Tensor:
    """The entry-wise median of tensors of one shape; of an even number: the mean of the two middle
    values.
    """
    # three is the usual number, and four elementwise operations beat a sort
    if len(gradients) == 3:
        a, b, c = gradients
        return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
    rows = torch.stack([gradient.flatten() for gradient in gradients])
    return winsorized_mean(rows, (len(rows) - 1) // 2).view_as(gradients[0])


def winsorized_step(
    model: nn.Module, draw: Draw, objective: Objective, *, c: int, microbatches: int | None = None
) -> Tensor:
    """Leaves in `.grad` the winsorized mean of the gradients of single examples, or of
    micro-batches.
    """
    parameters = trainable(model)
    if microbatches is not None:
        losses, gradients = _microbatch_gradients(model, draw, objective, microbatches)
        for name, p in parameters.items():
            p.grad = winsorized_mean(
                torch.stack([g[name].flatten() for g in gradients]), c
            ).view_as(p)
        return losses
    if len(draw.fit) == 1:  # one parameter's gradients are in memory at a time
        (batch,) = draw.fit.values()
        found = evaluate_and_reduce(model, batch, objective.loss, partial(_winsorized_factor, c=c))
        values, means = found.values, found.by_parameter
    else:
        parts = [
            evaluate_and_reduce(model, batch, objective.loss, _rows) for batch in draw.fit.values()
        ]
        values = torch.cat([part.values for part in parts])
        means = {
            name: winsorized_mean(torch.cat([part.by_parameter[name] for part in parts]), c)
            for name in parameters
        }
    for name, p in parameters.items():
        p.grad = means[name].view_as(p)
    return values.mean()


def _rows(name: str, form: GradientFactor) -> Float[Tensor, "b p"]:
    return form.gradients().flatten(1)


def _winsorized_factor(name: str, form: GradientFactor, *, c: int) -> Float[Tensor, " p"]:
    return winsorized_mean(_rows(name, form), c)


def microbatch_median_step(model: nn.Module, draw: Draw, objective: Objective, *, k: int) -> Tensor:
    """Leaves in `.grad` the median of the mean gradients of k micro-batches (M_k)."""
    loss, gradients = _microbatch_gradients(model, draw, objective, k)
    for name, p in trainable(model).items():
        p.grad = median([g[name] for g in gradients])
    return loss


def rolling_median_step(
    model: nn.Module, draw: Draw, objective: Objective, *, past: deque[Mapping[str, Tensor]]
) -> Tensor:
    """Leaves in `.grad` the median of this minibatch's gradient and those in `past`, which it
    extends (RM_n).

    Before the window has filled, the median of what there is.
    """
    loss = mean_loss(model, draw.fit, objective)
    parameters = trainable(model)
    past.append(dict(zip(parameters, _gradients(loss, parameters), strict=True)))
    for name, p in parameters.items():
        # a copy while the window holds one gradient: clipping changes `.grad` in place
        p.grad = median([g[name] for g in past]) if len(past) > 1 else past[0][name].clone()
    return loss.detach()


def _microbatch_gradients(
    model: nn.Module, draw: Draw, objective: Objective, k: int
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """The mean loss over all examples, and the gradient of the mean loss of each of k
    micro-batches.
    """
    parameters, gradients = trainable(model), []
    total, n = torch.zeros(()), 0
    for batches in _split(draw.fit, k):
        loss = mean_loss(model, batches, objective)
        gradients.append(dict(zip(parameters, _gradients(loss, parameters), strict=True)))
        part = sum(size(batch) for batch in batches.values())
        total, n = total.to(loss) + loss.detach() * part, n + part
    return total / n, gradients


def _split(fit: Mapping[str, Batch], k: int) -> Iterator[dict[str, Batch]]:
    """k parts of every TRAIN split's minibatch (which is in random order already), of sizes that
    differ by one at most.
    """
    for name, batch in fit.items():
        if size(batch) < k:
            raise InvalidConfig(
                f"A minibatch of {size(batch)} examples of split `{name}` cannot be cut into {k} "
                "micro-batches.",
                why="every micro-batch needs an example of every training split.",
                fix="lower the number of micro-batches, or raise the batch size.",
            )
    for part in range(k):
        yield {
            name: {key: tensor.tensor_split(k)[part] for key, tensor in batch.items()}
            for name, batch in fit.items()
        }


def _gradients(loss: Tensor, parameters: Mapping[str, nn.Parameter]) -> tuple[Tensor, ...]:
    """∂loss for every parameter, zeros where it has no influence."""
    return torch.autograd.grad(
        loss, list(parameters.values()), allow_unused=True, materialize_grads=True
    )


@dataclass(frozen=True)
class WinsorizedMean:
    """Descent along the coordinate-wise winsorized mean of level `c` over per-example gradients (or
    micro-batches).

    c = 0 is ordinary descent; the larger c, the more examples must support a direction.
    """

    c: int = 2
    microbatches: int | None = None
    """How many gradients are compared per step; None: one per example."""
    budget: Budget = Budget()

    @property
    def label(self) -> str:
        return f"winsorized c={self.c}"

    def step(self) -> Step:
        return partial(winsorized_step, c=self.c, microbatches=self.microbatches)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step(), self.budget, lab)


@dataclass(frozen=True)
class MedianOfMicrobatches:
    """M_k: descent along the coordinate-wise median of the gradients of `k` micro-batches.

    The median of few micro-batches is biased: compare it with plain descent over a grid of learning
    rates.
    """

    k: int = 3
    budget: Budget = Budget()

    @property
    def label(self) -> str:
        return f"M{self.k}"

    def step(self) -> Step:
        return partial(microbatch_median_step, k=self.k)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step(), self.budget, lab)


@dataclass(frozen=True)
class RollingMedian:
    """RM_n: descent along the coordinate-wise median of the gradients of the last `window`
    minibatches.

    Costs no more per step than plain descent, and `window` − 1 gradients of memory.
    """

    window: int = 3
    budget: Budget = Budget()

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InvalidConfig(
                f"RollingMedian(window={self.window}) holds no gradient.",
                why="a median needs one.",
                fix="use 3.",
            )

    @property
    def label(self) -> str:
        return f"RM{self.window}"

    def step(self) -> Step:
        """A step with an empty window of its own: one per training run."""
        return partial(rolling_median_step, past=deque(maxlen=self.window))

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step(), self.budget, lab)


def example() -> WinsorizedMean:
    return WinsorizedMean(c=2, budget=Budget(steps=20, batch_size=16, lr=0.01))
