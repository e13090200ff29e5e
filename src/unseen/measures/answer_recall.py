"""Do the most influential documents state the answer?

Ruis et al. (2025), arXiv:2411.12580, section 4.2: for factual questions often, for reasoning hardly
ever.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.reading import Reading


def answer_recall(
    scores: Float[Tensor, "query document"], is_answer: Bool[Tensor, "..."], k: int
) -> Reading:
    """Share of queries whose answer is stated by one of the k documents with the highest scores;
    Wilson's interval.

    `is_answer` is [query, document], or [step, query, document] where an answer has steps: all
    steps must then be found, possibly in different documents. A query whose answer no document
    states is not found. `detail`: 1 where found.
    """
    steps = _steps(scores, is_answer, k)
    found = steps.gather(2, _top(scores, k).expand(len(steps), -1, -1)).any(2).all(0)
    share = stats.proportion(int(found.sum()), len(found))
    return Reading(share.value, share.low, share.high, share.n, "fraction", found.double())


def answer_excess(
    scores: Float[Tensor, "query document"], is_answer: Bool[Tensor, "query document"], k: int
) -> Reading:
    """Share of the top k documents that state the answer, minus that of all documents; mean over
    queries.

    0 if documents that state the answer are as frequent among the top as anywhere. `detail` has
    each query's difference.
    """
    steps = _steps(scores, is_answer, k)[0]
    excess = steps.gather(1, _top(scores, k)).double().mean(1) - steps.double().mean(1)
    found = stats.mean(excess.cpu().numpy(), within=(-1, 1))
    return Reading(found.value, found.low, found.high, found.n, "fraction", excess)


def _top(scores: Tensor, k: int) -> Tensor:
    return scores.argsort(dim=1, descending=True, stable=True)[:, :k]


def _steps(scores: Tensor, is_answer: Tensor, k: int) -> Bool[Tensor, "step query document"]:
    """One layer per step, after the refusals."""
    steps = is_answer if is_answer.dim() == 3 else is_answer[None]
    if steps.shape[1:] != scores.shape or not scores.numel() or not torch.isfinite(scores).all():
        raise InvalidData(
            f"Answer recall got scores {tuple(scores.shape)} and answers {tuple(is_answer.shape)}.",
            why="every query needs one finite score per document, and every pair is or is not an "
            "answer.",
            fix="score the documents in the order of `is_answer`; leave out queries without finite "
            "scores.",
        )
    if not 1 <= k <= scores.shape[1]:
        raise InvalidData(
            f"The top {k} of {scores.shape[1]} documents were asked for.",
            why="so many documents there are not.",
            fix=f"choose k from 1 … {scores.shape[1]}.",
        )
    if not steps.any():
        raise InvalidData(
            "No document states any of the answers.",
            why="whether answers are found says nothing where there are none.",
            fix="check how answers and documents are compared.",
        )
    return steps


@dataclass(frozen=True)
class AnswerRecall:
    """`answer_recall` of a table with `scores` [query, document] and `is_answer` [query, document],
    or [step, …].
    """

    k: int = 10

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        return answer_recall(subject["scores"], subject["is_answer"], self.k)


def example() -> tuple[AnswerRecall, dict[str, Tensor]]:
    """Five queries with one answering document each, of which noisy scores put some first."""
    is_answer = torch.eye(5, dtype=torch.bool).repeat(1, 6)
    noise = torch.randn(5, 30, generator=Lab().child("answers").generator(), dtype=torch.float64)
    return AnswerRecall(k=3), {"scores": noise + is_answer, "is_answer": is_answer}
