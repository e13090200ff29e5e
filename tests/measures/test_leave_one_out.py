import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Optimizer
from unseen.engine.retrain import query_outputs, retrain
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.leave_one_out import (
    RemovalCorrelation,
    correlation,
    first_order_effects,
    proportionality,
    removal_effects,
    without,
)
from unseen.objectives import regress
from unseen.task import Axis, Split, Task, Use

LAB = Lab(seed=1, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64)


def prediction(model: nn.Module, batch: dict) -> torch.Tensor:
    return model(batch["x"]).squeeze(1)


def test_ridge_regression_without_one_example_or_a_group_equals_the_closed_form():
    """(Σ xxᵀ/m + λ)⁻¹ Σ xy/m over the m that are left; for one example that is Cook's leverage
    formula.
    """
    n, d, decay = 12, 3, 0.5
    x, y, asked = normal(n, d), normal(n, 1, seed=1), normal(6, d, seed=2)
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN),
        "test": Split(Columns(x=asked, y=asked[:, :1]), Use.EVALUATE),
    }
    task = Task(name="ridge", axis=Axis.IID, splits=splits, objective=regress)
    budget = Budget(steps=80, batch_size=n, lr=0.5, optimizer=Optimizer.SGD, weight_decay=decay)

    def closed(rows: torch.Tensor, decay: float = decay) -> torch.Tensor:
        a, b = x[rows], y[rows]
        hessian = a.T @ a / len(a) + decay * torch.eye(d, dtype=torch.float64)
        return (asked @ torch.linalg.solve(hessian, a.T @ b / len(a))).squeeze(1)

    def again(kept: torch.Tensor) -> list:
        return retrain(lambda: nn.Linear(d, 1, bias=False), task, kept, budget, LAB)

    kept = without(n, [*torch.arange(n), torch.tensor([2, 5, 11])])
    left, full = [*again(kept[:n]), *again(kept[n:])], again(torch.ones(1, n, dtype=torch.bool))
    data = task.splits["test"].data
    effects = removal_effects(
        query_outputs(left, data, prediction, LAB), query_outputs(full, data, prediction, LAB)[0]
    )
    everything = torch.ones(n, dtype=torch.bool)
    assert_close(
        effects,
        torch.stack([closed(rows) - closed(everything) for rows in kept], 1),
        rtol=1e-6,
        atol=1e-9,
    )

    # least squares without decay: x_q (XᵀX)⁻¹ x_i e_i / (1 − h_i) is what example i contributes
    # (Cook & Weisberg, 1982)
    inverse = torch.linalg.inv(x.T @ x)
    residual, leverage = (y - x @ inverse @ x.T @ y).squeeze(1), (x @ inverse * x).sum(1)
    cook = -(asked @ inverse @ x.T) * residual / (1 - leverage)
    plain = [closed(rows, 0.0) - closed(everything, 0.0) for rows in kept[:n]]
    assert_close(torch.stack(plain, 1), cook)


def test_first_order_credits_foretell_single_removals_of_a_large_sample():
    n, d = 400, 3
    x, y, asked = normal(n, d), normal(n, 1, seed=1), normal(5, d, seed=2)
    inverse = torch.linalg.inv(x.T @ x / n)
    theta = inverse @ x.T @ y / n
    scores = -asked @ inverse @ ((x @ theta - y) * x).T / n
    residual, leverage = (y - x @ theta).squeeze(1), (x @ inverse * x).sum(1) / n
    actual = -(asked @ inverse @ x.T / n) * residual / (1 - leverage)
    predicted = first_order_effects(scores, without(n, torch.arange(n)))
    assert correlation(predicted, actual).value > 0.999
    assert proportionality(predicted, actual).value == pytest.approx(1, abs=0.03)


def test_correlation_and_slope_equal_numpy_and_ignore_what_they_should():
    a, b = normal(4, 9), normal(4, 9, seed=1)
    r, slope = correlation(a, b), proportionality(a, b)
    assert_close(
        r.detail,
        torch.stack([torch.corrcoef(torch.stack(rows))[0, 1] for rows in zip(a, b, strict=True)]),
    )
    assert slope.detail[2].item() == pytest.approx(
        torch.linalg.lstsq(a[2:3].T, b[2:3].T).solution.item()
    )
    order = torch.randperm(9, generator=Lab(2).generator())
    assert_close(correlation(a[:, order] * 5 - 1, b[:, order]).detail, r.detail)
    assert proportionality(a, 3 * a).value == pytest.approx(3)


def test_groups_add_up_and_pairs_of_repeats_cancel():
    scores, kept = normal(3, 8), without(8, [torch.tensor([1, 4]), torch.tensor([0])])
    assert_close(
        first_order_effects(scores, kept),
        torch.stack([-scores[:, 1] - scores[:, 4], -scores[:, 0]], 1),
    )
    full, shift = normal(5, 3), normal(5, 1, seed=3)
    left = (
        full[None]
        - torch.stack([first_order_effects(scores, kept)[:, g] for g in range(2)])[:, None] * -1
    )
    effects = removal_effects(
        left + shift, full + shift
    )  # luck that a repeat shares leaves no trace
    assert_close(effects, first_order_effects(scores, kept))


def test_refusals():
    with pytest.raises(InvalidData, match=r"\[9\] cannot be removed from 9"):
        without(9, torch.tensor([9]))
    with pytest.raises(InvalidData, match=r"\[\] cannot be removed"):
        without(9, [torch.tensor([], dtype=torch.int64)])
    with pytest.raises(InvalidData, match="1 of 2 queries change equally"):
        correlation(
            torch.stack([normal(5), torch.ones(5, dtype=torch.float64)]), normal(2, 5, seed=1)
        )
    with pytest.raises(InvalidData, match="no predicted change"):
        proportionality(torch.zeros(2, 5, dtype=torch.float64), normal(2, 5))
    table = {
        "scores": normal(3, 8),
        "kept": without(8, torch.arange(4)),
        "left": normal(4, 2, 3),
        "full": normal(1, 3),
    }
    with pytest.raises(InvalidData, match="same repeats"):
        RemovalCorrelation()(table, LAB)
