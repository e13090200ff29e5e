"""The attributor: scores over a stream of examples, by layer, by token, of examples on themselves,
and the top k.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.attribution import Cause, Credits
from unseen.attributions.influence.batch_pieces import Pieces
from unseen.attributions.influence.candidate_search import Screen, ScreenResult
from unseen.attributions.influence.factors import (
    Curvature,
    Factors,
    names,
)
from unseen.attributions.influence.gradient_stream import GradientStream
from unseen.attributions.influence.iterative import (
    Blocks,
    LastSolve,
    convergence_sentence,
    join_blocks,
    solve,
)
from unseen.attributions.influence.layers import coverage_sentence, pairs, restrict_gradients
from unseen.attributions.influence.pair_cache import PairCache
from unseen.attributions.influence.precision_check import choose_precision, worth_asking
from unseen.attributions.influence.preconditioned_queries import Precision, QueryBuilder
from unseen.attributions.influence.query_forms import ScaledQueries, matrix_queries
from unseen.attributions.influence.stream import Stream
from unseen.attributions.influence.top_k import (
    Extremes,
    Top,
    each_once,
    no_extremes,
    streaming_extremes,
    top_of,
)
from unseen.engine.batches import Columns, once, size
from unseen.engine.factor_pairs import FactorPair, GradientRows
from unseen.engine.gradient_check import gradient_sentences
from unseen.engine.sharding import is_sharded, is_spread
from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab, Silent
from unseen.method import Trained
from unseen.task import Batch, PerExample

if TYPE_CHECKING:
    from unseen.attributions.influence import Influence

ByBlock = dict[str, list[FactorPair]]
FEW = 8
"""Queries whose scores are compared in both precisions."""
COMPARED = 32
"""On so many examples at least, by whole batches."""


@dataclass(frozen=True, eq=False)
class InfluenceScores:
    """Answers queries about one trained model. Causes are the examples of the TRAIN splits, in the
    task's order.
    """

    trained: Trained
    lab: Lab
    config: "Influence"
    factors: Factors
    layers: tuple[str, ...]
    loss: PerExample
    stream: Stream
    cache: PairCache = field(default_factory=lambda: PairCache(0))
    residuals: list[float] = field(default_factory=list)
    """What iterative solves have left of their right-hand sides so far."""
    pieces: Pieces = Pieces()
    last_solve: LastSolve = field(init=False, default_factory=LastSolve)
    """Of an iterative curvature; held until other queries are asked."""

    def __call__(self, queries: Batch, behaviour: PerExample) -> Credits:
        """score[q, z]: what one added copy of z adds to the behaviour of q."""
        ready, precision = self.prepare_queries(queries, behaviour)
        return Credits(self._matrix(ready, precision)["all"], Cause.EXAMPLE)

    def sentences(self) -> list[str]:
        """What a reader of the scores should know: what they leave out, and how gradients were
        computed.
        """
        model = self.trained.model
        said = [
            coverage_sentence(model, self.layers),
            *gradient_sentences(model),
            convergence_sentence(self.residuals, self.config.iterations),
            self.pieces.sentence(self.config.batch_size, self.config.memory),
            self.cache.sentence(),
        ]
        return [one for one in said if one]

    def by_layer(self, queries: Batch, behaviour: PerExample) -> dict[str, Float[Tensor, "q n"]]:
        """The part of the score that goes through each layer; they sum to the score."""
        found = self._matrix(*self.prepare_queries(queries, behaviour), apart=True)
        return {
            layer: sum(found[block] for block in blocks)  # type: ignore[misc]
            for layer, blocks in names(list(found)).items()
        }

    def by_token(
        self, queries: Batch, behaviour: PerExample, rows: Int[Tensor, " n"]
    ) -> Float[Tensor, "q n s"]:
        """What each position of the chosen examples adds; a sum over positions is the score."""
        ready = self._solved_queries(queries, behaviour)
        n, parts = self.stream.count(), []
        step = self.pieces.at_most(self.config.batch_size)
        for start in range(0, len(rows), step):
            given = self._training.of_rows(rows[start : start + step])
            total = None
            for name, pair in given.items():
                if name not in ready:
                    continue
                if isinstance(pair, GradientRows):
                    raise UnsupportedLayer(
                        f"The gradient of `{name}` has no positions.",
                        why="it is held as one vector per example.",
                        fix="track linear maps, convolutions and embeddings only, with layers=(…).",
                    )
                part = pair.by_position(ready[name]).to(self.lab.device)
                if total is not None and part.shape != total.shape:
                    raise UnsupportedLayer(
                        f"Layer `{name}` has {part.shape[2]} positions, others have "
                        f"{total.shape[2]}.",
                        why="influence by token needs layers with the same positions.",
                        fix="track layers of one length only, with layers=(…).",
                    )
                total = part if total is None else total + part
            assert total is not None
            parts.append(total)
        return torch.cat(parts, 1) / -n

    def gradients(self, queries: Batch, behaviour: PerExample) -> Blocks:
        """∇f of every query, by block."""
        found = self._gradients(queries, behaviour).items()
        return {name: torch.cat([pair.gradients() for pair in given]) for name, given in found}

    def scores_of(self, solved: Blocks) -> Float[Tensor, "q n"]:
        """−(1/N) ⟨P_q, ∇ℓ⟩ for P that are solved elsewhere, by block."""
        ready = {name: matrix_queries(p) for name, p in solved.items()}
        return self._matrix(ready, Precision.FULL)["all"]

    def self_influence(self) -> Float[Tensor, " n"]:
        """Self-influence (1/N) ∇ℓᵀ (G + λ)⁻¹ ∇ℓ of every example: large where it stands against the
        rest. An iterative curvature solves for every example.
        """
        if self.config.curvature.is_iterative and self.lab.ranks.size > 1:
            raise InvalidConfig(
                f"Self-influence with curvature={self.config.curvature} in {self.lab.ranks.size} "
                "processes.",
                why="processes solve for the same vectors together, and each has examples of its "
                "own.",
                fix="use one process, or curvature=Curvature.EKFAC.",
            )

        def batch_scores(given: Mapping[str, FactorPair]) -> Tensor:
            blocks = self.factors.blocks
            if self.config.curvature.is_iterative:
                solved = self._solve(given, replace(self.lab, sink=Silent()))
                own = [(solved[name] * p.gradients()).sum((1, 2)) for name, p in given.items()]
                return self._sum_over_blocks(own)[None]
            parts = [
                blocks[name].rotate_pair(p).weighted_norms2(blocks[name].inverse)
                for name, p in given.items()
            ]
            return self._sum_over_blocks(parts)[None]

        return (
            self._gather_columns(
                (start, batch_scores(given))
                for start, _, given in self._training.iterate(Precision.FULL)
            )[0]
            / self.stream.count()
        )

    def top(
        self, queries: Batch, behaviour: PerExample, k: int, *, candidates: Tensor | None = None
    ) -> Top:
        """The k most helpful and k most harmful examples of each query; memory does not grow with
        the corpus.

        With `candidates` (rows by number) only these are looked at.
        """
        if k < 1:
            raise InvalidData(
                f"top got k={k}.", why="at least one example is asked for.", fix="give k ≥ 1."
            )
        n = self.stream.count()
        if candidates is not None and not ((candidates >= 0) & (candidates < n)).all():
            raise InvalidData(
                f"Candidates from {int(candidates.min())} to {int(candidates.max())} of {n} "
                "examples.",
                why="a row that does not exist has no score.",
                fix=f"give rows from 0 to {n - 1}.",
            )
        candidates = candidates if candidates is None else each_once(candidates)
        is_single = all(block.positions == 1 for block in self.factors.blocks.values())
        # a search runs the model on candidates of its own in every process, on one device
        is_whole = not is_spread(self.trained.model)
        # a search scores queries that are not cut to a rank
        is_uncut = not self.config.curvature.is_iterative and not self.config.rank
        if is_single and is_uncut and is_whole:
            given = self._gradients(queries, behaviour)
            screen = Screen.fitting(
                self.factors.blocks, given, k, n if candidates is None else len(candidates)
            )
        else:
            screen = None
        if screen is not None:
            training = self._training
            screened = screen.top(
                lambda: training.iterate(Precision.FULL, candidates), k, training.of_rows
            )
            found = self._close(screened, queries, behaviour, k, candidates)
        else:
            columns = self.columns(*self.prepare_queries(queries, behaviour), candidates)
            found = streaming_extremes(columns, k) or no_extremes(size(queries), self.lab.device)
        return top_of(found, k, n, self.lab)

    # how it is done

    def _close(
        self,
        found: ScreenResult,
        queries: Batch,
        behaviour: PerExample,
        k: int,
        candidates: Tensor | None,
    ) -> Extremes:
        """The ends of a search, of the queries that it left open by the scores of all examples."""
        if len(found.open_):
            rest = {name: tensor[found.open_.to(tensor.device)] for name, tensor in queries.items()}
            # in full precision without asking: processes leave different queries open
            forms = self._forms(rest, behaviour, Precision.FULL)
            ends = streaming_extremes(self.columns(forms, Precision.FULL, candidates), k)
            assert ends is not None  # a query stays open over examples that a list left out
            found.replace(found.open_, ends)
        return found.ends

    def _query_gradients(
        self, queries: Batch, behaviour: PerExample
    ) -> Iterator[tuple[int, dict[str, FactorPair]]]:
        """(number of the first query, gradients of the behaviour by block), a batch of queries at a
        time.

        In full precision: queries are few, and every score has a factor of theirs.
        """
        at = 0
        step = self.pieces.at_most(self.config.batch_size)
        for batch in once(Columns(**queries), step, self.lab):
            with self._tracking():
                found = pairs(self.trained.model, batch, behaviour, self._is_exact)
            for name, pair in found.items():
                self._refuse(name, pair)
            yield at, found
            at += size(batch)

    def _refuse(self, name: str, pair: FactorPair) -> None:
        if name not in self.factors.blocks:
            raise InvalidData(
                f"The behaviour goes through `{name}`, which no training example reached.",
                why="its curvature is not known.",
                fix="track other layers with layers=(…).",
            )
        if not (torch.isfinite(pair.a).all() and torch.isfinite(pair.g.to(pair.a.dtype)).all()):
            raise InvalidData(
                f"The gradient of a query is not finite in layer `{name}`.",
                why="the behaviour of a query overflows or is NaN (a completion of probability "
                "0?).",
                fix="check the queries for extreme values.",
            )

    def _gradients(self, queries: Batch, behaviour: PerExample) -> ByBlock:
        """All of them at once."""
        found: ByBlock = {}
        for _, given in self._query_gradients(queries, behaviour):
            for name, pair in given.items():
                found.setdefault(name, []).append(pair)
        return found

    def prepare_queries(
        self, queries: Batch, behaviour: PerExample
    ) -> tuple[dict[str, ScaledQueries], Precision]:
        """The queries in the form that scores cheapest, in the precision that a few of them
        confirm.
        """
        wanted = self.config.precision
        if self.config.curvature.is_iterative or not worth_asking(
            wanted, self.factors.blocks.values(), self.lab.device
        ):  # a solve costs far more than its scores
            return self._forms(queries, behaviour, Precision.FULL), Precision.FULL
        forms = self._forms(queries, behaviour, wanted)
        precision = self._choose_precision(queries, behaviour, forms)
        if precision is not wanted:
            forms = self._forms(queries, behaviour, precision)
        return forms, precision

    def _forms(
        self, queries: Batch, behaviour: PerExample, precision: Precision
    ) -> dict[str, ScaledQueries]:
        if self.config.curvature.is_iterative:
            solved = self._solved_queries(queries, behaviour)
            return {name: matrix_queries(p, self.config.rank) for name, p in solved.items()}
        made: dict[str, QueryBuilder] = {}
        n = self.stream.count()
        for at, given in self._query_gradients(queries, behaviour):
            for name, pair in given.items():
                if name not in made:
                    made[name] = QueryBuilder(
                        self.factors.blocks[name],
                        size(queries),
                        precision,
                        rank=self.config.rank,
                        examples=n,
                    )
                made[name].add(at, pair)
        return {name: asking.build() for name, asking in made.items()}

    def _solved_queries(self, queries: Batch, behaviour: PerExample) -> Blocks:
        """(G + λ)⁻¹ ∇f of every query, as gradients of each block are; what iterations solved last
        is not solved again.
        """
        batches = (given for _, given in self._query_gradients(queries, behaviour))
        if not self.config.curvature.is_iterative:
            return join_blocks([self._solve(given, self.lab) for given in batches])
        asked, last = [*batches], self.last_solve
        # processes solve together: all of them know the answer, or all solve
        knowing = self.lab.sum(torch.tensor(float(last.is_of(asked))))
        if int(knowing) < self.lab.ranks.size:
            last.given, last.solved = (), {}  # freed before the next is made
            last.solved = join_blocks([self._solve(given, self.lab) for given in asked])
            last.given = asked
        return last.solved

    def _solve(self, given: Mapping[str, FactorPair], lab: Lab) -> Blocks:
        matrices = {name: pair.gradients() for name, pair in given.items()}
        if not self.config.curvature.is_iterative:
            return {name: self.factors.blocks[name].solve(v) for name, v in matrices.items()}
        with self._tracking():
            return solve(self, matrices, lab.child("solve"))

    def _choose_precision(
        self, queries: Batch, behaviour: PerExample, cheap: Mapping[str, ScaledQueries]
    ) -> Precision:
        """The asked-for precision, if the scores of a few queries on the first examples agree with
        full precision.
        """
        wanted = self.config.precision
        few = {name: tensor[:FEW] for name, tensor in queries.items()}
        forms = {
            Precision.FULL: self._forms(few, behaviour, Precision.FULL),
            wanted: {name: form.first(size(few)) for name, form in cheap.items()},
        }
        parts: dict[Precision, list[Tensor]] = {precision: [] for precision in forms}
        seen = 0
        for _, _, batch in self.stream.iterate():
            for _, piece in self.pieces.cut(batch):
                for precision, ready in forms.items():
                    given = self._training.of_batch(piece, precision)
                    scores = [ready[n].score(pair) for n, pair in given.items() if n in ready]
                    parts[precision].append(self._sum_over_blocks(scores))
            seen += size(batch)
            if seen >= COMPARED:
                break
        full, quick = (torch.cat(parts[precision], 1) for precision in (Precision.FULL, wanted))
        return choose_precision(wanted, full, quick, self.lab)

    def _matrix(
        self, ready: dict[str, ScaledQueries], precision: Precision, apart: bool = False
    ) -> dict[str, Tensor]:
        """All scores; by block where asked for."""
        keys = list(ready) if apart else ["all"]
        collected: dict[str, list[tuple[int, Tensor]]] = {key: [] for key in keys}
        for start, _, given in self._training.iterate(precision):
            parts = {
                name: ready[name].score(given[name]).to(self.lab.device)
                for name in ready
                if name in given
            }
            for key in keys:
                if apart and key not in parts:
                    continue
                collected[key].append((start, parts[key] if apart else sum(parts.values())))  # type: ignore[arg-type]
        n = self.stream.count()
        return {key: self._gather_columns(iter(parts)) / -n for key, parts in collected.items()}

    def columns(
        self, ready: dict[str, ScaledQueries], precision: Precision, candidates: Tensor | None
    ) -> Iterator[tuple[Int[Tensor, " b"], Float[Tensor, "q b"]]]:
        """(rows, products) of this process's batches: −N times the scores."""
        for _, rows, given in self._training.iterate(precision, candidates):
            parts = [ready[name].score(given[name]) for name in ready if name in given]
            yield rows, self._sum_over_blocks(parts)

    @property
    def _training(self) -> GradientStream:
        """Gradients of the loss."""
        return GradientStream(
            self.trained.model,
            self.layers,
            self.loss,
            self.stream,
            self.factors.blocks,
            self.cache,
            self.pieces,
            self._is_exact,
        )

    def _tracking(self) -> AbstractContextManager[None]:
        return restrict_gradients(self.trained.model, self.layers)

    def _sum_over_blocks(self, parts: Sequence[Tensor]) -> Tensor:
        """Layers may lie on several devices."""
        return torch.stack([part.to(self.lab.device) for part in parts]).sum(0)

    @property
    def _is_sharded(self) -> bool:
        return is_sharded(self.trained.model)

    @property
    def _is_exact(self) -> bool:
        return self.config.curvature is Curvature.EXACT

    def _gather_columns(self, parts: Iterator[tuple[int, Tensor]]) -> Tensor:
        """Columns at their places, summed over processes."""
        found = list(parts)
        n = self.stream.count()
        if self.lab.ranks.size == 1 and sum(part.shape[1] for _, part in found) == n:
            return torch.cat([part for _, part in found], 1)
        # a layer that some batches do not reach has zeros for them; with more processes than
        # batches this one may have none
        counts = torch.tensor([len(found[0][1]), 1] if found else [0, 0])
        rows, of = self.lab.sum(counts).tolist()
        like = found[0][1] if found else next(iter(self.factors.blocks.values())).values
        total = like.new_zeros(rows // of, n)
        for start, part in found:
            total[:, start : start + part.shape[1]] = part
        return self.lab.sum(total)
