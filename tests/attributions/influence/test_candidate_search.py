"""The search for the strongest examples against the scores of all of them, in float64."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from unseen.attributions.influence import (
    Curvature,
    Fisher,
    Influence,
    candidate_lists,
    candidate_search,
    exact_products,
    few_terms,
)
from unseen.attributions.influence.candidate_lists import CandidateLists
from unseen.attributions.influence.candidate_search import Ranking, Screen
from unseen.attributions.influence.kronecker_terms import kronecker_terms, leading_terms
from unseen.attributions.influence.top_k import Top
from unseen.engine.batches import Columns
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.objectives import classify, cross_entropy
from unseen.task import Axis, Split, Task, Use

LAB = Lab(dtype=torch.float64)
EMPIRICAL = Influence(fisher=Fisher.EMPIRICAL, batch_size=128)
N, K = 700, 5


def normal(*shape: int, seed: str) -> Tensor:
    return torch.randn(*shape, generator=LAB.child(seed).generator(), dtype=torch.float64)


def classes(n: int, seed: str) -> Tensor:
    return torch.randint(3, (n,), generator=LAB.child(seed).generator())


def independent() -> tuple[Tensor, Tensor]:
    return normal(N, 8, seed="x"), classes(N, "y")


def heavy_tails() -> tuple[Tensor, Tensor]:
    x, y = independent()
    return x * normal(N, 1, seed="scale").exp().square(), y


def twins() -> tuple[Tensor, Tensor]:
    """Every example stands there seven times, so that the k-th place is always shared."""
    x, y = independent()
    return x[: N // 7].repeat(7, 1), y[: N // 7].repeat(7)


def alike() -> tuple[Tensor, Tensor]:
    """All gradients are the same but a few."""
    x, y = independent()
    x[8:], y[8:] = x[8], y[8]
    return x, y


def silent() -> tuple[Tensor, Tensor]:
    """Most examples have no gradient through the first layer."""
    x, y = independent()
    x[20:] = 0
    return x, y


def trained(x: Tensor, y: Tensor, steps: int) -> Trained:
    with LAB.child("init").seeded():
        model = mlp([x.shape[1], 12, 3]).double()
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.zero_grad()
    splits = {"a": Split(Columns(x=x, y=y), Use.TRAIN)}
    return Trained(model.eval(), Task(name="t", axis=Axis.IID, splits=splits, objective=classify))


ASKED = {"x": normal(9, 8, seed="asked"), "y": classes(9, "answers")}


def assert_exact(top: Top, scores: Tensor, rows: Tensor | None = None) -> None:
    """The k first scores at either end, each at a row of its own that has it."""
    rows = torch.arange(scores.shape[1]) if rows is None else rows
    near = {"rtol": 1e-9, "atol": 1e-11 * float(scores.abs().max())}
    for found, index, largest in (
        (top.scores, top.index, True),
        (top.worst_scores, top.worst_index, False),
    ):
        want = scores[:, rows].topk(found.shape[1], largest=largest).values
        assert_close(found, want, **near)
        assert_close(scores.gather(1, index), found, **near)
        assert all(len(one.unique()) == len(one) for one in index)
        assert torch.isin(index, rows).all()


@pytest.mark.parametrize("steps", [0, 60])
@pytest.mark.parametrize("curvature", [Curvature.EKFAC, Curvature.KFAC, Curvature.DIAGONAL])
@pytest.mark.parametrize("data", [independent, heavy_tails, twins, alike, silent])
def test_the_search_finds_what_all_scores_have(data, curvature, steps):
    run = trained(*data(), steps)
    influences = replace(EMPIRICAL, curvature=curvature).prepare(run, LAB)
    scores = influences(ASKED, cross_entropy).scores
    assert_exact(influences.top(ASKED, cross_entropy, K), scores)


@pytest.mark.parametrize("data", [independent, twins])
def test_queries_that_a_poor_screen_leaves_open_are_closed_by_all_scores(data, monkeypatch):
    monkeypatch.setattr(candidate_search, "TERMS", 1)
    monkeypatch.setattr(candidate_search, "MORE", 1)
    monkeypatch.setattr(candidate_lists, "WIDTH", 1)
    monkeypatch.setattr(candidate_lists, "LEAST", 1)
    monkeypatch.setattr(candidate_search, "LEAST", 1)
    open_: list[int] = []
    plain = Screen.top

    def top(self, *args):
        found = plain(self, *args)
        open_.append(len(found.open_))
        return found

    monkeypatch.setattr(Screen, "top", top)
    run = trained(*data(), 60)
    influences = EMPIRICAL.prepare(run, LAB)
    scores = influences(ASKED, cross_entropy).scores
    assert_exact(influences.top(ASKED, cross_entropy, K), scores)
    assert open_[0] > 0


def test_short_tables_give_what_one_long_table_gives(monkeypatch):
    run = trained(*heavy_tails(), 60)
    influences = replace(EMPIRICAL, batch_size=50).prepare(run, LAB)
    scores = influences(ASKED, cross_entropy).scores
    monkeypatch.setattr(candidate_lists, "SLAB", 120)
    monkeypatch.setattr(few_terms, "TILE", 32)
    monkeypatch.setattr(exact_products, "PAIRS", 7)
    assert_exact(influences.top(ASKED, cross_entropy, K), scores)


def test_among_candidates_only_these_are_found():
    run = trained(*independent(), 60)
    influences = EMPIRICAL.prepare(run, LAB)
    scores = influences(ASKED, cross_entropy).scores
    rows = torch.arange(1, N, 2).flip(0)  # 350 > 2 · 16 · 5: screened
    assert_exact(influences.top(ASKED, cross_entropy, K, candidates=rows), scores, rows)


@pytest.mark.parametrize("count", [3, 350])  # scored all; screened
def test_a_candidate_given_twice_is_found_once(count):
    run = trained(*independent(), 60)
    influences = EMPIRICAL.prepare(run, LAB)
    scores = influences(ASKED, cross_entropy).scores
    rows = torch.arange(count)
    twice = torch.cat([rows, rows])
    found = influences.top(ASKED, cross_entropy, min(K, count), candidates=twice)
    assert_exact(found, scores, rows)


def test_candidates_that_do_not_exist_are_refused_and_none_gives_none():
    influences = EMPIRICAL.prepare(trained(*independent(), 0), LAB)
    for wrong in ([-1], [0, N]):
        with pytest.raises(InvalidData, match=f"of {N} examples"):
            influences.top(ASKED, cross_entropy, K, candidates=torch.tensor(wrong))
    none = influences.top(ASKED, cross_entropy, K, candidates=torch.zeros(0, dtype=torch.long))
    assert none.index.shape == none.worst_scores.shape == (9, 0)


@pytest.mark.parametrize("curvature", [Curvature.EKFAC, Curvature.KFAC, Curvature.DIAGONAL])
@pytest.mark.parametrize("size", [1e-60, 1e-25, 1e-12, 1e12, 1e25])
def test_gradients_of_any_size_are_found(size, curvature):
    """Inverses of their squares lie beyond bfloat16 and float32."""

    def scaled(model, batch):
        return size * cross_entropy(model, batch)

    run = trained(*independent(), 60)
    influences = replace(EMPIRICAL, curvature=curvature, loss=scaled).prepare(run, LAB)
    scores = influences(ASKED, cross_entropy).scores
    assert_exact(influences.top(ASKED, cross_entropy, K), scores)


def test_squares_beyond_float32_leave_no_example_out():
    x, y = (1e12 * independent()[0]).float(), independent()[1]
    run = trained(x.double(), y, 0)
    run.model.float()
    splits = {"a": Split(Columns(x=x, y=y), Use.TRAIN)}
    run = replace(run, task=replace(run.task, splits=splits))

    def scaled(model, batch):
        return 1e8 * model(batch["x"])[:, 0]

    config = replace(EMPIRICAL, curvature=Curvature.IDENTITY, loss=scaled)
    influences = config.prepare(run, Lab())
    asked = {"x": ASKED["x"].float(), "y": ASKED["y"]}
    scores = influences(asked, cross_entropy).scores
    top = influences.top(asked, cross_entropy, K)
    assert_close(top.scores, scores.topk(K).values, rtol=1e-4, atol=0)


def test_a_query_whose_products_are_no_numbers_is_left_open():
    lists = CandidateLists(1)
    products = torch.randn(2, 40)
    products[1, 5] = torch.nan
    lists.add(products.clone(), torch.arange(40), torch.ones(40))
    exact = SimpleNamespace(scores=lambda q, rows: products[q, rows])
    assert 1 in Ranking(lists, exact).top(1).open_.tolist()


def test_one_error_is_no_evidence_for_others():
    approximate = torch.linspace(1, 0, 200)[None]
    products = approximate.clone()
    products[0, 20] = 2  # the candidates before it, and the other end, have no error
    lists = CandidateLists(1)
    lists.add(approximate.clone(), torch.arange(200), torch.ones(200))
    exact = SimpleNamespace(scores=lambda q, rows: products[q, rows])
    _, (best, row) = Ranking(lists, exact).top(1).ends
    assert (best.item(), row.item()) == (2, 20)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_in_half_precision_are_searched(dtype):
    x, y = independent()
    run = trained(x, y, 60)
    run.model.to(dtype)
    splits = {"a": Split(Columns(x=x.to(dtype), y=y), Use.TRAIN)}
    run = replace(run, task=replace(run.task, splits=splits))
    influences = EMPIRICAL.prepare(run, Lab(dtype=dtype))
    asked = {"x": ASKED["x"].to(dtype), "y": ASKED["y"]}
    scores = influences(asked, cross_entropy).scores.float()
    top = influences.top(asked, cross_entropy, K)
    near = 0.03 * float(scores.abs().max())
    assert_close(top.scores.float(), scores.topk(K).values, rtol=0, atol=near)


def test_queries_that_are_cut_to_a_rank_are_cut_for_the_strongest_too():
    influences = replace(EMPIRICAL, rank=1).prepare(trained(*independent(), 60), LAB)
    scores = influences(ASKED, cross_entropy).scores
    assert_exact(influences.top(ASKED, cross_entropy, K), scores)


def test_one_query_and_one_example_each_way():
    run = trained(*independent(), 60)
    influences = EMPIRICAL.prepare(run, LAB)
    asked = {name: tensor[:1] for name, tensor in ASKED.items()}
    assert_exact(influences.top(asked, cross_entropy, 1), influences(asked, cross_entropy).scores)


def test_orthogonal_iteration_finds_terms_as_good_as_the_best():
    influences = EMPIRICAL.prepare(trained(*heavy_tails(), 60), LAB)
    for block in influences.factors.blocks.values():
        row, column = block.spread
        u, w, _ = kronecker_terms(block)

        def rest(u: Tensor, w: Tensor, block=block, row=row, column=column) -> float:
            return float((row[:, None] * (block.inverse - u.T @ w) * column).norm())

        for r in (1, 2, 3):
            assert rest(*leading_terms(block, r)) <= 1.01 * rest(u[:r], w[:r]) + 1e-12
