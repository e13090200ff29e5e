"""Which features of a layer describe a class: representativeness of attributes (Shi et al., 2023,
arXiv:2211.11033).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.attribution import Cause, Credits
from unseen.engine.attributes import (
    LayerOutputs,
    attribute_shares,
    concept_means,
    layer_outputs,
    peaks,
    representativeness,
)
from unseen.engine.batches import Columns
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, PerExample, Use


@dataclass(frozen=True)
class Representativeness:
    """RoA(a, c) = P(a|c) / (1 − P(c|a)) of every channel of a layer for every class: high where the
    class activates the channel and other classes do not.

    `layer` names a module whose outputs are not negative, by default the last ReLU. A query's
    credits share its behaviour f among the attributes in proportion to RoA(a, y) · (its activation
    of a), y its class: they sum to f.
    """

    layer: str = ""
    most: int = 50
    """Examples of each class that are averaged."""
    batch_size: int = 256

    def prepare(self, trained: Trained, lab: Lab) -> "ClassAttributes":
        (split, *_) = trained.task.of(Use.TRAIN).values()
        outputs = layer_outputs(
            trained.model, self.layer, split.data, lab, self.most, self.batch_size
        )
        concepts = outputs.labels.unique()
        means = concept_means(outputs.activations(), outputs.labels, concepts).double()
        return ClassAttributes(self, trained, outputs, concepts, means, representativeness(means))


@dataclass(frozen=True)
class Description:
    """One attribute of a class, and the training example and position that show it most."""

    attribute: int
    representativeness: float
    """RoA."""
    share: float
    """P(a|c)."""
    exclusive: bool
    """Whether no other class activates it."""
    example: int
    """Its row among the first examples of the classes that were read."""
    position: tuple[int, ...]
    """On the layer's map; empty for a layer without positions."""


@dataclass(frozen=True)
class ClassAttributes:
    """The attributor: RoA [concept, attribute], and what describes a class."""

    config: Representativeness
    trained: Trained
    outputs: LayerOutputs
    concepts: Int[Tensor, " concept"]
    means: Float[Tensor, "concept attribute"]
    scores: Float[Tensor, "concept attribute"]

    @property
    def labels(self) -> Sequence[str]:
        return [f"{self.config.layer or 'relu'}[{k}]" for k in range(self.scores.shape[1])]

    def describe(self, concept: int, k: int = 5) -> list[Description]:
        """Its k attributes of highest RoA."""
        row = int(self._row(torch.tensor([concept])))
        shares = attribute_shares(self.means)[row]
        rows = (self.outputs.labels == concept).nonzero()[:, 0]
        maps = self.outputs.maps[rows]
        alone = (self.means > 0).sum(0) == 1
        found = []
        for attribute in self.scores[row].topk(min(k, len(shares))).indices.tolist():
            seen = maps[:, attribute]
            best, *position = (int(i) for i in torch.unravel_index(seen.argmax(), seen.shape))
            found.append(
                Description(
                    attribute,
                    float(self.scores[row, attribute]),
                    float(shares[attribute]),
                    bool(alone[attribute] and self.means[row, attribute] > 0),
                    int(rows[best]),
                    tuple(position),
                )
            )
        return found

    def __call__(self, queries: Batch, behaviour: PerExample) -> Credits:
        model = self.trained.model
        with torch.no_grad():
            values = behaviour(model, queries)
        maps = layer_outputs(model, self.config.layer, Columns(**queries), Lab()).maps
        weights = self.scores[self._row(queries["y"])] * peaks(maps).double()
        shares = weights / weights.sum(1, keepdim=True).clamp_min(1e-30)
        return Credits((values[:, None] * shares).to(values.dtype), Cause.COMPONENT, self.labels)

    def _row(self, labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        found = self.concepts[None, :] == labels[:, None]
        if not bool(found.any(1).all()):
            lost = int(labels[~found.any(1)][0])
            raise InvalidData(
                f"Class {lost} has no training example.",
                why="its attributes are averages over them.",
                fix=f"ask about one of {self.concepts.tolist()}.",
            )
        return found.int().argmax(1)


def example() -> Representativeness:
    return Representativeness()
