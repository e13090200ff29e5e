"""A batch that does not fit into the memory runs in pieces: the same factors and scores, and it is
said.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unseen.attributions.influence import Curvature, Fisher, Influence, Precision
from unseen.attributions.influence.batch_pieces import Pieces, pieces_within, saved_bytes
from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify, cross_entropy
from unseen.task import Axis, Split, Task, Use

WIDTH = 40


class Reader(nn.Module):
    """Words, positions and a class; padding is marked."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.up, self.out = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.out(self.up(self.words(x)).relu().mean(1))


def trained(n: int = 23) -> Trained:
    torch.manual_seed(0)
    model = Reader().double().eval()
    x = torch.randint(0, 11, (n, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(x)
    mask[::3, 4:] = 0
    data = Columns(x=x, y=x.sum(1) % 3, attention_mask=mask)
    splits = {"train": Split(data, Use.TRAIN)}
    task = Task(name="pieces", axis=Axis.IID, splits=splits, objective=classify)
    return Trained(model, task)


def log_likelihood(model, batch):
    return -cross_entropy(model, batch)


CASES = {
    "drawn labels": Influence(draws=2),
    "all classes": Influence(fisher=Fisher.EXACT),
    "own labels": Influence(fisher=Fisher.EMPIRICAL),
    "k-fac": Influence(curvature=Curvature.KFAC),
    "diagonal": Influence(curvature=Curvature.DIAGONAL),
    "exact": Influence(curvature=Curvature.EXACT, fisher=Fisher.EMPIRICAL, layers=("up",)),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_do_not_depend_on_pieces(case):
    subject, config = trained(), replace(CASES[case], batch_size=8)
    queries = {name: tensor[:5] for name, tensor in subject.task.split("train").data[:].items()}
    each = 2 * saved_bytes(subject.model, {k: t[:1] for k, t in queries.items()}, cross_entropy)
    whole, cut = (
        replace(config, memory=memory).prepare(subject, Lab()) for memory in (0, 3 * each + 1)
    )
    assert (whole.pieces.step, cut.pieces.step) == (0, 3)
    for name, block in whole.factors.blocks.items():
        torch.testing.assert_close(
            cut.factors.blocks[name].values, block.values, rtol=1e-8, atol=1e-12
        )
    a, b = (found(queries, log_likelihood).scores for found in (whole, cut))
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(whole.self_influence(), cut.self_influence(), rtol=1e-8, atol=1e-12)
    chosen = torch.tensor([22, 3, 17, 4, 9, 11, 0, 1, 2])
    for rows in (None, chosen):
        tops = [found.top(queries, log_likelihood, 4, candidates=rows) for found in (whole, cut)]
        assert torch.equal(tops[0].index, tops[1].index)
    assert "pieces of 3" in " ".join(cut.sentences())
    assert "pieces" not in " ".join(whole.sentences())


def test_tokens_of_chosen_examples_do_not_depend_on_pieces():
    subject = trained()
    queries = {name: tensor[:5] for name, tensor in subject.task.split("train").data[:].items()}
    config = Influence(batch_size=8, layers=("up",))
    whole, cut = (replace(config, memory=m).prepare(subject, Lab()) for m in (0, 6_000))
    assert cut.pieces.step
    rows = torch.arange(20)
    a, b = (found.by_token(queries, log_likelihood, rows) for found in (whole, cut))
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_half_precision_runs_in_pieces_too():
    subject = trained()
    model = subject.model.float()
    queries = {name: tensor[:5] for name, tensor in subject.task.split("train").data[:].items()}
    config = Influence(batch_size=8, layers=("up", "words"), precision=Precision.BFLOAT16)
    found = [replace(config, memory=m).prepare(subject, Lab()) for m in (0, 6_000)]
    assert found[1].pieces.step
    assert next(model.parameters()).dtype == torch.float32
    a, b = (one(queries, log_likelihood).scores for one in found)
    assert (a - b).norm() < 0.03 * a.norm()


def test_saved_bytes_are_those_of_the_activations():
    model = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 3))
    x = torch.randn(4, 10)

    def square(model, batch):
        return model(batch["x"]).square().sum(1)

    # tanh keeps its output, which is the input of the next layer; the square keeps its input
    assert saved_bytes(model, {"x": x}, square) == 4 * 4 * (20 + 3)
    assert pieces_within(0, model, {"x": x}, square) == Pieces()
    assert pieces_within(2 * 4 * 4 * 23, model, {"x": x}, square) == Pieces(0, 2 * 4 * 23)
    assert pieces_within(2 * 4 * 4 * 23 - 1, model, {"x": x}, square) == Pieces(3, 2 * 4 * 23)


def test_pieces_cover_a_batch_once():
    batch = {"x": torch.arange(7)}
    assert torch.cat([piece["x"] for _, piece in Pieces(3).cut(batch)]).tolist() == list(range(7))
    assert [piece is batch for _, piece in Pieces().cut(batch)] == [True]
    assert Pieces(2, 100).sentence(64, 50).endswith("One example alone takes more than that.")
