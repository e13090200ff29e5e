"""Contrast with adversarial perturbations for encoder–decoders (CLAPS; Lee, Lee & Hwang, 2021,
arXiv:2012.07280).

Likelihood training shows a decoder right targets only. Here each source is contrasted with its
target's *imposter*, a small step of the decoder's states that makes the target unlikely, and its
*distant target*, a large step that keeps the words likely; other targets of the batch are negatives
beside. A pair that occurs twice in a batch is its own negative there, as in the paper.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.engine.adversarial_states import (
    average_by_row,
    cosines,
    distant_target,
    imposter,
    paired_cosines,
    random_directions,
)
from unseen.engine.batches import Columns, model_to_device
from unseen.engine.loop import Budget, Draw, Schedule, train
from unseen.engine.response_losses import imposter_contrast, info_nce, replace_diagonal
from unseen.engine.responses import refuse_unsupervised, target_ends, target_mask
from unseen.engine.token_pairs import Vocabulary, encode_pairs, pair
from unseen.errors import InvalidConfig, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.encoder_decoder import EncoderDecoder, t5
from unseen.models.pair_states import PairStates, logits_of, refuse_other_logits, states_at
from unseen.objectives import exact_match
from unseen.task import Axis, Batch, Objective, Split, Task, Use


class Perturbation(StrEnum):
    """What is contrasted beside the batch's other targets."""

    NONE = "none"
    NOISE = "noise"
    """A positive moved in a random direction, by the distant target's radius."""
    ADVERSARIAL = "adversarial"
    """The imposter as a negative and the distant target as a positive."""


@dataclass(frozen=True)
class ContrastiveModel(Trained):
    """A trained encoder–decoder with the map in whose space sources and targets were compared."""

    projection: nn.Module | None = None


