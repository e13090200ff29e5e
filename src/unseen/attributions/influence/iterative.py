"""(G + λ)⁻¹ ∇f with the Gauss–Newton matrix itself: EK-FAC's answer, improved by iterations that it
preconditions.

EK-FAC leaves out what layers have in common and what its eigenvectors miss. The exact inverse needs
only products of G with vectors: conjugate gradients, or steps on minibatches (ASTRA: Wang et al.,
2025, arXiv:2507.14740). λ is EK-FAC's own, layer by layer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.attributions.influence.factors import Curvature
from unseen.engine.factor_pairs import FactorPair, layer_biases
from unseen.engine.gauss_newton import summed_products
from unseen.engine.iterative_solves import (
    MUCH,
    Matrix,
    conjugate_gradients,
    stochastic_descent,
)
from unseen.engine.kron import KroneckerBlock
from unseen.errors import UnsupportedLayer
from unseen.lab import Lab, Silent
from unseen.task import Batch

if TYPE_CHECKING:
    from unseen.attributions.influence.attributor import InfluenceScores

Blocks = dict[str, Float[Tensor, "q _ _"]]
"""A matrix per query and block, as gradients of that block are."""


@dataclass(frozen=True)
class BlockIndex:
    """Where the entries of a block are among the parameters."""

    weight: str
    bias: str
    """Its last column; empty: it has none."""
    group: int
    transposed: bool


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Vectors over all blocks as rows, as matrices by block and as tensors by parameter."""

    blocks: Mapping[str, KroneckerBlock]
    indices: Mapping[str, BlockIndex]
    parameters: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, blocks: Mapping[str, KroneckerBlock]) -> "Coordinates":
        """Of a model whose tracked parameters ask for gradients."""
        biases, indices = layer_biases(model), {}
        names = dict(model.named_parameters())
        for name, block in blocks.items():
            layer, _, group = name.partition("[")
            weight = f"{layer}.weight" if f"{layer}.weight" in names else layer
            if names[weight].is_complex():
                raise UnsupportedLayer(
                    f"Parameter `{weight}` is complex.",
                    why="Gauss–Newton products are made for real parameters.",
                    fix="use curvature=Curvature.EKFAC, or leave the layer out with layers=(…).",
                )
            module = model.get_submodule(weight.rpartition(".")[0])
            rows, columns = block.values.shape
            has_bias = (
                weight in biases
                and (rows * (columns - 1)) * (getattr(module, "groups", 1)) == names[weight].numel()
            )
            indices[name] = BlockIndex(
                weight,
                biases[weight] if has_bias else "",
                int(group.rstrip("]") or 0),
                type(module).__name__ == "Conv1D",
            )
        used = {index.weight for index in indices.values()} | {
            index.bias for index in indices.values() if index.bias
        }
        return cls(blocks, indices, {name: names[name].detach() for name in names if name in used})

    def flatten(self, given: Blocks) -> Float[Tensor, "q p"]:
        """One row per query; blocks that are not given are zero."""
        q = len(next(iter(given.values())))
        return torch.cat(
            [
                given[name].flatten(1) if name in given else b.values.new_zeros(q, b.values.numel())
                for name, b in self.blocks.items()
            ],
            1,
        )

    def unflatten(self, rows: Float[Tensor, "q p"]) -> Blocks:
        parts = rows.split([block.values.numel() for block in self.blocks.values()], 1)
        return {
            name: part.unflatten(1, tuple(block.values.shape))
            for (name, block), part in zip(self.blocks.items(), parts, strict=True)
        }

    def to_parameters(self, given: Blocks) -> dict[str, Tensor]:
        """`[q, *shape]` by parameter."""
        q = len(next(iter(given.values())))
        made = {name: p.new_zeros(q, *p.shape) for name, p in self.parameters.items()}
        for name, matrix in given.items():
            for view, part in self._views(name, matrix, made):
                view.copy_(part)
        return made

    def of_parameters(self, given: Mapping[str, Tensor]) -> Blocks:
        """The inverse of `to_parameters`."""
        q, given = len(next(iter(given.values()))), {n: t.contiguous() for n, t in given.items()}
        made = {name: b.values.new_zeros(q, *b.values.shape) for name, b in self.blocks.items()}
        for name, matrix in made.items():
            for view, part in self._views(name, matrix, given):
                part.copy_(view)
        return made

    def _views(
        self, name: str, matrix: Tensor, parameters: Mapping[str, Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Views of the same entries in the parameters and in the block."""
        index, o = self.indices[name], matrix.shape[1]
        rows = slice(index.group * o, (index.group + 1) * o)
        weight, inside = parameters[index.weight], matrix
        if index.bias:
            inside = matrix[..., :-1]
            yield parameters[index.bias][:, rows], matrix[..., -1]
        if o == 1 and inside[0].numel() == weight[0].numel():  # a gain, or another layer's row
            yield weight.flatten(1)[:, None], inside
        else:
            stored = weight.mT if index.transposed else weight.flatten(2)
            yield stored[:, rows], inside


def solve(found: "InfluenceScores", given: Blocks, lab: Lab) -> Blocks:
    """(G + λ)⁻¹ of the matrices given, by the strategy and passes of the configuration."""
    at = Coordinates.of(found.trained.model, found.factors.blocks)
    levels = at.flatten(
        {
            name: torch.full_like(block.values, block.damping)[None]
            for name, block in found.factors.blocks.items()
        }
    )

    def precondition(rows: Tensor) -> Tensor:
        parts = at.unflatten(rows)
        return at.flatten(
            {name: found.factors.blocks[name].solve(part) for name, part in parts.items()}
        )

    def damped_matrix(batches: Iterable[Batch], is_shared: bool) -> Matrix:
        def product(rows: Tensor) -> Tensor:
            total, n = summed_products(
                found.trained.model,
                batches,
                found.loss,
                at.to_parameters(at.unflatten(rows)),
                found.config.memory,
            )
            curved, count = at.flatten(at.of_parameters(total)), torch.tensor(float(n))
            if is_shared:
                curved, count = lab.sum(curved), lab.sum(count)
            return curved / float(count) + levels * rows

        return product

    b, passes = at.flatten(given), found.config.iterations
    if not passes:
        return at.unflatten(precondition(b))
    whole = damped_matrix(Batches(found), is_shared=True)
    if found.config.curvature is Curvature.EKFAC_CG:
        steps = lab.track(range(passes), passes)
        made = conjugate_gradients(whole, precondition, b, steps)
        found.residuals.extend(made.residual.tolist())
        return at.unflatten(made.x)
    drawn = draw_minibatches(found, passes, lab)
    parts = [damped_matrix(Minibatch(found, rows), is_shared=False) for rows in drawn]
    start = torch.randn(
        1, b.shape[1], generator=lab.child("start").generator(), dtype=torch.float64
    )
    steps = lab.track(range(len(parts)), len(parts))
    made = stochastic_descent(parts, whole, precondition, b, start.to(b), steps)
    found.residuals.extend(made.residual.tolist())
    return at.unflatten(made.x)


def convergence_sentence(residuals: Sequence[float], passes: int) -> str:
    """What a reader should know of solves that did not arrive; empty if all did."""
    most = max(residuals, default=0.0)
    if most <= MUCH:
        return ""
    return (
        f"The iterations did not converge: after {passes} passes the residual of a query was up to "
        f"{most:.2g} of its gradient, so scores are not yet those of the Gauss–Newton matrix. It "
        "may exceed 1 and rise between passes, and EK-FAC's own answer often leaves more: it says "
        "that the solve is not finished, not that scores are worse than EK-FAC's. More iterations "
        "or a larger damping bring them nearer."
    )


def join_blocks(parts: Sequence[Blocks]) -> Blocks:
    """Of the queries of all parts, in their order; of one part without a copy."""
    found: dict[str, list[Tensor]] = {}
    for part in parts:
        for name, matrix in part.items():
            found.setdefault(name, []).append(matrix)
    return {name: torch.cat(rows) if len(rows) > 1 else rows[0] for name, rows in found.items()}


@dataclass
class LastSolve:
    """What was solved for last, a batch of queries at a time, and the answer: scores and their
    shares by token ask for the same.

    Known by the gradients, of which the answer is a function.
    """

    given: Sequence[Mapping[str, FactorPair]] = ()
    solved: Blocks = field(default_factory=dict)

    def is_of(self, given: Sequence[Mapping[str, FactorPair]]) -> bool:
        """Whether these gradients are the same, to the bit."""
        return len(self.given) == len(given) and all(
            one.keys() == other.keys() and all(are_same(one[name], other[name]) for name in one)
            for one, other in zip(self.given, given, strict=True)
        )


def are_same(one: FactorPair, other: FactorPair) -> bool:
    """Whether two pairs hold the same numbers."""
    return (
        type(one) is type(other)
        and one.sizes == other.sizes
        and torch.equal(one.a, other.a)
        and torch.equal(one.g, other.g)
    )


@dataclass(frozen=True, eq=False)
class Batches:
    """This process's batches of the examples on which the curvature was fitted, again and again."""

    found: "InfluenceScores"

    def __iter__(self) -> Iterator[Batch]:
        quiet = replace(self.found.stream, lab=replace(self.found.lab, sink=Silent()))
        given = quiet.local_batches(self.found.config.most)
        # one that a process without batches is given to run and forget is another's
        return (batch for number, batch in given if number >= 0)


@dataclass(frozen=True, eq=False)
class Minibatch:
    """One batch of these examples, read when it is asked for."""

    found: "InfluenceScores"
    rows: Int[Tensor, " b"]

    def __iter__(self) -> Iterator[Batch]:
        yield self.found.stream.at(self.rows)


def draw_minibatches(found: "InfluenceScores", passes: int, lab: Lab) -> list[Int[Tensor, " b"]]:
    """Shuffled passes over the examples, the same ones in every process."""
    generator = lab.child("minibatches").generator()
    n = min(found.stream.count(), found.config.most)
    size = min(found.config.batch_size, n)
    orders = [torch.randperm(n, generator=generator) for _ in range(passes)]
    return [rows for order in orders for rows in order[: n - n % size].split(size)]
