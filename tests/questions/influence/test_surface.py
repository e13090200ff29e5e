"""Ranks by words and by embedding are those of sorting all scores; sentences follow from them."""

from dataclasses import replace

import pytest
import torch

from unseen.attributions.influence.bm25 import candidates
from unseen.attributions.influence.similarity import embed, word_scores
from unseen.engine.batches import Columns
from unseen.errors import UnsupportedLayer
from unseen.lab import Lab
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import next_token
from unseen.questions.influence.results import Influencer, QueryInfluence, SurfaceRank
from unseen.questions.influence.surface import Ranks, sentence, surface_ranks, with_ranks
from unseen.task import Axis, Split, Task, Use


def texts(n: int, stream: str) -> dict[str, torch.Tensor]:
    g = Lab().child(stream).generator()
    real = torch.arange(7) < torch.randint(3, 8, (n, 1), generator=g)
    tokens = torch.randint(1, 30, (n, 7), generator=g) * real
    return {"tokens": tokens, "attention_mask": real, "mask": real}


@pytest.fixture(scope="module")
def corpus():
    columns = texts(150, "corpus")
    splits = {"corpus": Split(Columns(**columns), Use.TRAIN)}
    task = Task(name="t", axis=Axis.IID, splits=splits, objective=next_token)
    with Lab().child("init").seeded():
        model = Transformer(Decoder(vocabulary=30, width=8, layers=1, heads=2, context=7)).eval()
    return model, task, columns


def ranks_by_sorting(scores: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    mine = scores.gather(1, rows)
    return (scores[:, None] > mine[..., None] + 1e-6).sum(2) + 1


def test_ranks_are_those_of_all_scores_sorted(corpus):
    model, task, columns = corpus
    asked = texts(3, "queries")
    rows = torch.tensor([[0, 149, 70], [3, 4, 64], [8, 9, 3]])
    found = surface_ranks(model, asked, task, rows, None, Lab())
    words = word_scores(asked, columns)
    assert torch.equal(found.words, ranks_by_sorting(words, rows))
    features = (embed(model, asked) @ embed(model, columns).T).double()
    assert torch.equal(found.embedding, ranks_by_sorting(features, rows))
    best = candidates(asked, task, 150, Lab())
    torch.testing.assert_close(words.gather(1, best.index), best.scores)
    chosen = torch.arange(0, 150, 2)
    few = surface_ranks(model, asked, task, rows[:, :1] // 2 * 2, chosen, Lab())
    assert (few.words <= 75).all()


def test_padding_and_order_do_not_change_an_embedding(corpus):
    model, _, columns = corpus
    longer = {
        name: torch.cat([tensor, torch.zeros_like(tensor[:, :1])], 1)[:, :7]
        for name, tensor in columns.items()
    }
    noise = {**columns, "tokens": columns["tokens"] + 5 * ~columns["attention_mask"]}
    torch.testing.assert_close(embed(model, noise), embed(model, columns))
    torch.testing.assert_close(embed(model, longer), embed(model, columns))
    assert embed(model, columns).norm(dim=1).allclose(torch.ones(150))
    with pytest.raises(UnsupportedLayer, match="linear"):
        embed(torch.nn.Flatten(), {"x": torch.ones(2, 3)})


def answer(ranks: list[tuple[int, int]], of: int = 1_000) -> QueryInfluence:
    helpful = [
        Influencer(index=k, score=1.0, source="", shown="", surface=SurfaceRank(*rank, of))
        for k, rank in enumerate(ranks)
    ]
    return QueryInfluence(title="", asked="", log_probability=-1.0, helpful=helpful, harmful=[])


def test_the_sentence_says_when_words_alone_explain_an_answer():
    both = sentence(answer([(1, 900), (2, 3), (800, 2), (4, 700)]))
    assert "4 most helpful windows 3 are among the 4 that share most words" in both
    assert both.endswith("Words alone explain most of this list.")
    near = sentence(answer([(100, 1), (200, 2)]))
    assert near.endswith("Similarity alone explains most of this list.")
    assert sentence(answer([(100, 100), (200, 200)])).endswith("Neither explains this list.")
    assert sentence(answer([(1, 1), (2, 2)], of=4)).endswith("of 4.")  # chance does as much
    nothing = answer([(1, 1)])
    assert sentence(replace(nothing, helpful=[replace(nothing.helpful[0], surface=None)])) == ""


def test_ranks_stand_at_their_windows():
    found = answer([(9, 9), (9, 9)])
    rows = torch.tensor([[1, 0]])
    made_ranks = Ranks(torch.tensor([[5, 6]]), torch.tensor([[7, 8]]))
    (made,) = with_ranks([found], made_ranks, rows, 20)
    assert [one.surface for one in made.helpful] == [SurfaceRank(6, 8, 20), SurfaceRank(5, 7, 20)]