@dataclass(frozen=True)
class CLAPS:
    """Minimises NLL + weight · ½ (L_neg + L_pos): the token-mean of −log p(target | source) and
    contrastive losses of cos(u, v) / temperature, with u and v the means over ReLU(W h + b) of
    encoder and decoder states.

    L_neg has the imposter among the negatives; L_pos besides has the distant target as positive.
    Perturbed states are constants: the decoder learns from contrast through its own states only.
    Weight 0 is maximum likelihood. The task's TRAIN splits hold `tokens` and `mask` (the targets).
    """

    perturbation: Perturbation = Perturbation.ADVERSARIAL
    imposter_radius: float = 0.1
    distant_radius: float = 0.3
    relative: bool = True
    """Radii in mean norms of the batch's decoder states. False: in their units, in which the paper
    has 1 and 3 for T5-small; a model with other norms would see no effect, or noise."""
    temperature: float = 0.1
    weight: float = 1.0
    released_code: bool = False
    """The authors' code does not divide L_pos by the temperature, as the equation does."""
    budget: Budget = Budget(
        steps=500, batch_size=32, lr=1e-3, schedule=Schedule.COSINE, warmup=100, clip=1.0
    )

    def __post_init__(self) -> None:
        if (
            not self.temperature > 0
            or not min(self.imposter_radius, self.distant_radius) >= 0
            or not self.weight >= 0
        ):
            raise InvalidConfig(
                f"CLAPS(imposter_radius={self.imposter_radius:g}, "
                f"distant_radius={self.distant_radius:g}, temperature={self.temperature:g}, "
                f"weight={self.weight:g}) is out of range.",
                why="radii are lengths, and similarities are divided by the temperature.",
                fix="set radii and weight ≥ 0 and temperature > 0, for example 0.1, 0.3, 1, 0.1.",
            )
        object.__setattr__(self, "perturbation", Perturbation(self.perturbation))

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> ContrastiveModel:
        if not isinstance(model, EncoderDecoder):
            raise UnsupportedLayer(
                f"CLAPS compares an encoder's states with a decoder's, and {type(model).__name__} "
                "has no two parts.",
                why="source and target of a pair are read by one each.",
                fix="use models.encoder_decoder.EncoderDecoder(model) around a transformers model "
                "(T5, BART, …), or t5(vocabulary).",
            )
        if all(isinstance(split.data, Columns) for split in task.of(Use.TRAIN).values()):
            refuse_unsupervised(task)
        width = model.model.get_output_embeddings().weight.shape[1]
        with lab.child("projection").seeded():
            projection = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        both = model_to_device(_WithProjection(model, projection), lab)
        curves: dict[str, list[Tensor]] = {"nll": [], "contrast": []}

        def step(model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
            found = [self.losses(both, batch, draw) for batch in draw.fit.values()]  # type: ignore[arg-type]
            nll = torch.stack([one.nll for one in found]).mean()
            contrast = torch.stack([one.contrast for one in found]).mean()
            curves["nll"].append(nll.detach())
            curves["contrast"].append(contrast.detach())
            loss = nll + self.weight * contrast
            loss.backward()
            return loss.detach()

        trained = train(both, task, step, self.budget, lab)
        start = {k.removeprefix("model."): v for k, v in (trained.start or {}).items()}
        return ContrastiveModel(
            model,
            task,
            {**trained.curves, **{k: torch.stack(v).tolist() for k, v in curves.items() if v}},
            {k: v for k, v in start.items() if not k.startswith("projection.")},
            projection if self.weight else None,
        )

    def losses(self, both: "_WithProjection", batch: Batch, draw: Draw) -> "PairLosses":
        pairs = ReadPairs.of(both.model, both.projection, batch, self.temperature)
        if draw.step == 0:
            refuse_other_logits(both.model, pairs.states)
        nll = pairs.likelihood_loss(pairs.states.target) / len(pairs.words)
        if not self.weight:
            return PairLosses(nll, nll.new_zeros(()))
        return PairLosses(nll, self.contrast(pairs, draw.generator))

    def unit(self, states: Float[Tensor, "m d"]) -> float:
        """The length that radii are counted in."""
        return states.detach().norm(dim=1).mean().item() if self.relative else 1.0

    def contrast(self, pairs: "ReadPairs", generator: torch.Generator | None) -> Tensor:
        """The contrastive part of the loss."""
        tau = self.temperature
        similarity = cosines(pairs.anchors, pairs.view(pairs.states.target))
        if self.perturbation is Perturbation.NONE:
            return info_nce(similarity, tau).mean()
        norm = self.unit(pairs.states.target)
        positive_tau = 1.0 if self.released_code else tau
        if self.perturbation is Perturbation.NOISE:
            noise = random_directions(pairs.states.target, generator)
            moved = pairs.states.target.detach() + self.distant_radius * norm * noise
            positives = replace_diagonal(similarity, pairs.similarity(moved))
            return (info_nce(similarity, tau) + info_nce(positives, positive_tau)).mean() / 2
        negatives = pairs.similarity(pairs.imposter(self.imposter_radius * norm))
        distant = pairs.similarity(pairs.distant_target(self.distant_radius * norm))
        positives = replace_diagonal(similarity, distant)
        l_neg = imposter_contrast(similarity, negatives, tau)
        l_pos = imposter_contrast(positives, negatives, positive_tau)
        return (l_neg + l_pos).mean() / 2


class PairLosses(NamedTuple):
    """Of a batch."""

    nll: Tensor
    contrast: Tensor


class _WithProjection(nn.Module):
    """A model and the map of its states, trained together."""

    def __init__(self, model: EncoderDecoder, projection: nn.Module) -> None:
        super().__init__()
        self.model, self.projection = model, projection

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)


