"""How linear a network is, what its neurons point at, and when it generalized: the diagnostics of
grokking on XOR.

Xu, Wang, Frei, Vardi & Hu (2024), arXiv:2310.02541: after one step the network is nearly linear,
later it is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unseen import stats
from unseen.engine.batches import once
from unseen.engine.parameters import trainable
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.two_layer import TwoLayer
from unseen.reading import Direction, MeasureEntry, Need, Reading, Scope


@dataclass(frozen=True)
class Oddness:
    """E(f(x) − f(−x))² / 2E(f(x)² + f(−x)²): 1 for a linear f without bias, 0 for an even f such as
    the XOR solution.

    Since φ(z) = z/2 + |z|/2, the odd part of a two-layer ReLU network without bias is a linear
    function. Several outputs: squares are summed over them.
    """

    split: str = "test"
    batch_size: int = 1024

    @torch.no_grad()
    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        model, was_training = subject.model, subject.model.training
        model.eval()
        try:
            pairs = [
                (model(batch["x"]).cpu(), model(-batch["x"]).cpu())
                for batch in once(subject.task.split(self.split).data, self.batch_size, lab)
            ]
        finally:
            model.train(was_training)
        parts = _parts(torch.cat([f for f, _ in pairs]), torch.cat([g for _, g in pairs]))
        if len(parts) == 1:
            return Reading(_share(parts), n=1, unit="fraction")
        return stats.bootstrap(_share, parts, rng=lab.numpy(), unit="fraction")


def oddness(at: Float[Tensor, " n *output"], mirrored: Float[Tensor, " n *output"]) -> float:
    """The odd share of f from f(x) and f(−x).

    For inputs distributed like their mirror image this is E(f(x) − f(−x))²/4Ef(x)²; the symmetric
    denominator keeps a finite sample within [0, 1].
    """
    return _share(_parts(at, mirrored))


def _parts(at: Tensor, mirrored: Tensor) -> NDArray[np.float64]:
    """Per example the squared odd part and the total, (f(x) − f(−x))² and 2(f(x)² + f(−x)²)."""
    f, g = (outputs.detach().double().reshape(len(outputs), -1) for outputs in (at, mirrored))
    return (
        torch.stack([(f - g).square().sum(1), 2 * (f.square() + g.square()).sum(1)], 1)
        .cpu()
        .numpy()
    )


def _share(parts: NDArray[np.float64]) -> float:
    odd, total = parts.sum(0)
    if not total > 0 or not np.isfinite(total):
        raise InvalidData(
            f"The outputs have a sum of squares of {total / 4:.4g}.",
            why="oddness is a share of it, and 0/0 has no value.",
            fix="check the model: it returns zero (or not a number) for every input.",
        )
    return float(odd / total)


@dataclass(frozen=True)
class Alignment:
    """How neurons point at cluster centres."""

    share: float
    """Neurons whose closest centre (by |cos|) has the label that the neuron votes for."""
    cosine: float
    """Mean over neurons of the largest |cos|."""
    agrees: Tensor
    """Per neuron."""


def neuron_alignment(
    cosines: Float[Tensor, "neuron centre"],
    head: Float[Tensor, " neuron"],
    label: Int[Tensor, " centre"],
) -> Alignment:
    """From cos(w_j, centre), the head a_j and the centres' labels (0 or 1): agreement of sign(a_j)
    with the label.
    """
    if not torch.isfinite(cosines).all():
        raise InvalidData(
            "A cosine between a neuron and a centre is not finite.",
            why="a zero vector has no direction.",
            fix="check for neurons or centres that are zero.",
        )
    largest, closest = cosines.abs().max(1)
    agrees = (label[closest] > 0) == (head > 0)
    return Alignment(agrees.double().mean().item(), largest.double().mean().item(), agrees)


@dataclass(frozen=True)
class NeuronAlignment:
    """Share of the neurons of a `TwoLayer` network that point at a centre whose label they vote
    for; chance is ½.

    `split` holds the centres as examples.
    """

    split: str = "centres"

    @torch.no_grad()
    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        model = subject.model
        if not isinstance(model, TwoLayer):
            raise UnsupportedLayer(
                f"NeuronAlignment got a {type(model).__name__}.",
                why="a vote needs one fixed head weight per neuron.",
                fix="use unseen.models.two_layer.TwoLayer.",
            )
        batches = list(once(subject.task.split(self.split).data, 1024, lab))
        centres, label = (torch.cat([batch[key] for batch in batches]) for key in ("x", "y"))
        weight = model.hidden.weight
        cosines = (weight @ centres.T) / torch.outer(weight.norm(dim=1), centres.norm(dim=1))
        found = neuron_alignment(cosines, model.head, label)
        reading = stats.of_scores(found.agrees.double().cpu().numpy())
        return Reading(
            reading.value, reading.low, reading.high, reading.n, "fraction", found.agrees
        )


def grokking_time(steps: Sequence[float], values: Sequence[float], share: float = 0.95) -> float:
    """The first recorded step at which the evaluation score reaches `share` of its last value."""
    if (
        not steps
        or len(steps) != len(values)
        or not all(np.isfinite(values))
        or list(steps) != sorted(steps)
    ):
        raise InvalidData(
            f"grokking_time got {len(steps)} steps and {len(values)} values.",
            why="it needs one finite value at each of at least one increasing steps.",
            fix="record the score at log-spaced steps, from 0 on.",
        )
    return next(
        step for step, value in zip(steps, values, strict=True) if value >= share * values[-1]
    )


MEASURES = (
    MeasureEntry(
        name="oddness",
        measure=Oddness(),
        meaning="Share of the outputs' variation that turns its sign with the inputs: 1 for a "
        "linear model without bias, 0 for an even one.",
        direction=Direction.NEITHER,
        family="function",
        passes=2,
        interval="examples",
        needs=frozenset({Need.MODEL, Need.INPUTS}),
        scope=Scope.SITES,
        most=20_000,
    ),
    MeasureEntry(
        name="neuron alignment",
        measure=NeuronAlignment(),
        meaning="Share of a two-layer network's neurons that point at a cluster whose label they "
        "vote for: ½ is chance.",
        direction=Direction.HIGHER,
        family="function",
        passes=0,
        interval="neurons",
        needs=frozenset({Need.MODEL, Need.INPUTS}),
        covers=trainable,
    ),
)


def example() -> Oddness:
    """On the training inputs, which every task has."""
    return Oddness(split="train")
