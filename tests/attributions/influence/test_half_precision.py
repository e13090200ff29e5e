"""Sums of outer products in bfloat16, and factors whose first pass ran in it."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from unseen.attributions.influence import Fisher, Influence, Precision, attributor
from unseen.attributions.influence.layers import half_precision
from unseen.engine.batches import Columns
from unseen.engine.factor_pairs import RowBlocks, SumSoFar, gram
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify, cross_entropy
from unseen.task import Axis, Split, Task, Use


def positions(seed: int, n: int = 4096, d: int = 600, mean: float = 1.0) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    return (torch.randn(n, d, generator=made) * torch.linspace(0.1, 2, d) + mean).bfloat16()


def distance(found: torch.Tensor, true: torch.Tensor) -> float:
    """Spectral, over the mean eigenvalue."""
    return float(torch.linalg.matrix_norm(found.double() - true, 2) / true.trace() * len(true))


@pytest.mark.parametrize("batches", [1, 9])
def test_a_sum_of_outer_products_in_half_precision_is_that_of_its_entries(batches):
    x = positions(0)
    true = x.double().T @ x.double()
    earlier = sum(positions(k).double().T @ positions(k).double() for k in range(1, batches + 1))
    found = gram(x, SumSoFar(earlier.float(), batches))
    assert found.dtype == torch.float32
    assert torch.equal(found, found.T)
    assert distance(found, true) < 5e-3 * batches**0.5
    assert distance(x.T @ x, true) > 6 * distance(found, true)  # the product alone, rounded


@pytest.mark.parametrize("earlier", [None, SumSoFar(None, 1.0), SumSoFar(torch.eye(600), 1.0)])
def test_without_a_near_sum_the_product_is_in_float32(earlier):
    x = positions(0)
    assert torch.equal(gram(x, earlier), gram(x.float()))


class Attentive(nn.Module):
    """Words, attention, a class."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(13, 32)
        self.mix, self.up, self.out = nn.Linear(32, 96), nn.Linear(32, 64), nn.Linear(64, 3)

    def forward(self, x):
        q, k, v = self.mix(self.words(x))[:, None].chunk(3, -1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]
        return self.out(self.up(mixed).tanh()).mean(1)


def test_half_precision_keeps_the_ranks_of_scores(monkeypatch):
    monkeypatch.setattr(attributor, "worth_asking", lambda *given: True)
    torch.manual_seed(0)
    x = torch.randint(0, 13, (96, 12), generator=torch.Generator().manual_seed(1))
    data = Columns(x=x, y=x[:, -4:].sum(1) % 3)
    splits = {"train": Split(data, Use.TRAIN)}
    task = Task(name="half", axis=Axis.IID, splits=splits, objective=classify)
    subject = Trained(Attentive().eval(), task)
    config = Influence(fisher=Fisher.EMPIRICAL, layers=("mix", "up", "out"), batch_size=16)
    queries = data[:6]
    full, half = (
        replace(config, precision=precision)
        .prepare(subject, Lab())(queries, lambda model, batch: -cross_entropy(model, batch))
        .scores
        for precision in (Precision.FULL, Precision.BFLOAT16)
    )
    assert spearmanr(full.flatten(), half.flatten()).statistic > 0.999


def test_half_precision_leaves_attention_as_it_was():
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    kernels = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()

    def fail_inside(length: int) -> None:
        with half_precision({"x": torch.zeros(2, length)}):
            assert torch.is_autocast_enabled("cpu")
            assert torch.backends.cuda.flash_sdp_enabled() is (length > 256)
            raise KeyError

    for length in (12, 4096):
        with pytest.raises(KeyError):
            fail_inside(length)
        assert torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed() is before
        now = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()
        assert now == kernels


def test_the_first_queries_are_a_part_of_all():
    blocks = RowBlocks((5, 4, 3), torch.zeros(()), torch.float32)
    p = torch.arange(60.0).view(5, 4, 3)
    blocks.put(0, p)
    assert torch.equal(blocks.first(2).whole(), p[:2])
    assert blocks.n == 5