@dataclass(frozen=True)
class ReadPairs:
    """A batch as a model reads it, with what moves its decoder states."""

    model: EncoderDecoder
    projection: nn.Module
    states: PairStates
    words: Int[Tensor, " m"]
    """The supervised tokens of the targets."""
    count: int
    """Pairs."""
    temperature: float
    anchors: Float[Tensor, "row d"]
    """u: the sources in the space where they are compared."""

    @classmethod
    def of(
        cls, model: EncoderDecoder, projection: nn.Module, batch: Batch, temperature: float
    ) -> "ReadPairs":
        where = target_mask(batch)
        width = max(2, int(target_ends(where).amax()))
        tokens, where = batch["tokens"][:, :width], where[:, 1:width]
        words = batch.get("labels", batch["tokens"])[:, 1:width][where]
        states = states_at(model, tokens[:, :-1], where)
        anchors = average_by_row(projection(states.source), states.source_rows, len(tokens))
        return cls(model, projection, states, words, len(tokens), temperature, anchors)

    def view(self, states: Float[Tensor, "m d"]) -> Float[Tensor, "row d"]:
        """v: targets with these states in the space where they are compared."""
        return average_by_row(self.projection(states), self.states.target_rows, self.count)

    def similarity(self, states: Float[Tensor, "m d"]) -> Float[Tensor, " row"]:
        """cos of each source and its target with these states."""
        return paired_cosines(self.anchors, self.view(states))

    def likelihood_loss(self, states: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
        """−log p of the words, summed."""
        own = states is self.states.target
        logits = self.states.logits if own else logits_of(self.model, states)
        return F.cross_entropy(_wide(logits), self.words, reduction="sum")

    def contrast_loss(self, states: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
        """The in-batch contrast of targets with these states; sources are constants."""
        similarity = cosines(self.anchors.detach(), self.view(states))
        return info_nce(similarity, self.temperature).mean()

    def divergence(self, states: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
        """KL(p(·|Z) ‖ p(·|these states)) per token."""
        log_p = _wide(self.states.logits.detach()).log_softmax(1)
        log_q = _wide(logits_of(self.model, states)).log_softmax(1)
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)

    def imposter(self, radius: float | Tensor) -> Float[Tensor, "m d"]:
        return imposter(self.states.target, self.likelihood_loss, radius)

    def distant_target(self, radius: float | Tensor) -> Float[Tensor, "m d"]:
        return distant_target(self.states.target, self.contrast_loss, self.divergence, radius)


def _wide(logits: Tensor) -> Tensor:
    """float32 at least: half precision holds log-probabilities to two digits."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@torch.no_grad()
def word_probabilities(trained: ContrastiveModel, batch: Batch, method: CLAPS) -> dict[str, float]:
    """Mean probability of the targets' words under the decoder's own states, the distant targets
    and the imposters, which here move every token as far as its distant target did.
    """
    if trained.projection is None or not isinstance(trained.model, EncoderDecoder):
        raise InvalidConfig(
            "A model that was trained without contrast has no space to be far in.",
            why="distant targets move up the contrastive loss.",
            fix="train with CLAPS(weight=1.0).",
        )
    pairs = ReadPairs.of(trained.model, trained.projection, batch, method.temperature)
    states = pairs.states.target
    norm = method.unit(states)
    distant = pairs.distant_target(method.distant_radius * norm)
    lengths = (distant - states).norm(dim=1, keepdim=True)
    moved = {"own": states, "distant": distant, "imposter": pairs.imposter(lengths)}

    def probability(states: Tensor) -> float:
        p = _wide(logits_of(pairs.model, states)).softmax(1)
        return float(p.gather(1, pairs.words[:, None]).mean())

    return {name: probability(one) for name, one in moved.items()}


def example() -> tuple[CLAPS, Trained]:
    """A small T5 learns to copy two letters."""
    pairs = [pair(f"copy {x} {y}", f"{x} {y}") for x in "abcd" for y in "abcd"]
    words = Vocabulary.of(pairs)
    splits = {
        "train": Split(encode_pairs(pairs[:12], words), Use.TRAIN),
        "unseen": Split(encode_pairs(pairs[12:], words), Use.EVALUATE, at="unseen"),
    }
    task = Task(name="copy", axis=Axis.IID, splits=splits, objective=exact_match)
    with Lab().child("init").seeded():
        model = t5(len(words), width=16, layers=1, heads=2, dropout=0.0)
    return CLAPS(budget=Budget(steps=20, batch_size=8, lr=1e-2)), Trained(model, task)
