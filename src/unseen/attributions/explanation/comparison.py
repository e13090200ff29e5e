"""Several explanations on the same samples of a neighbourhood: how much of the output each
explains, and whether a lead is more than chance.

Two samples stand behind a lead, and both would be drawn anew: the inputs, and the perturbations
that methods are fitted to and evaluated on. All inputs share the perturbations, so that resampling
inputs alone would call an accident of the draws a difference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unseen import stats
from unseen.attributions.explanation.solve import Approximation
from unseen.engine.local.neighbourhoods import Neighbourhood
from unseen.engine.local.perturbed_model import PerturbedModel
from unseen.engine.local.surrogate import (
    Explanation,
    GradientSample,
    Loss,
    ValueSample,
    evaluate,
    share_explained,
    weights_in,
)
from unseen.lab import Lab
from unseen.reading import Reading

DRAWS = 5
"""Independent draws of everything random."""
CLOSE = 0.02
"""Methods whose share is so near to the best one's are fitted anew in every draw."""
LITTLE = 0.01
"""Shares that differ by less are equal for every purpose of an explanation."""

Fit = Callable[[str, int], Explanation]
"""The answer of a method on another draw of its own samples."""


@dataclass(frozen=True)
class Comparison:
    """The losses of every method on the same draws of a neighbourhood."""

    losses: Mapping[str, Float[Tensor, "draw point"]]
    null: Float[Tensor, "draw point"]
    """The loss of no explanation, w = 0."""
    perturbations: int
    """Per input and draw."""
    is_exact: bool
    """Whether these are all perturbations that the neighbourhood has: no seed decides them."""

    @property
    def draws(self) -> int:
        return len(self.null)

    def share(self, name: str, lab: Lab) -> Reading:
        """1 − Σ loss/Σ null with its interval over inputs; `detail` is the loss per input."""
        return share_explained(self.losses[name].mean(0), self.null.mean(0), lab)

    def lead(self, better: str, worse: str) -> Reading:
        """How much more of the output one method explains than another, over inputs and draws.

        The interval is linear in the losses (each input's part of the ratio) and holds for all
        comparisons with one method together (Bonferroni). One input has none.
        """
        gap, null = (
            t.double().cpu().numpy() for t in (self.losses[worse] - self.losses[better], self.null)
        )
        value = float(gap.sum() / null.sum())
        if null.shape[1] == 1:
            return Reading(value, n=1, unit="share explained")
        parts = value + (gap - value * null) / null.mean()
        others = max(1, len(self.losses) - 1)
        return stats.crossed_mean(
            parts, unit="share explained", level=1 - (1 - stats.LEVEL) / others
        )


def compare_on_draws(
    at: PerturbedModel,
    answers: Mapping[str, Explanation],
    hows: Mapping[str, Approximation],
    where: Neighbourhood,
    loss: Loss,
    lab: Lab,
    fit: Fit,
) -> Comparison:
    """All answers on fresh draws of `where`; those close to the best one are fitted anew for each.

    Draws after the first are left out where every sample is all there is.
    """
    found = evaluate(at, where, loss, lab.child("judge"))
    losses = {name: [loss_of(at, answer, where, found)] for name, answer in answers.items()}
    null = [found.null]
    sampled = is_random(where, at.lengths2, lab)
    anew = [
        name
        for name in _close(losses, found.null)
        if is_random(hows[name].neighbourhood, at.lengths2, lab)
    ]
    for draw in lab.track(range(1, DRAWS), DRAWS - 1) if anew or sampled else ():
        if sampled:
            found = evaluate(at, where, loss, lab.child(f"draw {draw}").child("judge"))
        null.append(found.null)
        for name, answer in answers.items():
            one = fit(name, draw) if name in anew else answer
            losses[name].append(loss_of(at, one, where, found))
    return Comparison(
        {name: torch.stack(rows) for name, rows in losses.items()},
        torch.stack(null),
        perturbations=len(at.sample(where, lab.child("judge")).xi),
        is_exact=not sampled,
    )


def loss_of(
    at: PerturbedModel,
    answer: Explanation,
    where: Neighbourhood,
    found: ValueSample | GradientSample,
) -> Float[Tensor, " point"]:
    """The answer's loss on the sample, per input, in the units of the neighbourhood's map."""
    return found.loss(weights_in(at, answer, where.parametrization))


def _close(losses: Mapping[str, Sequence[Tensor]], null: Tensor) -> list[str]:
    """The two best methods, and whatever else is near the best."""
    total = {name: float(rows[0].sum()) for name, rows in losses.items()}
    order = sorted(total, key=total.__getitem__)
    limit = total[order[0]] + CLOSE * float(null.sum())
    return [name for k, name in enumerate(order) if k < 2 or total[name] < limit]


def is_random(where: Neighbourhood, lengths2: Float[Tensor, "point d"], lab: Lab) -> bool:
    """Whether two seeds draw different samples: few features have all their masks evaluated."""
    one, other = (where.draw(lengths2, lab.child(name)).xi for name in ("one", "other"))
    return not torch.equal(one, other)
