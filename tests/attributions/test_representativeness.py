"""Which channels describe a class: planted ones are found, and credits share a behaviour."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unseen.attribution import Cause
from unseen.attributions.representativeness import Representativeness
from unseen.engine.batches import Columns
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


def planted(sign: float = 1.0) -> Trained:
    """Three channels pass three planes on; class c lights plane c, and plane 2 a little always."""
    conv = nn.Conv2d(3, 3, 1, bias=False)
    conv.weight.data = sign * torch.eye(3)[:, :, None, None]
    head = nn.Linear(3, 2, bias=False)
    head.weight.data = torch.tensor([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1]])
    model = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), head)
    x = torch.zeros(8, 3, 4, 4)
    for row in range(8):
        x[row, row % 2, 1, row // 2] = 1.0 + row
        x[row, 2] = 0.5
    data = Columns(x=x, y=torch.arange(8) % 2)
    task = Task(name="planted", axis=Axis.IID, splits={"train": Split(data, Use.TRAIN)},
                objective=classify)  # fmt: skip
    return Trained(model, task)


def test_planted_channels_describe_their_classes_with_the_image_that_shows_them_most():
    found = Representativeness(layer="1").prepare(planted(), Lab())
    first, second = found.describe(0, k=2)
    assert (first.attribute, first.exclusive) == (0, True)
    assert (first.example, first.position) == (6, (1, 3))
    assert (second.attribute, second.exclusive) == (2, False)
    assert second.share == pytest.approx(0.5 / 4.5)
    assert second.representativeness == pytest.approx(second.share / 0.5)
    assert found.describe(1, k=1)[0].attribute == 1


def test_credits_of_a_query_sum_to_its_behaviour():
    subject = planted()
    queries = subject.task.splits["train"].data[:4]
    credits = Representativeness(layer="1").prepare(subject, Lab())(queries, classify.loss)
    assert credits.cause is Cause.COMPONENT
    assert list(credits.labels) == ["1[0]", "1[1]", "1[2]"]
    with torch.no_grad():
        losses = classify.loss(subject.model, queries)
    torch.testing.assert_close(credits.scores.sum(1), losses)
    assert credits.scores.argmax(1).tolist() == [0, 1, 0, 1]


def test_negative_activations_and_classes_without_examples_are_refused():
    with pytest.raises(InvalidData, match="behind its ReLU"):
        Representativeness(layer="0").prepare(planted(sign=-1.0), Lab())
    found = Representativeness(layer="1").prepare(planted(), Lab())
    with pytest.raises(InvalidData, match="Class 5 has no training example"):
        found.describe(5)


def test_a_network_of_transformers_is_read_at_a_named_layer():
    """Random weights; its encoder as a whole answers with no tensor, which is said."""
    transformers = pytest.importorskip("transformers")

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = transformers.ResNetConfig(
                num_channels=3, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1],
                layer_type="basic", num_labels=2,
            )  # fmt: skip
            self.network = transformers.ResNetForImageClassification(config)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(pixel_values=x).logits

    with Lab(seed=0).seeded():
        model = Logits()
    subject = replace(planted(), model=model)
    layer = "network.resnet.encoder.stages.1"
    found = Representativeness(layer=layer).prepare(subject, Lab())
    assert found.scores.shape == (2, 16)
    with pytest.raises(UnsupportedLayer, match=r"encoder` answers with a BaseModel"):
        Representativeness(layer="network.resnet.encoder").prepare(subject, Lab())
