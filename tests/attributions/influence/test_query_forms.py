"""Queries as sums of few terms are the inverse itself, for every example."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from unseen.attributions.influence import Fisher, Influence, Precision
from unseen.attributions.influence import preconditioned_queries as forms
from unseen.attributions.influence.query_forms import low_rank
from unseen.engine.batches import Columns
from unseen.engine.factor_pairs import FactorPair
from unseen.engine.kron import KroneckerBlock
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify, cross_entropy
from unseen.task import Axis, Split, Task, Use

WIDTHS = (50, 40, 40, 3)


def log_likelihood(model, batch):
    return -cross_entropy(model, batch)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e5, 1e6, 1e8])
def test_one_large_example_does_not_decide_how_exact_the_others_are(size):
    with Lab().child("outlier").seeded():
        x = torch.randn(400, WIDTHS[0], dtype=torch.float64)
        y = (x[:, 0] > 0).long() + (x[:, 1] > 1).long()
        queries = {"x": torch.randn(10, WIDTHS[0], dtype=torch.float64), "y": y[:10]}
        layers = [part for i, o in pairwise(WIDTHS) for part in (nn.Linear(i, o), nn.ReLU())]
        model = nn.Sequential(*layers[:-1]).double()
    x[7] *= size
    splits = {"train": Split(Columns(x=x, y=y), Use.TRAIN)}
    task = Task(name="outlier", axis=Axis.IID, splits=splits, objective=classify)
    config = Influence(fisher=Fisher.EXACT, precision=Precision.FULL, layers=("*",))
    found = config.prepare(Trained(model, task), Lab(dtype=torch.float64))
    gradients = found.gradients(queries, log_likelihood)
    wanted = found.scores_of({n: found.factors.blocks[n].solve(v) for n, v in gradients.items()})
    others = torch.arange(400) != 7
    error = (found(queries, log_likelihood).scores - wanted)[:, others].abs().amax(1)
    assert bool((error <= 2e-5 * wanted[:, others].abs().amax(1)).all())


@pytest.mark.parametrize("size", [1e-35, 1e-22, 1e22, 1e35])
@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_matrices_of_any_size_are_cut_to_the_same_rank(shape, size):
    p = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    cut = low_rank(p * size, 2)
    u, s, v = torch.linalg.svd(p.double())
    wanted = u[..., :2] @ torch.diag_embed(s[:, :2]) @ v[:, :2]
    found = (cut.left.double() @ cut.right.double()) / size
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_few_terms_are_used_where_they_are_exact(monkeypatch):
    made = []
    plain = forms.terms
    monkeypatch.setattr(forms, "terms", lambda *given: made.append(1) or plain(*given))
    values = torch.outer(torch.rand(40) + 1, torch.rand(50) + 1)  # of rank one, as its inverse
    block = KroneckerBlock(torch.eye(40), torch.eye(50), values, positions=1.0)
    pair = FactorPair(torch.randn(4, 1, 50), torch.randn(4, 1, 40))
    form = forms.build_queries(block, [pair], Precision.FULL)
    v = pair.gradients()
    wanted = torch.einsum("qoi,boi->qb", v * block.inverse, v)
    assert torch.allclose(form.score(pair), wanted, rtol=1e-4, atol=1e-5)
    assert made
