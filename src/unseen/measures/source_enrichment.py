"""From which sources do the most influential documents come, more often than their number would
say?

Ruis et al. (2025), arXiv:2411.12580, section 4.2 and appendix: code and StackExchange for
reasoning, Wikipedia for facts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading


def source_enrichment(
    scores: Float[Tensor, "query document"],
    source: Int[Tensor, " n"],
    k: int,
    *,
    bottom: bool = False,
) -> Float[Tensor, "query source"]:
    """Share of each source in a query's top k documents over its share in all; 1 where it does not
    matter.

    Weighted by the sources' shares, a query's values sum to 1. `bottom`: of the k most harmful
    documents instead.
    """
    n = len(source)
    if (
        scores.shape[1] != n
        or not scores.numel()
        or not torch.isfinite(scores).all()
        or not 1 <= k <= n
    ):
        raise InvalidData(
            f"Source enrichment got scores {tuple(scores.shape)}, {n} documents and k={k}.",
            why="every query has one finite score per document, and k of them are its top.",
            fix="score the documents in the order of `source`, and choose k from 1 … n.",
        )
    counts = torch.bincount(source)
    if not counts.all():
        raise InvalidData(
            f"Source {int((counts == 0).nonzero()[0])} of {len(counts)} has no document.",
            why="its share in the corpus is 0, and an enrichment divides by that.",
            fix="number the sources from 0 without gaps.",
        )
    top = source[scores.argsort(dim=1, descending=not bottom, stable=True)[:, :k]]
    inside = torch.zeros(len(scores), len(counts), dtype=torch.float64, device=scores.device)
    inside.scatter_add_(1, top, torch.ones_like(top, dtype=torch.float64))
    return inside / k / (counts.double() / n)


@dataclass(frozen=True)
class SourceEnrichment:
    """Mean over queries of one source's `source_enrichment`; `detail` has every query and source.

    Of a table with `scores` [query, document] and `source` [document].
    """

    source: int = 0
    k: int = 50
    bottom: bool = False

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        table = source_enrichment(subject["scores"], subject["source"], self.k, bottom=self.bottom)
        if not 0 <= self.source < table.shape[1]:
            raise InvalidConfig(
                f"SourceEnrichment(source={self.source}) of {table.shape[1]} sources.",
                why="there is no such source.",
                fix=f"choose from 0 … {table.shape[1] - 1}.",
            )
        found = stats.mean(table[:, self.source].cpu().numpy(), within=(0, float("inf")))
        return Reading(found.value, found.low, found.high, found.n, "ratio", table)


def example() -> tuple[SourceEnrichment, dict[str, Tensor]]:
    """Three queries over three sources, of which the first is favoured."""
    source = torch.arange(30) % 3
    noise = torch.randn(3, 30, generator=Lab().child("sources").generator(), dtype=torch.float64)
    return SourceEnrichment(k=5), {"scores": noise + (source == 0), "source": source}
