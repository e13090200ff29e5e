"""Fitting the curvature of every tracked layer in one pass over the data, or two where what one
pass saw does not fit.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unseen.attributions.influence.batch_pieces import Pieces
from unseen.attributions.influence.pair_cache import PairCache
from unseen.attributions.influence.preconditioned_queries import Precision
from unseen.attributions.influence.pseudo_labels import PseudoLabels
from unseen.attributions.influence.running_sums import (
    NEXT,
    FirstPass,
    Forgetful,
    SumsStore,
    are_equal,
    move_blocks,
)
from unseen.engine.batches import size
from unseen.engine.factor_pairs import FactorPair, GradientRows
from unseen.engine.kron import FULL, Covariances, KroneckerBlock, blocks_of, damp
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.task import Batch, PerExample


class Curvature(StrEnum):
    """What stands for G in (G + λ)⁻¹."""

    IDENTITY = "identity"
    """Nothing: dot products of gradients."""
    DIAGONAL = "diagonal"
    """The mean squares of each parameter's gradient."""
    KFAC = "kfac"
    """S ⊗ A per layer."""
    EKFAC = "ekfac"
    """The same eigenvectors with the eigenvalues that fit best."""
    EXACT = "exact"
    """The matrix over all tracked parameters; small models only."""
    EKFAC_CG = "ekfac+cg"
    """The Gauss–Newton matrix of all tracked layers together, by conjugate gradients that EK-FAC
    preconditions.
    """
    EKFAC_ASTRA = "ekfac+astra"
    """The same by steps on minibatches."""

    @property
    def is_iterative(self) -> bool:
        """Whether queries are solved for by iterations."""
        return self in (Curvature.EKFAC_CG, Curvature.EKFAC_ASTRA)

    @property
    def preconditioner(self) -> "Curvature":
        """What is fitted: iterations start from EK-FAC."""
        return Curvature.EKFAC if self.is_iterative else self


@dataclass(frozen=True, eq=False)
class Factors:
    """The curvature of each layer, of one model."""

    blocks: dict[str, KroneckerBlock]
    model: str
    """Digest of the weights that they belong to."""
    examples: int

    def tensors(self) -> dict[str, Tensor]:
        """For a file; `Factors.of` reads them."""
        made = {
            key: tensor
            for name, block in self.blocks.items()
            for key, tensor in block.tensors(name).items()
        }
        about = torch.tensor([*bytes.fromhex(self.model)], dtype=torch.uint8)
        return made | {"unseen/model": about, "unseen/examples": torch.tensor(self.examples)}

    @classmethod
    def of(
        cls,
        tensors: dict[str, Tensor],
        model: str,
        device_of: Callable[[str], torch.device] | None = None,
    ) -> "Factors":
        """The factors in `tensors`, each block where `device_of` says; refused if they were fitted
        to other weights than those of digest `model`.
        """
        given = dict(tensors)
        about, examples = (
            given.pop("unseen/model", None),
            given.pop("unseen/examples", torch.tensor(0)),
        )
        found = "" if about is None else bytes(about.tolist()).hex()
        if found != model:
            raise InvalidData(
                f"The factors were fitted to another checkpoint ({found[:12] or 'none'}…, the "
                f"model is {model[:12]}…).",
                why="the curvature of other weights gives influences that mean nothing.",
                fix="fit them again for this model, or load the weights that they belong to.",
            )
        if device_of is not None:
            given = move_blocks(given, device_of)
        return cls(blocks_of(given), found, int(examples))


Pass = Callable[[], Iterator[tuple[int, Batch]]]
"""The batches of this process with their number, from the start."""


@runtime_checkable
class Pairs(Protocol):
    """Gradients by layer; with `is_half` the model itself runs in bfloat16."""

    def __call__(
        self, batch: Batch, f: PerExample, is_half: bool = False
    ) -> dict[str, FactorPair]: ...


