"""Visual, subjective and embedding complexity against closed forms and small models."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from unseen.engine.attributes import layer_outputs
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.concept_complexity import (
    EmbeddingComplexity,
    SubjectiveComplexity,
    VisualComplexity,
    centroid_complexity,
    embedding_complexity,
    image_entropy,
    ranked_attributes,
    subjective_complexity,
    youden,
)
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


def test_entropy_of_a_constant_image_is_that_of_its_border():
    """Zeros outside: the interior is one pair, sides and corners are two more."""
    n = 30
    shares = [(n - 2) ** 2 / n**2, 4 * (n - 2) / n**2, 4 / n**2]
    expected = -sum(p * math.log2(p) for p in shares)
    assert float(image_entropy(torch.ones(1, 3, n, n), side=None)) == pytest.approx(expected)
    assert float(image_entropy(torch.zeros(1, 1, n, n), side=None)) == 0


def test_entropy_of_a_checkerboard_is_a_bit_more_than_that_of_its_border():
    """Interior, sides and corners have neighbourhoods of their own, each half black, half white."""
    n = 64
    rows = torch.arange(n)
    board = ((rows[:, None] + rows) % 2).float()[None, None]
    shares = [(n - 2) ** 2 / n**2, 4 * (n - 2) / n**2, 4 / n**2]
    expected = 1 - sum(p * math.log2(p) for p in shares)
    assert float(image_entropy(board, side=None)) == pytest.approx(expected)


def test_entropy_of_noise_lies_just_below_that_of_equal_pairs():
    noise = torch.rand(1, 1, 224, 224, generator=torch.Generator().manual_seed(0))
    planes = (noise * 255).round()
    kernel = torch.ones(1, 1, 3, 3)
    kernel[0, 0, 1, 1] = 0
    around = (nn.functional.conv2d(planes, kernel, padding=1) / 8).round()
    distinct = len((planes * 256 + around).unique())
    bits = float(image_entropy(noise))
    assert math.log2(distinct) - 0.3 < bits <= math.log2(distinct)


def test_entropy_ignores_flips_and_refuses_what_has_no_pixels():
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(image_entropy(x.flip(3), None), image_entropy(x, None))
    with pytest.raises(InvalidData, match="no neighbouring pixels"):
        image_entropy(torch.ones(1, 1, 1, 1))
    with pytest.raises(InvalidData, match="Pixels reach from"):
        image_entropy(x * 3)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.uint8, torch.bool])
def test_entropy_does_not_depend_on_the_kind_of_number(kind):
    """Pixels of 0 and 1 are exact in every one."""
    x = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(2)).round()
    for side in (None, 24):
        found = image_entropy(x.to(kind), side)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, image_entropy(x, side))


def test_entropy_of_half_precision_pixels():
    x = (torch.arange(1600) % 256).reshape(1, 1, 40, 40).double() / 255
    torch.testing.assert_close(image_entropy(x.half(), None), image_entropy(x, None).float())


def subject(noise: float = 0.0) -> Trained:
    """Class c is shown by attributes 2c and 2c + 1 equally; either half is not enough against the
    common attribute 6, which speaks for class 0.
    """
    head = nn.Linear(7, 3)
    head.weight.data = torch.zeros(3, 7)
    for c in range(3):
        head.weight.data[c, 2 * c : 2 * c + 2] = 1.0
    head.bias.data = torch.tensor([0.0, -1.5, -1.5])
    y = torch.arange(30) % 3
    x = torch.zeros(30, 7)
    x[torch.arange(30), 2 * y] = 1.0
    x[torch.arange(30), 2 * y + 1] = 0.9
    x[:, 6] = 0.5
    x += noise * torch.rand(30, 7, generator=torch.Generator().manual_seed(0))
    task = Task(name="t", axis=Axis.IID, splits={"train": Split(Columns(x=x, y=y), Use.TRAIN)},
                objective=classify)  # fmt: skip
    return Trained(nn.Sequential(nn.ReLU(), head), task)


def test_the_least_number_of_attributes_that_recognise_a_class():
    """Class 0 needs one (nothing else speaks against it), the others need both of theirs."""
    reading = SubjectiveComplexity()(subject(), Lab())
    assert reading.detail is not None
    assert reading.detail.tolist() == [7, 2, 2]  # alone, class 0 is always the answer: all 7
    assert reading.n == 3


def test_k_rises_with_the_threshold_and_another_order_needs_no_less():
    trained = subject(noise=0.3)
    outputs = layer_outputs(trained.model, "", trained.task.split("train").data, Lab())
    concepts, _, orders = ranked_attributes(outputs)
    numbers = [
        subjective_complexity(outputs, orders, concepts, threshold).numbers
        for threshold in (0.2, 0.5, 0.8, 1.0)
    ]
    assert all((b >= a).all() for a, b in pairwise(numbers))
    worst = subjective_complexity(outputs, orders.flip(1), concepts, 0.8).numbers
    assert worst.sum() > numbers[2].sum()
    with pytest.raises(InvalidConfig, match="threshold=0"):
        subjective_complexity(outputs, orders, concepts, 0.0)


def test_an_answer_that_is_always_given_recognises_nothing():
    labels = torch.tensor([0, 0, 1, 2])
    always = torch.tensor([[1.0, 0, 0]]).repeat(4, 1)
    assert youden(always, labels, 0) == 0
    assert youden(always, labels, 1) == 0
    assert youden(torch.eye(3)[labels], labels, 0) == 1
    blind = subject()
    blind.model[1].weight.data.zero_()
    with pytest.raises(InvalidData, match="recognises none of 3 classes"):
        SubjectiveComplexity()(blind, Lab())


def test_embedding_complexity_counts_equal_attributes():
    r = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    assert embedding_complexity(r) == pytest.approx(torch.tensor([math.log(4), 0.0]))
    assert EmbeddingComplexity()(subject(), Lab()).value < math.log(3)


def test_visual_complexity_of_a_task_is_the_mean_over_its_images():
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    split = Split(Columns(x=x, y=torch.zeros(5).long()), Use.TRAIN)
    task = Task(name="t", axis=Axis.IID, splits={"train": split}, objective=classify)
    reading = VisualComplexity(side=32, batch_size=2)(task, Lab())
    assert reading.value == pytest.approx(float(image_entropy(x, 32).mean()), abs=1e-6)
    assert reading.unit == "bits"


def test_a_concept_of_a_table_needs_as_many_attributes_as_tell_it():
    """Members have attributes 0 and 1; others have one of them each: either alone is not enough."""
    member = torch.tensor([True] * 4 + [False] * 4)
    values = torch.tensor([[1.0, 1, 0]] * 4 + [[1.0, 0, 0]] * 2 + [[0.0, 1, 0]] * 2)
    assert centroid_complexity(values, member, torch.tensor([0, 1, 2])) == 2
    assert centroid_complexity(values, member, torch.tensor([2, 0, 1])) == 3
    with pytest.raises(InvalidData, match="do not tell members"):
        centroid_complexity(values, member, torch.tensor([2]))
