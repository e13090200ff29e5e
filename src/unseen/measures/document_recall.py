"""Are the documents that state a fact the ones that get the credit for it?

The fact-tracing test of Akyürek et al. (2022), arXiv:2205.11482, with as many places as the fact
has documents.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.reading import Reading


def document_recall(
    scores: Float[Tensor, "query document"],
    stated: Int[Tensor, " document"],
    asked: Int[Tensor, " query"],
    top: int = 0,
) -> Reading:
    """Mean over queries of the share of the asked fact's documents among the `top` highest scores.

    `stated` and `asked` number the facts. `top` = 0: as many places as the fact has documents, so
    that 1 means that they come first; of n documents a random order reaches top/n. `detail` has
    each query's share; its mean's interval is Student's within [0, 1].
    """
    _refuse(scores, stated, asked)
    own = asked[:, None] == stated
    documents = own.sum(1)
    if not documents.all():
        raise InvalidData(
            f"{int((documents == 0).sum())} of {len(asked)} queries ask for a fact that no "
            "document states.",
            why="a share of no documents is 0/0.",
            fix="ask for stated facts only.",
        )
    ranked = own.gather(1, scores.argsort(dim=1, descending=True, stable=True))
    places = torch.full_like(documents, top) if top else documents
    inside = torch.arange(len(stated), device=scores.device) < places[:, None]
    share = (ranked & inside).sum(1).double() / documents
    found = stats.mean(share.cpu().numpy(), within=(0, 1), unit="fraction")
    return Reading(found.value, found.low, found.high, found.n, "fraction", share)


def _refuse(scores: Tensor, stated: Tensor, asked: Tensor) -> None:
    if (
        scores.shape != (len(asked), len(stated))
        or not len(asked)
        or not torch.isfinite(scores).all()
    ):
        raise InvalidData(
            f"Document recall got scores {tuple(scores.shape)} for {len(asked)} queries and "
            f"{len(stated)} documents.",
            why="every query has one finite score per document, and at least one query is asked.",
            fix="score the documents in the order of `stated`.",
        )


@dataclass(frozen=True)
class DocumentRecall:
    """`document_recall` of a table with `scores` [query, document], `stated` [document] and `asked`
    [query].
    """

    top: int = 0

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        _refuse(subject["scores"], subject["stated"], subject["asked"])
        return document_recall(subject["scores"], subject["stated"], subject["asked"], self.top)


def example() -> tuple[DocumentRecall, dict[str, Tensor]]:
    """Four facts with three documents each, whose credits are noisy."""
    stated, asked = torch.arange(12) // 3, torch.arange(4)
    noise = torch.randn(4, 12, generator=Lab().child("recall").generator(), dtype=torch.float64)
    scores = noise + 2 * (asked[:, None] == stated)
    return DocumentRecall(), {"scores": scores, "stated": stated, "asked": asked}
