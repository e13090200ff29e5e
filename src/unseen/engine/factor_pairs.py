"""Per-example gradients of a layer as one pair of factors, V_b = Σ_s g_bs ⊗ a_bs, and products with
many of them.

Every layer becomes pairs: weight and bias of a linear map or convolution together (a constant input
carries the bias), one pair per group of a grouped convolution, anything else as g = 1 and a = the
gradient itself. So curvature and influence are written once, for pairs.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.engine.gradient_factors import (
    EmbeddingFactor,
    FullGradient,
    GradientFactor,
    LinearFactor,
    ScaleFactor,
)
from unseen.engine.parameters import real_view

PART = 1 << 19
"""Entries of gradients that are materialised at a time: they should stay in the cache."""
SAFE = 1e-8
"""Gradients with an entry above this make no denormal products worth avoiding."""
NEAR = 2.5e-3
"""Rounding of a mean of outer products that does not count, over their mean eigenvalue."""
LARGE = 1 << 22
"""The same where every entry is multiplied with all queries: the queries' block is read as often as
there are parts.
"""
FEW = 4
"""Times as many inputs as queries: then products of inputs are cheaper than gradients."""


@dataclass(frozen=True, eq=False)
class FactorPair:
    """V_b = Σ_s g_bs ⊗ a_bs, a matrix `[o i]` for each example."""

    a: Float[Tensor, "b s i"]
    g: Float[Tensor, "b s o"]

    def __len__(self) -> int:
        return len(self.a)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Examples, positions, o and i."""
        return (*self.a.shape[:2], self.g.shape[2], self.a.shape[2])

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.a, self.g))

    def take(self, rows: Tensor | slice) -> "FactorPair":
        """The pair of some of the examples."""
        return replace(self, a=self.a[rows], g=self.g[rows])

    def to(self, dtype: torch.dtype) -> "FactorPair":
        return replace(self, a=self.a.to(dtype), g=self.g.to(dtype))

    def rescale(self) -> tuple["FactorPair", Float[Tensor, " b"]]:
        """Gradients with max |g| = 1, and what each was divided by.

        An example that the model is sure of has gradients near 1e-30; their products with other
        small numbers are denormal, and a processor multiplies those about a hundred times more
        slowly.
        """
        if _is_safe(self.g):
            return self, self.g.new_ones(len(self))
        scale = _largest(self.g)
        return replace(self, g=self.g / scale[:, None, None]), scale

    def flush_denormals(self) -> "FactorPair":
        """Entries of g too small to change a sum of squares are zero, so that no square is
        denormal.
        """
        if _is_safe(self.g):
            return self
        return replace(self, g=self.g.masked_fill(self.g.abs() < _largest(self.g).max() * 1e-15, 0))

    def times(self, left: Tensor | None, right: Tensor | None) -> "FactorPair":
        """Of the gradients Lᵀ V R: positions are rotated, not gradients."""
        return FactorPair(_rotate(self.a, right), _rotate(self.g, left))

    def covariances(
        self, real: Tensor | None, earlier: "tuple[SumSoFar, SumSoFar] | None" = None
    ) -> tuple[Tensor, Tensor | None]:
        """Σ a aᵀ over the real positions (all by default) and Σ g gᵀ; `earlier` has those of
        earlier batches.
        """
        right, left = earlier or (None, None)
        a, g = self.a.flatten(0, 1), self.g.flatten(0, 1)
        # gradients of padding are zero, their inputs are not
        return gram(a if real is None else a[real.flatten()], right), gram(g, left)

    def gradients(self) -> Float[Tensor, "b o i"]:
        """V itself: for a few examples at a time."""
        if self.a.shape[1] == 1:
            return self.g.mT * self.a
        return self.g.mT @ self.a

    def parts(self) -> Iterator["FactorPair"]:
        """A few examples at a time, so that their gradients stay in the cache."""
        step = max(1, PART // max(1, self.sizes[2] * self.sizes[3]))
        for start in range(0, len(self), step):
            yield self.take(slice(start, start + step))

    def squares(self) -> Float[Tensor, "o i"]:
        """Σ_b V_b², elementwise, in at least float32."""
        _, s, o, i = self.sizes
        if s == 1:
            a, g = self.a[:, 0].square(), self.g[:, 0].square()
            return (g.T @ a).to(_wide(a.dtype))
        total = self.a.new_zeros(o, i, dtype=_wide(self.a.dtype))
        for part in self.parts():
            for v in part.gradients():
                v = v.to(total.dtype)  # widened first: products of mixed types leave the fast path
                total.addcmul_(v, v)
        return total

    def weighted_norms2(self, weights: Float[Tensor, "o i"]) -> Float[Tensor, " b"]:
        """Σ over entries of weights · V_b²."""
        if self.sizes[1] == 1:
            a, g = self.a[:, 0].square(), self.g[:, 0].square()
            return ((g @ weights.to(g)) * a).sum(1)
        return torch.cat(
            [(part.gradients().square() * weights.to(self.a)).sum((1, 2)) for part in self.parts()]
        )

    def against(self, blocks: "RowBlocks") -> Float[Tensor, "q b"]:
        """⟨P_q, V_b⟩ for every query and example: gradients are made a few rows at a time and
        multiplied at once.
        """
        b, s, _, i = self.sizes
        total = self.a.new_zeros(blocks.n, b, dtype=_wide(self.a.dtype))
        # the q·o products P_q a are fewer than the o·i entries of the gradient
        is_by_input = s == 1 and FEW * blocks.n <= i and total.dtype == self.a.dtype
        for start, stop, p in blocks.rows():
            if is_by_input:
                total += self._against_rows(start, stop, p)
                continue
            step = max(1, LARGE // ((stop - start) * i))
            for at in range(0, b, step):
                v = (
                    FactorPair(self.a[at : at + step], self.g[at : at + step, :, start:stop])
                    .gradients()
                    .flatten(1)
                )
                total[:, at : at + step] += p @ v.T
        return total

    def _against_rows(
        self, start: int, stop: int, p: Float[Tensor, "q rows_i"]
    ) -> Float[Tensor, "q b"]:
        """`against` some rows of the matrices, gᵀ P a: one position, no gradient is made."""
        rows = p.reshape(-1, self.a.shape[2])
        step = max(1, LARGE // len(rows))
        found = []
        for at in range(0, len(self), step):
            products = (self.a[at : at + step, 0] @ rows.T).unflatten(1, (len(p), -1))
            found.append((products * self.g[at : at + step, 0, None, start:stop]).sum(2).T)
        return torch.cat(found, 1)

    def by_position(self, p: Float[Tensor, "q o i"]) -> Float[Tensor, "q b s"]:
        """⟨P_q, g_bs ⊗ a_bs⟩: what each position adds to `against`."""
        return torch.stack([((self.a @ one.to(self.a).mT) * self.g).sum(2) for one in p])

    def through(
        self, left: Float[Tensor, "q o k"], right: Float[Tensor, "q k i"]
    ) -> Float[Tensor, "q b"]:
        """⟨L_q R_q, V_b⟩ = Σ_s (g_bs L_q)(R_q a_bs) without forming either side."""
        (q, _, k), (b, s, _, _) = left.shape, self.sizes
        a, g = self.a.flatten(0, 1), self.g.flatten(0, 1)
        step = max(1, PART // max(1, b * s * k))
        rows = []
        for at in range(0, q, step):
            # all queries of the slice as one product; the sum over k comes afterwards
            near = g @ left[at : at + step].transpose(0, 1).flatten(1)
            far = a @ right[at : at + step].flatten(0, 1).T
            rows.append((near * far).view(b, s, -1, k).sum((1, 3), dtype=_wide(a.dtype)).T)
        return torch.cat(rows)


@dataclass(frozen=True, eq=False)
class EmbeddingPair(FactorPair):
    """The rows of an embedding: g is one-hot, and only its index is held. V_b is `[v d]`."""

    g: Int[Tensor, "b s"]
    v: int = 0

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return (*self.a.shape[:2], self.v, self.a.shape[2])

    def to(self, dtype: torch.dtype) -> "EmbeddingPair":
        return replace(self, a=self.a.to(dtype))

    def rescale(self) -> tuple["EmbeddingPair", Float[Tensor, " b"]]:
        scale = _largest(self.a)
        return replace(self, a=self.a / scale[:, None, None]), scale

    def flush_denormals(self) -> "EmbeddingPair":
        return self

    def times(self, left: Tensor | None, right: Tensor | None) -> "EmbeddingPair":
        assert left is None  # one-hot rows are their own eigenbasis
        return replace(self, a=_rotate(self.a, right))

    def covariances(
        self, real: Tensor | None, earlier: "tuple[SumSoFar, SumSoFar] | None" = None
    ) -> tuple[Tensor, None]:
        return gram(self.a.flatten(0, 1), earlier and earlier[0]), None

    def gradients(self) -> Float[Tensor, "b o i"]:
        b = len(self)
        out = self.a.new_zeros(b * self.v, self.a.shape[2])
        rows = torch.arange(b, device=self.a.device)[:, None] * self.v + self.g
        return out.index_add_(0, rows.flatten(), self.a.flatten(0, 1)).view(b, self.v, -1)

    def _sum_by_row(self) -> tuple[Tensor, Tensor, Tensor]:
        """Example, table row and Σ a of each distinct row that an example reads."""
        keys = torch.arange(len(self), device=self.a.device)[:, None] * self.v + self.g
        found, inverse = torch.unique(keys, return_inverse=True)
        sums = self.a.new_zeros(len(found), self.a.shape[2]).index_add_(
            0, inverse.flatten(), self.a.flatten(0, 1)
        )
        return found // self.v, found % self.v, sums

    def squares(self) -> Float[Tensor, "o i"]:
        _, row, sums = self._sum_by_row()
        total = self.a.new_zeros(self.v, self.a.shape[2], dtype=_wide(self.a.dtype))
        return total.index_add_(0, row, sums.to(total.dtype).square())

    def weighted_norms2(self, weights: Float[Tensor, "o i"]) -> Float[Tensor, " b"]:
        example, row, sums = self._sum_by_row()
        each = (sums.square() * weights.to(sums)[row]).sum(1)
        return self.a.new_zeros(len(self)).index_add_(0, example, each)

    def against(self, blocks: "RowBlocks") -> Float[Tensor, "q b"]:
        return self.by_position(blocks.whole()).sum(2)

    def by_position(self, p: Float[Tensor, "q o i"]) -> Float[Tensor, "q b s"]:
        return torch.stack([(one.to(self.a)[self.g] * self.a).sum(2) for one in p])

    def through(
        self, left: Float[Tensor, "q o k"], right: Float[Tensor, "q k i"]
    ) -> Float[Tensor, "q b"]:
        return torch.stack(
            [
                (near[self.g] * (self.a @ far.T)).sum((1, 2))
                for near, far in zip(left, right, strict=True)
            ]
        )


def _is_safe(x: Float[Tensor, "b s d"]) -> bool:
    """Whether no example's gradient is tiny; a Euclidean norm costs a tenth of a largest entry."""
    return bool((torch.linalg.vector_norm(x.flatten(1), dim=1) > SAFE).all())


def _largest(x: Float[Tensor, "b s d"]) -> Float[Tensor, " b"]:
    """max |x| of each example, not zero."""
    return torch.linalg.vector_norm(x, torch.inf, (1, 2)).clamp_min(torch.finfo(x.dtype).tiny)


class RowBlocks:
    """Matrices P_q cut into blocks of rows, each contiguous over all queries: the layout that
    `against` multiplies.
    """

    def __init__(
        self, shape: Sequence[int], like: Tensor, dtype: torch.dtype, is_single: bool = False
    ) -> None:
        """`is_single`: against gradients of one position, which are cheap to make and so wanted in
        long batches.
        """
        self.n, self.o, self.i = shape
        # as many rows as keep a block of one query in the cache while it meets a batch of gradients
        few = 1 << 12 if is_single else 1 << 17
        self.height = min(self.o, 256, max(1, few // self.i))
        if dtype == torch.bfloat16 and not is_single:  # its products want long rows
            self.height = min(self.o, max(self.height, (1 << 20) // self.i))
        heights = [min(self.height, self.o - at) for at in range(0, self.o, self.height)]
        self.blocks = [like.new_zeros(self.n, height * self.i, dtype=dtype) for height in heights]

    @property
    def dtype(self) -> torch.dtype:
        return self.blocks[0].dtype

    def first(self, n: int) -> "RowBlocks":
        """Of the first n queries, in the same memory."""
        part = copy(self)
        part.n, part.blocks = n, [block[:n] for block in self.blocks]
        return part

    def put(self, at: int, p: Float[Tensor, "some o i"]) -> None:
        """The matrices of queries from `at` on."""
        for block, rows in zip(self.blocks, p.split(self.height, 1), strict=True):
            block[at : at + len(p)] = rows.flatten(1)

    def rows(self) -> Iterator[tuple[int, int, Tensor]]:
        """First and last row of each block, and the block as `[q rows·i]`."""
        for k, block in enumerate(self.blocks):
            yield k * self.height, min(self.o, (k + 1) * self.height), block

    def whole(self) -> Float[Tensor, "q o i"]:
        return torch.cat([block.view(self.n, -1, self.i) for block in self.blocks], 1)


@dataclass(frozen=True, eq=False)
class SumSoFar:
    """A sum of outer products over earlier batches, as many as there were of the size of the next
    one.
    """

    total: Float[Tensor, "d d"] | None
    batches: float


def gram(x: Float[Tensor, "n d"], earlier: SumSoFar | None = None) -> Float[Tensor, "d d"]:
    """xᵀ x in at least float32, the blocks above the diagonal once.

    A product in half precision is summed in float32 and rounded at its end: of large entries that
    leaves 0.2 %, which buries the small directions of a covariance. What the product has beyond
    the mean of earlier batches is small, and so is its rounding.
    """
    if x.dtype in (torch.bfloat16, torch.float16):
        beyond = None if earlier is None else _gram_beyond(x, earlier)
        if beyond is not None:
            return beyond
        x = x.float()
    d, step = x.shape[1], 192
    if d < 2 * step:
        return x.T @ x
    out = x.new_empty(d, d)
    for at in range(0, d, step):
        rows = x[:, at : at + step].T @ x[:, at:]
        out[at : at + step, at:] = rows
        out[at:, at : at + step] = rows.T
    return out


def _gram_beyond(x: Float[Tensor, "n d"], earlier: SumSoFar) -> Float[Tensor, "d d"] | None:
    """m + (xᵀ x − m) with m the mean of earlier batches, unless the rounding of the bracket may
    count.
    """
    if earlier.total is None:
        return None
    d, step = x.shape[1], 256
    near = (earlier.total / earlier.batches).to(x.dtype)
    out, square = near.float(), 0.0
    # errors of batches are independent: the mean over k of them has a √k-th
    allowed = NEAR * earlier.batches**0.5 * float(out.trace()) / d
    for at in range(0, d, step):
        left = x[:, at : at + step].T
        # widened first: sums of mixed types leave the fast path
        rest = torch.addmm(near[at : at + step, at:], left, x[:, at:], beta=-1).float()
        square += 2 * float(torch.linalg.vector_norm(rest)) ** 2
        # rounding errs by eps/4 in the mean; the largest singular value of independent errors is
        # about 2/√d of their norm
        if torch.finfo(x.dtype).eps / 2 * (square / d) ** 0.5 > allowed:
            return None
        out[at : at + step, at:] += rest
        out[at + step :, at : at + step] = out[at : at + step, at + step :].T
    return out


def _rotate(x: Tensor, by: Tensor | None) -> Tensor:
    return x if by is None else x @ by.to(x.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def pairs_of(
    forms: Mapping[str, GradientFactor], joined: Mapping[str, str], dtype: torch.dtype | None = None
) -> dict[str, FactorPair]:
    """Forms of parameters as pairs by layer; `joined[weight]` names the bias that runs as its
    constant input.

    A layer that the function did not run through is left out: its gradients are zero.
    """
    made: dict[str, FactorPair] = {}
    biases = {
        bias for weight, bias in joined.items() if isinstance(forms.get(weight), LinearFactor)
    }
    for name, form in forms.items():
        if name in biases or _is_absent(form):
            continue
        layer, as_is = name.removesuffix(".weight"), dtype or _dtype(form)
        if isinstance(form, LinearFactor):
            made |= _of_dense(layer, form, name in joined, as_is)
        elif isinstance(form, EmbeddingFactor):
            made[layer] = EmbeddingPair(form.g.to(as_is), form.index, form.shape[0])
        else:
            rows = form.whole().rows if isinstance(form, ScaleFactor) else real_rows(form)
            made[layer if name.endswith(".weight") else name] = as_rows(rows.to(as_is))
    return made


def real_rows(form: GradientFactor) -> Float[Tensor, "b p"]:
    """The gradients as one row per example; complex entries as two numbers."""
    return real_view(form.gradients()).flatten(1)


class GradientRows(FactorPair):
    """Gradients as they are: g = 1."""


def as_rows(rows: Float[Tensor, "b p"]) -> GradientRows:
    """The pair of gradients given whole."""
    return GradientRows(rows[:, None], rows.new_ones(len(rows), 1, 1))


def _of_dense(
    layer: str, form: LinearFactor, has_bias: bool, dtype: torch.dtype
) -> dict[str, FactorPair]:
    if form.groups == 1:
        return {layer: FactorPair(_append_bias(form.a, has_bias, dtype), form.g.to(dtype))}
    inside = form.a.unflatten(2, (form.groups, -1)).unbind(2)
    back = form.g.unflatten(2, (form.groups, -1)).unbind(2)
    # one pair per group: averaging patches over groups would mix inputs that no weight sees
    both = enumerate(zip(inside, back, strict=True))
    return {
        f"{layer}[{k}]": FactorPair(_append_bias(a, has_bias, dtype), g.to(dtype))
        for k, (a, g) in both
    }


def _append_bias(a: Float[Tensor, "b s i"], has_bias: bool, dtype: torch.dtype) -> Tensor:
    if not has_bias:
        return a.to(dtype)
    out = a.new_empty(*a.shape[:2], a.shape[2] + 1, dtype=dtype)
    out[..., :-1], out[..., -1] = a, 1
    return out


def _is_absent(form: GradientFactor) -> bool:
    """Whether `tap` made up the zeros of a parameter that the function does not depend on (they
    take no memory).
    """
    return isinstance(form, FullGradient) and form.rows.numel() > 0 and not any(form.rows.stride())


def _dtype(form: GradientFactor) -> torch.dtype:
    for name in ("g", "rows"):
        if hasattr(form, name):
            return getattr(form, name).dtype
    return torch.get_default_dtype()


def layer_biases(model: nn.Module) -> dict[str, str]:
    """Weights whose bias belongs to the same layer and to no other, by name: both trainable,
    neither tied.
    """
    owners: dict[int, int] = {}
    for layer in model.modules():
        for p in layer.parameters(recurse=False):
            owners[id(p)] = owners.get(id(p), 0) + 1
    found = {}
    for name, layer in model.named_modules():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        is_map = (
            isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) or type(layer).__name__ == "Conv1D"
        )
        if is_map and isinstance(weight, nn.Parameter) and isinstance(bias, nn.Parameter):
            is_own = owners[id(weight)] == owners[id(bias)] == 1
            if is_own and weight.requires_grad and bias.requires_grad:
                prefix = f"{name}." if name else ""
                found[f"{prefix}weight"] = f"{prefix}bias"
    return found
