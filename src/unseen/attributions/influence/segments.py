"""Influence through a few segments of a finished descent (SOURCE: Bae et al., 2024,
arXiv:2405.12186).

Within a segment of K steps at the mean rate η the curvature H counts as constant. A change that
enters it leaves times S = exp(−η K H), and the segment's own examples add H⁻¹ (I − S) ∇ℓ:

    I_f(z) = −(1/N) Σ_l ∇fᵀ (Π_{l' > l} S_{l'}) H_l⁻¹ (I − S_l) ∇ℓ_z(θ_l)
"""

import copy
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.attributions.influence import Influence
from unseen.attributions.influence.iterative import Blocks
from unseen.engine.kron import KroneckerBlock
from unseen.engine.parameters import load
from unseen.engine.unrolled import Descent
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Batch, PerExample


def segment_scores(
    descent: Descent,
    influence: Influence,
    segments: int,
    queries: Batch,
    behaviour: PerExample,
    lab: Lab,
) -> Float[Tensor, "q n"]:
    """The sum over segments, each with the factors and gradients of the weights in its middle; the
    paper averages several checkpoints of a segment.
    """
    steps = len(descent.rows)
    if not 1 <= segments <= steps:
        raise InvalidConfig(
            f"segments={segments} of {steps} steps.",
            why="a segment is at least one step.",
            fix=f"choose from 1 to {steps}.",
        )
    budget, trained = descent.budget, descent.trained
    fitted = replace(influence, curvature=influence.curvature.preconditioner)
    carried: Blocks | None = None
    total: Tensor | None = None
    for segment in reversed(range(segments)):
        first, stop = segment * steps // segments, (segment + 1) * steps // segments
        # momentum multiplies the rate in the long run
        time = sum(map(descent.rate, range(first, stop))) / (1 - budget.momentum)
        if carried is None:
            at_end = fitted.prepare(trained, lab.child("end"))
            carried = at_end.gradients(queries, behaviour)
        model = copy.deepcopy(trained.model)
        load(model, descent.weights[(first + stop) // 2])
        found = fitted.prepare(replace(trained, model=model), lab.child("segment", segment))
        blocks = found.factors.blocks
        own = {
            name: gather(blocks[name], v, time, budget.weight_decay) for name, v in carried.items()
        }
        part = found.scores_of(own)
        total = part if total is None else total + part
        carried = {
            name: pass_through(blocks[name], v, time, budget.weight_decay)
            for name, v in carried.items()
        }
    assert total is not None
    return total


def gather(
    block: KroneckerBlock, v: Float[Tensor, "q o i"], time: float, decay: float
) -> Float[Tensor, "q o i"]:
    """H⁻¹ (I − exp(−t H)) V, with the weight decay in H; t V where H is zero."""
    values = (block.values + decay).clamp_min(1e-12)
    return block.from_basis(block.to_basis(v) * -torch.expm1(-time * values) / values)


def pass_through(
    block: KroneckerBlock, v: Float[Tensor, "q o i"], time: float, decay: float
) -> Float[Tensor, "q o i"]:
    """exp(−t H) V."""
    return block.from_basis(block.to_basis(v) * (-time * (block.values + decay)).exp())
