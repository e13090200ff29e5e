"""How hard a task is before any model is chosen: the information that singles out a function that
generalizes among all that fit.

Boopathy, Liu, Hwang, Ge, Mohammedsaleh & Fiete (2023, ICML, "Model-agnostic Measure of
Generalization Difficulty"). Hypotheses are the band-limited functions on a sphere of the inputs'
dimension, so the number is an upper bound within that space: only order and trend mean something.
"""

from dataclasses import dataclass, replace
from math import exp, inf, log, log2, pi, sqrt

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import gammaln
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.engine.labels import has_label
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.duplicates import Pairs, closest_pair
from unseen.measures.intrinsic_dimension import (
    intrinsic_dimension,
    rows_of_numbers,
    training_batch,
)
from unseen.objectives import IGNORED, classify
from unseen.reading import Reading
from unseen.task import Axis, Batch, Split, Task, Use

LARGEST = 996.0
"""log₂ of the bits from which on a reading is in log₂ bits: 2⁹⁹⁶ is about 1e300."""


@dataclass(frozen=True, kw_only=True)
class FunctionSpace:
    """What the formula reads: a task as a sphere of inputs and the functions on it.

    K, the largest degree of a spherical harmonic with K(K + m − 1) ≤ M², M = 2πR/δ; E, the number
    of harmonics up to it; W, how far (Wasserstein) n points are from the distribution; L, how fast
    such a function may change: dimension Θ = 2 D Π E, of which n D are fixed by the training data.
    I = (Θ − nD) · log₂(B √(D Π) L W / ε).
    """

    log_n: float
    """Of the number of training examples, which for sets of images is astronomic."""
    radius: float
    """R, the largest norm of an input."""
    dimension: float
    """m, the intrinsic dimension of the inputs."""
    separation: float
    """δ, the smallest distance between inputs with different answers."""
    combinations: float = 1.0
    """Π: of discrete features; for classification the classes."""
    log_outputs: float = 0.0
    """Of D, the output's dimension; for classification the classes less one."""
    bound: float = 1.0
    """B, the largest output."""

    def __post_init__(self) -> None:
        for name in ("radius", "dimension", "separation", "combinations", "bound"):
            if not 0 < getattr(self, name) < inf:
                raise InvalidConfig(
                    f"The {name} is {getattr(self, name)}.",
                    why="the formula needs a positive number.",
                    fix=f"estimate it from the inputs, or set {name} > 0.",
                )

    @property
    def degree(self) -> float:
        """K, a real number: rounding it would make the difficulty jump."""
        square = (2 * pi * self.radius / self.separation) ** 2
        m = self.dimension
        return 2 * square / (sqrt((m - 1) ** 2 + 4 * square) + (m - 1))

    @property
    def log_harmonics(self) -> float:
        """log E, E = binom(m + K, m) + binom(m + K − 1, m)."""
        return log_harmonics(self.dimension, self.degree)

    @property
    def log_wasserstein(self) -> float:
        """log W."""
        m = self.dimension
        sphere = log(2) + (m + 1) / 2 * log(pi) - gammaln((m + 1) / 2)
        return float(
            0.5 * log(m / 6) + (sphere + log(self.combinations) - self.log_n) / m + log(self.radius)
        )

    @property
    def log_lipschitz(self) -> float:
        """log L, L = K √D / R."""
        return log(self.degree) + self.log_outputs / 2 - log(self.radius)

    @property
    def log_free_dimensions(self) -> float:
        """log(Θ − nD); −∞ where the training data fix every function."""
        every = log(2 * self.combinations) + self.log_outputs + self.log_harmonics
        return _log_difference(every, self.log_n + self.log_outputs)

    def bits_per_dimension(self, eps: float) -> float:
        """log₂(B √(D Π) L W / ε)."""
        nats = (
            log(self.bound)
            + self.log_outputs / 2
            + log(self.combinations) / 2
            + self.log_lipschitz
            + self.log_wasserstein
            - log(eps)
        )
        return nats / log(2)

    def log2_bits(self, eps: float) -> float:
        """log₂ of the difficulty; −∞ where it is 0."""
        return _log2_product(self.log_free_dimensions, self.bits_per_dimension(eps))


