"""Worst groups and domains by loops, and what they refuse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unseen.engine.batches import Columns
from unseen.engine.toy import toy_model, toy_task
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.worst_group import (
    WorstDomainScore,
    WorstGroupScore,
    by_group,
    domain_scores,
    lowest,
)
from unseen.method import Trained

LAB = Lab()
TRAINED = Trained(toy_model().eval(), toy_task())


def right(split: str) -> np.ndarray:
    batch = TRAINED.task.splits[split].data.columns
    with torch.no_grad():
        return (TRAINED.model(batch["x"]).argmax(1) == batch["y"]).double().numpy()


def test_worst_group_by_a_loop():
    groups = TRAINED.task.splits["unseen"].data.columns["group"].numpy()
    means = {
        g: np.mean([r for r, h in zip(right("unseen"), groups, strict=True) if h == g])
        for g in range(4)
    }
    reading = WorstGroupScore(split="unseen")(TRAINED, LAB)
    assert reading.value == pytest.approx(min(means.values()))
    assert reading.low <= reading.value <= reading.high
    assert reading.detail[:, 1].tolist() == pytest.approx(list(means.values()))
    assert reading.detail[:, 4].sum() == 64
    assert by_group(right("unseen"), groups)[2].value == pytest.approx(means[2])


def test_worst_domain_is_the_lowest_of_the_domains():
    means = {name: right(name).mean() for name in ("seen:a", "unseen")}
    both = WorstDomainScore(splits=("seen:a", "unseen"))(TRAINED, LAB)
    assert both.value == pytest.approx(min(means.values()))
    assert both.detail[:, 1].tolist() == pytest.approx(list(means.values()))
    assert WorstDomainScore()(TRAINED, LAB).value == pytest.approx(
        means["unseen"]
    )  # where nothing was fitted
    assert list(domain_scores(TRAINED, ("unseen",), LAB)) == ["unseen"]


@given(seed=st.integers(0, 10_000), g=st.integers(1, 4))
def test_the_worst_is_below_the_mean_and_does_not_care_about_names(seed, g):
    rng = np.random.default_rng(seed)
    values, groups = rng.integers(2, size=60).astype(float), rng.integers(g, size=60)
    reading = lowest(values, groups, 1)
    assert reading.value <= values.mean() + 1e-12
    order = rng.permutation(60)
    renamed = lowest(values[order], 7 * (g - groups[order]), 1)
    assert renamed.value == pytest.approx(reading.value)


def test_small_groups_are_shown_and_not_judged():
    values, groups = np.array([0.0] + [1.0] * 20), np.array([1] + [0] * 20)
    reading = lowest(values, groups, 5)
    assert reading.value == 1
    assert reading.detail[:, 1].tolist() == [1, 0]


def test_refusals():
    with pytest.raises(InvalidData, match="No group has 100 examples"):
        WorstGroupScore(split="unseen", least=100)(TRAINED, LAB)
    with pytest.raises(UnknownName, match="`hospital`"):
        WorstGroupScore(column="hospital", split="unseen")(TRAINED, LAB)
    with pytest.raises(InvalidConfig, match="least=0"):
        WorstDomainScore(least=0)
    with pytest.raises(InvalidData, match="3 values and 2 groups"):
        by_group(np.zeros(3), np.zeros(2, dtype=np.int64))
    x = TRAINED.task.splits["unseen"].data.columns
    real = replace(TRAINED.task.splits["unseen"], data=Columns(**{**x, "group": x["x"][:, 0]}))
    task = replace(TRAINED.task, splits={**TRAINED.task.splits, "unseen": real})
    with pytest.raises(InvalidData, match="float32"):
        WorstGroupScore(split="unseen")(replace(TRAINED, task=task), LAB)
