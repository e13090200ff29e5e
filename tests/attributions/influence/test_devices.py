"""Layers on two devices: factors and scores are those of the same model on one."""

import copy

import pytest
import torch
from second_device import SECOND, Away, second_device
from torch import Tensor, nn

from unseen.attributions.influence import Curvature, Fisher, Influence
from unseen.engine.batches import Columns, to_device
from unseen.engine.sharding import is_spread
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

LAB = Lab()


class Net(nn.Module):
    """Words, a hidden layer and a norm on one device; the rest where its own parameters are."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden = nn.Embedding(11, 6), nn.Linear(6, 8)
        self.norm, self.up, self.out = nn.LayerNorm(8), nn.Linear(8, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(self.words(x)).relu().to(self.norm.weight.device)
        return self.out(self.up(self.norm(hidden)).relu()).mean(1).to(x.device)


def columns(n: int) -> Columns:
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(0, 11, (n, 5), generator=draw)
    return Columns(x=x, y=x.sum(1) % 3)


def trained(model: nn.Module) -> Trained:
    split = Split(columns(13), Use.TRAIN)
    return Trained(
        model, Task(name="sums", axis=Axis.IID, splits={"train": split}, objective=classify)
    )


def answers(model: nn.Module, config: Influence, lab: Lab = LAB) -> dict[str, Tensor]:
    found = config.prepare(trained(model), lab)
    queries = to_device(columns(4)[:], lab)
    best = found.top(queries, classify.loss, 3)
    return {
        "scores": found(queries, classify.loss).scores,
        "own": found.self_influence(),
        "by token": found.by_token(queries, classify.loss, torch.tensor([3, 7])),
        "index": best.index,
        **found.by_layer(queries, classify.loss),
    }


@pytest.mark.parametrize(
    "config",
    [
        Influence(batch_size=4, layers=("words", "hidden", "up", "out"), fisher=Fisher.EXACT),
        Influence(batch_size=4, curvature=Curvature.KFAC, memory=0),
    ],
    ids=["ek-fac", "k-fac"],
)
def test_layers_on_two_devices_give_the_scores_of_one(config):
    torch.manual_seed(0)
    model = Net().double().eval()
    wanted = answers(copy.deepcopy(model), config)
    with second_device():
        for name in ("norm", "up", "out"):
            getattr(model, name).to(SECOND)
        assert isinstance(model.up.weight, Away)
        assert is_spread(model)
        with pytest.raises(RuntimeError, match="two devices"):
            model.up.weight + model.hidden.weight
        found = answers(model, config)
        with pytest.raises(InvalidConfig, match="several devices"):
            Influence(curvature=Curvature.EKFAC_CG).prepare(trained(model), Lab())
    for name, value in wanted.items():
        assert type(found[name]) is Tensor, name
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_a_model_on_another_device_than_its_data_meets_no_tensor_of_the_cpu():
    torch.manual_seed(0)
    model = Net().double().eval()
    config = Influence(batch_size=4, fisher=Fisher.EXACT)
    wanted = answers(copy.deepcopy(model), config)
    with second_device():
        found = answers(model.to(SECOND), config, Lab(device=SECOND))
        found = {name: tensor.cpu() for name, tensor in found.items()}
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_hooks_of_accelerate_around_layers_change_nothing():
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(0)
    model = Net().double().eval()
    config = Influence(batch_size=4)
    wanted = answers(copy.deepcopy(model), config)
    places = {name: "cpu" for name, _ in model.named_children()}
    accelerate.dispatch_model(model, places, main_device="cpu", force_hooks=True)
    assert "forward" in vars(model.hidden)
    assert is_spread(model)
    found = answers(model, config)
    assert "forward" in vars(model.hidden)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)
    model.hidden._hf_hook.offload = True
    with pytest.raises(InvalidConfig, match="offloaded"):
        config.prepare(trained(model), Lab())
