"""Eight explanation methods as one: the function of a class that is closest to the model in a
neighbourhood.

Han, Srinivas & Lakkaraju (2022), Which Explanation Should I Choose?, arXiv:2206.01254. Each preset
names its neighbourhood and loss; `solve.py` has the minimisers, `guide.py` picks by faithfulness.
Every answer is an
`Explanation`: credits of features that carry their own loss.

| preset | ξ | loss | credits |
|---|---|---|---|
| `CLime` | additive Gaussian | squared error | slopes |
| `SmoothGrad` | additive Gaussian | gradient matching | slopes |
| `VanillaGradients` | additive, zero width | gradient matching | slopes |
| `IntegratedGradients` | baseline to input | gradient matching | effects |
| `GradientTimesInput` | multiplicative, zero width | gradient matching | effects |
| `Lime` | random masks, near ones first | squared error | effects |
| `KernelShap` | masks with the Shapley kernel | squared error, exact at both ends | effects |
| `Occlusion` | one feature removed | squared error | effects |
"""

import warnings
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unseen.attributions.explanation.solve import Approximation, solve_explanation
from unseen.engine.local.features import FeatureSpec
from unseen.engine.local.neighbourhoods import (
    Coalitions,
    Gaussian,
    LeaveOneOut,
    Masks,
    Parametrization,
    PathSegment,
    PointMass,
    Rule,
)
from unseen.engine.local.perturbed_model import build_perturbed_model
from unseen.engine.local.surrogate import Explanation, Loss
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, PerExample

KINKED = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Hardtanh,
    nn.Hardswish,
    nn.MaxPool1d,
    nn.MaxPool2d,
)
RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, _BatchNorm)


@dataclass(frozen=True)
class Explainer:
    """The attributor: explains `behaviour` at the queries."""

    trained: Trained
    lab: Lab
    approximation: Approximation
    inputs: FeatureSpec

    def __call__(self, queries: Batch, behaviour: PerExample) -> Explanation:
        at = build_perturbed_model(self.trained.model, queries, behaviour, self.inputs, self.lab)
        return solve_explanation(at, self.approximation, self.lab)


@runtime_checkable
class Preset(Protocol):
    """An explanation method: an attribution that says which approximation it is."""

    @property
    def inputs(self) -> FeatureSpec: ...
    def approximation(self, model: nn.Module) -> Approximation: ...
    def prepare(self, trained: Trained, lab: Lab) -> Explainer: ...


def build_explainer(preset: Preset, trained: Trained, lab: Lab) -> Explainer:
    """The explainer; warns once where the model draws random numbers or mixes examples while it
    trains.
    """
    name = next(
        (n for n, m in trained.model.named_modules() if m.training and isinstance(m, RANDOM)), None
    )
    if name is not None:
        warnings.warn(
            f"The model is in training mode (`{name}`), where an explanation would be random: it "
            "is explained in "
            "evaluation mode. Call model.eval() first.",
            UserWarning,
            stacklevel=3,
        )
    return Explainer(trained, lab, preset.approximation(trained.model), preset.inputs)


@dataclass(frozen=True)
class Lime:
    """Weighted least squares on random masks (Ribeiro et al., 2016, arXiv:1602.04938), kernel of
    the paper's code.

    `scaled`: kernel distances in units of ‖x₀ − b‖. No feature selection; `ridge` adds ridge ·
      ‖w‖².
    """

    width: float = 0.75
    n: int = 1_000
    scaled: bool = True
    ridge: float = 0.0
    inputs: FeatureSpec = FeatureSpec()

    def approximation(self, model: nn.Module) -> Approximation:
        return Approximation(Masks(self.width, self.n, self.scaled), ridge=self.ridge)

    def prepare(self, trained: Trained, lab: Lab) -> Explainer:
        return build_explainer(self, trained, lab)


@dataclass(frozen=True)
class CLime:
    """Least squares on Gaussian noise (Agarwal et al., 2021, arXiv:2102.10618): SmoothGrad in
    expectation.
    """

    sigma: float = 0.1
    n: int = 1_000
    ridge: float = 0.0
    inputs: FeatureSpec = FeatureSpec()

    def approximation(self, model: nn.Module) -> Approximation:
        return Approximation(Gaussian(self.sigma, self.n), ridge=self.ridge)

    def prepare(self, trained: Trained, lab: Lab) -> Explainer:
        return build_explainer(self, trained, lab)


@dataclass(frozen=True)
class KernelShap:
    """Shapley values of f(features kept, others at the baseline) (Lundberg & Lee, 2017,
    arXiv:1705.07874).

    Exact once n ≥ 2^d − 2; credits sum to f(x₀) − f(b) always.
    """

    n: int = 1_000
    inputs: FeatureSpec = FeatureSpec()

    def approximation(self, model: nn.Module) -> Approximation:
        return Approximation(Coalitions(self.n))

    def prepare(self, trained: Trained, lab: Lab) -> Explainer:
        return build_explainer(self, trained, lab)


