"""Layers that only a part of the examples reach, and factors that only some processes have kept."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from unseen.attributions.influence import Fisher, Influence
from unseen.attributions.influence.factors import refuse_uneven_layers
from unseen.attributions.influence.running_sums import keep_together
from unseen.engine.batches import Columns
from unseen.errors import UnsupportedLayer
from unseen.identity import identify
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify
from unseen.runs.tensors import TensorCache
from unseen.task import Axis, Split, Task, Use


class Experts(nn.Module):
    """Examples with x₀ > 0 go through `one`, the others through `two`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two, self.last = (
            nn.Linear(3, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        inner, is_one = torch.tanh(self.first(x)), x[:, 0] > 0
        total = torch.zeros_like(inner)
        if is_one.any():
            total = total + self.one(inner) * is_one[:, None]
        if (~is_one).any():
            total = total + self.two(inner) * (~is_one)[:, None]
        return self.last(torch.tanh(total))


def batches_of_one_kind() -> Columns:
    """Four batches of three examples, which reach the experts in turn."""
    generator = Lab(0).generator()
    x = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    x[:, 0] = x[:, 0].abs() * torch.tensor([1, 1, 1, -1, -1, -1] * 2)
    return Columns(x=x, y=torch.randint(0, 3, (12,), generator=generator))


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_parts_by_layer_sum_to_the_score(memory):
    data = batches_of_one_kind()
    with Lab(1).seeded():
        model = Experts().double()
    splits = {"train": Split(data, Use.TRAIN)}
    task = Task(name="experts", axis=Axis.IID, splits=splits, objective=classify)
    config = Influence(fisher=Fisher.EMPIRICAL, batch_size=3, memory=memory)
    influences = config.prepare(Trained(model, task), Lab(dtype=torch.float64))
    queries = data[torch.tensor([0, 4])]
    parts = influences.by_layer(queries, classify.loss)
    assert_close(sum(parts.values()), influences(queries, classify.loss).scores)
    assert not parts["one"][:, 3:6].any()
    assert parts["one"][0, 6:9].any()
    rows = torch.tensor([0, 4, 7])
    by_token = influences.by_token(queries, classify.loss, rows)
    assert_close(by_token.sum(2), influences(queries, classify.loss).scores[:, rows])


@dataclass(frozen=True)
class Pair:
    """The first of two processes; the other gives `other` to every sum."""

    other: Tensor
    rank: int = 0
    size: int = 2

    def sum(self, x: Tensor) -> Tensor:
        return x + self.other.to(x)


def test_processes_that_reach_other_layers_are_refused():
    own = Lab(ranks=Pair(torch.tensor([5.0, 25.0])))
    with pytest.raises(UnsupportedLayer, match="other layers"):
        refuse_uneven_layers(["one", "two"], own)
    refuse_uneven_layers(["one", "two"], Lab())


@pytest.mark.parametrize("others", [0.0, 1.0])
def test_what_one_process_lacks_all_make(others, tmp_path):
    calls = []

    def make() -> dict[str, Tensor]:
        calls.append(1)
        return {"x": torch.ones(2)}

    key = identify("some factors", of=3)
    lab = Lab(ranks=Pair(torch.tensor(others)), keeper=TensorCache(tmp_path))
    for _ in range(2):
        assert_close(keep_together(lab, key, make)["x"], torch.ones(2))
    # stored after the first turn, here; the other process had it in both or in none
    assert len(calls) == (1 if others else 2)
