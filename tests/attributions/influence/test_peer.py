"""Influence against Kronfluence on the same small checkpoints: the empirical Fisher is one matrix
for both.
"""

import importlib
from copy import deepcopy
from pathlib import Path
from types import ModuleType

import pytest
import torch

from unseen.attributions.influence import Curvature, Fisher, Influence, sequence_nats
from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.objectives import classify, cross_entropy, next_token, sequence_log_probability
from unseen.task import Axis, Split, Task, Use

pytest.importorskip("kronfluence")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # its warnings are its own
SAME = 1e-4
"""The agreement of two float32 pipelines that sum in different orders; measured 1e-6 to 5e-5."""


@pytest.fixture
def kf(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's module: one wrapper of the peer for both."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    return importlib.import_module("peers.kronfluence_peer")


@pytest.fixture
def cases(kf: ModuleType) -> ModuleType:
    pytest.importorskip("transformers")
    return importlib.import_module("peers.influence_cases")


def images(n: int, name: str) -> Columns:
    g = Lab().child(name).generator()
    x = torch.randn(n, 20, generator=g) * torch.linspace(0.2, 2, 20)
    return Columns(x=x, y=(x[:, :4] + torch.randn(n, 4, generator=g)).argmax(1))


def fitted(model: torch.nn.Module, data: Columns, loss, steps: int) -> torch.nn.Module:
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(model, data[:]).mean().backward()
        optimiser.step()
    model.zero_grad(set_to_none=True)
    return model.eval()


def trained(model: torch.nn.Module, data: Columns, objective) -> Trained:
    splits = {"train": Split(data, Use.TRAIN)}
    return Trained(model, Task(name="t", axis=Axis.IID, splits=splits, objective=objective))


def error(found: torch.Tensor, want: torch.Tensor) -> float:
    return float((found - want).norm() / want.norm())


def test_a_perceptron_has_the_peers_scores(kf):
    train, asked = images(300, "train"), images(20, "queries")
    with Lab().child("init").seeded():
        model = fitted(mlp([20, 32, 16, 4]), train, cross_entropy, 60)
    layers, sizes = ("1", "3", "5"), kf.Sizes(100, 50, 10, 2, 100)
    run = kf.kronfluence(deepcopy(model), kf.classification, train, asked, layers, sizes)
    config = Influence(fisher=Fisher.EMPIRICAL, batch_size=64)
    influences = config.prepare(trained(model, train, classify), Lab())
    found = influences(asked[:], lambda m, b: -cross_entropy(m, b)).scores
    assert set(influences.layers) == set(layers)
    assert error(300 * found, run.scores) < SAME
    wrong = Influence(fisher=Fisher.EMPIRICAL, curvature=Curvature.KFAC).prepare(
        trained(model, train, classify), Lab()
    )
    assert (
        error(300 * wrong(asked[:], lambda m, b: -cross_entropy(m, b)).scores, run.scores)
        > 100 * SAME
    )


def test_a_small_gpt2_has_the_peers_scores(kf, cases):
    train = Columns(tokens=cases.zipf(60, Lab().child("train"), vocabulary=50, length=12))
    asked = Columns(tokens=cases.zipf(6, Lab().child("queries"), vocabulary=50, length=12))
    with Lab().child("init").seeded():
        model = fitted(cases.gpt2(2, 16, 2, vocabulary=50, length=12), train, sequence_nats, 40)
    layers = cases.block_layers(2)
    run = kf.kronfluence(
        deepcopy(model), kf.language, train, asked, layers, kf.Sizes(20, 20, 6, 1, 20)
    )
    config = Influence(fisher=Fisher.EMPIRICAL, loss=sequence_nats, batch_size=16)
    influences = config.prepare(trained(model, train, next_token), Lab())
    assert set(influences.layers) == set(
        layers
    )  # by default everything but embeddings and the tied head
    assert error(60 * influences(asked[:], sequence_log_probability).scores, run.scores) < SAME
