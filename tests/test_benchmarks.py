"""Benchmarks read what reports say: where the wording moves, they must not end in the middle."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

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
