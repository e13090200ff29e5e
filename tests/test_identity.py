"""Identities: equal where the same value would come out, different wherever anything that decides
it differs.
"""

import os
import re
import subprocess
import sys
from collections import deque
from functools import partial
from operator import itemgetter

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.identity import Structure, identify
from unseen.methods.erm import ERM
from unseen.objectives import cross_entropy
from unseen.tasks.text_corpus import MappedWindows

FACTOR = 2.0


class Seconds(float):
    """A number with a class of its own."""


class Queue(deque):
    """A queue with attributes."""


class Net(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.layer, self.scale = nn.Linear(2, 2), scale
        os.environ.get("HOME")  # while it is made, not while it computes

    def forward(self, x):
        return self.halved(self.layer(x)) * self.scale

    def halved(self, x):
        return x / 2

    def exported(self, path):
        with open(path) as file:  # nobody asks for it
            return file.read()


def net(**settings) -> Net:
    torch.manual_seed(0)
    return Net(**settings)


def weighted(weight, power=1):
    def loss(model, batch):
        return weight * cross_entropy(model, batch) ** power

    return loss


def default(model, batch, weight=1.0):
    return weight * cross_entropy(model, batch)


def scaled(model, batch):
    return FACTOR * cross_entropy(model, batch)


def one(value) -> str:
    return identify("value", value=value).digest


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (weighted(1), weighted(2)),
        (partial(default, weight=1.0), partial(default, weight=2.0)),
        (lambda m, b: 1, lambda m, b: 2),
        (itemgetter("a"), itemgetter("b")),
        (Budget(), Budget(lr=0.5)),
        (torch.ones(2), torch.ones(2).double()),
        (np.ones(2), np.ones((2, 1))),
        ([1, 2], (1, 2)),
        (nn.ReLU(), nn.Sigmoid()),
        (net(), net(scale=2.0)),
        (net(scale=deque([1.0])), net(scale=deque([2.0]))),
        (Seconds(1.0), Seconds(2.0)),
        (Queue([1.0]), Queue([2.0])),
        (Structure(nn.Linear(2, 3)), Structure(nn.Linear(3, 2))),
        (Columns(x=torch.ones(3)), Columns(y=torch.ones(3))),
        (ERM(Budget(steps=1)), ERM(Budget(steps=2))),
    ],
)
def test_what_differs_has_another_identity(a, b):
    assert one(a) != one(b)
    assert one(a) == one(a)


def test_a_global_that_a_function_reads_counts_by_its_value(monkeypatch):
    before = one(scaled)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    assert one(scaled) != before


def test_a_method_that_the_forward_pass_calls_counts(monkeypatch):
    model, before = net(), one(net())
    monkeypatch.setattr(Net, "halved", lambda self, x: x / 3)
    assert one(model) != before


def test_a_forward_pass_replaced_on_the_object_counts():
    model = net()
    model.layer.forward = lambda x: x
    assert one(model) != one(net())


def test_the_structure_of_a_model_is_what_its_weights_leave_open():
    model, other = net(), net()
    nn.init.zeros_(other.layer.weight)
    assert one(model) != one(other)
    assert one(Structure(model)) == one(Structure(other))
    other.scale = 3.0
    assert one(Structure(model)) != one(Structure(other))


def test_an_identity_is_the_same_in_another_process():
    program = (
        "import test_identity as t; print(t.one(t.net()), t.one(t.weighted(3)), t.one({'b', 'a'}))"
    )
    path = os.pathsep.join(
        [os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "12"
    ]
    assert told[0] == told[1] != b""


class Own(Dataset):
    def __getitem__(self, k):
        return {"x": torch.zeros(1)}

    def __len__(self):
        return 3


class Named(Own):
    content_digest = "three zeros"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (lambda m, b: os.environ["A"], "reads os.environ"),
        (lambda m, b: np.random.default_rng(), r"reads numpy\.random\.default_rng"),
        (lambda m, b: torch.load("file"), r"reads torch\.load"),
        (lambda m, b: eval("1"), r"reads builtins\.eval"),
        (Own(), "a dataset of your own, `Own`"),
        (sys.stderr, "reads|cannot be read"),
        ({"a": [os.environ]}, "reads os"),
    ],
)
def test_what_reads_more_than_its_arguments_cannot_be_known(value, why):
    (reason, *_) = identify("value", value=value).unknown
    assert re.search(why, reason)


@pytest.mark.parametrize(
    "value",
    [net(), weighted(2), ERM(), Columns(x=torch.ones(2)), Named(), nn.MultiheadAttention(8, 2)],
)
def test_ordinary_models_losses_methods_and_data_are_known(value):
    assert identify("value", value=value).unknown == ()


def test_definitions_of_unseen_are_listed():
    assert {*identify("value", loss=weighted(2), method=ERM()).code} >= {ERM, Budget}
    assert "cross_entropy" in [one.__name__ for one in identify("value", loss=weighted(2)).code]


def test_a_mapped_corpus_is_known_by_its_content(tmp_path):
    (tmp_path / "about.json").write_text('{"sha256": "abc"}')
    known = [identify("value", data=MappedWindows(tmp_path, length, 0)) for length in (8, 8, 16)]
    assert known[0] == known[1] != known[2]
    assert known[0].unknown == ()


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def frozen_statistics(model: nn.Module) -> None:
    model[1].eval()


def doubled_gradient(model: nn.Module) -> None:
    model[0].weight.register_hook(lambda gradient: 2 * gradient)


def clipped_afterwards(model: nn.Module) -> None:
    model[0].weight.register_post_accumulate_grad_hook(lambda p: p.grad.clamp_(-1, 1))


@pytest.mark.parametrize("change", [frozen_statistics, doubled_gradient, clipped_afterwards])
@pytest.mark.parametrize("seen", [lambda model: model, Structure])
def test_what_training_would_do_otherwise_belongs_to_a_model(change, seen):
    plain, changed, evaluated = small_net(), small_net(), small_net().eval()
    assert identify("run", model=seen(plain)) == identify("run", model=seen(evaluated))
    change(changed)
    assert identify("run", model=seen(plain)) != identify("run", model=seen(changed))
