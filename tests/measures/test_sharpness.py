"""Oracle: linear regression, whose loss is a quadratic with a Hessian that can be written down."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.sharpness import (
    AverageSharpness,
    HessianTrace,
    SAMSharpness,
    TopEigenvalue,
    examples,
)
from unseen.method import Trained
from unseen.objectives import regress
from unseen.task import Axis, Split, Task, Use

LAB = Lab(dtype=torch.float64)
MEASURES = [TopEigenvalue(), HessianTrace(), SAMSharpness(), AverageSharpness(draws=4)]


def linear(n: int = 40, d: int = 4) -> tuple[Trained, torch.Tensor, torch.Tensor]:
    """The model, the Hessian Σ x xᵀ / n of its mean loss, and the gradient."""
    g = Lab(5).generator()
    x, y = (torch.randn(n, k, generator=g, dtype=torch.float64) for k in (d, 1))
    with Lab(6).seeded():
        model = nn.Linear(d, 1, bias=False).double()
    task = Task(
        name="line",
        axis=Axis.IID,
        splits={"train": Split(Columns(x=x, y=y), Use.TRAIN)},
        objective=regress,
    )
    error = x @ model.weight.detach().T - y
    return Trained(model, task), x.T @ x / n, (x.T @ error / n).squeeze(1)


def test_top_eigenvalue_and_trace_of_a_quadratic():
    subject, h, _ = linear()
    top = TopEigenvalue(tolerance=1e-8)(subject, LAB)
    assert top.value == pytest.approx(float(torch.linalg.eigvalsh(h)[-1]), rel=1e-8)
    assert top.low <= top.value <= top.high
    trace = HessianTrace(draws=400)(subject, LAB)
    assert trace.low <= float(h.trace()) <= trace.high
    assert trace.high - trace.low < 0.2 * float(h.trace())


def test_sam_sharpness_of_a_quadratic():
    subject, h, g = linear()
    rho = 0.3
    step = rho * g / g.norm()
    reading = SAMSharpness(rho=rho)(subject, LAB)
    assert reading.value == pytest.approx(float(g @ step + step @ h @ step / 2), rel=1e-10)
    assert reading.detail.mean().item() == pytest.approx(reading.value)
    assert reading.low < reading.value < reading.high


def test_average_sharpness_of_a_quadratic():
    subject, h, _ = linear()
    rho, d = 0.7, 4
    reading = AverageSharpness(rho=rho, draws=600)(subject, LAB)
    assert reading.low <= rho**2 * float(h.trace()) / (2 * (d + 2)) <= reading.high
    assert reading.high - reading.low < 0.2 * reading.value


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: type(m).__name__)
def test_model_unchanged_and_repeated_examples_do_not_matter(measure):
    subject, *_ = linear()
    subject.model.train()
    before = copy.deepcopy(subject.model.state_dict())
    once = measure(subject, LAB)
    assert measure(subject, LAB).value == once.value
    assert_close(dict(subject.model.state_dict()), dict(before), rtol=0, atol=0)
    assert subject.model.training
    assert subject.model.weight.grad is None
    data = subject.task.splits["train"].data
    doubled = Columns(**{k: torch.cat([v, v]) for k, v in data.columns.items()})
    task = Task(
        name="twice", axis=Axis.IID, splits={"train": Split(doubled, Use.TRAIN)}, objective=regress
    )
    assert measure(Trained(subject.model, task), LAB).value == pytest.approx(once.value, rel=1e-9)


def test_only_the_first_examples_are_read():
    subject, *_ = linear(n=40)
    assert sum(len(b["x"]) for b in examples(subject, "train", 7, LAB)) == 7
    assert TopEigenvalue(most=7)(subject, LAB).n == 7


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: type(m).__name__)
def test_refusals(measure):
    subject, *_ = linear()
    subject.model.requires_grad_(False)
    with pytest.raises(InvalidData, match="no trainable parameter"):
        measure(subject, LAB)
    with pytest.raises(UnknownName):
        type(measure)(split="trian")(subject, LAB)


def test_no_ascent_direction_and_no_radius():
    subject, *_ = linear()
    with torch.no_grad():
        data = subject.task.splits["train"].data.columns
        data["y"].copy_(data["x"] @ subject.model.weight.T)
    with pytest.raises(InvalidData, match=r"is 0\.0"):
        SAMSharpness()(subject, LAB)
    for kind in (SAMSharpness, AverageSharpness):
        with pytest.raises(InvalidConfig, match="rho=-1"):
            kind(rho=-1)(subject, LAB)
