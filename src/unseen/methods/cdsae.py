"""Counterfactually fair sequential autoencoder, CDSAE (Lin et al., 2023, arXiv:2309.13005).

The paper's code is not public; what it leaves open is stated where it is decided.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import once, size, whole
from unseen.engine.domain_risks import environments, merge_batches
from unseen.engine.features import FixedOutput
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.toy import toy_subject
from unseen.engine.vectorized.steps import VectorizedStep
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.ensemble_model import log_probabilities
from unseen.models.sequential_autoencoder import Codes, Posterior, SequentialAutoencoder
from unseen.search_space import LogUniform, Space
from unseen.task import Objective, Task, Use


class Adversary(StrEnum):
    """Which codes must not tell the sensitive attribute."""

    SEMANTIC = "semantic"
    """All codes that the label is read from."""
    UNINFLUENCED = "uninfluenced"
    """Those that the model holds to be not influenced, as in the paper: the classifier may still
    use the others.
    """


def reverse_gradient(codes: Tensor, strength: Tensor | float) -> Tensor:
    """The same values, with −strength times their gradient (Ganin & Lempitsky, 2015)."""
    return (1 + strength) * codes.detach() - strength * codes


def code_noise(draw: Draw, *, k: int, **unused: Any) -> Mapping[str, Tensor]:
    """One standard normal number per example and code."""
    n, like = sum(map(size, draw.fit.values())), next(iter(draw.fit.values()))["x"]
    return {
        "noise": torch.randn(n, 4 * k, generator=draw.generator, dtype=like.dtype).to(like.device)
    }


def adversary_inputs(
    model: SequentialAutoencoder, codes: Float[Tensor, "n codes"], adversary: Adversary
) -> Tensor:
    """What the discriminator sees."""
    if adversary is Adversary.SEMANTIC:
        return model.semantic(codes)
    return torch.cat(
        [model.group(codes, which) for which in (Codes.SEMANTIC, Codes.ENVIRONMENT)], 1
    )


def fairness_gap(
    model: SequentialAutoencoder, x: Float[Tensor, "n d"], codes: Tensor
) -> Float[Tensor, " n"]:
    """½ Σ_y |p(y | U) − p(y | Ū)| with Ū the mean code of decoder(U, other a): |Δ p(ŷ = 1)| for two
    classes.
    """
    other = model.posterior(model.flip_group(x, codes)).mean
    p, q = (log_probabilities(model.classifier(model.semantic(u))).exp() for u in (codes, other))
    return (p - q).abs().sum(1) / 2


def prior_means(
    model: SequentialAutoencoder, posterior: Posterior, sizes: list[int]
) -> Float[Tensor, "n codes"]:
    """0 for semantic codes; for environmental ones what the earlier domains let expect."""
    environment = torch.stack(
        [part.mean(0) for part in posterior.mean[:, 2 * model.k :].split(sizes)]
    )
    drift = model.drift(environment)
    each = torch.cat([row.expand(n, -1) for row, n in zip(drift, sizes, strict=True)])
    return torch.cat([torch.zeros_like(each), each], 1)


def cdsae_criterion(
    model: SequentialAutoencoder,
    draw: Draw,
    objective: Objective,
    *,
    noise: Tensor,
    reconstruction: Tensor | float,
    beta: Tensor | float,
    fairness: Tensor | float,
    independence: Tensor | float,
    k: int,
    adversary: Adversary,
) -> Tensor:
    """ρ ‖x − x̂‖² + β KL + ℓ(U) + λ_f gap + CE(discriminator), whose gradient reaches the codes
    times −λ_tc.

    The minibatches are the domains in their order. Discriminator and encoder move in the same step,
    in opposite directions, where the paper alternates.
    """
    batches = environments(draw, "CDSAE")
    x = torch.cat([batch["x"].flatten(1) for batch in batches])
    posterior = model.posterior(x)
    codes = posterior.sample(noise)
    error = (model.reconstruct(codes, x[:, model.sensitive]) - x[:, model.others]).square().mean()
    divergence = (
        posterior.divergence(prior_means(model, posterior, [size(b) for b in batches]))
        .sum(1)
        .mean()
    )
    label = objective.loss(
        FixedOutput(model.classifier(model.semantic(codes))), merge_batches(batches)
    ).mean()
    seen = reverse_gradient(adversary_inputs(model, codes, adversary), independence)
    guess = F.binary_cross_entropy_with_logits(model.discriminator(seen)[:, 0], model.attribute(x))
    gap = fairness_gap(model, x, codes).mean()
    return reconstruction * error + beta * divergence + label + fairness * gap + guess


@dataclass(frozen=True)
class CDSAE:
    """Splits people's codes into semantic and environmental ones, and labels by semantic ones that
    hide a.

    Needs the domains as TRAIN splits in their order (column `domain` rising) and a among the
    inputs: `sensitive` are its positions, all binary (an indicator column, or both of a pair). λ_f
    = `fairness` lowers the effect of the model's own counterfactual, which need not be the true
    one; λ_tc = `independence` keeps a out of the codes as they are drawn in training. The label is
    read from their means, in which a new adversary still finds a: train one before you claim
    independence (study counterfactual_fairness). Of the model given only the number of outputs is
    used. `curves` tell how many nats each group of codes holds: below 0.01 it is collapsed.
    """

    sensitive: tuple[int, ...] = (-1,)
    codes: int = 2
    """Per group."""
    width: int = 32
    hidden: int = 8
    """Units of the recurrence over domains."""
    reconstruction: float = 3.0
    beta: float = 0.05
    fairness: float = 1.0
    independence: float = 1.0
    adversary: Adversary = Adversary.SEMANTIC
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"fairness": LogUniform(0.1, 10), "independence": LogUniform(0.1, 5)}

    def __post_init__(self) -> None:
        weights = (self.reconstruction, self.beta, self.fairness, self.independence)
        if (
            not all(weight >= 0 for weight in weights)
            or min(self.codes, self.width, self.hidden) < 1
        ):
            raise InvalidConfig(
                f"CDSAE(codes={self.codes}, width={self.width}, hidden={self.hidden}, "
                "reconstruction="
                f"{self.reconstruction}, beta={self.beta}, fairness={self.fairness}, "
                f"independence={self.independence}) "
                "is out of range.",
                why="weights are at least 0, and every part has units.",
                fix="correct the value.",
            )

    @property
    def training(self) -> VectorizedStep:
        settings = {
            name: getattr(self, name)
            for name in ("reconstruction", "beta", "fairness", "independence")
        }
        fixed = {"k": self.codes, "adversary": self.adversary}
        return VectorizedStep(
            criterion=cdsae_criterion, settings=settings, fixed=fixed, noise=code_noise
        )

    def surgery(self, model: nn.Module, task: Task, lab: Lab) -> SequentialAutoencoder:
        """A new autoencoder for the task's inputs, with as many outputs as the model has."""
        levels = attribute_levels(task, self.sensitive, lab)
        x = next(once(next(iter(task.of(Use.TRAIN).values())).data, 2, lab))["x"]
        with torch.no_grad():
            outputs = model.to(lab.device, lab.dtype).eval()(x).flatten(1).shape[1]
        sizes = {"k": self.codes, "width": self.width, "hidden": self.hidden}
        with lab.child("cdsae").seeded():
            made = SequentialAutoencoder(x[0].numel(), outputs, self.sensitive, levels, **sizes)
        return made.to(lab.device, lab.dtype)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        made = self.surgery(model, task, lab)
        trained = train(made, task, self.training, self.budget, lab)
        return replace(trained, curves={**trained.curves, **nats(made, task, lab)})