@dataclass(frozen=True, kw_only=True)
class Control:
    """A controller that maps m observations to D actions, with the inputs on a product of circles.

    `separation` is δ in units of the radius: how far apart situations are that need different
    actions. A partially observed task counts every past observation that the action needs.
    """

    observations: float
    actions: int = 1
    steps: float = 1e6
    separation: float = 1e-3

    def log2_bits(self, eps: float) -> float:
        """log₂ of D (2 (2π/δ)^m π^(m/2) / Γ(m/2 + 1) − n) log₂(4π² D √m / (√6 δ ε n^(1/m)))."""
        m, d, delta = self.observations, self.actions, self.separation
        if not (m > 0 and d > 0 and self.steps > 0 and 0 < delta < inf):
            raise InvalidConfig(
                f"{self} is no control task.", "all of it is positive.", "correct the value."
            )
        ball = m / 2 * log(pi) - float(gammaln(m / 2 + 1))
        free = _log_difference(log(2) + m * log(2 * pi / delta) + ball, log(self.steps))
        nats = log(4 * pi**2 / sqrt(6)) + log(d) + log(m) / 2 - log(delta * eps)
        return _log2_product(log(d) + free, (nats - log(self.steps) / m) / log(2))


def few_shot_space(
    *, ways: int, within: float, across: float, radius: float, separation: float, log_n: float
) -> FunctionSpace:
    """The outer task of few-shot classification: from a set of `ways` examples, one per class, to
    their classifier.

    A set has dimension `across` + (ways − 1) · `within` (of inputs of all groups, and within one
    group, such as an alphabet); the classifier has 2 · ways · (ways − 1) · E(`within`) numbers.
    """
    pairs = ways * (ways - 1)
    inner = FunctionSpace(log_n=0.0, radius=radius, dimension=within, separation=separation)
    return FunctionSpace(
        log_n=log_n,
        radius=radius * sqrt(ways),
        dimension=across + (ways - 1) * within,
        separation=separation,
        log_outputs=log(2 * pairs) + inner.log_harmonics,
        bound=sqrt(pairs),
    )


def union(a: FunctionSpace, b: FunctionSpace) -> FunctionSpace:
    """The task of answering both at once; outputs, bound and separation are those of `a`, as in the
    authors' code.
    """
    return replace(
        a,
        log_n=a.log_n + b.log_n,
        radius=sqrt(a.radius**2 + b.radius**2),
        dimension=a.dimension + b.dimension,
        combinations=a.combinations * b.combinations,
    )


def log_harmonics(m: float, degree: float) -> float:
    """log of the number of spherical harmonics on the m-sphere up to a degree K ≥ 0, for real m and
    K by the gamma function: 2K + 1 for m = 1, (K + 1)² for m = 2.
    """
    first = gammaln(m + degree + 1) - gammaln(degree + 1)
    second = gammaln(m + degree) - gammaln(degree) if degree > 0 else -inf
    return float(np.logaddexp(first, second) - gammaln(m + 1))


def _log_difference(a: float, b: float) -> float:
    """log(eᵃ − eᵇ), −∞ where there is nothing left."""
    return a + log(-np.expm1(b - a)) if b < a else -inf


def _log2_product(log_free: float, bits: float) -> float:
    return log_free / log(2) + log2(bits) if bits > 0 and log_free > -inf else -inf


@dataclass(frozen=True)
class DifficultyReading(Reading):
    """Bits (or, from 1e300 on, log₂ of them) with what they were computed from."""

    eps: float = 0.0
    log2_bits: float = -inf
    """−∞ for a difficulty of 0."""
    space: FunctionSpace | Control | None = None
    """δ, R, m, K, E and W by name."""
    dimension: Reading | None = None
    """The estimated intrinsic dimension, whose interval is that of the difficulty."""
    pair: tuple[int, int] | None = None
    """The two training examples of different classes at the smallest distance."""
    notes: tuple[str, ...] = ()

    def at(self, eps: float) -> "DifficultyReading":
        """The same task at another error."""
        _refuse_eps(eps)
        if self.space is None:
            raise InvalidData("The reading has no space.", "nothing to compute from.", "measure.")
        return _reading(self.space, eps, self.dimension, self.pair, self.n, self.notes)

    def bits_supplied(self, error: Reading) -> "DifficultyReading":
        """What a model with this test error supplies: the difficulty at its error in place of ε,
        with the limits of the error's interval.
        """
        if not error.value > 0:
            raise InvalidData(
                f"No error was seen among {error.n} examples.",
                why="the bits at an error of 0 are infinite.",
                fix=f"use the upper limit of its interval, `at({error.high:.3g})`, as a lower "
                "bound.",
            )
        found = self.at(error.value)
        low, high = (self.at(e).log2_bits if e > 0 else inf for e in (error.high, error.low))
        return replace(found, low=_in_unit(low, found.unit), high=_in_unit(high, found.unit))


