import pytest
import torch
from scipy import stats as scipy_stats
from torch import nn
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.engine.evaluate import outputs, per_example, score, scores
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.objectives import classify, cross_entropy, regress
from unseen.task import Axis, Split, Task, Use

LAB = Lab(dtype=torch.float64)


def subject(objective=classify, n: int = 50, dropout: float = 0.5) -> Trained:
    g = Lab(2).generator()
    x = torch.randn(n, 3, generator=g, dtype=torch.float64)
    y = torch.randint(2, (n,), generator=g) if objective is classify else x[:, :1]
    with Lab(1).seeded():
        model = mlp([3, 4, 2 if objective is classify else 1], dropout=dropout).double().train()
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN),
        "test": Split(Columns(x=x[:20], y=y[:20]), Use.EVALUATE),
    }
    return Trained(model, Task(name="t", axis=Axis.IID, splits=splits, objective=objective))


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_per_example_equals_one_by_one_in_evaluation_mode(batch_size):
    trained = subject()
    data = trained.task.splits["train"].data
    got = per_example(trained.model, data, cross_entropy, LAB, batch_size)
    assert trained.model.training  # the mode is given back
    trained.model.eval()
    wanted = [float(cross_entropy(trained.model, data[i : i + 1]).detach()) for i in range(50)]
    assert got.tolist() == pytest.approx(wanted)
    assert not got.requires_grad
    assert_close(
        outputs(trained.model, data, LAB, batch_size=batch_size),
        trained.model(data.columns["x"]).detach(),
    )


def test_mode_is_given_back_after_an_error():
    trained = subject()

    def fails(model: nn.Module, batch) -> torch.Tensor:
        raise ValueError

    with pytest.raises(ValueError):
        per_example(trained.model, trained.task.splits["train"].data, fails, LAB)
    assert trained.model.training


def test_accuracy_has_wilsons_and_other_scores_students_interval():
    trained = subject()
    reading = score(trained.model, trained.task, trained.task.splits["train"], LAB)
    hits = int(reading.detail.sum())
    wilson = scipy_stats.binomtest(hits, 50).proportion_ci(method="wilson")
    assert (reading.value, reading.low, reading.high, reading.n) == pytest.approx(
        (hits / 50, *wilson, 50)
    )
    trained = subject(regress)
    reading = score(trained.model, trained.task, trained.task.splits["train"], LAB)
    values = reading.detail.numpy()
    t = scipy_stats.ttest_1samp(values, 0).confidence_interval()
    assert (reading.value, reading.low, reading.high) == pytest.approx(
        (values.mean(), t.low, t.high)
    )


def test_scores_cover_all_or_the_given_splits():
    trained = subject()
    assert list(scores(trained, LAB)) == ["train", "test"]
    assert list(scores(trained, LAB, trained.task.of(Use.EVALUATE))) == ["test"]
    assert scores(trained, LAB)["test"].n == 20


def test_an_empty_split_is_refused():
    trained = subject()
    with pytest.raises(InvalidData, match="no examples"):
        score(
            trained.model,
            trained.task,
            Split(Columns(x=torch.zeros(0, 3), y=torch.zeros(0)), Use.EVALUATE),
            LAB,
        )
