"""How much noise, or how bad a change, the weights stand before the training accuracy drops by 0.1.

σ is the largest standard deviation of Gaussian noise on the weights with a mean drop of at most
0.1, α the largest radius of a box |u_j| ≤ α around them in which projected ascent finds none. In
the magnitude-aware form noise has variance σ′² w_j² + ε² and the box radius is α′ (|w_j| + ε):
rescaling a layer against the next changes it less (Jiang et al., 2020, arXiv:1912.02178).

Every scale sees the same random numbers, so that the drop hardly depends on luck where it is
compared.
"""

from collections.abc import Callable, Sequence
from math import exp, log

import torch
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.engine.parameters import shift_parameters
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.measures.bounds.margins import margins
from unseen.measures.bounds.weights import refuse_computed_weights, weight_names
from unseen.measures.sharpness import mean_gradient
from unseen.task import Batch, Objective

DROP = 0.1
EPSILON = 1e-3
"""ε of the magnitude-aware forms."""
DRAWS = 10
ASCENT = 10
"""Steps of projected ascent, each a fifth of the box's radius."""
DOUBLINGS = 40
PRECISION = 0.02
"""Relative precision of a scale: draws differ by more."""


class Flatness:
    """A network on a few training examples, with its weights moved and put back.

    `as_published` takes σ² for the standard deviation, as the public code of two papers does.
    """

    def __init__(
        self,
        network: nn.Module,
        batches: Sequence[Batch],
        objective: Objective,
        lab: Lab,
        *,
        as_published: bool = False,
    ) -> None:
        self.network, self.objective, self.lab = network, objective, lab
        self.batches, self.as_published = list(batches), as_published
        refuse_computed_weights(network)
        self.weights = list(weight_names(network).values())
        self.accuracy = self._accuracy()
        if self.accuracy <= DROP:
            raise InvalidData(
                f"The training accuracy is {self.accuracy:.3f}.",
                why=f"no noise can lower it by {DROP:g}.",
                fix="train the model first.",
            )

    def noise_scale(self, *, magnitude: bool = False) -> float:
        """σ, or σ′ of the magnitude-aware form."""
        return largest_scale(lambda scale: self.noise_drop(scale, magnitude=magnitude))

    def box_radius(self, *, magnitude: bool = False) -> float:
        """α, or α′ of the magnitude-aware form."""
        return largest_scale(lambda scale: self.box_drop(scale, magnitude=magnitude))

    @torch.no_grad()
    def noise_drop(self, scale: float, *, magnitude: bool = False) -> float:
        """The mean drop of the accuracy under noise of this scale."""
        drops = []
        for draw in range(DRAWS):
            generator = self.lab.child("noise", draw).generator()
            noise = [
                torch.randn(p.shape, generator=generator).to(p)
                * self._deviation(p, scale, magnitude)
                for p in self.weights
            ]
            with shift_parameters(self.weights, noise):
                drops.append(self.accuracy - self._accuracy())
        return sum(drops) / DRAWS

    def box_drop(self, scale: float, *, magnitude: bool = False) -> float:
        """The largest drop that ascent finds in the box of this radius."""
        radii = [
            (scale * (p.detach().abs() + EPSILON) if magnitude else torch.full_like(p, scale))
            for p in self.weights
        ]
        moves = [torch.zeros_like(p, requires_grad=False) for p in self.weights]
        self._require_gradient()
        worst = 0.0
        named = {id(p): k for k, p in enumerate(self.weights)}
        chosen = [p for p in self.network.parameters() if p.requires_grad]
        for _ in range(ASCENT):
            with shift_parameters(self.weights, moves):
                gradient = mean_gradient(self.network, self.batches, self.objective.loss)
            for p, g in zip(chosen, gradient, strict=True):
                if id(p) in named:
                    k = named[id(p)]
                    step = moves[k] + 0.2 * radii[k] * g.sign()
                    moves[k] = torch.minimum(torch.maximum(step, -radii[k]), radii[k])
            with shift_parameters(self.weights, moves):
                worst = max(worst, self.accuracy - self._accuracy())
        return worst

    def _require_gradient(self) -> None:
        few = {name: tensor[:1] for name, tensor in self.batches[0].items()}
        with torch.enable_grad():
            if not self.objective.loss(self.network, few).requires_grad:
                raise UnsupportedLayer(
                    f"The loss of {type(self.network).__name__} has no gradient.",
                    why="the worst change of the weights is found by ascent.",
                    fix="let weights require gradients, or read the PAC-Bayes measures.",
                )

    def _deviation(self, p: Tensor, scale: float, magnitude: bool) -> Tensor | float:
        if not magnitude:
            return scale**2 if self.as_published else scale
        variance = (scale * p.detach()).square() + EPSILON**2
        return variance if self.as_published else variance.sqrt()

    def _accuracy(self) -> float:
        right = n = 0
        for batch in self.batches:
            found = margins(self.network, batch, self.objective)
            right, n = right + int((found > 0).sum()), n + len(found)
        return right / n


def largest_scale(drop: Callable[[float], float], start: float = 0.01) -> float:
    """The largest scale with drop(scale) ≤ 0.1, to 2 %: doubled or halved until it is bracketed,
    then the root of the drop on a log scale, by halving and secants in turn.
    """
    low = high = start
    value = drop(start)
    low_drop = high_drop = value
    for _ in range(DOUBLINGS):
        if value <= DROP:
            low, low_drop = high, value
            high *= 2
            value = high_drop = drop(high)
        else:
            high, high_drop = low, value
            low /= 2
            value = low_drop = drop(low)
        if low_drop <= DROP < high_drop:
            break
    else:
        bound = "no noise up to" if low_drop <= DROP else "even noise of"
        raise InvalidData(
            f"The accuracy drops by {value:.3f}: {bound} {high:.3g} changes that.",
            why=f"the scale is the one at which it drops by {DROP:g}.",
            fix="check that the weights matter for the outputs, and the accuracy for the classes.",
        )
    secant = False
    while log(high / low) > PRECISION:
        share = (DROP - low_drop) / (high_drop - low_drop) if secant else 0.5
        # never closer to an end than a tenth: a secant may stand still there
        middle = exp(log(low) + min(0.9, max(0.1, share)) * log(high / low))
        value = drop(middle)
        if value <= DROP:
            low, low_drop = middle, value
        else:
            high, high_drop = middle, value
        secant = not secant
    return low


def examples_for_noise(batches: Sequence[Batch], most: int) -> list[Batch]:
    """The first examples of the batches."""
    found: list[Batch] = []
    for batch in batches:
        left = most - sum(size(one) for one in found)
        if left <= 0:
            break
        found.append({name: tensor[:left] for name, tensor in batch.items()})
    return found
