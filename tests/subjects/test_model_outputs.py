"""A person's model runs in its own number format, and probabilities read as logits are said."""

import pytest
import torch
from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.objectives import binary, classify
from unseen.questions.audit.job import Audit, Subject
from unseen.subjects.session import open_session
from unseen.task import Axis, Split, Task, Use

G = torch.Generator().manual_seed(0)
X = torch.randn(60, 4, generator=G)
DATA = Columns(x=X, y=(X[:, 0] > 0).long())
NAMELESS = {
    *("features", "leaks", "slices", "labels of a site"),
    *("copied rows", "columns recorded otherwise", "why sites differ", "decision threshold"),
}
"""Parts of an audit that need the names of the inputs, or more than a few examples of a site."""
BUDGET = Budget(steps=10, batch_size=20)


def subject_of(model, objective=classify, **more) -> Subject:
    splits = {"train": Split(DATA, Use.TRAIN, "a"), "new": Split(DATA, Use.EVALUATE, "b")}
    task = Task(name="t", axis=Axis.SITE, objective=objective, splits=splits)
    return Subject(task=task, model=model, budget=BUDGET, **more)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("given", [True, False])
def test_a_model_runs_in_its_own_dtype(dtype, given):
    seen = set()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 2, dtype=dtype)

        def forward(self, x):
            seen.update({x.dtype, self.out.weight.dtype})
            return self.out(x)

    subject = subject_of(Net, trained=Net() if given else None)
    # without the measures: the path norm is that of a copy in float64
    found = Audit(seeds=1, remedies={}, measures={})(subject, Lab())
    assert seen == {dtype}
    assert len([score for score in found.scores if score.model == found.name]) == 6
    more = {part: why for part, why in found.skipped.items() if part not in NAMELESS}
    assert not more


def test_a_model_of_several_dtypes_runs_in_the_widest():
    subject = subject_of(
        lambda: nn.Sequential(nn.Linear(4, 4, dtype=torch.float64), nn.Linear(4, 2))
    )
    assert open_session(subject, Lab()).lab.dtype is torch.float64


def test_a_dtype_that_was_asked_for_stands():
    session = open_session(subject_of(lambda: nn.Linear(4, 2)), Lab(dtype=torch.float64))
    assert session.lab.dtype is torch.float64


CASES = {
    "softmax": (lambda: nn.Sequential(nn.Linear(4, 2), nn.Softmax(-1)), classify, "softmax"),
    "sigmoid": (lambda: nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), binary, "sigmoid"),
    "log-softmax": (
        lambda: nn.Sequential(nn.Linear(4, 2), nn.LogSoftmax(-1)),
        classify,
        "LogSoftmax",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_that_are_no_logits_are_said(case):
    make, objective, word = CASES[case]
    found = Audit(seeds=1, remedies={}, measures={})(subject_of(make, objective), Lab())
    assert any(word in text for text in found.warnings), found.warnings


@pytest.mark.parametrize(
    ("make", "objective"),
    [(lambda: nn.Linear(4, 2), classify), (lambda: nn.Linear(4, 1), binary)],
)
def test_logits_are_not_taken_for_probabilities(make, objective):
    assert not open_session(subject_of(make, objective), Lab()).subject.warnings
