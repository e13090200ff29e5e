"""Two worlds that no generalization measure can tell apart (after Gastpar, Nachum, Shafer &
Weinberger, 2024, arXiv:2309.13658).

Inputs are a basis of F_q^d, so every labelling of them is linear. Gaussian elimination fits d
labelled inputs with one linear map h, and (S, h) has the same distribution whether the labels come
from a random linear map, where h has no error on unseen inputs, or from no rule at all, where it
has 1 − 1/q. A measure μ(S, h) that is tight in one world is off by 1 − 1/q in the other: of a fair
coin between them it misses the gap by at least (1 − 1/q)/2 in half of the draws or more.

A learner that memorises and answers 0 elsewhere has error 1 − 1/q on unseen inputs in both worlds:
the constant 1 − 1/q is tight for it, at the price of learning nothing.
"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from unseen.engine.batches import Columns, whole
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

MOST = 100_000
"""Up to this many inputs the whole space is evaluated, else so many random ones."""
Matrix = NDArray[np.int64]


class Truth(StrEnum):
    """Where labels come from."""

    LINEAR = "linear"
    """A random linear map: what Gaussian elimination finds has no error."""
    FUNCTION = "fixed random function"
    """One random function of the input: the error on unseen inputs has mean 1 − 1/q over
    functions."""
    INDEPENDENT = "label uniform given the input"
    """Drawn anew for each example: the error is exactly 1 − 1/q, whatever is predicted."""


@dataclass(frozen=True)
class FiniteField:
    """d labelled inputs that form a basis of F_q^d; `unseen` holds the other inputs (a sample of a
    large space).

    `x` holds numbers 0 … q − 1, `y` the label, a number of the field. The task's name says which
    truth it has.
    """

    q: int = 2
    d: int = 8
    truth: Truth = Truth.LINEAR
    n_evaluate: int = 5_000
    """Unseen inputs of a space of more than 100,000."""

    def __post_init__(self) -> None:
        if self.q < 2 or any(self.q % k == 0 for k in range(2, int(self.q**0.5) + 1)):
            raise InvalidConfig(
                f"FiniteField got q={self.q}.",
                why="numbers modulo q are a field if q is prime.",
                fix="choose 2, 3, 5, 7, …",
            )
        if self.d < 1 or self.n_evaluate < 1 or self.q**self.d <= self.d:
            raise InvalidConfig(
                f"FiniteField got d={self.d}, n_evaluate={self.n_evaluate}.",
                why="there must be inputs, and some that no example shows.",
                fix="set d ≥ 2 and n_evaluate ≥ 1.",
            )

    @property
    def chance_error(self) -> float:
        """1 − 1/q."""
        return 1 - 1 / self.q

    def build(self, lab: Lab) -> Task:
        basis = random_basis(self.q, self.d, lab.child("inputs").numpy())
        inputs = self._unseen_inputs(basis, lab.child("unseen").numpy())
        labels = self._label(np.concatenate([basis, inputs]), lab.child("labels").numpy())
        splits = {
            "train": Split(_columns(basis, labels[: self.d]), Use.TRAIN),
            "unseen": Split(_columns(inputs, labels[self.d :]), Use.EVALUATE),
        }
        return Task(
            name=f"finite field ({self.truth})",
            axis=Axis.IID,
            splits=splits,
            objective=classify,
        )

    def _unseen_inputs(self, basis: Matrix, rng: np.random.Generator) -> Matrix:
        if self.q**self.d <= MOST:
            inputs = np.array(list(product(range(self.q), repeat=self.d)), dtype=np.int64)
        else:
            inputs = rng.integers(self.q, size=(self.n_evaluate, self.d))
        powers = self.q ** np.arange(self.d)
        return inputs[~np.isin(inputs @ powers, basis @ powers)]

    def _label(self, inputs: Matrix, rng: np.random.Generator) -> Matrix:
        if self.truth is Truth.LINEAR:
            return inputs @ rng.integers(self.q, size=self.d) % self.q
        labels = rng.integers(self.q, size=len(inputs))
        if self.truth is Truth.FUNCTION:  # an input that is drawn twice has one label
            powers = self.q ** np.arange(self.d)
            first, position = np.unique(inputs @ powers, return_index=True, return_inverse=True)[1:]
            labels = labels[first][position.reshape(-1)]
        return labels


def random_basis(q: int, d: int, rng: np.random.Generator) -> Matrix:
    """Uniform d × d matrices until one is invertible: a share Π (1 − q^−i) is, 0.29 for q = 2."""
    while True:
        x = rng.integers(q, size=(d, d))
        if is_basis(x, q):
            return x


def eliminate(x: Matrix, y: Matrix, q: int) -> Matrix:
    """The only w with x w = y modulo a prime q, by Gaussian elimination."""
    rows = np.column_stack([x, y]) % q
    d = x.shape[1]
    if len(x) != d:
        raise _not_a_basis(x)
    for k in range(d):
        pivots = np.flatnonzero(rows[k:, k])
        if not len(pivots):
            raise _not_a_basis(x)
        rows[[k, k + pivots[0]]] = rows[[k + pivots[0], k]]
        rows[k] = rows[k] * pow(int(rows[k, k]), -1, q) % q
        others = np.arange(d) != k
        rows[others] = (rows[others] - rows[others, k : k + 1] * rows[k]) % q
    return rows[:, d]


def is_basis(x: Matrix, q: int) -> bool:
    """Whether the rows of a square matrix are independent modulo q."""
    try:
        eliminate(x, np.zeros(len(x), dtype=np.int64), q)
    except InvalidData:
        return False
    return True


def _not_a_basis(x: Matrix) -> InvalidData:
    return InvalidData(
        f"{len(x)} inputs are no basis of a space of dimension {x.shape[1]}.",
        why="the linear map through them is not unique.",
        fix="draw inputs until they are independent.",
    )


class LinearOverField(nn.Module):
    """The logits of x ↦ w·x modulo q: one for the answer, zeros for the others."""

    def __init__(self, w: Matrix, q: int) -> None:
        super().__init__()
        self.q, self.map = q, nn.Linear(len(w), 1, bias=False)
        self.map.weight = nn.Parameter(torch.tensor(w, dtype=torch.float32)[None])

    def forward(self, x: Tensor) -> Tensor:
        answer = self.map(x).squeeze(1).round().long() % self.q
        return F.one_hot(answer, self.q).to(x.dtype)


class Memory(nn.Module):
    """The labels of known inputs; 0 for all others."""

    def __init__(self, x: Tensor, y: Tensor, q: int) -> None:
        super().__init__()
        self.q, self.labels = q, y
        self.inputs = nn.Parameter(x.float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        same = (x[:, None] == self.inputs.to(x)).all(2)
        answer = torch.where(same.any(1), self.labels.to(x.device)[same.int().argmax(1)], 0)
        return F.one_hot(answer, self.q).to(x.dtype)


def fit_by_elimination(task: Task, q: int, lab: Lab) -> Trained:
    """The linear map through the training examples; it starts at zero."""
    batch = whole(task.split("train").data, lab)
    x, y = (batch[name].cpu().numpy().astype(np.int64) for name in ("x", "y"))
    model = LinearOverField(eliminate(x, y, q), q).to(lab.device, lab.dtype)
    return Trained(model, task, start={"map.weight": torch.zeros_like(model.map.weight)})


def fit_by_memory(task: Task, q: int, lab: Lab) -> Trained:
    """The training examples themselves."""
    batch = whole(task.split("train").data, lab)
    return Trained(Memory(batch["x"], batch["y"], q).to(lab.device, lab.dtype), task)


def _columns(inputs: Matrix, labels: Matrix) -> Columns:
    return Columns(
        x=torch.tensor(inputs, dtype=torch.float32), y=torch.tensor(labels, dtype=torch.int64)
    )


def example() -> FiniteField:
    """Sixteen inputs over the field of two numbers."""
    return FiniteField(q=2, d=4)
