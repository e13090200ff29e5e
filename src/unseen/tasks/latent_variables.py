"""Latent-variable models with many inputs and few labels (Ge, Tang, Fan & Jin, 2024,
arXiv:2303.01566).

Every task has `train` (TRAIN, `n` labelled examples), `unlabelled` (ADAPT, inputs alone, drawn
independently of all others) and `test` (EVALUATE). The parameters of the model are drawn once, from
the lab's stream `population`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import classify, regress
from unseen.task import Axis, Objective, Split, Task, Use

Draw = Callable[[int, np.random.Generator], dict[str, NDArray]]
"""So many examples by column."""


def _task(
    name: str, draw: Draw, sizes: "Sizes", objective: Objective, targets: tuple[str, ...], lab: Lab
) -> Task:
    """The three splits; the unlabelled one without the columns that only labelled examples have."""

    def split(name: str, n: int, use: Use) -> Split:
        columns = draw(n, lab.child(name).numpy())
        kept = {k: v for k, v in columns.items() if use is not Use.ADAPT or k not in targets}
        return Split(Columns(**{k: torch.from_numpy(v) for k, v in kept.items()}), use)

    splits = {
        "train": split("train", sizes.n, Use.TRAIN),
        "unlabelled": split("unlabelled", sizes.unlabelled, Use.ADAPT),
        "test": split("test", sizes.n_evaluate, Use.EVALUATE),
    }
    return Task(name=name, axis=Axis.IID, splits=splits, objective=objective)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many examples have labels, how many have none, and how many are evaluated."""

    n: int = 100
    unlabelled: int = 2_000
    n_evaluate: int = 1_000

    def __post_init__(self) -> None:
        if min(self.n, self.unlabelled, self.n_evaluate) < 1:
            raise InvalidConfig(
                f"{type(self).__name__}(n={self.n}, unlabelled={self.unlabelled}, "
                f"n_evaluate={self.n_evaluate}) has an empty split.",
                why="each part needs an example.",
                fix="use sizes of at least 1.",
            )


@dataclass(frozen=True)
class LinearGaussian:
    """x ∼ N(0, `covariance`) and E[y | x] = `best`ᵀ x, known exactly."""

    covariance: Float[Tensor, "d d"]
    best: Float[Tensor, " d"]
    noise2: float
    """Var[y | x], the smallest possible mean squared error."""


@dataclass(frozen=True, kw_only=True)
class FactorModel(Sizes):
    """x = B z + σ e with z ∼ N(0, I_r), e ∼ N(0, I_d), and y = βᵀz + ν ε with ‖β‖ = 1.

    The entries of B are standard normal, so its squared singular values are near `dim`. With
    `outside`, y = uᵀx + ν ε with a unit vector u orthogonal to the columns of B instead: then the
    factors know nothing of y.
    """

    dim: int = 100
    factors: int = 5
    noise: float = 1.0
    """σ."""
    target_noise: float = 0.3
    """ν."""
    outside: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_rank(self.factors, self.dim)
        if not (self.noise >= 0 and self.target_noise >= 0):
            raise InvalidConfig(
                f"FactorModel(noise={self.noise}, target_noise={self.target_noise}).",
                why="they are standard deviations.",
                fix="use numbers of at least 0.",
            )

    def parameters(self, lab: Lab) -> dict[str, NDArray[np.float64]]:
        """`loadings` B [d, r], and what y depends on: `beta` [r], or `outside` [d]."""
        rng = lab.child("population").numpy()
        loadings = rng.normal(size=(self.dim, self.factors))
        beta = rng.normal(size=self.factors)
        found = {"loadings": loadings, "beta": beta / np.linalg.norm(beta)}
        if self.outside:
            free = rng.normal(size=self.dim)
            free -= loadings @ np.linalg.lstsq(loadings, free, rcond=None)[0]
            found["outside"] = free / np.linalg.norm(free)
        return found

    def population(self, lab: Lab) -> LinearGaussian:
        """Of x and y: Σ = B Bᵀ + σ² I and w* = Σ⁻¹ B β (or u)."""
        known = self.parameters(lab)
        loadings = known["loadings"]
        covariance = loadings @ loadings.T + self.noise**2 * np.eye(self.dim)
        best, rest = known.get("outside", np.zeros(self.dim)), 0.0
        if not self.outside:
            # Σ⁻¹ B β = B (BᵀB + σ² I)⁻¹ β, which exists without noise, too
            gram = loadings.T @ loadings
            solved = np.linalg.solve(gram + self.noise**2 * np.eye(self.factors), known["beta"])
            best = loadings @ solved
            rest = 1.0 - float(known["beta"] @ gram @ solved)
        return LinearGaussian(
            torch.from_numpy(covariance), torch.from_numpy(best), self.target_noise**2 + rest
        )

    def build(self, lab: Lab) -> Task:
        known = self.parameters(lab)

        def draw(n: int, rng: np.random.Generator) -> dict[str, NDArray]:
            z = rng.normal(size=(n, self.factors))
            x = z @ known["loadings"].T + self.noise * rng.normal(size=(n, self.dim))
            signal = x @ known["outside"] if self.outside else z @ known["beta"]
            y = signal + self.target_noise * rng.normal(size=n)
            return {"x": x.astype(np.float32), "y": y.astype(np.float32)}

        return _task("factor_model", draw, self, regress, ("y",), lab)


