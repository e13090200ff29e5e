import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.trace import list_calls, patch, record, skip
from unseen.errors import InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.models.mlp import mlp


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x)[0][:, -1])


def model() -> nn.Module:
    with Lab(0).seeded():
        return mlp([3, 5, 4, 2])


X = torch.randn(6, 3, generator=Lab(1).generator())
Z = torch.randn(6, 3, generator=Lab(2).generator())


def hooks(m: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in m.modules())


def test_record_equals_running_the_layers_by_hand():
    m = model()
    with record(m, ["1", "3", ""]) as seen:
        out = m(X)
    assert_close(seen["1"], m[1](X))
    assert_close(seen["3"], m[3](m[2](m[1](X))))
    assert seen[""] is out
    assert hooks(m) == 0


def test_patching_with_another_runs_activation_gives_the_other_runs_output():
    m = model()
    with record(m, ["3"]) as seen:
        other = m(Z)
    with patch(m, {"3": seen["3"]}):
        assert_close(m(X), other)
    with patch(m, {"3": lambda h: h}):
        assert_close(m(X), m(X))
    with patch(m, {"1": torch.zeros_like, "5": lambda h: 2 * h}):
        patched = m(X)
    assert_close(patched, (2 * m[5](m[4](m[3](torch.zeros(1, 5))))).expand(6, 2))


def test_first_of_a_tuple_is_read_and_replaced():
    with Lab(0).seeded():
        m, x = Recurrent(), torch.randn(2, 5, 3)
    with record(m, ["cell"]) as seen:
        m(x)
    assert seen["cell"].shape == (2, 5, 4)
    with patch(m, {"cell": torch.zeros_like}):
        assert_close(m(x), m.head.bias.expand(2, 2))


def test_patch_inside_record_is_seen_and_gradients_flow():
    m = model()
    with patch(m, {"1": lambda h: h * 0 + 1}), record(m, ["1"]) as seen:
        m(X).sum().backward()
    assert_close(seen["1"], torch.ones(6, 5))
    assert m[3].weight.grad is not None


def test_hooks_are_removed_after_an_error():
    m = model()
    with pytest.raises(RuntimeError), record(m, ["1", "3"]):
        m(torch.zeros(2, 9))
    with pytest.raises(InvalidData, match=r"shape \(1, 5\)"), patch(m, {"1": torch.zeros(1, 5)}):
        m(X)
    assert hooks(m) == 0


def test_refusals():
    m = model()
    with pytest.raises(UnknownName, match=r"no module `head\.1`"), record(m, ["1", "head.1"]):
        pass
    assert hooks(m) == 0

    class Wordy(nn.Module):
        def forward(self, x: torch.Tensor) -> str:
            return "text"

    wordy = nn.Sequential(Wordy())
    with pytest.raises(UnsupportedLayer, match="returns str"), record(wordy, ["0"]):
        wordy(X)


class Twice(nn.Module):
    """Applies its layer two times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x) + 1)


def test_calls_of_one_module_are_told_apart():
    with Lab(0).seeded():
        m = Twice()
    for _ in range(2):  # calls are counted anew in every forward pass
        with record(m, ["layer@0", "layer@1", "layer"]) as seen:
            out = m(X)
        assert_close(seen["layer@0"], m.layer(X))
        assert seen["layer@1"] is seen["layer"] is out
    with patch(m, {"layer@0": torch.zeros_like}):
        for _ in range(2):
            assert_close(m(X), m.layer(torch.ones(6, 3)))
    assert [call.name for call in list_calls(m, ["layer"], lambda: m(X))] == ["layer@0", "layer@1"]
    assert hooks(m) == 0
    assert not m._forward_pre_hooks


def test_skipped_modules_give_their_values_without_running():
    with Lab(0).seeded():
        m, deep = Twice(), model()
    h = torch.randn(6, 3)
    with skip(m, {"layer@0": h}):
        for _ in range(2):
            assert_close(m(X), m.layer(h + 1))
    with record(deep, ["3"]) as seen:
        other = deep(Z)
    for layer in (deep[1], deep[3]):
        layer.weight.data.fill_(torch.nan)  # would spoil the output if it ran
    with skip(deep, {"1": torch.zeros(6, 5), "3": seen["3"]}):
        assert_close(deep(X), other)
    assert "forward" not in vars(deep[3])
    assert hooks(deep) == hooks(m) == 0


def test_calls_are_listed_in_their_order_with_what_they_return():
    with Lab(0).seeded():
        m, x = Recurrent(), torch.randn(2, 5, 3)
    calls = list_calls(m, ["head", "cell"], lambda: m(x))
    assert [(call.name, call.is_plain) for call in calls] == [("cell", False), ("head", True)]
    with pytest.raises(InvalidData, match="`unused` is not called"):
        list_calls(Twice(), ["unused"], lambda: Twice()(X))
