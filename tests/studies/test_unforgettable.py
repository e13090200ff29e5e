"""The parts of the study on forgetting that its claims rest on."""

import torch

from unseen.lab import Lab
from unseen.studies.unforgettable import (
    Scratch,
    inputs_of,
    predictor_rows,
    ratio_row,
)
from unseen.tasks.rules_and_tables import RulesAndTables, Skill

SMALL = Scratch(task=RulesAndTables(rule_items=60, keys=40, held_out=20))


def test_held_out_keys_are_those_that_were_not_touched():
    task = SMALL.task.build(Lab())
    chosen, held_out = inputs_of(Skill.TABLE_1, task, 10, Lab())
    assert sorted([*chosen.tolist(), *held_out.tolist()]) == list(range(40))
    chosen, held_out = inputs_of(Skill.COMPARE, task, 10, Lab())
    assert len(chosen) == 10
    assert len(held_out) == 20


def test_a_ratio_is_left_out_where_the_model_knew_nothing():
    half, whole = torch.arange(40) % 2, torch.ones(40)
    assert "ratio" not in ratio_row(half.float(), half.float())
    assert ratio_row(whole, half.float())["ratio"] == 1


def test_few_tasks_are_called_underpowered():
    rows = [
        {"forget": str(k), "accuracy": k / 9, "confidence": k / 9, "variability": k / 9}
        for k in range(8)
    ]
    rows += [
        {"forget": str(k), "arm": "random", "is_same": True, "ratio": k / 10} for k in range(8)
    ]
    assert (
        "underpowered: 3 tasks"
        in predictor_rows([r for r in rows if r["forget"] < "3"])[0]["Spearman"]
    )
    assert predictor_rows(rows)[1]["Spearman"].startswith("1")