@dataclass(frozen=True, kw_only=True)
class GaussianClusters(Sizes):
    """x ∼ N(mean of a component, I), one of `components` with equal probability; a label (0 or 1)
    per component.

    The means have norm `separation` and uniform directions. Training labels are flipped with
    probability `label_noise`; evaluated ones are clean. Columns: `x`, `y`, `component`.
    """

    components: int = 8
    dim: int = 50
    separation: float = 4.0
    label_noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components < 2 or self.dim < 1 or not 0 <= self.label_noise < 0.5:
            raise InvalidConfig(
                f"GaussianClusters(components={self.components}, dim={self.dim}, "
                f"label_noise={self.label_noise}) is out of range.",
                why="two labels need two components, and labels flipped half the time say nothing.",
                fix="use components ≥ 2, dim ≥ 1 and 0 ≤ label_noise < 0.5.",
            )

    def means(self, lab: Lab) -> Float[Tensor, "component d"]:
        """The means of the components."""
        drawn = lab.child("population").numpy().normal(size=(self.components, self.dim))
        return torch.from_numpy(
            self.separation * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        )

    @property
    def labels(self) -> Int[Tensor, " component"]:
        """Half of the components have label 1 (directions are exchangeable: which ones is of no
        matter).
        """
        return (torch.arange(self.components) % 2).long()

    def build(self, lab: Lab) -> Task:
        means, labels = self.means(lab).numpy(), self.labels.numpy()

        def draw(n: int, rng: np.random.Generator) -> dict[str, NDArray]:
            component = rng.integers(self.components, size=n)
            x = means[component] + rng.normal(size=(n, self.dim))
            return {"x": x.astype(np.float32), "y": labels[component], "component": component}

        task = _task("gaussian_clusters", draw, self, classify, ("y", "component"), lab)
        train = task.splits["train"].data
        assert isinstance(train, Columns)  # made above
        flipped = torch.from_numpy(lab.child("flips").numpy().random(self.n) < self.label_noise)
        train.columns["y"] = train.columns["y"] ^ flipped.long()
        return task

    def best_class(self, x: Float[Tensor, "n d"], lab: Lab) -> Int[Tensor, " n"]:
        """The Bayes rule: the label with the larger sum of component densities."""
        means = self.means(lab).to(x)
        log_density = x @ means.T - means.square().sum(1) / 2
        sides = [log_density[:, self.labels == y].logsumexp(1) for y in (0, 1)]
        return (sides[1] > sides[0]).long()


@dataclass(frozen=True, kw_only=True)
class Views(Sizes):
    """Two noisy views of the same factors: x = B z + σ e and x′ = B z + σ e′ (column `view`), with
    the label 1[βᵀz + ν ε > 0] of x.

    What a contrastive method learns from pairs: which inputs belong to the same z. The entries of B
    are normal with variance 1/`dim`, so that the factors have about the strength of one input.
    """

    dim: int = 100
    factors: int = 5
    noise: float = 0.5
    target_noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_rank(self.factors, self.dim)

    def loadings(self, lab: Lab) -> NDArray[np.float64]:
        """B [d, r]."""
        size = (self.dim, self.factors)
        return lab.child("population").numpy().normal(size=size) / np.sqrt(self.dim)

    def build(self, lab: Lab) -> Task:
        loadings = self.loadings(lab)
        beta = lab.child("population", "labels").numpy().normal(size=self.factors)
        beta /= np.linalg.norm(beta)

        def draw(n: int, rng: np.random.Generator) -> dict[str, NDArray]:
            z = rng.normal(size=(n, self.factors))
            first, second = (
                z @ loadings.T + self.noise * rng.normal(size=(n, self.dim)) for _ in range(2)
            )
            y = z @ beta + self.target_noise * rng.normal(size=n) > 0
            views = {"x": first.astype(np.float32), "view": second.astype(np.float32)}
            return {**views, "y": y.astype(np.int64)}

        return _task("views", draw, self, classify, ("y",), lab)


def _refuse_rank(factors: int, dim: int) -> None:
    if not 1 <= factors < dim:
        raise InvalidConfig(
            f"{factors} factors in {dim} dimensions.",
            why="fewer factors than inputs must carry what the inputs share.",
            fix=f"use 1 ≤ factors < {dim}.",
        )


def example() -> FactorModel:
    """The smoke study's model, smaller."""
    return FactorModel(dim=12, factors=2, n=30, unlabelled=200, n_evaluate=50)
