"""How complex concepts are: to look at, and to describe (Shi et al., 2023, arXiv:2211.11033)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from unseen import stats
from unseen.engine.attributes import (
    LayerOutputs,
    attribute_shares,
    concept_means,
    layer_outputs,
    representativeness,
)
from unseen.engine.batches import once
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading
from unseen.task import Task, Use


def image_entropy(
    images: Shaped[Tensor, "n channel h w"], side: int | None = 224
) -> Float[Tensor, " n"]:
    """2-D entropy in bits: −Σ_ij p_ij log₂ p_ij over pairs of a pixel and the mean of its eight
    neighbours (zeros outside), both in 256 steps, mean over channels.

    Images in [0, 1], brought to `side` × `side` bilinearly: the entropy depends on the size. The
    paper's code does not quantise the neighbours' mean, so that nearly all pairs of a smooth image
    differ; ours does.
    """
    if images.shape[-1] * images.shape[-2] < 2 or not images.numel():
        raise InvalidData(
            f"Images of shape {tuple(images.shape)} have no neighbouring pixels.",
            why="the entropy is of pairs of a pixel and its neighbours.",
            fix="give images [n, channel, height, width] of at least two pixels.",
        )
    # codes of a pixel and its neighbours reach 65,535, which half precision does not count to
    images, kind = images.double(), torch.promote_types(images.dtype, torch.float32)
    if not (torch.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise InvalidData(
            f"Pixels reach from {float(images.min()):.3g} to {float(images.max()):.3g}.",
            why="256 steps are counted between 0 and 1.",
            fix="give pixels that are not standardised, divided by 255.",
        )
    if side is not None:
        images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
    planes = (images * 255).round().flatten(0, 1)[:, None]
    kernel = torch.ones(1, 1, 3, 3, dtype=planes.dtype, device=planes.device)
    kernel[0, 0, 1, 1] = 0
    around = (F.conv2d(planes, kernel, padding=1) / 8).round()
    pairs = (planes * 256 + around).long().flatten(1)
    bits = [_entropy(plane.unique(return_counts=True)[1]) for plane in pairs]
    return torch.stack(bits).reshape(images.shape[:2]).mean(1).to(kind)


def _entropy(counts: Int[Tensor, " value"]) -> Float[Tensor, ""]:
    shares = counts.double() / counts.sum()
    return -(shares * shares.log2()).sum()


def embedding_complexity(
    means: Float[Tensor, "concept attribute"],
) -> Float[Tensor, " concept"]:
    """H(c) = −Σ_a P(a|c) ln P(a|c) in nats: 0 for one attribute, ln D for equal ones."""
    return torch.special.entr(attribute_shares(means)).sum(1)


def youden(logits: Float[Tensor, "n concept"], labels: Int[Tensor, " n"], concept: int) -> float:
    """True-positive rate plus true-negative rate minus 1 of "the answer is this concept": 0 for an
    answer that is always, or never, given. (Recall alone is 1 for the answer that is always given,
    and K degenerates to 1.)
    """
    says, true = logits.argmax(1) == concept, labels == concept
    return float(says[true].double().mean() - says[~true].double().mean())


@dataclass(frozen=True)
class Subjective:
    """K of every concept, and what did not fit."""

    concepts: Int[Tensor, " concept"]
    numbers: Int[Tensor, " concept"]
    youden: Float[Tensor, " concept"]
    """Of the answers with all attributes."""


def subjective_complexity(
    outputs: LayerOutputs,
    orders: Int[Tensor, "concept attribute"],
    concepts: Int[Tensor, " concept"],
    threshold: float = 0.8,
) -> Subjective:
    """K(c): the least number of attributes, taken in the concept's order, with which alone the
    rest of the model recognises the concept: `youden` reaches `threshold` times that with all
    attributes; all D where no smaller number does.

    A concept that the model does not recognise (`youden` 0 or less) has no K: it is left out.
    """  # fmt: skip
    if not 0 < threshold <= 1:
        raise InvalidConfig(
            f"threshold={threshold} is out of range.",
            why="it is a share of the recognition with all attributes.",
            fix="use a value above 0 and at most 1, such as 0.8.",
        )
    numbers, full, known = [], [], []
    for concept, order in zip(concepts.tolist(), orders, strict=True):
        whole = youden(outputs.logits, outputs.labels, concept)
        if whole <= 0:
            continue
        known.append(concept)
        full.append(whole)
        numbers.append(_least_number(outputs, order, concept, threshold * whole))
    return Subjective(
        torch.tensor(known, dtype=torch.long),
        torch.tensor(numbers, dtype=torch.long),
        torch.tensor(full),
    )


def _least_number(
    outputs: LayerOutputs, order: Int[Tensor, " attribute"], concept: int, wanted: float
) -> int:
    mask = torch.zeros(len(order), dtype=torch.bool)
    for k, attribute in enumerate(order.tolist(), 1):
        mask[attribute] = True
        if youden(outputs.answer(mask), outputs.labels, concept) >= wanted:
            return k
    return len(order)


def centroid_complexity(
    values: Float[Tensor, "n attribute"],
    member: Bool[Tensor, " n"],
    order: Int[Tensor, " k"],
    threshold: float = 0.8,
) -> int:
    """K of a concept of a table, where no network answers: an item is a member where it lies nearer
    to the members' mean than to the others', in the first K attributes of the order.
    """
    full = _centroid_youden(values[:, order], member)
    if full <= 0:
        raise InvalidData(
            "The attributes do not tell members from others.",
            why="nothing describes what is not recognised.",
            fix="leave the concept out.",
        )
    for k in range(1, len(order) + 1):
        if _centroid_youden(values[:, order[:k]], member) >= threshold * full:
            return k
    return len(order)


def _centroid_youden(values: Float[Tensor, "n attribute"], member: Bool[Tensor, " n"]) -> float:
    inside, outside = values[member].mean(0), values[~member].mean(0)
    nearer = (values - inside).square().sum(1) < (values - outside).square().sum(1)
    return float(nearer[member].double().mean() - nearer[~member].double().mean())


def ranked_attributes(outputs: LayerOutputs) -> tuple[Tensor, Tensor, Tensor]:
    """(concepts, their means r_ca, attributes of each by falling RoA)."""
    concepts = outputs.labels.unique()
    means = concept_means(outputs.activations(), outputs.labels, concepts).double()
    return concepts, means, representativeness(means).argsort(dim=1, descending=True, stable=True)


@dataclass(frozen=True)
class SubjectiveComplexity:
    """Mean K over classes: how many attributes of a layer, most representative first, describe a
    class well enough. `detail` holds K of each class that the model recognises.

    `layer` is named as in `Representativeness`; compare models by K/D and accuracy, not K alone.
    """

    split: str = ""
    """By default the first training split."""
    layer: str = ""
    threshold: float = 0.8
    most: int = 50
    """Examples of each class."""
    batch_size: int = 256

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        outputs = layer_outputs(
            subject.model, self.layer, _data(subject.task, self.split), lab, self.most,
            self.batch_size,
        )  # fmt: skip
        concepts, _, orders = ranked_attributes(outputs)
        found = subjective_complexity(outputs, orders, concepts, self.threshold)
        if not len(found.numbers):
            raise InvalidData(
                f"The model recognises none of {len(concepts)} classes better than chance.",
                why="nothing describes what is not recognised.",
                fix="train it longer, or look at another split.",
            )
        return _over_classes(found.numbers.double(), "attributes")


@dataclass(frozen=True)
class EmbeddingComplexity:
    """Mean over classes of the entropy of P(a|c), the shares of a layer's attributes, in nats."""

    split: str = ""
    layer: str = ""
    most: int = 50
    batch_size: int = 256

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        outputs = layer_outputs(
            subject.model, self.layer, _data(subject.task, self.split), lab, self.most,
            self.batch_size,
        )  # fmt: skip
        return _over_classes(embedding_complexity(ranked_attributes(outputs)[1]), "nats")


@dataclass(frozen=True)
class VisualComplexity:
    """Mean over images of their 2-D entropy in bits (`image_entropy`); `detail` holds every
    image's.
    """

    split: str = ""
    side: int | None = 224
    batch_size: int = 64
    invariances: ClassVar[tuple[str, ...]] = ("order", "loss scale")

    def __call__(self, subject: Task, lab: Lab) -> Reading:
        bits = torch.cat(list(self._entropies(subject, lab)))
        found = stats.mean(bits.tolist(), within=(0.0, 16.0))
        return Reading(found.value, found.low, found.high, found.n, "bits", bits, found.freedom)

    def _entropies(self, task: Task, lab: Lab) -> Iterator[Tensor]:
        for batch in once(_data(task, self.split), self.batch_size, lab):
            yield image_entropy(batch["x"], self.side)


def _over_classes(values: Float[Tensor, " concept"], unit: str) -> Reading:
    found = stats.mean(values.tolist())
    return Reading(found.value, found.low, found.high, found.n, unit, values, found.freedom)


def _data(task: Task, split: str) -> Dataset[Any]:
    name = split or next(iter(task.of(Use.TRAIN)))
    return task.split(name).data


def example() -> SubjectiveComplexity:
    return SubjectiveComplexity()
