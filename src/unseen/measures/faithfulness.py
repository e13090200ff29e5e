"""How faithful an explanation is: its loss as a local approximation, and what perturbing its top
features does.

Han, Srinivas & Lakkaraju (2022), arXiv:2206.01254: the loss on the neighbourhood one cares about,
not on the one that the method was fitted to; top-k and bottom-k perturbation tests by removal or
Gaussian noise.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from unseen import stats
from unseen.attribution import Attribution, Cause
from unseen.engine.batches import once
from unseen.engine.local.features import FeatureSpec
from unseen.engine.local.neighbourhoods import Gaussian, Neighbourhood, Parametrization, PointMass
from unseen.engine.local.perturbed_model import PerturbedModel, build_perturbed_model
from unseen.engine.local.surrogate import Explanation, Loss, evaluate, share_explained, weights_in
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading
from unseen.task import Batch, PerExample


def faithfulness(
    explanation: Explanation, at: PerturbedModel, where: Neighbourhood, loss: Loss, lab: Lab
) -> Reading:
    """1 − Σ LFA loss/Σ loss of w = 0 on a fresh sample of the neighbourhood; `detail` is the loss
    per input.

    Weights are converted to the units of the neighbourhood's map first (w to w·(x₀ − b) and back).
    """
    _refuse_mismatch(explanation, at)
    found = evaluate(at, where, loss, lab.child("judge"))
    w = weights_in(at, explanation, where.parametrization)
    return share_explained(found.loss(w), found.null, lab.child("resample"))


class Order(StrEnum):
    """Which features are perturbed."""

    TOP = "top"
    """Those with the largest absolute credits: the better the explanation, the more f changes."""
    BOTTOM = "bottom"
    """Those with the smallest: the better, the less."""


class Noise(StrEnum):
    """What becomes of them."""

    BINARY = "binary"
    """Their baseline."""
    GAUSSIAN = "gaussian"
    """The input plus noise."""


def changes(
    at: PerturbedModel,
    scores: Float[Tensor, "point d"],
    k: int,
    order: Order,
    noise: Noise,
    lab: Lab,
    sigma: float = 0.1,
    n: int = 20,
) -> Float[Tensor, " point"]:
    """Mean |f(x₀) − f(x₀ with k features perturbed)| per input, over n draws of Gaussian noise."""
    if not 1 <= k <= at.d or not sigma > 0 or n < 1:
        raise InvalidConfig(
            f"A perturbation test got k={k} of {at.d} features, sigma={sigma}, n={n}.",
            why="it perturbs at least one known feature by a positive amount.",
            fix="use 1 ≤ k ≤ d, sigma > 0 and n ≥ 1.",
        )
    chosen = torch.zeros_like(scores).scatter(
        1, scores.abs().topk(k, 1, largest=order is Order.TOP).indices, 1
    )
    if noise is Noise.BINARY:
        return (at.at_point - at.values_at(Parametrization.MULTIPLICATIVE, 1 - chosen)).abs()
    draws = torch.randn(n, at.d, generator=lab.generator(), dtype=torch.float64).to(scores)
    moved = [
        (at.at_point - at.values_at(Parametrization.ADDITIVE, sigma * draw * chosen)).abs()
        for draw in draws
    ]
    return torch.stack(moved).mean(0)


@dataclass(frozen=True)
class Gradient:
    """∇f(x₀): the explanation that every other one has to beat, and the default of the measures."""

    inputs: FeatureSpec = FeatureSpec()

    def prepare(self, trained: Trained, lab: Lab) -> "GradientAt":
        return GradientAt(trained, lab, self.inputs)


@dataclass(frozen=True)
class GradientAt:
    """The attributor of `Gradient`."""

    trained: Trained
    lab: Lab
    inputs: FeatureSpec

    def __call__(self, queries: Batch, behaviour: PerExample) -> Explanation:
        at = build_perturbed_model(self.trained.model, queries, behaviour, self.inputs, self.lab)
        xi = at.sample(PointMass(), self.lab).xi
        scores = torch.cat([g[:, 0] for _, _, g in at.gradients(PointMass(), xi)])
        return Explanation(scores, Cause.FEATURE, parametrization=Parametrization.ADDITIVE)


@dataclass(frozen=True)
class Faithfulness:
    """Share of what the model does in a neighbourhood that an attribution's credits explain: 1 − Σ
    loss/Σ loss of w = 0.
    """

    attribution: Attribution = Gradient()
    neighbourhood: Neighbourhood = Gaussian()
    loss: Loss = Loss.SQUARED
    behaviour: PerExample | None = None
    """What is explained; without it the task's loss."""
    split: str = "test"
    most: int = 100
    """Examples explained: the first ones of the split."""
    inputs: FeatureSpec = FeatureSpec()
    """The attribution's own."""
    invariances: ClassVar[tuple[str, ...]] = ("loss scale",)

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        explanation, at = _explain_split(
            self.attribution, self.behaviour, self.inputs, subject, self.split, self.most, lab
        )
        return faithfulness(explanation, at, self.neighbourhood, self.loss, lab)


@dataclass(frozen=True)
class PerturbationTest:
    """Mean |change of f| when the top or bottom `k` features by an attribution are removed or
    jittered.
    """

    attribution: Attribution = Gradient()
    k: int = 1
    order: Order = Order.TOP
    noise: Noise = Noise.BINARY
    sigma: float = 0.1
    behaviour: PerExample | None = None
    split: str = "test"
    most: int = 100
    inputs: FeatureSpec = FeatureSpec()

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        explanation, at = _explain_split(
            self.attribution, self.behaviour, self.inputs, subject, self.split, self.most, lab
        )
        found = changes(
            at, explanation.scores, self.k, self.order, self.noise, lab.child("noise"), self.sigma
        )
        reading = stats.mean(found.double().cpu().numpy(), within=(0, float("inf")))
        return Reading(
            reading.value, reading.low, reading.high, reading.n, "change of the behaviour", found
        )


def _explain_split(
    attribution: Attribution,
    behaviour: PerExample | None,
    inputs: FeatureSpec,
    subject: Trained,
    split: str,
    most: int,
    lab: Lab,
) -> tuple[Explanation, PerturbedModel]:
    """The attribution's answer about the first examples of a split, and the model around them."""
    batch = next(once(subject.task.split(split).data, most, lab))
    behaviour = behaviour or subject.task.objective.loss
    found = attribution.prepare(subject, lab.child("explain"))(batch, behaviour)
    if not isinstance(found, Explanation):
        raise InvalidData(
            f"{type(attribution).__name__} gave {type(found).__name__} of causes `{found.cause}`.",
            why="faithfulness needs credits of input features and their units.",
            fix="use an attribution of attributions/explanation.",
        )
    at = build_perturbed_model(subject.model, batch, behaviour, inputs, lab)
    _refuse_mismatch(found, at)
    return found, at


def _refuse_mismatch(explanation: Explanation, at: PerturbedModel) -> None:
    if explanation.scores.shape != (at.n, at.d):
        raise InvalidData(
            f"Credits of shape {tuple(explanation.scores.shape)} for {at.n} inputs of {at.d} "
            "features.",
            why="each input has one credit per feature.",
            fix="explain these inputs with the same mask.",
        )
    if not torch.isfinite(explanation.scores).all():
        raise InvalidData(
            "Credits are NaN or infinite.", "their loss would be, too.", "look at what made them."
        )


def example() -> Faithfulness:
    """How much of the loss near the evaluation examples of the battery's task the gradient
    explains.
    """
    return Faithfulness(split="same", most=20)
