"""The top k of all examples without all scores: a cheap sum of few terms finds candidates, exact
scores order them.

1/(Λ + λ) is close to a sum of few Kronecker products, so an approximate score costs as many pairs
of inner products. The errors seen on the candidates of a query say how far down its list something
could still belong to the top; so far exact scores are made. A query whose list ends before that is
asked again with more terms, and with all scores where those leave it open, too.

Errors are compared over √(size of the example's gradient). One that nobody saw is taken to be at
most `MARGIN` times the largest that the query has seen, and at most as many times the query's root
mean square as the largest over all queries was of theirs. Bounds that hold for whatever gradients
exist, but leave a quarter of all examples in the list: docs/attribution.md has the numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.attributions.influence.candidate_lists import LEAST, CandidateLists, list_width
from unseen.attributions.influence.exact_products import ExactProducts
from unseen.attributions.influence.few_terms import FewTerms
from unseen.attributions.influence.preconditioned_queries import is_single
from unseen.attributions.influence.top_k import Extremes, no_extremes
from unseen.engine.factor_pairs import FactorPair
from unseen.engine.kron import KroneckerBlock

Examples = Iterator[tuple[int, Tensor, dict[str, FactorPair]]]
"""(first row, rows, gradients of the loss), a batch at a time."""

TERMS = 7
"""Of each layer."""
MORE = 16
"""Terms for the queries that so few leave open."""
FEW = 1.05
"""How many times k candidates are scored exactly at first."""
TINY = 1e-24
"""Square of a size below which an example is taken to be of this size."""
MARGIN = 1.5
"""How many times the largest error seen an error may be that was not seen."""


@dataclass(frozen=True, eq=False)
class Screen:
    """Queries of layers with one position each."""

    blocks: Mapping[str, KroneckerBlock]
    given: Mapping[str, Sequence[FactorPair]]

    @classmethod
    def fitting(
        cls,
        blocks: Mapping[str, KroneckerBlock],
        given: Mapping[str, Sequence[FactorPair]],
        k: int,
        n: int,
    ) -> "Screen | None":
        """A screen where it can save work: single positions everywhere and far more examples than
        candidates.
        """
        is_fit = n > 2 * list_width(k) and all(
            is_single(blocks[name], pairs) for name, pairs in given.items()
        )
        return cls(blocks, given) if is_fit else None

    def top(
        self,
        stream: Callable[[], Examples],
        k: int,
        gradients: Callable[[Int[Tensor, " n"]], dict[str, FactorPair]],
    ) -> "ScreenResult":
        """The k smallest and largest products of each query that the lists have, ordered by exact
        products.
        """
        exact = ExactProducts(self.blocks, self.given, gradients)
        lists = self._lists(stream(), k, TERMS)
        if not lists.count:
            scale = next(iter(exact.near.values())).scale
            ends = no_extremes(len(scale), scale.device)
            return ScreenResult(ends, torch.zeros(0, dtype=torch.long))
        found = Ranking(lists, exact).top(k)
        if len(found.open_):
            lists = self._of(found.open_)._lists(stream(), k, MORE)
            again = Ranking(lists, exact, found.open_).top(k)
            found.replace(found.open_, again.ends)
            found.open_ = found.open_[again.open_]
        return found

    def _lists(self, stream: Examples, k: int, terms: int) -> CandidateLists:
        """Candidates of every query, by the approximate products of so many terms a layer."""
        lists = CandidateLists(k)
        ready = {n: FewTerms.of(self.blocks[n], pairs, terms) for n, pairs in self.given.items()}
        typical = sum(form.typical for form in ready.values())
        for _, at, pairs in stream:
            parts = [ready[name].score(pair) for name, pair in pairs.items() if name in ready]
            products, sizes2 = parts[0]
            for product, size2 in parts[1:]:
                products.add_(product)
                sizes2 = sizes2 + size2
            # fourth root: errors grow with the root of an example's size, not with its size
            roots = (sizes2 / typical).clamp_min(TINY).pow(0.25).to(products)
            lists.add(products, at.to(products.device), roots)
        return lists

    def _of(self, queries: Int[Tensor, " q"]) -> "Screen":
        """Of some queries only."""
        given = {}
        for name, pairs in self.given.items():
            a, g = torch.cat([p.a for p in pairs]), torch.cat([p.g for p in pairs])
            given[name] = [FactorPair(a, g).take(queries.to(a.device))]
        return Screen(self.blocks, given)


@dataclass(eq=False)
class ScreenResult:
    """The k smallest and largest products, and the queries for which a list was too short."""

    ends: Extremes
    open_: Int[Tensor, " open"]

    def replace(self, queries: Int[Tensor, " q"], ends: Extremes) -> None:
        """Other ends for these queries."""
        for (values, rows), (new_values, new_rows) in zip(self.ends, ends, strict=True):
            values[queries], rows[queries] = new_values.to(values), new_rows.to(rows)


class Ranking:
    """Candidates of each query at both ends, scored exactly as far as the errors seen leave room
    for others.
    """

    def __init__(
        self, lists: CandidateLists, exact: ExactProducts, queries: Int[Tensor, " q"] | None = None
    ) -> None:
        """`queries` are those of `exact` that the lists belong to: all of them by default."""
        lists.sort()
        assert lists.kept is not None
        assert lists.allowed is not None
        order = lists.kept[0].argsort(2, descending=True)
        self.approximate, self.rows, self.roots = (part.gather(2, order) for part in lists.kept)
        self.allowed, self.largest = lists.allowed, lists.largest
        # what the lists left out comes after the last of these
        bound = torch.addcmul(self.approximate, self.allowed[..., None], self.roots)
        self.beyond = bound.amin(2)
        if lists.count <= bound.shape[2]:
            self.beyond = torch.full_like(self.beyond, -torch.inf)
        assert lists.is_lost is not None
        self.beyond.masked_fill_(lists.is_lost, torch.inf)
        self.exact = torch.full_like(self.approximate, -torch.inf)
        self.is_seen = torch.zeros_like(self.approximate, dtype=torch.bool)
        self.source, self.queries = exact, queries

    def top(self, k: int) -> ScreenResult:
        """The k smallest and largest exact products; the queries whose lists are too short."""
        place = torch.arange(self.rows.shape[2], device=self.rows.device)
        is_next = (place < max(LEAST, k, int(FEW * k))).expand_as(self.rows)
        while bool(is_next.any()):
            self._score(is_next)
            best, at = self.exact.topk(min(k, self.rows.shape[2]), 2)
            error = self._error()
            bound = torch.addcmul(self.approximate, error[:, None], self.roots)
            # what is no number is not known to be smaller
            is_next = ~((bound <= best[..., -1:]) | self.is_seen)
            excess = (error - self.allowed).clamp_min(0) * self.largest
            is_open = ~(self.beyond + excess <= best[..., -1])
            # what stays open whatever the rest of the list says is asked again elsewhere
            is_next &= ~is_open.any(0)[:, None]
        found = self.rows.gather(2, at)
        ends = ((-best[0], found[0]), (best[1], found[1]))
        return ScreenResult(ends, is_open.any(0).nonzero().flatten())

    def _score(self, is_next: Tensor) -> None:
        """The candidates marked."""
        # query by query, so that its factors stay in the cache
        q, end, at = is_next.transpose(0, 1).nonzero().unbind(1)
        asked = q if self.queries is None else self.queries[q]
        products = self.source.scores(asked, self.rows[end, q, at]).to(self.exact)
        self.exact[end, q, at] = torch.where(end == 0, -products, products)
        self.is_seen[end, q, at] = True

    def _error(self) -> Float[Tensor, " q"]:
        """What an error that was not seen is taken to be at most, for an example of size 1."""
        seen = (self.exact - self.approximate).abs().div_(self.roots)
        seen = seen.masked_fill_(~self.is_seen, 0)
        largest = seen.amax((0, 2))
        typical = (seen.square().sum((0, 2)) / self.is_seen.sum((0, 2))).sqrt()
        # of all queries together: one query has seen too few errors to know the largest
        ratio = (largest / typical.clamp_min(torch.finfo(typical.dtype).tiny)).max()
        return torch.maximum(MARGIN * largest, ratio * typical)
