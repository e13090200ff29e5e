"""The attributor: scores over a stream of examples, by layer, by token, of examples on themselves, and the top k."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from unseen.attribution import Cause, Credits
from unseen.attributions.influence.asking import LARGE, Asking, Precision, Scaled
from unseen.attributions.influence.factors import Curvature, Factors, Kept, names, narrowed, runs_half
from unseen.attributions.influence.screening import Screen
from unseen.attributions.influence.stream import Stream
from unseen.attributions.influence.tracking import only, pairs
from unseen.engine.batches import Columns, gather, length, once, place, size
from unseen.engine.pairs import Pair, Rows, Table
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, PerExample, Use

if TYPE_CHECKING:
    from unseen.attributions.influence import Influence

log = logging.getLogger("unseen.influence")
SURVIVES = 0.9995
"""Rank correlation with full precision at which bfloat16 scores are used."""
ENOUGH = 64
"""Examples on which that is seen: among fewer one swapped pair of neighbours would decide."""
SAME = 1e-4
"""Relative error at which mixed scores are used."""
ByBlock = dict[str, list[Pair]]


@dataclass(frozen=True)
class Top:
    """The k most helpful and most harmful examples of each query, strongest first."""

    scores: Float[Tensor, "q k"]
    index: Int[Tensor, "q k"]
    worst_scores: Float[Tensor, "q k"]
    worst_index: Int[Tensor, "q k"]


@dataclass(frozen=True, eq=False)
class Influences:
    """Answers queries about one trained model. Causes are the examples of the FIT splits, in the task's order."""

    trained: Trained
    lab: Lab
    config: "Influence"
    factors: Factors
    layers: tuple[str, ...]
    loss: PerExample
    stream: Stream
    kept: Kept = field(default_factory=lambda: Kept(0))

    def __call__(self, queries: Batch, behaviour: PerExample) -> Credits:
        """score[q, z]: what one added copy of z adds to the behaviour of q."""
        ready, precision = self.ask(queries, behaviour)
        return Credits(self._matrix(ready, precision)["all"], Cause.EXAMPLE)

    def by_layer(self, queries: Batch, behaviour: PerExample) -> dict[str, Float[Tensor, "q n"]]:
        """The part of the score that goes through each layer; they sum to the score."""
        found = self._matrix(*self.ask(queries, behaviour), apart=True)
        return {layer: sum(found[block] for block in blocks) for layer, blocks in names(list(found)).items()}  # type: ignore[misc]

    def by_token(self, queries: Batch, behaviour: PerExample, rows: Int[Tensor, " n"]) -> Float[Tensor, "q n s"]:
        """What each position of the chosen examples adds; a sum over positions is the score."""
        blocks = self.factors.blocks
        ready = {
            name: torch.cat([blocks[name].solved(pair.gradients()) for pair in given])
            for name, given in self._gradients(queries, behaviour).items()
        }
        n, parts = self._count(), []
        for start in range(0, len(rows), self.config.batch_size):
            given = self._rows_of(rows[start : start + self.config.batch_size])
            total = None
            for name, pair in given.items():
                if name not in ready:
                    continue
                if isinstance(pair, Rows):
                    raise UnsupportedLayer(
                        f"The gradient of `{name}` has no positions.",
                        why="it is held as one vector per example.",
                        fix="track linear maps, convolutions and embeddings only, with layers=(…).",
                    )
                part = pair.by_position(ready[name])
                if total is not None and part.shape != total.shape:
                    raise UnsupportedLayer(
                        f"Layer `{name}` has {part.shape[2]} positions, others have {total.shape[2]}.",
                        why="influence by token needs layers with the same positions.",
                        fix="track layers of one length only, with layers=(…).",
                    )
                total = part if total is None else total + part
            assert total is not None
            parts.append(total)
        return torch.cat(parts, 1) / -n

    def own(self) -> Float[Tensor, " n"]:
        """Self-influence (1/N) ∇ℓᵀ (G + λ)⁻¹ ∇ℓ of every example: large where it stands against the rest."""

        def each(given: Mapping[str, Pair]) -> Tensor:
            blocks = self.factors.blocks
            parts = [blocks[name].turned(p).weighted_norms2(blocks[name].inverse) for name, p in given.items()]
            return torch.stack(parts).sum(0)[None]

        return (
            self._collected((start, each(given)) for start, _, given in self._stream(Precision.FULL))[0] / self._count()
        )

    def top(self, queries: Batch, behaviour: PerExample, k: int, *, candidates: Tensor | None = None) -> Top:
        """The k most helpful and k most harmful examples of each query; memory does not grow with the corpus.

        With `candidates` (rows by number) only these are looked at.
        """
        if k < 1:
            raise InvalidData(f"top got k={k}.", why="at least one example is asked for.", fix="give k ≥ 1.")
        n = self._count()
        if all(block.positions == 1 for block in self.factors.blocks.values()):
            given = self._gradients(queries, behaviour)
            screen = Screen.fitting(self.factors.blocks, given, k, n if candidates is None else len(candidates))
        else:
            screen = None
        if screen is not None:
            found = screen.top(self._stream(Precision.FULL, candidates), k, self._rows_of)
        else:
            found = _running(self.columns(*self.ask(queries, behaviour), candidates), k)
        ends = _merged([found], k) if self.lab.ranks.size == 1 else self._over_ranks(found, k)
        (best, at), (worst, where) = ends
        return Top(-best / n, at, -worst / n, where)

    # how it is done

    def _asking(self, queries: Batch, behaviour: PerExample) -> Iterator[tuple[int, dict[str, Pair]]]:
        """(number of the first query, gradients of the behaviour by block), a batch of queries at a time.

        In full precision: queries are few, and every score has a factor of theirs.
        """
        at = 0
        for batch in once(Columns(**queries), self.config.batch_size, self.lab):
            with self._tracking():
                found = pairs(self.trained.model, batch, behaviour, self._is_exact)
            for name, pair in found.items():
                self._refuse(name, pair)
            yield at, found
            at += size(batch)

    def _refuse(self, name: str, pair: Pair) -> None:
        if name not in self.factors.blocks:
            raise InvalidData(
                f"The behaviour goes through `{name}`, which no training example reached.",
                why="its curvature is not known.",
                fix="track other layers with layers=(…).",
            )
        if not (torch.isfinite(pair.a).all() and torch.isfinite(pair.g.to(pair.a.dtype)).all()):
            raise InvalidData(
                f"The gradient of a query is not finite in layer `{name}`.",
                why="the behaviour of a query overflows or is NaN (a completion of probability 0?).",
                fix="check the queries for extreme values.",
            )

    def _gradients(self, queries: Batch, behaviour: PerExample) -> ByBlock:
        """All of them at once."""
        found: ByBlock = {}
        for _, given in self._asking(queries, behaviour):
            for name, pair in given.items():
                found.setdefault(name, []).append(pair)
        return found

    def ask(self, queries: Batch, behaviour: PerExample) -> tuple[dict[str, Scaled], Precision]:
        """The queries in the form that scores cheapest, in the precision that a few of them confirm."""
        precision = self._confirmed(queries, behaviour)
        return self._forms(queries, behaviour, precision), precision

    def _forms(self, queries: Batch, behaviour: PerExample, precision: Precision) -> dict[str, Scaled]:
        made: dict[str, Asking] = {}
        n = self._count()
        for at, given in self._asking(queries, behaviour):
            for name, pair in given.items():
                if name not in made:
                    made[name] = Asking(
                        self.factors.blocks[name], size(queries), precision, rank=self.config.rank, examples=n
                    )
                made[name].put(at, pair)
        return {name: asking.done() for name, asking in made.items()}

    def _confirmed(self, queries: Batch, behaviour: PerExample) -> Precision:
        """The asked-for precision, if the scores of a few queries on the first batch agree with full precision."""
        wanted, blocks = self.config.precision, self.factors.blocks.values()
        is_float32 = all(block.values.dtype == torch.float32 for block in blocks)
        if wanted is Precision.MIXED and not any(b.positions == 1 and b.values.numel() >= LARGE for b in blocks):
            return Precision.FULL  # sequences and small layers know no mixture
        if wanted is Precision.FULL or not is_float32 or not is_native(self.lab.device):
            return Precision.FULL
        few, batch = {name: tensor[:8] for name, tensor in queries.items()}, next(self.stream.all())[2]
        totals = []
        for precision in (Precision.FULL, wanted):
            forms, given = self._forms(few, behaviour, precision), self._pairs(batch, precision)
            totals.append(
                torch.stack([forms[name].score(pair) for name, pair in given.items() if name in forms]).sum(0)
            )
        found = agreement(*totals)
        self.lab.log(relative_error=found.error, rank_correlation=found.ranks)
        is_good = found.error <= SAME if wanted is Precision.MIXED else found.ranks >= SURVIVES
        if not is_good:
            level = logging.INFO if wanted is Precision.MIXED else logging.WARNING  # nobody asked for the default
            log.log(level, "%s products are not used: relative error %.1e, rank correlation %.5f with full precision.",
                    wanted, found.error, found.ranks)  # fmt: skip
        return wanted if is_good else Precision.FULL

    def _matrix(self, ready: dict[str, Scaled], precision: Precision, apart: bool = False) -> dict[str, Tensor]:
        """All scores; by block where asked for."""
        keys = list(ready) if apart else ["all"]
        collected: dict[str, list[tuple[int, Tensor]]] = {key: [] for key in keys}
        for start, _, given in self._stream(precision):
            parts = {name: ready[name].score(given[name]) for name in ready if name in given}
            for key in keys:
                if apart and key not in parts:
                    continue
                collected[key].append((start, parts[key] if apart else sum(parts.values())))  # type: ignore[arg-type]
        n = self._count()
        return {key: self._collected(iter(parts)) / -n for key, parts in collected.items()}

    def columns(
        self, ready: dict[str, Scaled], precision: Precision, candidates: Tensor | None
    ) -> Iterator[tuple[Int[Tensor, " b"], Float[Tensor, "q b"]]]:
        """(rows, products) of this process's batches: −N times the scores."""
        for _, rows, given in self._stream(precision, candidates):
            parts = [ready[name].score(given[name]) for name in ready if name in given]
            yield rows, torch.stack(parts).sum(0)

    def _stream(
        self, precision: Precision, candidates: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor, dict[str, Pair]]]:
        """(first row, rows, gradients of the loss) of this process's batches."""
        ranks = self.lab.ranks
        if candidates is not None:
            for number, rows in enumerate(candidates.split(self.config.batch_size)):
                if number % ranks.size == ranks.rank:
                    yield number, rows, self._pairs(self._rows(rows), precision)
            return
        for number, start, batch in self.lab.track(self.stream.all(), self.stream.batches):
            if number % ranks.size == ranks.rank:
                held = self.kept.held.get((number, 0))
                if held is None or (precision is not Precision.BFLOAT16 and _is_narrow(held)):
                    held = self._pairs(batch, precision)
                yield start, torch.arange(start, start + size(batch)), held

    def _pairs(self, batch: Batch, precision: Precision) -> dict[str, Pair]:
        is_half = runs_half(self.factors.blocks, precision)
        with self._tracking():
            made = pairs(self.trained.model, batch, self.loss, self._is_exact, is_half)
        return narrowed(made, precision)

    def _rows_of(self, rows: Tensor) -> dict[str, Pair]:
        """Gradients of chosen examples: held ones, or made again in full precision a batch at a time."""
        made: ByBlock = {}
        if self._holds_all:
            number, within = rows // self.config.batch_size, rows % self.config.batch_size
            for k in number.unique(sorted=True).tolist():
                for name, pair in self.kept.held[k, 0].items():
                    made.setdefault(name, []).append(pair.take(within[number == k]))
            back = torch.cat([(number == k).nonzero().flatten() for k in number.unique(sorted=True)]).argsort()
            return {name: _joined(parts).take(back) for name, parts in made.items()}
        with self._tracking():
            for part in rows.split(max(self.config.batch_size, 512)):
                for name, pair in pairs(self.trained.model, self._rows(part), self.loss, self._is_exact).items():
                    made.setdefault(name, []).append(pair)
        return {name: _joined(parts) for name, parts in made.items()}

    @property
    def _holds_all(self) -> bool:
        """Whether every batch of one split is held in full precision, so that rows are found by number."""
        batches = self.stream.batches
        is_whole = not any(_is_narrow(pairs) for pairs in self.kept.held.values())
        one = len(self.trained.task.of(Use.FIT)) == 1 and self.lab.ranks.size == 1
        return bool(one and batches and is_whole and all((k, 0) in self.kept.held for k in range(batches)))

    def _rows(self, rows: Tensor) -> Batch:
        """Examples by number over all FIT splits."""
        found: list[Batch] = []
        order: list[Tensor] = []
        start = 0
        for split in self.trained.task.of(Use.FIT).values():
            n = length(split.data)
            if n is None:
                raise InvalidData(
                    "Examples of a stream cannot be read by number.",
                    why="a stream is read from its start.",
                    fix="give a map-style dataset (Columns, a memory-mapped array).",
                )
            inside = ((rows >= start) & (rows < start + n)).nonzero().flatten()
            if len(inside):
                found.append(place(gather(split.data, rows[inside] - start), self.lab))
                order.append(inside)
            start += n
        back = torch.cat(order).argsort()
        return {name: torch.cat([part[name] for part in found])[back.to(found[0][name].device)] for name in found[0]}

    def _tracking(self) -> AbstractContextManager[None]:
        return only(self.trained.model, self.layers)

    @property
    def _is_exact(self) -> bool:
        return self.config.curvature is Curvature.EXACT

    def _count(self) -> int:
        """N."""
        known = self.stream.known
        if known is None:
            if not self._counted:
                self._counted.append(sum(size(batch) for _, _, batch in self.stream.all()))
            known = self._counted[0]
        return known

    _counted: list[int] = field(default_factory=list)

    def _collected(self, parts: Iterator[tuple[int, Tensor]]) -> Tensor:
        """Columns at their places, summed over processes."""
        found = list(parts)
        n = self._count()
        like = found[0][1]
        if self.lab.ranks.size == 1:
            return torch.cat([part for _, part in found], 1)
        total = like.new_zeros(len(like), n)
        for start, part in found:
            total[:, start : start + part.shape[1]] = part
        return self.lab.sum(total)

    def _over_ranks(self, found: "Ends", k: int) -> "Ends":
        """The ends of all processes merged."""
        ranks = self.lab.ranks
        every = []
        for values, index in found:
            width = min(k, self._count())
            table = values.new_zeros(ranks.size, len(values), width, dtype=torch.float64)
            places = torch.full_like(table, -1)
            places[:] = 0
            table[ranks.rank, :, : values.shape[1]] = values.double()
            places[ranks.rank, :, : values.shape[1]] = index.double() + 1
            every.append((self.lab.sum(table), self.lab.sum(places).long() - 1))
        (low, low_at), (high, high_at) = every
        return _merged([((low[r], low_at[r]), (high[r], high_at[r])) for r in range(ranks.size)], k)


