"""Per-example gradients kept as factors: what a layer saw (a) times what came back (g), at each of
its positions.

Nobody asks for the gradient itself; a form gives what is needed of it. With p a parameter, b an
example, s a position:

    Dense   ∂f_b/∂p = Σ_s g_bs ⊗ a_bs          linear maps and convolutions (Goodfellow, 2015,
    arXiv:1510.01799) Lookup  ∂f_b/∂p[v] = Σ_s g_bs [index_bs = v]    embeddings
    Gain    ∂f_b/∂p = Σ_s x_bs · g_bs          gains of normalisations; with x = 1: biases
    Whole   ∂f_b/∂p as it is

Pairs of positions or one materialised layer: whichever needs fewer multiplications. Products are
flattened to matrix products, since a four-operand `torch.einsum` finds the same order and is about
six times slower.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

PART = 1 << 18
"""Entries of a layer's unfolded input that are worked on at a time: they should stay in the
cache.
"""
LARGEST = 1 << 25
"""Entries of the largest table of pairs of positions."""


@runtime_checkable
class GradientFactor(Protocol):
    """The per-example gradients of one parameter."""

    @property
    def shape(self) -> torch.Size:
        """Of the parameter."""
        ...

    def __len__(self) -> int: ...

    def total(self) -> Tensor:
        """Σ_b of the gradients, in the parameter's shape."""
        ...

    def norms2(self) -> Float[Tensor, " b"]:
        """‖gradient‖² of each example."""
        ...

    def add_sum_and_norms(self, into: Tensor) -> Float[Tensor, " b"]:
        """Adds `total()` to `into` and returns `norms2()`, sharing what they have in common."""
        ...

    def dots(self, other: "GradientFactor") -> Float[Tensor, "b c"]:
        """Inner products with the gradients of the same parameter in another batch."""
        ...

    def along(self, v: Tensor) -> Tensor:
        """Inner products `[b]` with v of the parameter's shape, or `[b q]` with v of shape
        `[q, *shape]`.
        """
        ...

    def gradients(self) -> Tensor:
        """The gradients themselves, `[b, *shape]`: the last resort."""
        ...

    def take(self, rows: Tensor | slice) -> "GradientFactor":
        """The form of some of the examples."""
        ...


