import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from sklearn.inspection import permutation_importance
from torch import nn
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.feature_reliance import (
    FeatureReliance,
    FeatureShift,
    association,
    reliances,
    shifts,
    standardised_difference,
    total_variation,
)
from unseen.method import Trained
from unseen.objectives import classify, regress
from unseen.task import Axis, Split, Task, Use

LAB = Lab(dtype=torch.float64)


def trained(weights: torch.Tensor, n: int = 300, objective=classify) -> Trained:
    x = torch.randn(n, weights.shape[1], generator=Lab(1).generator(), dtype=torch.float64)
    model = nn.Linear(weights.shape[1], len(weights), bias=False).double()
    with torch.no_grad():
        model.weight.copy_(weights)
        noisy = model(
            x + 0.3 * torch.randn(x.shape, generator=Lab(2).generator(), dtype=torch.float64)
        )
    y = noisy.argmax(1) if objective is classify else noisy
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN),
        "test": Split(Columns(x=x, y=y), Use.EVALUATE),
    }
    return Trained(model, Task(name="t", axis=Axis.IID, splits=splits, objective=objective))


WEIGHTS = torch.tensor([[2.0, -1.0, 0.3, 0.0], [-2.0, 1.0, 0.0, 0.0]], dtype=torch.float64)


class Fitted:
    """A model for sklearn."""

    classes_ = np.array([0, 1])

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def fit(self, x, y):
        return self

    def predict(self, x):
        return self.model(torch.as_tensor(x)).argmax(1).detach().numpy()


def test_reliance_equals_sklearns_permutation_importance():
    subject = trained(WEIGHTS)
    data = subject.task.splits["test"].data.columns
    wanted = permutation_importance(
        Fitted(subject.model),
        data["x"].numpy(),
        data["y"].numpy(),
        scoring=lambda m, x, y: float((m.predict(x) == y).mean()),
        n_repeats=100,
        random_state=0,
    )
    found = reliances(subject, "test", {str(j): [j] for j in range(4)}, LAB, repeats=100)
    for j in range(4):
        error = (
            2 * wanted.importances_std[j] ** 2 / 100
        ) ** 0.5  # of a difference of two means of 100 permutations
        assert abs(found[str(j)].value - wanted.importances_mean[j]) <= 4 * error + 1e-12
    assert found["3"].value == found["3"].low == found["3"].high == 0  # the model ignores it


def test_expected_drop_of_a_linear_regression():
    """Score −|error|/1: with y = w x exactly, the drop is w · mean |x_i − x_π(i)|."""
    subject = trained(torch.tensor([[3.0, 0.0]], dtype=torch.float64), objective=regress)
    data = subject.task.splits["test"].data.columns
    data["y"].copy_(3 * data["x"][:, :1])
    reading = FeatureReliance(features=(0,), repeats=60)(subject, LAB)
    gaps = (data["x"][:, 0, None] - data["x"][None, :, 0]).abs()
    assert reading.value == pytest.approx(3 * float(gaps.mean()), rel=0.03)
    assert reading.low < 3 * float(gaps.mean()) < reading.high


def test_a_group_moves_together():
    """The model reads x0 − x1; exchanged together, copies stay copies and nothing is lost."""
    subject = trained(torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64), n=100)
    data = subject.task.splits["test"].data.columns
    data["x"][:, 1] = data["x"][:, 0]
    data["y"].zero_()
    found = reliances(subject, "test", {"both": (0, 1), "one": (0,)}, LAB)
    assert found["both"].value == 0
    assert found["one"].value > 0.2


def test_reliance_is_repeatable_and_does_not_depend_on_other_groups():
    subject = trained(WEIGHTS)
    alone = reliances(subject, "test", {"b": [1]}, LAB)["b"]
    among = reliances(subject, "test", {"a": [0], "b": [1]}, LAB)["b"]
    assert alone.value == among.value
    assert_close(alone.detail, among.detail)


def test_shift_statistics_equal_scipy_and_hand_formulas():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 3)), rng.normal(size=(150, 3)) * [1, 1, 3] + [0, 0.8, 0]
    found = shifts(torch.tensor(a), torch.tensor(b), ["same", "moved", "wider"])
    tests = [scipy_stats.ks_2samp(a[:, j], b[:, j]) for j in range(3)]
    assert [s.ks for s in found.values()] == pytest.approx([t.statistic for t in tests])
    order = np.argsort([t.pvalue for t in tests])
    ranked = [
        min(min(tests[order[k]].pvalue * 3 / (k + 1) for k in range(i, 3)), 1) for i in range(3)
    ]
    assert [list(found.values())[j].q for j in order] == pytest.approx(
        ranked
    )  # Benjamini–Hochberg by hand
    d = (b[:, 1].mean() - a[:, 1].mean()) / np.sqrt((a[:, 1].var(ddof=1) + b[:, 1].var(ddof=1)) / 2)
    assert found["moved"].difference.value == pytest.approx(d)
    assert found["moved"].difference.low > 0 > found["same"].difference.low
    assert found["wider"].total_variation > 0.25
    assert found["same"].total_variation < 0.25