def _is_narrow(given: Mapping[str, Pair]) -> bool:
    return any(pair.a.dtype == torch.bfloat16 for pair in given.values())


@dataclass(frozen=True)
class Agreement:
    """Between two tables of scores: relative Frobenius error, and rank correlation."""

    error: float
    ranks: float


def agreement(a: Float[Tensor, "q n"], b: Float[Tensor, "q n"]) -> Agreement:
    """Ranks are compared over all queries at once, each row in units of its spread: in a row of 64 scores a single swap of
    neighbours would cost as much as the rounding that is to be judged."""
    error = float((a - b).norm() / a.norm().clamp_min(1e-300))
    spread = a.std(1, keepdim=True)
    rows = spread[:, 0] > 0
    if not rows.any() or a.shape[1] < 3:
        return Agreement(error, 1.0)
    x, y = ((table[rows] / spread[rows]).flatten().cpu() for table in (a, b))
    return Agreement(error, float(spearmanr(x, y).statistic))


def is_native(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


Ends = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(products, rows) of the smallest and of the largest."""


def _running(columns: Iterator[tuple[Tensor, Tensor]], k: int) -> Ends:
    """The k smallest and largest of each query over a stream of columns."""
    ends: Ends | None = None
    for rows, values in columns:
        new = (values, rows.to(values.device).expand(len(values), -1))
        ends = _merged([(new, new)] if ends is None else [ends, (new, new)], k)
    assert ends is not None
    return ends


def _merged(parts: Sequence[Ends], k: int) -> Ends:
    made = []
    for side, largest in ((0, False), (1, True)):
        values = torch.cat([part[side][0] for part in parts], 1)
        index = torch.cat([part[side][1] for part in parts], 1)
        values = values.masked_fill(index < 0, -torch.inf if largest else torch.inf)
        best, at = values.topk(min(k, values.shape[1]), 1, largest=largest)
        made.append((best, index.gather(1, at)))
    return made[0], made[1]


def _joined(parts: Sequence[Pair]) -> Pair:
    first = parts[0]
    a, g = torch.cat([p.a for p in parts]), torch.cat([p.g for p in parts])
    return Table(a, g, first.v) if isinstance(first, Table) else type(first)(a, g)