def _square(x: Tensor) -> Float[Tensor, " b"]:
    """Σ x² over all axes but the first, without a temporary."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1).square()


def real_inner(x: Tensor, y: Tensor) -> Tensor:
    """Re(x ȳ), a matrix product."""
    return (x @ y.conj()).real if x.is_complex() else x @ y


@dataclass(frozen=True, eq=False)
class FullGradient:
    """The gradients themselves, one row per example.

    Those of a complex parameter are complex: ∂f/∂Re p + i ∂f/∂Im p, with norms over both parts and
    inner products Re⟨·, ·⟩.
    """

    rows: Num[Tensor, "b p"]
    shape: torch.Size

    def __len__(self) -> int:
        return len(self.rows)

    def total(self) -> Tensor:
        return self.rows.sum(0).view(self.shape)

    def norms2(self) -> Float[Tensor, " b"]:
        return _square(self.rows)

    def add_sum_and_norms(self, into: Tensor) -> Float[Tensor, " b"]:
        into += self.total()
        return self.norms2()

    def dots(self, other: GradientFactor) -> Float[Tensor, "b c"]:
        return real_inner(self.rows, other.gradients().flatten(1).T)

    def along(self, v: Tensor) -> Tensor:
        return real_inner(self.rows, v.reshape(-1) if v.shape == self.shape else v.flatten(1).T)

    def gradients(self) -> Tensor:
        return self.rows.view(-1, *self.shape)

    def take(self, rows: Tensor | slice) -> "FullGradient":
        return replace(self, rows=self.rows[rows])


@dataclass(frozen=True, eq=False)
class ScaleFactor:
    """An elementwise factor (x = its normalised input) or an added vector (x = None, that is 1)."""

    x: Float[Tensor, "b s d"] | None
    g: Float[Tensor, "b s d"]
    shape: torch.Size

    def __len__(self) -> int:
        return len(self.g)

    def whole(self) -> FullGradient:
        product = self.g if self.x is None else self.x * self.g
        return FullGradient(
            product.squeeze(1) if product.shape[1] == 1 else product.sum(1), self.shape
        )

    def total(self) -> Tensor:
        return self.whole().total()

    def norms2(self) -> Float[Tensor, " b"]:
        return self.whole().norms2()

    def add_sum_and_norms(self, into: Tensor) -> Float[Tensor, " b"]:
        return self.whole().add_sum_and_norms(into)

    def dots(self, other: GradientFactor) -> Float[Tensor, "b c"]:
        return self.whole().dots(other)

    def along(self, v: Tensor) -> Tensor:
        return self.whole().along(v)

    def gradients(self) -> Tensor:
        return self.whole().gradients()

    def take(self, rows: Tensor | slice) -> "ScaleFactor":
        return replace(self, x=None if self.x is None else self.x[rows], g=self.g[rows])


@dataclass(frozen=True, eq=False)
class EmbeddingFactor:
    """Rows of a table, read at `index`."""

    index: Int[Tensor, "b s"]
    g: Float[Tensor, "b s o"]
    shape: torch.Size

    def __len__(self) -> int:
        return len(self.g)

    def _sum_by_column(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(example, column, Σ g) of each distinct row that an example reads; `columns` holds the
        known indices.
        """
        # an example may read a row twice: its gradients add up before anything is squared
        column = torch.searchsorted(columns, self.index.contiguous())
        example = torch.arange(len(self.g), device=self.g.device)[:, None]
        keys, inverse = torch.unique(example * len(columns) + column, return_inverse=True)
        sums = self.g.new_zeros(len(keys), self.shape[1]).index_add_(
            0, inverse.flatten(), self.g.flatten(0, 1)
        )
        return keys // len(columns), keys % len(columns), sums

    def total(self) -> Tensor:
        return self.g.new_zeros(self.shape).index_add_(
            0, self.index.flatten(), self.g.flatten(0, 1)
        )

    def norms2(self) -> Float[Tensor, " b"]:
        example, _, sums = self._sum_by_column(self.index.unique())
        return self.g.new_zeros(len(self)).index_add_(0, example, _square(sums))

    def add_sum_and_norms(self, into: Tensor) -> Float[Tensor, " b"]:
        into.index_add_(0, self.index.flatten(), self.g.flatten(0, 1).to(into.dtype))
        return self.norms2()

    def dots(self, other: GradientFactor) -> Float[Tensor, "b c"]:
        if not isinstance(other, EmbeddingFactor):
            return FullGradient(self.gradients().flatten(1), self.shape).dots(other)
        # only the rows that either batch reads: the rest of the table has no gradient
        columns = torch.cat([self.index.flatten(), other.index.flatten()]).unique()
        return self._gradients_at(columns) @ other._gradients_at(columns).T

    def _gradients_at(self, columns: Tensor) -> Float[Tensor, "b used"]:
        example, column, sums = self._sum_by_column(columns)
        out = self.g.new_zeros(len(self), len(columns), self.shape[1])
        out[example, column] = sums
        return out.flatten(1)

    def along(self, v: Tensor) -> Tensor:
        if v.shape == self.shape:
            return (v[self.index] * self.g).sum((1, 2))
        return torch.stack([self.along(one) for one in v], 1)

    def gradients(self) -> Tensor:
        out = self.g.new_zeros(len(self) * self.shape[0], self.shape[1])
        # one table per example, side by side: index_add_ has no batch axis
        start = torch.arange(len(self), device=self.g.device)[:, None] * self.shape[0]
        return out.index_add_(0, (start + self.index).flatten(), self.g.flatten(0, 1)).view(
            -1, *self.shape
        )

    def take(self, rows: Tensor | slice) -> "EmbeddingFactor":
        return replace(self, index=self.index[rows], g=self.g[rows])