def test_interval_of_the_difference_covers():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(400):
        reading = standardised_difference(rng.normal(size=60), rng.normal(0.5, 1, size=40))
        inside += reading.low <= 0.5 <= reading.high
    assert 365 <= inside <= 393  # 380 ± 3 standard errors, seed fixed


def test_total_variation_of_known_shares():
    a, b = np.repeat([0, 1, 2], [5, 5, 0]), np.repeat([0, 1, 2], [2, 4, 4])
    assert total_variation(a, b) == pytest.approx(0.4)
    assert total_variation(np.arange(100.0), np.arange(100.0) + 1000) == 1
    assert total_variation(np.arange(100.0), np.arange(100.0)) == 0


def test_shift_of_a_task_and_direction():
    x = torch.randn(50, 2, generator=Lab(3).generator(), dtype=torch.float64)
    splits = {
        "train": Split(Columns(x=x, y=x), Use.TRAIN),
        "test": Split(Columns(x=2 * x + 1, y=x), Use.EVALUATE),
    }
    task = Task(name="t", axis=Axis.IID, splits=splits, objective=regress)
    there = FeatureShift(1)(task, LAB)
    back = FeatureShift(1, reference="test", split="train")(task, LAB)
    assert there.value == pytest.approx(-back.value)
    assert there.low == pytest.approx(-back.high)


def test_refusals():
    subject = trained(WEIGHTS, n=20)
    with pytest.raises(InvalidConfig, match=r"\(4,\) of 4"):
        FeatureReliance(features=(4,))(subject, LAB)
    with pytest.raises(InvalidConfig, match="repeats=0"):
        FeatureReliance(repeats=0)(subject, LAB)
    with pytest.raises(UnknownName, match="column"):
        FeatureReliance(column="age")(subject, LAB)
    subject.task.splits["test"].data.columns["x"][3, 1] = torch.nan
    with pytest.raises(InvalidData, match="1 values not finite"):
        FeatureReliance()(subject, LAB)
    x = torch.zeros(5, 2)
    with pytest.raises(InvalidData, match="2 and 1 features"):
        shifts(x, x[:, :1])
    with pytest.raises(InvalidData, match="1 examples"):
        shifts(x, x[:1])
    with pytest.raises(InvalidData, match="1 values not finite"):
        shifts(x, torch.where(torch.arange(10).view(5, 2) == 3, torch.nan, x))


@pytest.mark.parametrize("together", [1, 4 * 300, 10**9])
@pytest.mark.parametrize("objective", [classify, regress])
def test_shuffling_in_batches_equals_one_shuffle_at_a_time(together, objective, monkeypatch):
    monkeypatch.setattr("unseen.measures.feature_reliance.MOST_TOGETHER", together)
    subject = trained(WEIGHTS, objective=objective)
    data, score = subject.task.splits["test"].data, objective.score
    found = reliances(subject, "test", {"both": (0, 2)}, LAB, repeats=5)["both"]
    drops = []
    for k in range(5):
        order = torch.randperm(300, generator=LAB.child("permute", "both", k).generator())
        x = data.columns["x"].clone()
        x[:, [0, 2]] = x[order][:, [0, 2]]
        with torch.no_grad():
            before = score(subject.model, data.columns)
            drops.append(before - score(subject.model, {**data.columns, "x": x}))
    assert_close(found.detail, torch.stack(drops).mean(0), rtol=0, atol=1e-12)


def test_association_is_the_largest_correlation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    x[:, 3] = 7.0
    y = np.where(x[:, 0] > 0.5, 2, np.where(x[:, 1] > 0, 1, -1))
    found = association(torch.tensor(x), torch.tensor(y)).numpy()
    wanted = [max(abs(np.corrcoef(x[:, j], y == c)[0, 1]) for c in (-1, 1, 2)) for j in range(3)]
    np.testing.assert_allclose(found, [*wanted, 0.0], atol=1e-12)
    number = association(torch.tensor(x), torch.tensor(2 * x[:, 1] + 5))
    assert number.argmax() == 1
    assert number[1].item() == pytest.approx(1.0)