@dataclass(frozen=True, eq=False)
class Fit:
    """One way to fit factors: what stands for the curvature, and where pseudo-gradients come
    from.
    """

    curvature: Curvature
    labels: PseudoLabels
    damping: float
    pairs: Pairs
    precision: Precision
    lab: Lab
    real: Callable[[Batch], Tensor | None]
    cache: PairCache
    unfinished: Callable[[str], SumsStore] = lambda name: Forgetful()
    """Where the sums of each pass are kept until it is finished."""
    device_of: Callable[[str], torch.device] = lambda name: torch.device("cpu")
    """Where a block's layer lives."""
    foresee: Callable[[int], None] = lambda size: None
    """Hears the size of the factors as soon as one batch shows it."""
    pieces: Pieces = Pieces()

    def __call__(self, batches: Pass) -> tuple[dict[str, KroneckerBlock], int]:
        """The damped blocks, and the number of examples that they were fitted on."""
        if self.curvature is Curvature.IDENTITY:
            _, batch = next(batches())
            pairs = self.pairs(batch, self.labels.loss)
            return {name: _identity(pair) for name, pair in pairs.items()}, 0
        basis, examples = self._bases(batches)
        if self.curvature is Curvature.KFAC:
            values = {name: block.values for name, block in basis.items()}
        else:
            values = self._eigenvalue_correction(batches, basis, examples)
        made = {
            name: damp(block, values[name], self.damping, name) for name, block in basis.items()
        }
        return made, int(examples)

    def _bases(self, batches: Pass) -> tuple[dict[str, KroneckerBlock], float]:
        """Eigenvectors of every layer, and the number of examples over all processes."""
        store = self.unfinished("covariances")
        state, is_foreseen = self._first_pass(store.load()), False
        for number, batch in batches():
            if max(number, ~number) < state.next:
                continue
            if number < 0:  # a batch to run and forget
                self._add_nothing(state, number, batch)
            else:
                self._add(state, number, batch)
            if not is_foreseen:
                self.foresee(state.factor_bytes)
                is_foreseen = True
            if store.is_due():
                store.save(state.tensors())
        total = self.lab.sum(torch.tensor(float(state.examples), dtype=torch.float64))
        refuse_uneven_layers(sorted({*state.sums, *state.plain}), self.lab)
        made = {
            name: self._basis(number, name, state.sums[name])
            for number, name in enumerate(sorted(state.sums))
        }
        return made | state.plain, float(total)

    def _basis(self, number: int, name: str, sums: Covariances) -> KroneckerBlock:
        """Of several processes each decomposes its part of the layers."""
        ranks, whole = self.lab.ranks, sums.sum_over(self.lab.sum)
        if ranks.size == 1:
            return whole.basis(name)
        is_own = number % ranks.size == ranks.rank
        part = whole.basis(name) if is_own else whole.zero_basis(name)
        return part.sum_over(self.lab.sum)

    def _first_pass(self, stored: dict[str, Tensor] | None) -> FirstPass:
        """Sums to go on from."""
        return FirstPass() if stored is None else FirstPass.of(stored, self.device_of)

    def _add(self, state: FirstPass, number: int, batch: Batch) -> None:
        real = self.real(batch)
        is_half = self.precision is Precision.BFLOAT16 and state.has_positions
        for part, (share, rows, pairs) in enumerate(self._pseudo(number, batch, is_half)):
            for name, pair in pairs.items():
                if self._is_diagonal(pair):
                    state.plain[name] = _identity(pair)
                else:
                    own = None if real is None else real[rows].to(pair.a.device)
                    state.sums.setdefault(name, Covariances()).add(pair, own, share)
            self.cache.store((number, part), reduce_precision(pairs, self.precision))
        state.examples += size(batch)
        state.next = number + 1

    def _add_nothing(self, state: FirstPass, number: int, batch: Batch) -> None:
        """Sums of zero for every layer, where this process has no batch but this idle one."""
        for _, _, pairs in self._pseudo(number, batch):
            for name, pair in pairs.items():
                if self._is_diagonal(pair):
                    state.plain.setdefault(name, _identity(pair))
                elif name not in state.sums:
                    state.sums[name] = Covariances()
                    state.sums[name].add(pair, None, 0.0)
                    _set_zero(state.sums[name])
        state.next = ~number + 1

    def _is_diagonal(self, pair: FactorPair) -> bool:
        wide = (
            isinstance(pair, GradientRows)
            and pair.sizes[3] > FULL
            and self.curvature is not Curvature.EXACT
        )
        return self.curvature is Curvature.DIAGONAL or wide

    def _eigenvalue_correction(
        self, batches: Pass, basis: dict[str, KroneckerBlock], examples: float
    ) -> dict[str, Tensor]:
        """Λ: the mean squares of the gradients in the eigenbasis."""
        total = {name: torch.zeros_like(block.values) for name, block in basis.items()}
        is_half = runs_half(basis, self.precision)
        store = self.unfinished("eigenvalues")
        stored = store.load() or {}
        following = int(stored.get(NEXT, 0))
        total |= {name: stored[name].to(value.device) for name, value in total.items() if stored}
        for number, batch in batches():
            position = max(number, ~number)
            if position < following:
                continue
            for pairs in self._replay(number, batch, is_half):
                for name, pair in pairs.items() if number >= 0 else ():
                    total[name] += squares_in_basis(basis[name], pair)
            if store.is_due():
                store.save(total | {NEXT: torch.tensor(position + 1)})
        weight = examples * self.labels.per_example
        return {name: self.lab.sum(value) / weight for name, value in total.items()}

    def _replay(self, number: int, batch: Batch, is_half: bool) -> Iterator[dict[str, FactorPair]]:
        """The pseudo-gradients of a batch for the second time: those of the first pass, held or
        made again with the same numbers, not fresh ones.

        Λ is then the diagonal of the very Fisher matrix whose factors gave the basis: its best
        approximation there.
        """
        parts = self.labels.count(batch) * len(self.pieces.slices(size(batch)))
        done = 0
        if all((number, part) in self.cache for part in range(parts)):
            while done < parts and (held := self.cache.read((number, done))) is not None:
                yield held
                done += 1
        if done < parts:
            for _, _, pairs in islice(self._pseudo(number, batch, is_half), done, None):
                yield reduce_precision(pairs, self.precision)

    def _pseudo(
        self, number: int, batch: Batch, is_half: bool = False
    ) -> Iterator[tuple[float, slice, dict[str, FactorPair]]]:
        """(share of an example, examples, pseudo-gradients by layer), for every piece of every
        draw or class.
        """
        # the first batch shows about what covariances are, and whether layers have positions
        is_half = is_half and number >= self.lab.ranks.size
        for share, labelled, loss in self.labels.label(number, batch):
            for rows, piece in self.pieces.cut(labelled):
                pairs = self.pairs(piece, loss, is_half)
                yield share, rows, {name: pair.flush_denormals() for name, pair in pairs.items()}


