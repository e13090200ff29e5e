"""Averages in the space of weights.

WiSE-FT: Wortsman et al. (2022, arXiv:2109.01903). BANG: Lin et al. (2024, arXiv:2309.17230),
section 5. Average of several fine-tuned models (uniform soup): Wortsman et al. (2022,
arXiv:2203.05482).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.batches import size
from unseen.engine.domain_risks import inputs_of, merge_batches
from unseen.engine.features import FixedOutput
from unseen.engine.loop import Budget, Draw, Schedule, erm_step, train
from unseen.engine.vectorized.choose import train_many
from unseen.engine.vectorized.steps import VectorizedStep
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.mixup import mixing
from unseen.task import Batch, Objective, Task


def average_weights(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Σ_k w_k θ_k of all floating entries; other entries (counters) are those of the last state.

    States with a weight of 1 beside zeros come back exactly.
    """
    _refuse_different(states)
    found: dict[str, Tensor] = {}
    for name, last in states[-1].items():
        if not last.is_floating_point():
            found[name] = last.clone()
            continue
        parts = [(w, state[name]) for w, state in zip(weights, states, strict=True) if w != 0]
        found[name] = (
            torch.stack([w * tensor for w, tensor in parts]).sum(0)
            if parts
            else torch.zeros_like(last)
        )
    return found


def _refuse_different(states: Sequence[Mapping[str, Tensor]]) -> None:
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in states]
    for other in shapes[1:]:
        odd = sorted({name for name, _ in shapes[0].items() ^ other.items()})
        if odd:
            raise InvalidData(
                f"Weights cannot be averaged: {', '.join(odd[:6])}{' …' if len(odd) > 6 else ''} "
                "differ in name or shape.",
                why="entry by entry they must mean the same.",
                fix="average models of one architecture that began at the same weights, heads "
                "included.",
            )


