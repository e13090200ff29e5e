"""Benchmarks read what reports say: where the wording moves, they must not end in the middle."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from unseen.engine.kron import KroneckerBlock

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def null_audits() -> ModuleType:
    spec = importlib.util.spec_from_file_location("null_audits", FOLDER / "null_audits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_null_audits_find_the_interval_of_the_lowest_site(null_audits, monkeypatch):
    rng = np.random.default_rng(0)
    assert not null_audits.misses_truth(rng, 4, 100)
    monkeypatch.setattr(null_audits, "true_accuracy", lambda: 0.3)
    assert null_audits.misses_truth(rng, 4, 100)


def test_null_audits_see_a_site_that_is_worse(null_audits):
    assert null_audits.is_called_worse(np.random.default_rng(0), 4, 400, bad=0.3)
    assert not null_audits.is_called_worse(np.random.default_rng(0), 4, 400)


def test_factors_are_compared_whatever_the_signs_of_eigenvectors(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    bergson = importlib.import_module("influence_bergson")
    generator = torch.Generator().manual_seed(0)
    a, s = (torch.randn(9, d, d, dtype=torch.float64, generator=generator) for d in (4, 3))
    right_sum, left_sum = (x.mT @ x for x in (a.flatten(0, 1), s.flatten(0, 1)))
    both = [torch.linalg.eigh(x / 9) for x in (left_sum, right_sum)]
    (rows, left), (columns, right) = both
    values = torch.rand(3, 4, dtype=torch.float64, generator=generator)
    layer = "inner.transformer.h.0.mlp.c_fc"
    block = KroneckerBlock(left, right, values, (rows, columns), positions=2.0)
    theirs = {
        "left": -left,
        "right": -right,
        "left_sum": left_sum,
        "right_sum": right_sum,
        "kfac": 2 * torch.outer(rows, columns),
        "ekfac": values,
    }
    peer = {f"h.0.mlp.c_fc/{name}": tensor for name, tensor in theirs.items()}
    peer["positions"] = torch.tensor(9)
    (errors,) = bergson.layer_errors(block.tensors(layer), peer)
    assert max(errors.values()) < 1e-12
    peer["h.0.mlp.c_fc/ekfac"] = 2 * values
    (errors,) = bergson.layer_errors(block.tensors(layer), peer)
    assert errors["corrected eigenvalues"] == pytest.approx(0.5)
    assert errors["A"] < 1e-12
