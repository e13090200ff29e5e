"""Forgetting a user's own items with a tiny language model: what is kept apart, and what is
counted.
"""

import copy
from math import isfinite, isinf

import pytest
import torch
from language import llama
from torch.testing import assert_close

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.models.pretrained import load_causal
from unseen.reading import Reading
from unseen.subjects.item_forgetting import (
    ForgettingResult,
    ItemForgetting,
    ItemScores,
    choice_pairs,
    probe_items,
    refuse_overlap,
    score_items,
)
from unseen.tasks.graded_questions import Item

ITEMS = [
    Item(f"{a}-{b}?", ("yes", "no"), int(a > b), f"{a}-{b}") for a in range(5) for b in range(5)
]
OTHERS = [Item(f"{k}", (f"{k}", f"{k + 1}", "x"), k % 3, f"o{k}") for k in range(6)]
SETTING = ItemForgetting(n=8, held_out=10, epochs=2, batch_size=4, lr=1e-3, layers=(0, -1))


@pytest.fixture
def model(tmp_path):
    return load_causal(llama(tmp_path))


def test_the_model_stays_and_every_set_is_scored_before_and_after(model):
    before = copy.deepcopy(model.state_dict())
    found = SETTING.run(model, "sizes", ITEMS, {"others": OTHERS}, Lab())
    assert_close(dict(model.state_dict()), dict(before))
    rows = list(found.rows())
    assert {(row["test"], row["arm"]) for row in rows} == {
        (name, arm)
        for name in ("train", "reworded", "held out", "others")
        for arm in ("random", "true")
    }
    assert {row["test"]: row["n"] for row in rows} == {
        "train": 8, "reworded": 8, "held out": 10, "others": 6,
    }  # fmt: skip
    chances = {row["test"]: row["chance"] for row in rows}
    assert chances["others"] == pytest.approx(1 / 3)
    assert found.agreement == 0.5
    again = SETTING.run(model, "sizes", ITEMS, {"others": OTHERS}, Lab())
    assert list(again.rows()) == rows


def test_without_steps_nothing_is_forgotten(model):
    still = ItemForgetting(n=8, held_out=10, epochs=1, batch_size=4, lr=1e-30)
    found = still.run(model, "sizes", ITEMS, {}, Lab())
    assert all(row["before"] == row["after"] for row in found.rows())


def test_an_interval_without_an_end_is_left_out():
    def scores(right: int) -> ItemScores:
        correct = (torch.arange(30) < right).float()
        return ItemScores(correct, torch.full((30,), 0.5), Reading(0.5), ())

    found = ForgettingResult(
        "t",
        {
            "before": {"held out": scores(18)},
            "random": {"held out": scores(12)},
            "true": {"held out": scores(18)},
        },
        Reading(1.0),
        0.5,
        {},
    )
    first = next(found.rows())
    assert isinf(found.ratio("held out").low)
    assert isfinite(first["ratio"])
    assert "low" not in first


def test_forgotten_and_held_out_items_are_others_and_balanced():
    forget, rest = SETTING.split([*ITEMS, *ITEMS], Lab())
    assert not {item.name for item in forget} & {item.name for item in rest}
    assert sum(item.answer for item in forget) == 4
    assert len(rest) == 10
    with pytest.raises(InvalidData, match="25 different items cannot give 24"):
        ItemForgetting(n=24).split(ITEMS, Lab())


def test_an_item_on_both_sides_is_refused():
    with pytest.raises(InvalidData, match="`others` holds item 0-0"):
        refuse_overlap(ITEMS[:3], {"others": [ITEMS[0]]})


def test_pairs_are_right_minus_wrong_in_random_order():
    states = [torch.eye(3)[: len(item.choices)] for item in OTHERS]
    rows, y = choice_pairs(states, OTHERS, Lab())
    assert y.sum() == 3
    for row, item, first in zip(rows, OTHERS, y, strict=True):
        assert row[item.answer] == (1 if first else -1)
        assert row.sum() == 0


def test_probes_read_the_layers_that_were_asked_for(model):
    scores = score_items(model, ITEMS, layers=(0, 1, -1))
    found = probe_items(scores, ITEMS, Lab())
    assert list(found) == [0, 1, 2]
    assert all(0 <= accuracy.value <= 1 for accuracy, _ in found.values())
