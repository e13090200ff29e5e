"""Hessian products against curvlinops, where it is installed."""

import pytest
import torch
from torch import nn

from unseen.engine.batches import Columns, once
from unseen.engine.curvature import hessian
from unseen.engine.parameters import trainable
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.objectives import cross_entropy

pytestmark = pytest.mark.peer


def test_hessian_products_equal_curvlinops():
    peer = pytest.importorskip("curvlinops")
    lab = Lab(dtype=torch.float64)
    generator = lab.generator()
    x = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (30,), generator=generator)
    with lab.seeded():
        model = mlp([4, 5, 3]).double().eval()
    batches = list(once(Columns(x=x, y=y), 15, lab))
    params = trainable(model)
    direction = {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for name, p in params.items()
    }
    operator = peer.HessianLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(params.values()),
        [(batch["x"], batch["y"]) for batch in batches],
        check_deterministic=False,
    )
    ours = hessian(model, batches, cross_entropy)(direction)
    for a, b in zip(ours.values(), operator @ list(direction.values()), strict=True):
        torch.testing.assert_close(a, b)
