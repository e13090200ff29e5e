"""How much noise, or how bad a change, the weights stand before the training accuracy drops by 0.1.

σ is the largest standard deviation of Gaussian noise on the weights with a mean drop of at most
0.1, α the largest radius of a box |u_j| ≤ α around them in which projected ascent finds none. In
the magnitude-aware form noise has variance σ′² w_j² + ε² and the box radius is α′ (|w_j| + ε):
rescaling a layer against the next changes it less (Jiang et al., 2020, arXiv:1912.02178).

Every scale sees the same random numbers, so that the drop hardly depends on luck where it is
compared. Weights are moved in place and a pass for the gradient gives the accuracy at its point,
too: of a large model on few examples, writing the weights takes as long as reading the examples.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import exp, inf, log

import torch
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.measures.bounds.margins import last_logits, margins, margins_of, recorded_outputs
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
ROUNDING = 1e-9
"""By so much a bound on a mean of draws must be above a number to decide that the mean is."""


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
        return largest_scale(
            lambda scale, enough: self.noise_drop(scale, magnitude=magnitude, enough=enough)
        )

    def box_radius(self, *, magnitude: bool = False) -> float:
        """α, or α′ of the magnitude-aware form."""
        return largest_scale(
            lambda scale, enough: self.box_drop(scale, magnitude=magnitude, enough=enough)
        )

    @torch.no_grad()
    def noise_drop(self, scale: float, *, magnitude: bool = False, enough: float = inf) -> float:
        """The mean drop of the accuracy under noise of this scale; a lower bound once that is
        above `enough`.
        """
        drops: list[float] = []
        with self._movable() as home:
            for draw in range(DRAWS):
                generator = self.lab.child("noise", draw).generator()
                for p, start in zip(self.weights, home, strict=True):
                    p.copy_(start)
                    noise = self._scratch(p.shape).normal_(generator=generator).to(p)
                    p.add_(noise.mul_(self._deviation(start, scale, magnitude)))
                drops.append(self.accuracy - self._accuracy())
                # no accuracy is above 1: the other draws cannot bring the mean below this
                least = (sum(drops) + (DRAWS - 1 - draw) * (self.accuracy - 1)) / DRAWS
                if least > enough + ROUNDING:
                    return least
        return sum(drops) / DRAWS

    @torch.no_grad()
    def box_drop(self, scale: float, *, magnitude: bool = False, enough: float = inf) -> float:
        """The largest drop that ascent finds in the box of this radius, which ends once it is above
        `enough`.
        """
        radii = [
            scale * (p.abs() + EPSILON) if magnitude else p.new_full((), scale)
            for p in self.weights
        ]
        signs: Sequence[Tensor] = self._signs_at_home
        moves = [torch.zeros_like(p) for p in self.weights]
        worst = 0.0
        with self._movable() as home:
            for step in range(ASCENT):
                for p, start, move, radius, sign in zip(
                    self.weights, home, moves, radii, signs, strict=True
                ):
                    move.add_(sign.to(p).mul_(0.2 * radius))
                    p.copy_(start).add_(torch.clamp(move, -radius, radius, out=move))
                if step < ASCENT - 1:
                    signs, accuracy = self._ascent_signs()
                else:
                    accuracy = self._accuracy()
                worst = max(worst, self.accuracy - accuracy)
                if worst > enough:
                    return worst
        return worst

    @contextlib.contextmanager
    def _movable(self) -> Iterator[list[Tensor]]:
        """Copies of the weights, which have their exact old values again after the block."""
        home = [p.detach().clone() for p in self.weights]
        try:
            yield home
        finally:
            torch._foreach_copy_(list[Tensor](self.weights), home)

    def _scratch(self, shape: torch.Size) -> Tensor:
        """Room for as many numbers, the same for all weights: new memory costs more than them."""
        return self._room[: shape.numel()].view(shape)

    @cached_property
    def _room(self) -> Tensor:
        return torch.empty(max(p.numel() for p in self.weights))

    @cached_property
    def _signs_at_home(self) -> list[Tensor]:
        """Those of the gradient where every ascent begins."""
        self._require_gradient()
        return [sign.to(torch.int8) for sign in self._ascent_signs()[0]]

    def _ascent_signs(self) -> tuple[list[Tensor], float]:
        """The signs of the mean loss's gradient for every weight, 0 of a frozen one, and the
        accuracy, both of one pass.
        """
        right: list[Tensor] = []

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            with recorded_outputs(network) as outputs:
                losses = self.objective.loss(network, batch)
            right.append(margins_of(last_logits(outputs), batch) > 0)
            return losses

        gradient = mean_gradient(self.network, self.batches, loss)
        chosen = [p for p in self.network.parameters() if p.requires_grad]
        signs = {id(p): g.sign_() for p, g in zip(chosen, gradient, strict=True)}
        counted = torch.cat(right)
        return (
            [signs[id(p)] if id(p) in signs else torch.zeros_like(p) for p in self.weights],
            int(counted.sum()) / len(counted),
        )

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


Drop = Callable[[float, float], float]
"""The drop at a scale; where it is above the second number, any number that shows it to be."""


def largest_scale(drop: Drop, start: float = 0.01) -> float:
    """The largest scale with drop(scale) ≤ 0.1, to 2 %: doubled or halved until it is bracketed,
    then the root of the drop on a log scale, by halving and secants in turn.
    """
    low = high = start
    value = drop(start, DROP)
    low_drop = high_drop = value
    for _ in range(DOUBLINGS):
        if value <= DROP:
            low, low_drop = high, value
            high *= 2
            value = high_drop = drop(high, DROP)
        else:
            high, high_drop = low, value
            low /= 2
            value = low_drop = drop(low, DROP)
        if low_drop <= DROP < high_drop:
            break
    else:
        bound = "no noise up to" if low_drop <= DROP else "even noise of"
        raise InvalidData(
            f"The accuracy drops by {drop(low, inf) if value > DROP else value:.3f}: {bound} "
            f"{high:.3g} changes that.",
            why=f"the scale is the one at which it drops by {DROP:g}.",
            fix="check that the weights matter for the outputs, and the accuracy for the classes.",
        )
    secant, is_bound = False, True
    while log(high / low) > PRECISION:
        if secant and is_bound:
            high_drop, is_bound = drop(high, inf), False
        share = (DROP - low_drop) / (high_drop - low_drop) if secant else 0.5
        # never closer to an end than a tenth: a secant may stand still there
        middle = exp(log(low) + min(0.9, max(0.1, share)) * log(high / low))
        value = drop(middle, inf)
        if value <= DROP:
            low, low_drop = middle, value
        else:
            high, high_drop, is_bound = middle, value, False
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