@dataclass(frozen=True, eq=False)
class LinearFactor:
    """The matrix of a linear map, shared by all positions. A convolution's positions are the pixels
    of its output.
    """

    x: Float[Tensor, "b ..."]
    """The layer's input: `[b s i]`, or what `unfold` turns into it."""
    g: Float[Tensor, "b s o"]
    shape: torch.Size
    groups: int = 1
    """Blocks of a block-diagonal map: features i and o are split into as many equal parts."""
    transposed: bool = False
    """Whether the parameter is stored as [i o] instead of [o i]."""
    unfold: Callable[[Tensor], Tensor] | None = None
    """Late, because the unfolded input of a convolution is many times larger than the input."""

    def __len__(self) -> int:
        return len(self.g)

    @property
    def a(self) -> Float[Tensor, "b s i"]:
        """What each position multiplies with the matrix."""
        return self.x if self.unfold is None else self.unfold(self.x)

    @property
    def _sizes(self) -> tuple[int, int, int, int]:
        """Examples, positions, and the features i and o of one group."""
        b, s, o = self.g.shape
        return b, s, prod(self.shape) * self.groups // o // self.groups, o // self.groups

    @property
    def _pairs_win(self) -> bool:
        """Whether ‖gradient‖² is cheaper by pairs of positions than by materialising it."""
        _, s, i, o = self._sizes
        # multiplications per pair of positions, s²(i + o), against those of the gradient itself, s
        # i o
        return s * (i + o) < i * o

    def _parts(self, entries: int) -> Iterator["LinearFactor"]:
        """A few examples at a time, so that what they unfold to, `entries` each, stays in the
        cache.
        """
        step = max(1, PART // max(1, entries))
        for start in range(0, len(self), step):
            yield self.take(slice(start, start + step))

    def _gradient_parts(self) -> Iterator[Tensor]:
        _, s, i, o = self._sizes
        return (part.gradients() for part in self._parts(self.groups * i * max(s, o)))

    def _split(self) -> tuple[Float[Tensor, "bk s i"], Float[Tensor, "bk s o"]]:
        """Input and output gradient with the groups counted as examples."""
        b, s, i, o = self._sizes
        if self.groups == 1:
            return self.a, self.g
        a = self.a.view(b, s, self.groups, i).transpose(1, 2).reshape(-1, s, i)
        return a, self.g.reshape(b, s, self.groups, o).transpose(1, 2).reshape(-1, s, o)

    def total(self) -> Tensor:
        return self._add(self.g.new_zeros(self.shape))

    def _add(self, into: Tensor) -> Tensor:
        if self.unfold is not None or self.groups > 1:
            for rows in self._gradient_parts():
                into += rows.sum(0)
        else:
            left, right = (self.x, self.g) if self.transposed else (self.g, self.x)
            left, right = left.flatten(0, 1), right.flatten(0, 1)
            flat = into.view(left.shape[1], right.shape[1])
            if into.dtype == left.dtype:
                flat.addmm_(
                    left.T, right
                )  # the product adds itself: no second pass over the parameter
            else:
                flat += left.T @ right
        return into

    def norms2(self) -> Float[Tensor, " b"]:
        _, s, i, o = self._sizes
        if s == 1 and self.groups == 1:
            # one position: the gradient is an outer product, whose norm factors
            return _square(self.a) * _square(self.g)
        if self._pairs_win:
            return torch.cat(
                [part._norms2_by_pairs() for part in self._parts(self.groups * s * (i + o + 2 * s))]
            )
        return torch.cat([_square(rows) for rows in self._gradient_parts()])

    def _norms2_by_pairs(self) -> Float[Tensor, " b"]:
        a, g = self._split()
        # ‖Σ_s g_s ⊗ a_s‖² = Σ_{s,t} (a_s·a_t)(g_s·g_t), and groups add up
        return ((a @ a.mT) * (g @ g.mT)).sum((1, 2)).view(len(self), self.groups).sum(1)

    def add_sum_and_norms(self, into: Tensor) -> Float[Tensor, " b"]:
        if self.g.shape[1] == 1 or self._pairs_win:
            self._add(into)
            return self.norms2()
        norms2 = []
        for rows in self._gradient_parts():  # once for both
            norms2.append(_square(rows))
            into += rows.sum(0)
        return torch.cat(norms2)

    def dots(self, other: GradientFactor) -> Float[Tensor, "b c"]:
        if not isinstance(other, LinearFactor):
            return self.gradients().flatten(1) @ other.gradients().flatten(1).T
        (b, s, i, o), (c, t, _, _) = self._sizes, other._sizes
        # multiplications by pairs of positions against those of materialising both sides
        if b * c * s * t * (i + o) > (b * s + c * t + b * c) * i * o:
            return self.gradients().flatten(1) @ other.gradients().flatten(1).T
        step = max(1, LARGEST // max(1, s * c * t))
        # a slice at a time: the table of all pairs of positions would be b·c·s·t numbers
        far = [part.reshape(c, self.groups, t, -1) for part in other._split()]
        return torch.cat([self.take(slice(at, at + step))._pairs(far) for at in range(0, b, step)])

    def _pairs(self, far: Sequence[Tensor]) -> Float[Tensor, "b c"]:
        """Σ over positions of (a·a′)(g·g′)."""
        out = self.g.new_zeros(len(self), len(far[0]))
        near = [part.view(len(self), self.groups, *part.shape[1:]) for part in self._split()]
        for k in range(self.groups):
            tables = [
                x[:, k].reshape(-1, x.shape[-1]) @ y[:, k].reshape(-1, y.shape[-1]).T
                for x, y in zip(near, far, strict=True)
            ]
            table = tables[0].mul_(tables[1])
            out += (
                table
                if table.shape == out.shape
                else table.view(*self.g.shape[:2], len(out.T), -1).sum((1, 3))
            )
        return out

    def along(self, v: Tensor) -> Tensor:
        single = v.shape == self.shape
        s = self.g.shape[1]
        queries = 1 if single else len(v)
        # many queries: one materialised gradient serves all of them
        if self.groups > 1 or self.unfold is not None or queries * (s - 1) > s:
            flat = v.reshape(queries, -1).T
            out = torch.cat([rows.flatten(1) @ flat for rows in self._gradient_parts()])
        else:
            stored = v.reshape(queries, self.shape[0], -1)
            matrices = stored if self.transposed else stored.mT
            out = torch.stack([((self.x @ m) * self.g).sum((1, 2)) for m in matrices], 1)
        return out.squeeze(1) if single else out

    def gradients(self) -> Tensor:
        a, g = self._split()
        left, right = (a, g) if self.transposed else (g, a)
        # broadcasting beats a batch of outer products by matmul
        rows = left.mT * right if g.shape[1] == 1 else left.mT @ right
        return rows.reshape(-1, *self.shape)

    def take(self, rows: Tensor | slice) -> "LinearFactor":
        return replace(self, x=self.x[rows], g=self.g[rows])


def sum_factors(forms: Sequence[GradientFactor]) -> GradientFactor:
    """The sum of the forms of one parameter: a layer called twice has twice the positions."""
    first = forms[0]
    if len(forms) == 1:
        return first
    if all(isinstance(form, EmbeddingFactor) for form in forms):
        return EmbeddingFactor(_concatenate(forms, "index"), _concatenate(forms, "g"), first.shape)
    if isinstance(first, LinearFactor) and all(_same_layout(first, form) for form in forms):
        return LinearFactor(
            _concatenate(forms, "a"),
            _concatenate(forms, "g"),
            first.shape,
            first.groups,
            first.transposed,
        )
    total = forms[0].gradients().flatten(1).clone()
    for form in forms[1:]:
        total += form.gradients().flatten(1)
    return FullGradient(total, first.shape)


def _concatenate(forms: Sequence[GradientFactor], name: str) -> Tensor:
    return torch.cat([getattr(form, name) for form in forms], 1)


def _same_layout(first: LinearFactor, form: GradientFactor) -> bool:
    return isinstance(form, LinearFactor) and (form.groups, form.transposed) == (
        first.groups,
        first.transposed,
    )