@torch.no_grad()
def nats(model: SequentialAutoencoder, task: Task, lab: Lab) -> dict[str, list[float]]:
    """Mean KL(q(U | x) ‖ N(mean of the domain or 0, 1)) of each group of codes on the TRAIN splits:
    what it holds.
    """
    parts = [whole(split.data, lab)["x"].flatten(1) for split in task.of(Use.TRAIN).values()]
    posterior = model.eval().posterior(torch.cat(parts))
    each = posterior.divergence(prior_means(model, posterior, [len(part) for part in parts]))
    return {f"nats {which}": [float(model.group(each, which).sum(1).mean())] for which in Codes}


def attribute_levels(task: Task, sensitive: tuple[int, ...], lab: Lab) -> Float[Tensor, "2 s"]:
    """The two values of every sensitive input; refuses domains out of order or without both groups
    or classes.
    """
    fitted, previous = task.of(Use.TRAIN), -1
    if len(fitted) < 2:
        raise InvalidData(
            f"CDSAE needs at least two training domains, and `{task.name}` has one split to fit.",
            why="it learns how domains drift.",
            fix="give one TRAIN split per domain, in the order of time.",
        )
    levels: list[Tensor] = []
    for name, split in fitted.items():
        batch = whole(split.data, lab)
        x = batch["x"].flatten(1)
        if max(abs(j + (j < 0)) for j in sensitive) >= x.shape[1]:
            raise InvalidConfig(
                f"CDSAE got sensitive={sensitive}, and inputs have {x.shape[1]} numbers.",
                why="the sensitive attribute is one of them.",
                fix="count positions from 0, or from −1 at the end.",
            )
        levels.append(
            _two_levels(name, [x[:, j].unique() for j in sensitive], len(batch["y"].unique(dim=0)))
        )
        place = int(batch["domain"].min()) if "domain" in batch else previous + 1
        if place <= previous:
            raise InvalidData(
                f"Domain `{name}` is number {place} and comes after number {previous}.",
                why="the expected environment of a domain rests on those before it.",
                fix="list the TRAIN splits in the order of time.",
            )
        previous = place
    if not all(torch.equal(each, levels[0]) for each in levels):
        raise InvalidData(
            "The sensitive inputs have other values in other domains.",
            why="flipping an attribute means the same everywhere.",
            fix="encode it once for all domains.",
        )
    return levels[0]


def _two_levels(name: str, values: list[Tensor], classes: int) -> Float[Tensor, "2 s"]:
    if not all(len(v) == 2 for v in values) or classes < 2:
        raise InvalidData(
            f"In domain `{name}` the sensitive inputs have {[len(v) for v in values]} values and "
            f"the label {classes}.",
            why="a counterfactual flips a binary attribute, and both groups and classes must be "
            "known everywhere.",
            fix="encode the attribute as one or two indicator inputs, and merge domains without "
            "both.",
        )
    return torch.stack(values, 1)


def example() -> tuple[CDSAE, Trained]:
    """Thirty steps; the sensitive attribute is the last input."""
    trained = toy_subject()
    splits = {}
    for name, split in trained.task.splits.items():
        columns = split.data[:]
        if "a" in columns:
            x = torch.cat([columns["x"][:, :3], columns["a"][:, None].float()], 1)
            splits[name] = replace(split, data=type(split.data)(**{**columns, "x": x}))
    task = replace(trained.task, splits=splits)
    return CDSAE(budget=Budget(steps=30, batch_size=32, lr=0.01)), replace(trained, task=task)
