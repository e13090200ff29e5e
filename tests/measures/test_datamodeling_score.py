import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Optimizer
from unseen.engine.retrain import query_outputs, retrain
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.datamodeling_score import DatamodelingScore, datamodeling_score, random_subsets
from unseen.objectives import regress
from unseen.task import Axis, Split, Task, Use

LAB = Lab(seed=5, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64)


def test_equals_scipy_query_by_query():
    scores, kept, outputs = normal(7, 30), random_subsets(30, 25, LAB), normal(25, 7, seed=1)
    outputs[3] = outputs[4]  # ties
    found = datamodeling_score(scores, kept, outputs)
    each = [
        spearmanr([scores[q][rows].sum().item() for rows in kept], outputs[:, q].numpy()).statistic
        for q in range(7)
    ]
    assert_close(found.detail, torch.tensor(each, dtype=torch.float64))
    assert found.value == pytest.approx(np.mean(each))
    assert found.low < found.value < found.high
    assert found.n == 7


def test_exact_influence_on_ridge_regression_foretells_retraining():
    """A linear model: influence orders the halves nearly as training on them does; its negative in
    reverse.
    """
    n, d, decay = 200, 4, 0.1
    x, noise = normal(n, d), normal(n, 1, seed=1)
    y = x @ normal(d, 1, seed=2) + noise
    asked = normal(10, d, seed=3)
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN),
        "test": Split(Columns(x=asked, y=asked[:, :1]), Use.EVALUATE),
    }
    task = Task(name="ridge", axis=Axis.IID, splits=splits, objective=regress)
    kept = random_subsets(n, 40, LAB)
    budget = Budget(steps=60, batch_size=n, lr=0.7, optimizer=Optimizer.SGD, weight_decay=decay)
    models = retrain(lambda: nn.Linear(d, 1, bias=False), task, kept, budget, LAB)
    outputs = query_outputs(
        models, task.splits["test"].data, lambda m, b: m(b["x"]).squeeze(1), LAB
    ).mean(1)
    hessian = x.T @ x / n + decay * torch.eye(d, dtype=torch.float64)
    theta = torch.linalg.solve(hessian, x.T @ y / n)
    gradients = (x @ theta - y) * x  # of ½ (xθ − y)²
    scores = -asked @ torch.linalg.solve(hessian, gradients.T) / n
    found = datamodeling_score(scores, kept, outputs)
    assert found.value > 0.95
    assert datamodeling_score(-scores, kept, outputs).value == pytest.approx(-found.value)


def test_only_ranks_and_differences_between_examples_count():
    scores, kept = normal(4, 20), random_subsets(20, 30, LAB)
    outputs = kept.double() @ scores.T + 0.5 * normal(30, 4, seed=1)
    value = datamodeling_score(scores, kept, outputs).value
    shift = normal(
        4, 1, seed=2
    )  # subsets are of one size: a constant per query adds the same to every sum
    assert datamodeling_score(3 * scores + shift, kept, outputs.exp()).value == pytest.approx(value)
    order = torch.randperm(20, generator=Lab(1).generator())
    assert datamodeling_score(scores[:, order], kept[:, order], outputs).value == pytest.approx(
        value
    )
    assert datamodeling_score(scores, kept, kept.double() @ scores.T).value == pytest.approx(1)


def test_interval_covers_the_score_of_endless_subsets():
    """A score of 0 by construction: the interval holds it in about 95 of 100 draws, although
    queries share subsets.
    """
    hits = 0
    for seed in range(60):
        shared = normal(
            30, 1, seed=seed
        )  # outputs of one draw agree: intervals over queries alone would be far too narrow
        outputs = shared + 0.3 * normal(30, 8, seed=100 + seed)
        scores = normal(1, 16, seed=200 + seed) + 0.3 * normal(8, 16, seed=300 + seed)
        found = datamodeling_score(scores, random_subsets(16, 30, Lab(seed)), outputs)
        hits += found.low <= 0 <= found.high
    assert hits >= 54


def test_subsets_have_their_size_and_differ():
    kept = random_subsets(40, 15, LAB, share=0.3)
    assert (kept.sum(1) == 12).all()
    assert len(kept.unique(dim=0)) == 15
    assert torch.equal(kept, random_subsets(40, 15, LAB, share=0.3))
    with pytest.raises(InvalidConfig, match="keeps 10 examples"):
        random_subsets(10, 3, LAB, share=1.0)


def test_refusals():
    scores, kept, outputs = normal(3, 20), random_subsets(20, 12, LAB), normal(12, 3)
    table = {"scores": scores, "kept": kept, "outputs": outputs}
    with pytest.raises(InvalidData, match="NaN"):
        DatamodelingScore()({**table, "outputs": outputs * torch.nan}, LAB)
    with pytest.raises(InvalidData, match="five subsets"):
        DatamodelingScore()({**table, "kept": kept[:, :19]}, LAB)
    with pytest.raises(InvalidData, match="1 of 3 queries have the same value"):
        DatamodelingScore()(
            {**table, "scores": torch.cat([scores[:2], torch.ones(1, 20, dtype=torch.float64)])},
            LAB,
        )
