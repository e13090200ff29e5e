"""Biases of one task change nothing of another."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.bias_switch import BiasSwitch, bias_names
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.identity.tensors import digest_of


class Mixed(nn.Module):
    """Layers whose biases have different names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.rnn = nn.GRU(4, 3, batch_first=True)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv(x).transpose(1, 2)
        h = self.norm(self.attention(h, h, h, need_weights=False)[0])
        return self.rnn(h)[0]


def switch_of(module: nn.Module, *tasks: str) -> BiasSwitch:
    switch = BiasSwitch(module)
    for task in tasks:
        switch.add_task(task)
    return switch


def small() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))


def everything_but(switch: BiasSwitch, task: str) -> str:
    own = {id(p) for p in switch.parameters_of(task)}
    return digest_of({n: p for n, p in switch.named_parameters() if id(p) not in own})


def test_biases_are_found_in_any_module():
    assert bias_names(Mixed()) == [
        "conv.bias", "attention.in_proj_bias", "attention.out_proj.bias", "norm.bias",
        "rnn.bias_ih_l0", "rnn.bias_hh_l0",
    ]  # fmt: skip
    switch = switch_of(Mixed(), "a", "b")
    x = torch.randn(2, 2, 5)
    for p in switch.parameters_of("a"):
        p.data.add_(1.0)
    assert not torch.allclose(switch("a", x), switch("b", x))


def test_training_one_task_changes_no_tensor_of_another():
    switch = switch_of(small(), "a", "b")
    rest, b = everything_but(switch, "a"), switch("b", X)
    optimizer = torch.optim.SGD(switch.parameters_of("a"), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        switch("a", X).square().mean().backward()
        optimizer.step()
    assert everything_but(switch, "a") == rest
    assert torch.equal(switch("b", X), b)
    assert not torch.allclose(switch("a", X), b)


def test_a_task_is_the_module_with_these_biases():
    module = small()
    switch = switch_of(module, "a")
    for p in switch.parameters_of("a"):
        p.data.normal_(generator=torch.Generator().manual_seed(2))
    first, second = switch.parameters_of("a")
    expected = torch.relu(X @ module[0].weight.T + first) @ module[2].weight.T + second
    assert_close(switch("a", X), expected)


def test_the_module_is_itself_again_afterwards_also_after_an_error():
    module = small()
    before, bias = module(X), module[0].bias
    switch = switch_of(module, "a")
    for p in switch.parameters_of("a"):
        p.data.add_(1.0)
    with pytest.raises(RuntimeError):
        switch("a", torch.zeros(2, 7))
    assert module[0].bias is bias
    assert torch.equal(module(X), before)


def test_a_new_task_begins_at_the_mean_of_the_others():
    switch = switch_of(small(), "a", "b")
    for p in switch.parameters_of("a"):
        p.data.add_(2.0)
    switch.add_task("c")
    for a, b, c in zip(*map(switch.parameters_of, "abc"), strict=True):
        assert_close(c, (a + b) / 2)
    assert_close(switch("c", X), switch(None, X))  # the same mean but for c, which is the mean
    switch.add_task("d", start="a")
    assert torch.equal(switch("d", X), switch("a", X))


def test_what_is_removed_leaves_the_others():
    switch = switch_of(small(), "a", "b", "c")
    switch.parameters_of("c")[0].data.add_(1.0)
    expected = switch("c", X)
    switch.remove_task("b")
    assert switch.tasks == ["a", "c"]
    assert torch.equal(switch("c", X), expected)


def test_other_parameters_can_be_switched():
    switch = BiasSwitch(small(), ["0.weight"])
    switch.add_task("a")
    assert [tuple(p.shape) for p in switch.parameters_of("a")] == [(4, 3)]
    assert switch.share() == pytest.approx(12 / 26)


def test_refusals_name_the_task():
    switch = switch_of(small(), "edges")
    with pytest.raises(InvalidConfig, match="edges"):
        switch.add_task("edges")
    with pytest.raises(UnknownName, match="edge"):
        switch("edge", X)
    with pytest.raises(InvalidData, match="no biases"):
        BiasSwitch(nn.Linear(2, 2, bias=False))
    with pytest.raises(UnknownName, match="weigth"):
        BiasSwitch(small(), ["0.weigth"])
