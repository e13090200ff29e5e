"""The candidates for the top of each query, kept while approximate products stream by."""

import torch
from jaxtyping import Float
from torch import Tensor

WIDTH = 16
"""How many times k candidates are kept from the stream, at most."""
LEAST = 32
"""So many candidates at least, of any k: errors of fewer say too little of those not seen."""
ALLOWED = 0.5
"""Error over the k-th score for which lists are long enough where they are not."""
SLAB = 1 << 14
"""Examples whose approximate scores are held at a time."""


def list_width(k: int) -> int:
    """Candidates that a list holds."""
    return max(2 * LEAST, WIDTH * k)


class CandidateLists:
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
            at = bound.topk(min(list_width(self.k), table.shape[1]), 1, largest=sign > 0).indices
            parts.append((sign * table.gather(1, at), rows[at], roots[at]))
        products, index, size = (torch.stack(both) for both in zip(*parts, strict=True))
        if self.kept is not None:
            old = zip(self.kept, (products, index, size), strict=True)
            products, index, size = (torch.cat(both, 2) for both in old)
            bound = torch.addcmul(products, self.allowed[..., None], size)
            at = bound.topk(min(list_width(self.k), bound.shape[2]), 2).indices
            products, index, size = (part.gather(2, at) for part in (products, index, size))
        self.kept = products, index, size
