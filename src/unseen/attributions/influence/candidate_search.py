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

from unseen.attributions.influence.preconditioned_queries import is_single, scale_pairs
from unseen.attributions.influence.top_k import Extremes, no_extremes
from unseen.engine.factor_pairs import FactorPair
from unseen.engine.kron import KroneckerBlock

Examples = Iterator[tuple[int, Tensor, dict[str, FactorPair]]]
"""(first row, rows, gradients of the loss), a batch at a time."""

TERMS = 7
"""Of each layer."""
MORE = 16
"""Terms for the queries that so few leave open."""
WIDTH = 16
"""How many times k candidates are kept from the stream, at most."""
FEW = 1.05
"""How many times k candidates are scored exactly at first."""
LEAST = 32
"""So many candidates at least, of any k: errors of fewer say too little of those not seen."""
MARGIN = 1.5
"""How many times the largest error seen an error may be that was not seen."""
ALLOWED = 0.5
"""Error over the k-th score for which lists are long enough where they are not."""
SLAB = 1 << 14
"""Examples whose approximate scores are held at a time."""
TILE = 1 << 8
"""Examples whose tables of inner products stay in the cache while the terms are summed."""
TINY = 1e-24
"""Square of a size below which an example is taken to be of this size."""
ROWS = 1 << 9
"""Rows of queries, of several terms where queries are few, that one product has."""
PAIRS = 1 << 7
"""Pairs of a query and an example that are scored exactly at a time."""
EXTRA = 8
"""Directions beyond the leading terms that the iteration for them carries along."""
ROUNDS = 3
"""Of that iteration: its terms need not be the best ones, only good."""


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
        is_fit = n > 2 * _width(k) and all(
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
        exact = _Exact(self.blocks, self.given, gradients)
        lists = self._lists(stream(), k, TERMS)
        if not lists.count:
            scale = next(iter(exact.near.values())).scale
            ends = no_extremes(len(scale), scale.device)
            return ScreenResult(ends, torch.zeros(0, dtype=torch.long))
        found = _Ranking(lists, exact).top(k)
        if len(found.open_):
            lists = self._of(found.open_)._lists(stream(), k, MORE)
            again = _Ranking(lists, exact, found.open_).top(k)
            found.replace(found.open_, again.ends)
            found.open_ = found.open_[again.open_]
        return found

    def _lists(self, stream: Examples, k: int, terms: int) -> "_Lists":
        """Candidates of every query, by the approximate products of so many terms a layer."""
        lists = _Lists(k)
        ready = {n: _FewTerms.of(self.blocks[n], pairs, terms) for n, pairs in self.given.items()}
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


@dataclass(frozen=True, eq=False)
class _FewTerms:
    """Σ_r ⟨Q_S (u_r ∘ g_q), g_m⟩ ⟨Q_A (w_r ∘ a_q), a_m⟩, in bfloat16: queries are turned back, so
    that no example has to be turned.
    """

    g: Float[Tensor, "r q o"]
    a: Float[Tensor, "r q i"]
    scale: Float[Tensor, " q"]
    stiffness: float
    """Mean of Λ + λ."""
    typical: float
    """Mean square of a gradient over that."""

    @classmethod
    def of(cls, block: KroneckerBlock, given: Sequence[FactorPair], terms: int) -> "_FewTerms":
        u, w = leading_terms(block, terms)
        near = _Factors.of(block, given)
        g, size_g = _unit(u[:, None] * near.g, (0, 2))
        a, size_a = _unit(w[:, None] * near.a, (0, 2))
        stiffness = float(block.values.double().mean()) + block.damping
        return cls(
            _back(g, block.left),
            _back(a, block.right),
            near.scale * size_g.flatten() * size_a.flatten(),
            stiffness,
            float(block.values.double().sum()) / stiffness,
        )

    def score(self, pair: FactorPair) -> tuple[Float[Tensor, "q b"], Float[Tensor, " b"]]:
        """⟨(G + λ)⁻¹ V_q, V_b⟩, approximately, and ‖V_b‖² over the mean of Λ + λ."""
        (far_a, size_a), (far_g, size_g) = (_unit(x[:, 0], (1,)) for x in (pair.a, pair.g))
        far_a, far_g = far_a.bfloat16(), far_g.bfloat16()
        total = self.scale.new_empty(len(self.scale), len(far_a))
        # terms of few queries side by side: a product of few rows is slow
        step = max(1, ROWS // max(1, len(self.scale)))
        for at in range(0, len(far_a), TILE):
            a, g = far_a[at : at + TILE].T, far_g[at : at + TILE].T
            tile = total.new_zeros(len(total), a.shape[1])
            for near_g, near_a in zip(self.g.split(step), self.a.split(step), strict=True):
                # widened first: products of mixed types leave the fast path
                left = (near_g.flatten(0, 1) @ g).to(tile.dtype).view(-1, *tile.shape)
                right = (near_a.flatten(0, 1) @ a).to(tile.dtype).view(-1, *tile.shape)
                for both in zip(left, right, strict=True):
                    tile.addcmul_(*both)
            total[:, at : at + TILE] = tile
        norms = [torch.linalg.vector_norm(x, dim=1, dtype=total.dtype) for x in (far_a, far_g)]
        sizes = size_a[:, 0].double() * size_g[:, 0].double()
        squares = (norms[0] * norms[1] * sizes).square() / self.stiffness
        return total.mul_(self.scale[:, None]).mul_(sizes.to(total)), squares


def _unit(x: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """x with a largest entry of 1 over these axes, and what it was divided by: bfloat16 ends where
    float32 does, and products of numbers near its ends do not.
    """
    size = x.abs().amax(over, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return x / size, size


def _back(x: Float[Tensor, "r q d"], by: Float[Tensor, "d d"] | None) -> Float[Tensor, "r q d"]:
    x = x.bfloat16()
    # contiguous: products with rows of another layout take a path ten times slower
    return x.contiguous() if by is None else (x.flatten(0, 1) @ by.T.bfloat16()).view_as(x)


def leading_terms(
    block: KroneckerBlock, r: int
) -> tuple[Float[Tensor, "r o"], Float[Tensor, "r i"]]:
    """u, w with 1/(Λ + λ) ≈ Σ_r u_r ⊗ w_r, as `kronecker_terms` has them but for the last digits:
    a few rounds of orthogonal iteration instead of all eigenvectors.
    """
    inverse, scale = _unit(block.inverse.double(), (0, 1))
    if block.spread is None:
        row, column = inverse.new_ones(len(inverse)), inverse.new_ones(inverse.shape[1])
    else:
        row, column = (_unit(x.double(), (0,))[0].clamp_min(1e-12) for x in block.spread)
    weighted = row[:, None] * inverse * column
    width = min(r + EXTRA, *weighted.shape)
    basis = weighted[:, weighted.square().sum(0).topk(width).indices]
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(weighted @ (weighted.T @ torch.linalg.qr(basis)[0]))[0]
    left, sizes, right = torch.linalg.svd(basis.T @ weighted, full_matrices=False)
    u, w = (basis @ left[:, :r]).T * sizes[:r, None] / row * scale, right[:r] / column
    return u.to(block.values), w.to(block.values)


def _width(k: int) -> int:
    """Candidates that a list holds."""
    return max(2 * LEAST, WIDTH * k)


class _Lists:
    """The candidates of each query at both ends: those that come first where every approximate
    product is as wrong as may be.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.table: Tensor | None = None
        """Products that are not yet sorted, `[query, SLAB]`."""
        self.held: list[tuple[Tensor, Tensor]] = []
        self.width = self.count = 0
        self.allowed: Tensor | None = None
        """Error allowed for an example of size 1, [end, query]."""
        self.kept: tuple[Tensor, Tensor, Tensor] | None = None
        """Products (of the lower end negated), rows and roots of sizes, [end, query, candidate]."""
        self.largest = 0.0
        """Root of size of any example."""
        self.is_lost: Tensor | None = None
        """Queries with a product that is no number, which no list can order."""

    def add(self, products: Float[Tensor, "q b"], rows: Tensor, roots: Float[Tensor, " b"]) -> None:
        """A batch of examples."""
        self.largest = max(self.largest, float(roots.max()))
        is_lost = ~(products.sum(1) * roots.sum()).isfinite()
        self.is_lost = is_lost if self.is_lost is None else self.is_lost | is_lost
        if self.table is None or self.width + len(rows) > self.table.shape[1]:
            self.sort()
            self.table = products.new_empty(len(products), max(SLAB, len(rows)))
        self.table[:, self.width : self.width + len(rows)] = products
        self.width += len(rows)
        self.count += len(rows)
        self.held.append((rows, roots))

    def sort(self) -> None:
        """What is held joins the lists: sorting a few long tables beats many short ones."""
        if self.table is None or not self.width:
            return
        table = self.table[:, : self.width]
        rows, roots = (torch.cat(parts) for parts in zip(*self.held, strict=True))
        self.held, self.width = [], 0
        if self.allowed is None:
            first = table[:, : 100 * self.k]
            ends = [first.topk(min(self.k, first.shape[1]), 1, largest=up) for up in (False, True)]
            self.allowed = ALLOWED * torch.stack([ends[0][0][:, -1], ends[1][0][:, -1]]).abs()
        parts = []
        for sign, allowed in zip((-1.0, 1.0), self.allowed, strict=True):
            bound = torch.addcmul(table, sign * allowed[:, None], roots)
            at = bound.topk(min(_width(self.k), table.shape[1]), 1, largest=sign > 0).indices
            parts.append((sign * table.gather(1, at), rows[at], roots[at]))
        products, index, size = (torch.stack(both) for both in zip(*parts, strict=True))
        if self.kept is not None:
            old = zip(self.kept, (products, index, size), strict=True)
            products, index, size = (torch.cat(both, 2) for both in old)
            bound = torch.addcmul(products, self.allowed[..., None], size)
            at = bound.topk(min(_width(self.k), bound.shape[2]), 2).indices
            products, index, size = (part.gather(2, at) for part in (products, index, size))
        self.kept = products, index, size


class _Ranking:
    """Candidates of each query at both ends, scored exactly as far as the errors seen leave room
    for others.
    """

    def __init__(
        self, lists: _Lists, exact: "_Exact", queries: Int[Tensor, " q"] | None = None
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


@dataclass(frozen=True, eq=False)
class _Factors:
    """Gradients g ⊗ a in the eigenbasis, and what each was divided by."""

    a: Float[Tensor, "n i"]
    g: Float[Tensor, "n o"]
    scale: Float[Tensor, " n"]

    @classmethod
    def of(cls, block: KroneckerBlock, given: Sequence[FactorPair]) -> "_Factors":
        unit, scale = scale_pairs(given)
        like = block.values  # at least float32, where the model is in half precision
        turned = [block.rotate_pair(pair.to(like.dtype)) for pair in unit]
        a, g = torch.cat([p.a[:, 0] for p in turned]), torch.cat([p.g[:, 0] for p in turned])
        return cls(a, g, scale.to(like))

    def join(self, other: "_Factors") -> "_Factors":
        """These and others, one after the other."""
        sides = ((self.a, other.a), (self.g, other.g), (self.scale, other.scale))
        return _Factors(*(torch.cat(side) for side in sides))


class _Exact:
    """Σ over entries of 1/(Λ + λ) · V_q · V_m for chosen pairs of a query and an example."""

    def __init__(
        self,
        blocks: Mapping[str, KroneckerBlock],
        given: Mapping[str, Sequence[FactorPair]],
        gradients: Callable[[Int[Tensor, " n"]], dict[str, FactorPair]],
    ) -> None:
        self.blocks, self.gradients = blocks, gradients
        self.near = {name: _Factors.of(blocks[name], pairs) for name, pairs in given.items()}
        self.far: dict[str, _Factors] = {}
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

    def _factors(self, name: str, pair: FactorPair | None, n: int) -> _Factors:
        if pair is not None:
            return _Factors.of(self.blocks[name], [pair])
        # none of these few examples reaches the layer
        near = self.near[name]
        a, g = near.a.new_zeros(n, near.a.shape[1]), near.g.new_zeros(n, near.g.shape[1])
        return _Factors(a, g, near.scale.new_ones(n))
