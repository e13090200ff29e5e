"""What is wrong with a loss, a score or the data is said where it is first seen, by its name."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example, scores
from unseen.engine.example_values import example_values
from unseen.engine.loop import Budget
from unseen.engine.vectorized.choose import train_many
from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.sharpness import SAMSharpness, TopEigenvalue
from unseen.method import Trained
from unseen.methods.erm import ERM
from unseen.methods.sam import SAM
from unseen.objectives import classify, regress
from unseen.questions.audit.job import Audit, Subject
from unseen.task import Axis, Objective, Split, Task, Use

G = torch.Generator().manual_seed(0)
X = torch.randn(60, 4, generator=G)
BUDGET = Budget(steps=8, batch_size=20)


def every_pair(model, batch):
    """The classic: predictions [n, 1] against targets [n]."""
    return (model(batch["x"]) - batch["y"]).square()


def one_per_label(model, batch):
    targets = (batch["x"][:, :3] > 0).float()
    return F.binary_cross_entropy_with_logits(
        model(batch["x"]).expand(-1, 3), targets, reduction="none"
    )


def column_vector(model, batch):
    return (model(batch["x"]) - batch["y"][:, None]).square()


def averaged(model, batch):
    return column_vector(model, batch).mean()


def task_of(objective: Objective = regress, **columns: torch.Tensor) -> Task:
    data = Columns(**(columns or {"x": X, "y": X[:, 0]}))
    return Task(
        name="t",
        axis=Axis.SITE,
        objective=objective,
        splits={"train": Split(data, Use.TRAIN, "a"), "new": Split(data, Use.EVALUATE, "b")},
    )


def net() -> nn.Module:
    return nn.Linear(4, 1)


WRONG = {
    "[n, n]": (every_pair, r"\[20, 20\]|\[60, 60\]", "squeeze"),
    "[n, k]": (one_per_label, r"\[20, 3\]|\[60, 3\]", "mean"),
    "[n, 1]": (column_vector, r"\[20, 1\]|\[60, 1\]", "squeeze"),
    "mean": (averaged, r"\[\]", "reduction"),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("case", WRONG)
def test_shapes_other_than_one_number_per_example_are_refused_everywhere(case):
    f, shape, fix = WRONG[case]
    wrong = task_of(Objective(f, f))
    trained = Trained(net(), wrong)
    requests = {
        "training": lambda: ERM(BUDGET).fit(net(), wrong, Lab()),
        "another step": lambda: SAM(budget=BUDGET).fit(net(), wrong, Lab()),
        "together": lambda: train_many(
            [net(), net(), net()], wrong, ERM(BUDGET).step, replace(BUDGET, steps=80), [Lab()] * 3
        ),
        "scores": lambda: scores(trained, Lab()),
        "curvature": lambda: TopEigenvalue(split="train")(trained, Lab()),
        "sharpness": lambda: SAMSharpness(split="train")(trained, Lab()),
        "audit": lambda: Audit(seeds=1, remedies={})(
            Subject(task=wrong, model=net, budget=BUDGET), Lab()
        ),
    }
    for request in requests.values():
        with pytest.raises(InvalidData, match=shape) as found:
            request()
        assert fix in found.value.fix


def test_a_score_of_another_shape_is_refused_though_the_loss_is_right():
    right = replace(regress, score=column_vector)
    with pytest.raises(InvalidData, match=r"\[60, 1\]"):
        scores(Trained(net(), task_of(right)), Lab())


def test_a_missing_column_says_which_columns_exist_near_names_first():
    task = task_of(attention_mask=X, xs=X, labels=X[:, 0])
    for request in (
        lambda: ERM(BUDGET).fit(net(), task, Lab()),
        lambda: scores(Trained(net(), task), Lab()),
        lambda: train_many(
            [net(), net()], task, ERM(BUDGET).step, replace(BUDGET, steps=80), [Lab()] * 2
        ),
    ):
        with pytest.raises(UnknownName, match="no column `x`") as found:
            request()
        assert found.value.why == "the columns are `xs`, `attention_mask`, `labels`."


def test_a_key_error_of_something_else_stays_what_it_is():
    def fails(model, batch):
        return {"a": 1}["x"]

    with pytest.raises(KeyError):
        example_values(fails, net(), {"x": X})


@dataclass
class Outputs:
    """As transformers' models return."""

    logits: torch.Tensor


class Pretrained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return Outputs(self.out(x))


def test_outputs_of_transformers_point_at_the_adapter():
    task = task_of(classify, x=X, y=(X[:, 0] > 0).long())
    for request in (
        lambda: ERM(BUDGET).fit(Pretrained(), task, Lab()),
        lambda: scores(Trained(Pretrained(), task), Lab()),
    ):
        with pytest.raises(InvalidData, match="returned a Outputs, not a tensor") as found:
            request()
        assert "SequenceClassifier" in found.value.fix


@pytest.mark.parametrize("together", [False, True])
def test_nan_in_an_input_is_named_and_no_matter_of_the_learning_rate(together):
    x = X.clone()
    x[7, 2] = torch.nan
    task = task_of(x=x, y=X[:, 0])

    def train():
        if together:
            budget = replace(BUDGET, steps=80)
            return train_many([net(), net(), net()], task, ERM(budget).step, budget, [Lab()] * 3)
        return ERM(BUDGET).fit(net(), task, Lab())

    named = "Column `x` of split `train` holds NaN: example 7, entry 2"
    with pytest.raises(InvalidData, match=named):
        train()


def test_nan_in_an_evaluated_split_is_named_by_the_audit():
    task = task_of()
    x = X.clone()
    x[9, 1] = torch.inf
    bad = Split(Columns(x=x, y=X[:, 0]), Use.EVALUATE, "c")
    task = replace(task, splits={**task.splits, "broken": bad})
    found = Audit(seeds=1, remedies={}, measures={})(
        Subject(task=task, model=net, budget=BUDGET), Lab()
    )
    assert (
        "`x` of split `broken` holds an infinite number: example 9"
        in found.skipped["split `broken`"]
    )


def test_per_example_values_pass_unchanged():
    assert per_example(net(), Columns(x=X, y=X[:, 0]), regress.loss, Lab()).shape == (60,)
