"""Exact products of chosen pairs of a query and an example."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.attributions.influence.preconditioned_queries import scale_pairs
from unseen.engine.factor_pairs import FactorPair
from unseen.engine.kron import KroneckerBlock

PAIRS = 1 << 7
"""Pairs of a query and an example that are scored exactly at a time."""


@dataclass(frozen=True, eq=False)
class TurnedFactors:
    """Gradients g ⊗ a in the eigenbasis, and what each was divided by."""

    a: Float[Tensor, "n i"]
    g: Float[Tensor, "n o"]
    scale: Float[Tensor, " n"]

    @classmethod
    def of(cls, block: KroneckerBlock, given: Sequence[FactorPair]) -> "TurnedFactors":
        unit, scale = scale_pairs(given)
        like = block.values  # at least float32, where the model is in half precision
        turned = [block.rotate_pair(pair.to(like.dtype)) for pair in unit]
        a, g = torch.cat([p.a[:, 0] for p in turned]), torch.cat([p.g[:, 0] for p in turned])
        return cls(a, g, scale.to(like))

    def join(self, other: "TurnedFactors") -> "TurnedFactors":
        """These and others, one after the other."""
        sides = ((self.a, other.a), (self.g, other.g), (self.scale, other.scale))
        return TurnedFactors(*(torch.cat(side) for side in sides))


class ExactProducts:
    """Σ over entries of 1/(Λ + λ) · V_q · V_m for chosen pairs of a query and an example."""

    def __init__(
        self,
        blocks: Mapping[str, KroneckerBlock],
        given: Mapping[str, Sequence[FactorPair]],
        gradients: Callable[[Int[Tensor, " n"]], dict[str, FactorPair]],
    ) -> None:
        self.blocks, self.gradients = blocks, gradients
        self.near = {name: TurnedFactors.of(blocks[name], pairs) for name, pairs in given.items()}
        self.far: dict[str, TurnedFactors] = {}
        self.held = torch.zeros(0, dtype=torch.long)
        """The rows of `far`."""

    def scores(self, queries: Int[Tensor, " n"], rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Of pairs, so few at a time that they stay in the cache."""
        at = self._places_of(rows)
        total = next(iter(self.near.values())).scale.new_zeros(len(rows))
        for name, near in self.near.items():
            far, inverse = self.far[name], self.blocks[name].inverse
            for start in range(0, len(rows), PAIRS):
                q, m = queries[start : start + PAIRS], at[start : start + PAIRS]
                left = far.g.index_select(0, m).mul_(near.g.index_select(0, q))
                right = left.mm(inverse).mul_(far.a.index_select(0, m))
                product = right.mul_(near.a.index_select(0, q)).sum(1)
                total[start : start + PAIRS] += product * near.scale[q] * far.scale[m]
        return total

    def _places_of(self, rows: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Where the factors of these rows are, made first where they are not yet."""
        needed = rows.unique()
        new = needed[~torch.isin(needed, self.held.to(needed.device))]
        if len(new):
            others = self.gradients(new)
            made = {name: self._factors(name, others.get(name), len(new)) for name in self.near}
            self.far = {
                name: self.far[name].join(part) if self.far else part for name, part in made.items()
            }
            self.held = torch.cat([self.held.to(new.device), new])
        order = self.held.argsort()
        return order[torch.searchsorted(self.held, rows, sorter=order)]

    def _factors(self, name: str, pair: FactorPair | None, n: int) -> TurnedFactors:
        if pair is not None:
            return TurnedFactors.of(self.blocks[name], [pair])
        # none of these few examples reaches the layer
        near = self.near[name]
        a, g = near.a.new_zeros(n, near.a.shape[1]), near.g.new_zeros(n, near.g.shape[1])
        return TurnedFactors(a, g, near.scale.new_ones(n))
