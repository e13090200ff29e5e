"""Where the windows that influence puts first stand by the words they share with a query, and by
the model's own last features: what needs no gradient may explain an order as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.attributions.influence.bm25 import Words, matches
from unseen.attributions.influence.similarity import embed
from unseen.attributions.influence.stream import Stream, is_idle
from unseen.engine.sharding import is_sharded
from unseen.lab import Lab
from unseen.questions.influence.results import Influencer, QueryInfluence, SurfaceRank
from unseen.task import Batch, Task

MOSTLY = 0.5
"""The share of the helpful windows from which on words alone are said to explain them."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Ranks:
    """Of some rows, among all rows that were scored: 1 is the nearest to the query."""

    words: Int[Tensor, "q m"]
    embedding: Int[Tensor, "q m"]


@torch.no_grad()
def surface_ranks(
    model: nn.Module,
    queries: Batch,
    task: Task,
    rows: Int[Tensor, "q m"],
    chosen: Int[Tensor, " n"] | None,
    lab: Lab,
) -> Ranks:
    """Two passes over the scored rows, the second one with the model; memory does not grow with the
    corpus.
    """
    stream, words, asked = Stream(task, BATCH, lab), Words.of(queries), embed(model, queries)
    scored = torch.arange(stream.count()) if chosen is None else chosen
    parts = [
        part for k, part in enumerate(scored.split(BATCH)) if k % lab.ranks.size == lab.ranks.rank
    ]
    found = torch.zeros(words.has.shape[1], dtype=torch.float64, device=lab.device)
    for part in lab.track(parts, len(parts)):
        found += (words.counts(stream.at(part)) > 0).sum(0)
    found = lab.sum(found)

    def similarities(part: Tensor) -> tuple[Float[Tensor, "q b"], Float[Tensor, "q b"]]:
        batch = stream.at(part)
        shared = matches(words.counts(batch), words.has, found, len(scored))
        return shared, (asked @ embed(model, batch).T).double()

    shown = rows.flatten().unique()
    place = torch.searchsorted(shown, rows)
    own = [
        torch.cat(both, 1).cpu().gather(1, place)
        for both in zip(*map(similarities, shown.split(BATCH)), strict=True)
    ]
    ahead = [torch.zeros_like(one) for one in own]
    if is_sharded(model) and is_idle(len(scored.split(BATCH)), lab.ranks):
        similarities(scored[:BATCH])  # every process runs the model equally often
    for part in lab.track(parts, len(parts)):
        for one, mine, count in zip(similarities(part), own, ahead, strict=True):
            # rounding of another batch must not put a row before itself
            margin = 1e-6 * mine.abs().clamp_min(1)
            count += (one.cpu()[:, None] > (mine + margin)[..., None]).sum(2)
    by_words, by_embedding = (lab.sum(count).long() + 1 for count in ahead)
    return Ranks(by_words, by_embedding)


def with_ranks(
    answers: Sequence[QueryInfluence], ranks: Ranks, rows: Int[Tensor, "q m"], n: int
) -> list[QueryInfluence]:
    """The answers with the rank of every window that they show."""
    made = []
    for q, answer in enumerate(answers):
        place = {int(row): k for k, row in enumerate(rows[q])}

        def add_rank(one: Influencer, q: int = q, place: dict[int, int] = place) -> Influencer:
            k = place[one.index]
            rank = SurfaceRank(int(ranks.words[q, k]), int(ranks.embedding[q, k]), n)
            return replace(one, surface=rank)

        made.append(
            replace(
                answer,
                helpful=[add_rank(one) for one in answer.helpful],
                harmful=[add_rank(one) for one in answer.harmful],
            )
        )
    return made


def sentence(answer: QueryInfluence) -> str:
    """How many of the most helpful windows words and embeddings put first, too; empty where nobody
    looked.
    """
    ranks = [one.surface for one in answer.helpful if one.surface is not None]
    k = len(ranks)
    if not k:
        return ""
    words = sum(one.words <= k for one in ranks)
    features = sum(one.embedding <= k for one in ranks)
    said = (
        f"Of the {k} most helpful windows {words} {'is' if words == 1 else 'are'} among the {k} "
        f"that share most words with the query (BM25) and {features} among the {k} nearest "
        f"by the model's last features, of {ranks[0].of:,}."
    )
    if ranks[0].of <= 2 * k:
        return said  # so few windows that chance does as much
    if words >= MOSTLY * k:
        return f"{said} Words alone explain most of this list."
    if features >= MOSTLY * k:
        return f"{said} Similarity alone explains most of this list."
    return f"{said} Neither explains this list."
