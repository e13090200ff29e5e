"""Gradients of the training examples for scores, a batch or chosen rows at a time: those that the
fit has held, or made again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unseen.attributions.influence.batch_pieces import Pieces
from unseen.attributions.influence.factors import reduce_precision, runs_half
from unseen.attributions.influence.layers import pairs, restrict_gradients
from unseen.attributions.influence.pair_cache import PairCache, Place
from unseen.attributions.influence.preconditioned_queries import Precision
from unseen.attributions.influence.stream import Stream, is_idle
from unseen.engine.factor_pairs import EmbeddingPair, FactorPair
from unseen.engine.kron import KroneckerBlock
from unseen.engine.sharding import is_sharded
from unseen.errors import UnsupportedLayer
from unseen.task import Batch, PerExample, Use


@dataclass(frozen=True, eq=False)
class GradientStream:
    """∇ℓ of the examples of a stream, by block."""

    model: nn.Module
    layers: Sequence[str]
    loss: PerExample
    stream: Stream
    blocks: Mapping[str, KroneckerBlock]
    cache: PairCache
    pieces: Pieces
    is_exact: bool
    """Whether the curvature is one matrix over all parameters."""

    def iterate(
        self, precision: Precision, candidates: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor, dict[str, FactorPair]]]:
        """(first row, rows, gradients of the loss) of this process's batches."""
        ranks, count = self.stream.lab.ranks, 0
        if candidates is not None:
            parts = list(candidates.split(self.stream.batch_size)) if len(candidates) else []
            for number, rows in enumerate(parts):
                if number % ranks.size == ranks.rank:
                    for part in rows.split(self.pieces.at_most(len(rows))):
                        yield number, part, self.of_batch(self.stream.at(part), precision)
            if is_sharded(self.model) and is_idle(len(parts), ranks):
                self.of_batch(self.stream.at(parts[0]), precision)
            return
        batches = self.stream.lab.track(self.stream.iterate(), self.stream.batches)
        for number, start, batch in batches:
            if number % ranks.size == ranks.rank:
                for part, (rows, piece) in enumerate(self.pieces.cut(batch)):
                    held = self._from_fit((number, part), precision)
                    if held is None:
                        held = self.of_batch(piece, precision)
                    first, after = start + rows.start, start + rows.stop
                    yield first, torch.arange(first, after), held
            count = number + 1
        if is_sharded(self.model) and is_idle(count, ranks):
            self.of_batch(batch, precision)  # FSDP's gathers need every process

    def _from_fit(self, place: Place, precision: Precision) -> dict[str, FactorPair] | None:
        """Gradients from the fit that are as precise as is wanted."""
        if precision is not Precision.BFLOAT16 and self.cache.is_narrow(place):
            return None
        return self.cache.read(place)

    def of_batch(self, batch: Batch, precision: Precision) -> dict[str, FactorPair]:
        """Gradients of these examples, made now."""
        is_half = runs_half(self.blocks, precision)
        with restrict_gradients(self.model, self.layers):
            made = pairs(self.model, batch, self.loss, self.is_exact, is_half)
        return reduce_precision(made, precision)

    def of_rows(self, rows: Tensor) -> dict[str, FactorPair]:
        """Gradients of chosen examples: held ones, or made again in full precision a batch at a
        time.
        """
        made: dict[str, list[FactorPair]] = {}
        if self._has_every_pair:
            number, within = rows // self.stream.batch_size, rows % self.stream.batch_size
            for k in number.unique(sorted=True).tolist():
                for name, pair in self.cache.pairs[k, 0].items():
                    made.setdefault(name, []).append(pair.take(within[number == k]))
            back = torch.cat(
                [(number == k).nonzero().flatten() for k in number.unique(sorted=True)]
            ).argsort()
            if all(sum(map(len, parts)) == len(rows) for parts in made.values()):
                return {name: _concatenate(parts).take(back) for name, parts in made.items()}
            made = {}  # some batches do not reach some layer: of these rows together some may
        with restrict_gradients(self.model, self.layers):
            for part in rows.split(self.pieces.at_most(max(self.stream.batch_size, 512))):
                for name, pair in pairs(
                    self.model, self.stream.at(part), self.loss, self.is_exact
                ).items():
                    made.setdefault(name, []).append(pair)
        _refuse_partial(made, len(rows))
        return {name: _concatenate(parts) for name, parts in made.items()}

    @property
    def _has_every_pair(self) -> bool:
        """Whether every batch of one split is in memory in full precision, so that rows are found
        by number.
        """
        batches = self.stream.batches
        is_whole = not any(self.cache.is_narrow(place) for place in self.cache.pairs)
        one = len(self.stream.task.of(Use.TRAIN)) == 1 and self.stream.lab.ranks.size == 1
        one = one and not self.pieces.step
        return bool(
            one and batches and is_whole and all((k, 0) in self.cache.pairs for k in range(batches))
        )


def _refuse_partial(given: Mapping[str, Sequence[FactorPair]], n: int) -> None:
    """Raises where a layer has gradients of fewer than all `n` rows."""
    for name, parts in given.items():
        if sum(map(len, parts)) != n:
            raise UnsupportedLayer(
                f"Some of these examples do not reach `{name}`.",
                why="their gradients are put beside one another, row by row.",
                fix="leave the layer out with layers=(…), or ask for all scores instead.",
            )


def _concatenate(parts: Sequence[FactorPair]) -> FactorPair:
    first = parts[0]
    a, g = torch.cat([p.a for p in parts]), torch.cat([p.g for p in parts])
    return EmbeddingPair(a, g, first.v) if isinstance(first, EmbeddingPair) else type(first)(a, g)