@dataclass(frozen=True)
class Occlusion:
    """f(x₀) − f(x₀ with the feature at its baseline) (Zeiler & Fergus, 2014, arXiv:1311.2901)."""

    inputs: FeatureSpec = FeatureSpec()

    def approximation(self, model: nn.Module) -> Approximation:
        return Approximation(LeaveOneOut())

    def prepare(self, trained: Trained, lab: Lab) -> Explainer:
        return build_explainer(self, trained, lab)


@dataclass(frozen=True)
class VanillaGradients:
    """∇f(x₀), signed (Simonyan et al., 2014, arXiv:1312.6034)."""

    inputs: FeatureSpec = FeatureSpec()

    def approximation(self, model: nn.Module) -> Approximation:
        return Approximation(PointMass(Parametrization.ADDITIVE), Loss.GRADIENT)

    def prepare(self, trained: Trained, lab: Lab) -> Explainer:
        return build_explainer(self, trained, lab)


@dataclass(frozen=True)
class GradientTimesInput:
    """(x₀ − b) ⊙ ∇f(x₀) (Shrikumar et al., 2017, arXiv:1704.02685)."""

    inputs: FeatureSpec = FeatureSpec()

    def approximation(self, model: nn.Module) -> Approximation:
        return Approximation(PointMass(Parametrization.MULTIPLICATIVE), Loss.GRADIENT)

    def prepare(self, trained: Trained, lab: Lab) -> Explainer:
        return build_explainer(self, trained, lab)


@dataclass(frozen=True)
class SmoothGrad:
    """E ∇f(x₀ + ξ), signed (Smilkov et al., 2017, arXiv:1706.03825)."""

    sigma: float = 0.1
    n: int = 50
    inputs: FeatureSpec = FeatureSpec()

    def approximation(self, model: nn.Module) -> Approximation:
        return Approximation(Gaussian(self.sigma, self.n), Loss.GRADIENT)

    def prepare(self, trained: Trained, lab: Lab) -> Explainer:
        return build_explainer(self, trained, lab)


@dataclass(frozen=True)
class IntegratedGradients:
    """(x₀ − b) ⊙ ∫₀¹ ∇f(b + a(x₀ − b)) da (Sundararajan et al., 2017, arXiv:1703.01365); `gap` says
    what n left open.

    `rule` None: midpoint where the model has kinks (ReLU, max pooling), Gauss–Legendre where it is
    smooth.
    """

    n: int = 50
    rule: Rule | None = None
    inputs: FeatureSpec = FeatureSpec()

    def approximation(self, model: nn.Module) -> Approximation:
        kinked = any(isinstance(module, KINKED) for module in model.modules())
        rule = self.rule or (Rule.MIDPOINT if kinked else Rule.GAUSS_LEGENDRE)
        return Approximation(PathSegment(0.0, self.n, rule), Loss.GRADIENT)

    def prepare(self, trained: Trained, lab: Lab) -> Explainer:
        return build_explainer(self, trained, lab)


@dataclass(frozen=True)
class LocalApproximation:
    """Any other combination of neighbourhood, loss and class of functions, logistic ones
    included.
    """

    how: Approximation
    inputs: FeatureSpec = FeatureSpec()

    def approximation(self, model: nn.Module) -> Approximation:
        return self.how

    def prepare(self, trained: Trained, lab: Lab) -> Explainer:
        return build_explainer(self, trained, lab)


def eight(
    sigma: float = 0.1, width: float = 0.75, n: int = 1_000, inputs: FeatureSpec = FeatureSpec()
) -> dict[str, Preset]:
    """The eight methods by name, with the same noise, width and number of samples."""
    return {
        "LIME": Lime(width, n, inputs=inputs),
        "C-LIME": CLime(sigma, n, inputs=inputs),
        "KernelSHAP": KernelShap(n, inputs=inputs),
        "Occlusion": Occlusion(inputs=inputs),
        "Vanilla Gradients": VanillaGradients(inputs=inputs),
        "Gradient × Input": GradientTimesInput(inputs=inputs),
        "SmoothGrad": SmoothGrad(sigma, n, inputs=inputs),
        "Integrated Gradients": IntegratedGradients(inputs=inputs),
    }


def over(preset: Preset, inputs: FeatureSpec) -> Preset:
    """The same method on other inputs."""
    return replace(preset, inputs=inputs)  # type: ignore[type-var]


def example() -> KernelShap:
    return KernelShap(n=14)