@dataclass(frozen=True)
class Difficulty:
    """Bits to reach an error of ε (divided by the loss' Lipschitz constant) on a task with these
    training inputs and classes, whatever the model.

    Estimated from at most `most` training examples, drawn at random: R, the largest norm around the
    origin; m, by the `neighbours` nearest of each; δ, exact over all pairs. A task without classes
    needs `separation`: how far apart inputs are whose answers differ. The interval is that of the
    estimated dimension. Relative to an enormous space of functions: compare tasks and trends, and
    read no number as what a programmer must write. Also takes a `FunctionSpace` or a `Control`.
    """

    eps: float = 1e-3
    separation: float | None = None
    neighbours: int = 5
    most: int = 10_000
    column: str = "x"

    def __post_init__(self) -> None:
        _refuse_eps(self.eps)
        if self.separation is not None and not 0 < self.separation < inf:
            raise InvalidConfig(
                f"Difficulty got separation={self.separation}.",
                why="inputs with different answers lie apart.",
                fix="set separation > 0 in the unit of the inputs.",
            )

    def __call__(self, subject: Task | FunctionSpace | Control, lab: Lab) -> DifficultyReading:
        if not isinstance(subject, Task):
            return _reading(subject, self.eps)
        batch = training_batch(subject, lab)
        x = rows_of_numbers(batch, self.column)
        labelled, notes = _rows_with_labels(batch)
        order = torch.randperm(len(labelled), generator=lab.child("rows").generator())
        rows = labelled[order[: self.most]].sort().values
        if len(rows) < len(labelled):
            notes += (f"of {len(labelled):,} training examples {len(rows):,} were drawn",)
        x, y = x[rows], batch["y"].cpu()[rows]
        dimension = intrinsic_dimension(x, lab.child("dimension"), k=self.neighbours)
        space = replace(self._outputs(y), log_n=log(len(x)), dimension=dimension.value)
        pair = None
        if self.separation is None:
            closest = class_separation(x, _classes(y), rows)
            pair = (int(rows[closest.a]), int(rows[closest.b]))
            space = replace(space, separation=float(closest.distance))
        space = replace(space, radius=float(x.norm(dim=1).max()))
        return _reading(space, self.eps, dimension, pair, len(x), notes)

    def _outputs(self, y: Tensor) -> FunctionSpace:
        """What the targets decide of the space."""
        delta = self.separation or 1.0
        unknown = FunctionSpace(log_n=0.0, radius=1.0, dimension=1.0, separation=delta)
        if _is_classes(y):
            n = len(y.unique())
            _refuse_one_class(n, y)
            return replace(unknown, combinations=float(n), log_outputs=log(n - 1))
        if self.separation is None:
            raise InvalidData(
                "The targets are numbers, not classes.",
                why="the resolution of the task is the distance between inputs of different "
                "classes, and numbers have none.",
                fix="say how far apart inputs with different answers are: "
                "Difficulty(separation=…), --separation on the command line, in the unit of the "
                "inputs.",
            )
        values = y.reshape(len(y), -1).double()
        return replace(unknown, log_outputs=log(values.shape[1]), bound=float(values.abs().max()))


def _rows_with_labels(batch: Batch) -> tuple[Int[Tensor, " n"], tuple[str, ...]]:
    """Rows whose label counts, and a note on the others."""
    if "y" not in batch:
        raise InvalidData(
            "The training examples have no `y`.",
            why="the difficulty depends on which inputs have different answers.",
            fix="add a column `y` to every training split.",
        )
    rows = has_label({"y": batch["y"]}).cpu().nonzero().flatten()
    ignored = len(batch["y"]) - len(rows)
    if ignored and not len(rows):
        raise InvalidData(
            "No training example has a label.",
            why=f"{IGNORED} stands for none.",
            fix="give training examples with labels.",
        )
    if not ignored:
        return rows, ()
    n = len(batch["y"])
    return rows, (f"{ignored:,} of {n:,} training examples have the label {IGNORED}: left out",)


class EqualInputs(InvalidData):
    """Two training examples of different classes have the same inputs; `pair` says which."""

    def __init__(self, what: str, why: str, fix: str, pair: tuple[int, int]) -> None:
        super().__init__(what, why, fix)
        self.pair = pair

    def __reduce__(self) -> tuple:
        return type(self), (self.what, self.why, self.fix, self.pair)


def class_separation(
    x: Float[Tensor, "n d"], y: Int[Tensor, " n"], names: Int[Tensor, " n"] | None = None
) -> Pairs:
    """The two examples of different classes with the smallest distance, over all pairs.

    Equal inputs of different classes are refused, by the rows' `names`.
    """
    _refuse_one_class(len(y.unique()), y)
    closest = closest_pair(x, y)
    if not closest.threshold > 0:
        a, b = (int(rows) for rows in (closest.a, closest.b))
        at = (a, b) if names is None else (int(names[a]), int(names[b]))
        raise EqualInputs(
            f"Training examples {at[0]} and {at[1]} have equal inputs and different labels "
            f"({int(y[a])} and {int(y[b])}).",
            why="no function of the inputs is right on both, so no amount of bias is enough.",
            fix="correct or drop such rows, add the column that tells them apart, or give the "
            "distance below which answers may differ: Difficulty(separation=…).",
            pair=at,
        )
    return closest