def refuse_uneven_layers(reached: Sequence[str], lab: Lab) -> None:
    """Raises where processes have sums of other layers than one another."""
    # 20 bits, whose squares a float64 adds up exactly
    mark = int(hashlib.sha256("\n".join(reached).encode()).hexdigest()[:5], 16)
    if lab.ranks.size > 1 and not are_equal(mark, lab):
        raise UnsupportedLayer(
            "The examples of one process reach other layers than those of another.",
            why="processes add up their sums layer by layer, and some layers run for a part of the "
            "examples only.",
            fix="leave such layers out with layers=(…), or use one process.",
        )


def reduce_precision(pairs: dict[str, FactorPair], precision: Precision) -> dict[str, FactorPair]:
    """Sequences in bfloat16, where that is wanted: a gradient sums over positions, and their
    rounding averages out.

    Λ is then off by 10⁻⁵ of its mean, far below λ; the factors A and S, whose small directions
    rounding would mix, are made from what came before. Single positions stay as they are: no sum
    hides their rounding.
    """
    if precision is not Precision.BFLOAT16:
        return pairs
    return {
        name: pair.to(torch.bfloat16) if pair.sizes[1] > 1 else pair for name, pair in pairs.items()
    }


def runs_half(blocks: Mapping[str, KroneckerBlock], precision: Precision) -> bool:
    """Whether batches after the first run the model in bfloat16: for sequences, whose sums hide
    the rounding.
    """
    return precision is Precision.BFLOAT16 and all(block.positions > 1 for block in blocks.values())


def squares_in_basis(block: KroneckerBlock, pair: FactorPair) -> Tensor:
    """Σ_b (Q_Sᵀ V_b Q_A)², turning positions or gradients, whichever costs less."""
    _, s, o, i = pair.sizes
    if s * (o * o + i * i) <= o * i * (o + i):
        return block.rotate_pair(pair).squares()
    total = torch.zeros_like(block.values)
    for part in pair.parts():
        total += block.to_basis(part.gradients().to(block.values)).square().sum(0)
    return total


def _set_zero(sums: Covariances) -> None:
    for tensor in (sums.right, sums.left, sums.counts):
        if tensor is not None:
            tensor.zero_()


def _identity(pair: FactorPair) -> KroneckerBlock:
    _, s, o, i = pair.sizes
    ones = torch.ones(
        o, i, dtype=torch.promote_types(pair.a.dtype, torch.float32), device=pair.a.device
    )
    return KroneckerBlock(None, None, ones, positions=float(s))


def names(blocks: Sequence[str]) -> dict[str, list[str]]:
    """The blocks of each layer: the groups of a convolution belong together."""
    found: dict[str, list[str]] = {}
    for block in blocks:
        found.setdefault(block.split("[")[0], []).append(block)
    return found