def interpolate_weights(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """(1 − α) start + α end; exactly the start at 0 and the end at 1."""
    return average_weights([start, end], [1 - alpha, alpha])


def refuse_alpha(alpha: float, who: str) -> None:
    if not 0 <= alpha <= 1:
        raise InvalidConfig(
            f"{who} got alpha={alpha}.",
            why="the average lies between the weights before (0) and after fine-tuning (1).",
            fix="choose a value from 0 to 1, for example 0.5.",
        )


def _toward(trained: Trained, before: Mapping[str, Tensor], alpha: float) -> Trained:
    after = parameters.state(trained.model)
    trained.model.load_state_dict(interpolate_weights(before, after, alpha))
    return trained


@dataclass(frozen=True)
class WiSEFT:
    """(1 − α) · weights before + α · weights after fine-tuning, of all parameters and running
    statistics.

    The model must come pre-trained with a head for this task: averaged with unrelated weights
    nothing is gained.
    """

    alpha: float = 0.5
    budget: Budget = field(default_factory=lambda: Budget(lr=1e-4, schedule=Schedule.COSINE))

    def __post_init__(self) -> None:
        refuse_alpha(self.alpha, "WiSEFT")

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        model.to(lab.device, lab.dtype)
        before = parameters.state(model)
        return _toward(train(model, task, erm_step, self.budget, lab), before, self.alpha)


def label_smoothing_loss(
    outputs: FixedOutput,
    batch: Batch,
    objective: Objective,
    classes: int,
    smoothing: Tensor | float,
) -> Tensor:
    """(1 − ε) ℓ(y) + ε mean over classes k of ℓ(k): the loss of the target (1 − ε) y + ε/K."""
    each = [
        objective.loss(outputs, {**batch, "y": torch.full_like(batch["y"], k)})
        for k in range(classes)
    ]
    return (1 - smoothing) * objective.loss(outputs, batch) + smoothing * torch.stack(each).mean(0)


def mixup_or_identity(draw: Draw, *, smoothing: float, mixing_alpha: float) -> Mapping[str, Tensor]:
    """As in mixup; with α = 0 every example stays itself."""
    if mixing_alpha > 0:
        return mixing(draw, alpha=mixing_alpha)
    like = next(iter(draw.fit.values()))["x"]
    return {
        "share": torch.ones((), dtype=like.dtype),
        "partner": torch.arange(sum(map(size, draw.fit.values()))),
    }


def soft_criterion(
    model: nn.Module,
    draw: Draw,
    objective: Objective,
    *,
    smoothing: Tensor | float,
    mixing_alpha: Tensor | float,
    share: Tensor,
    partner: Tensor,
) -> Tensor:
    """Mixup of smoothed targets: mean of λ ℓ_ε(f(x̃), y_i) + (1 − λ) ℓ_ε(f(x̃), y_j)."""
    own = merge_batches(draw.fit.values())
    if own["y"].is_floating_point():
        raise InvalidData(
            "BANG got real-valued targets.", "it smooths the labels of classes.", "use WiSEFT."
        )
    x, other = inputs_of(own, "BANG"), {key: column[partner] for key, column in own.items()}
    z = model(share * x + (1 - share) * other["x"])
    outputs, classes = FixedOutput(z), max(2, z[0].numel())
    first, second = (
        label_smoothing_loss(outputs, batch, objective, classes, smoothing)
        for batch in (own, other)
    )
    return (share * first + (1 - share) * second).mean()


@dataclass(frozen=True)
class BANG:
    """WiSE-FT of a model fine-tuned with label smoothing ε and mixup α, so that its certainty does
    not rule the average.

    Without either (`smoothing=0`, `mixing_alpha=0`) it is WiSE-FT; with `alpha=1` it is fine-tuning
    with soft labels.
    """

    alpha: float = 0.5
    smoothing: float = 0.1
    mixing_alpha: float = 0.2
    budget: Budget = field(default_factory=lambda: Budget(lr=1e-4, schedule=Schedule.COSINE))

    def __post_init__(self) -> None:
        refuse_alpha(self.alpha, "BANG")
        if not 0 <= self.smoothing < 1 or not self.mixing_alpha >= 0:
            raise InvalidConfig(
                f"BANG(smoothing={self.smoothing}, mixing_alpha={self.mixing_alpha}) is out of "
                "range.",
                why="a smoothed label keeps a part of itself, and a Beta distribution has α > 0 "
                "(0: no mixup).",
                fix="set 0 ≤ smoothing < 1 and mixing_alpha ≥ 0.",
            )

    @property
    def training(self) -> VectorizedStep:
        settings = {"smoothing": self.smoothing, "mixing_alpha": self.mixing_alpha}
        return VectorizedStep(criterion=soft_criterion, settings=settings, noise=mixup_or_identity)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        model.to(lab.device, lab.dtype)
        before = parameters.state(model)
        return _toward(train(model, task, self.training, self.budget, lab), before, self.alpha)


@dataclass(frozen=True)
class WeightEnsemble:
    """The mean weights of `members` models that all begin at the given ones and see the data in
    orders of their own.
    """

    members: int = 2
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if self.members < 1:
            raise InvalidConfig(
                f"WeightEnsemble got members={self.members}.", "there is none to average.", "use 2."
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        models = [copy.deepcopy(model) for _ in range(self.members)]
        labs = [lab.child("member", k) if k else lab for k in range(self.members)]
        trained = train_many(models, task, erm_step, self.budget, labs)
        states = [parameters.state(each.model) for each in trained]
        model.to(lab.device, lab.dtype)
        model.load_state_dict(average_weights(states, [1 / self.members] * self.members))
        curves = {f"loss {k}": each.curves["loss"] for k, each in enumerate(trained)}
        return replace(
            trained[0], model=model.eval(), curves={"loss": trained[0].curves["loss"], **curves}
        )


def example() -> WiSEFT:
    """Thirty steps from the given weights, half way back."""
    return WiSEFT(budget=Budget(steps=30, batch_size=32, lr=0.01))