def extrapolated_separation(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    lab: Lab,
    *,
    pairs: int = 400_000,
    largest: int = 2_000,
) -> float:
    """δ by extreme value theory from random pairs of different classes (moment estimator of
    Dekkers, Einmahl & de Haan, 1989, with the scale as in the authors' code), at most the smallest
    one drawn. For data too large for all pairs; otherwise `class_separation` is exact.
    """
    rng = lab.child("pairs").numpy()
    found: list[np.ndarray] = []
    while sum(map(len, found)) < pairs:
        i, j = (torch.from_numpy(rng.integers(len(x), size=20_000)) for _ in range(2))
        differ = y[i] != y[j]
        found.append((x[i[differ]] - x[j[differ]]).norm(dim=1).numpy())
    inverse = np.sort(1 / np.concatenate(found)[:pairs])
    threshold, top = inverse[-largest - 1], inverse[-largest:]
    logs = np.log(top / threshold)
    first, second = logs.mean(), np.square(logs).mean()
    shape = first + 1 - 0.5 / (1 - first**2 / second)
    shares = torch.unique(y, return_counts=True)[1].double() / len(y)
    every = len(x) ** 2 * float(1 - shares.square().sum())
    growth = ((largest / pairs * every) ** shape - 1) / shape
    return float(min(1 / inverse[-1], 1 / (threshold * (1 + first * growth))))


def _reading(
    space: FunctionSpace | Control,
    eps: float,
    dimension: Reading | None = None,
    pair: tuple[int, int] | None = None,
    n: int = 1,
    notes: tuple[str, ...] = (),
) -> DifficultyReading:
    found = space.log2_bits(eps)
    unit = "bits" if found < LARGEST else "log₂ bits"
    limits = [found]
    if dimension is not None and isinstance(space, FunctionSpace):
        ends = (dimension.low, dimension.high)
        limits += [replace(space, dimension=m).log2_bits(eps) for m in ends]
    low, high = (_in_unit(end, unit) for end in (min(limits), max(limits)))
    if len(limits) == 1:
        low = high = float("nan")
    notes = tuple(note for note in notes if note not in (NOTHING_LEFT, EASY))
    if found == -inf:
        nothing = isinstance(space, FunctionSpace) and space.log_free_dimensions == -inf
        notes = (*notes, NOTHING_LEFT if nothing else EASY)
    value = _in_unit(found, unit)
    return DifficultyReading(
        value, low, high, n, unit, None, inf, eps, found, space, dimension, pair, notes
    )


NOTHING_LEFT = "the training examples fix every function of the space: nothing is left to choose"
EASY = "an error so large is reached by every function that fits: no bias is needed"


def _in_unit(log2_bits: float, unit: str) -> float:
    if unit != "bits":
        return log2_bits
    return 0.0 if log2_bits == -inf else exp(log2_bits * log(2)) if log2_bits < 1023 else inf


def _is_classes(y: Tensor) -> bool:
    """Whole numbers, or floating zeros and ones as binary objectives take them."""
    one_column = y.dim() == 1 or y.numel() == len(y)
    return one_column and (not y.is_floating_point() or bool(((y == 0) | (y == 1)).all()))


def _classes(y: Tensor) -> Int[Tensor, " n"]:
    return y.reshape(len(y)).long()


def _refuse_one_class(classes: int, y: Tensor) -> None:
    if classes < 2:
        raise InvalidData(
            f"All {len(y)} training examples are of class {int(y.reshape(-1)[0])}.",
            why="a constant answers it: there is nothing to tell apart.",
            fix="give training examples of two classes at least.",
        )


def _refuse_eps(eps: float) -> None:
    if not 0 < eps < inf:
        raise InvalidConfig(
            f"Difficulty got eps={eps}.",
            why="an error of 0 asks for infinitely many bits.",
            fix="set eps > 0: the test error that would be good enough, say 1e-3.",
        )


def example() -> tuple[Difficulty, Task]:
    """Two bands of a sphere in space, with a gap between them."""
    x = torch.randn(500, 3, generator=Lab(seed=0).generator(), dtype=torch.float64)
    x = (x / x.norm(dim=1, keepdim=True))[(x[:, 0] / x.norm(dim=1)).abs() > 0.1]
    splits = {"train": Split(Columns(x=x, y=(x[:, 0] > 0).long()), Use.TRAIN)}
    task = Task(name="two bands", axis=Axis.IID, splits=splits, objective=classify)
    return Difficulty(eps=0.01), task
