"""Rules and tables: labels by brute force, no input in two splits, tables without a rule."""

import pytest
import torch

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.tasks.rules_and_tables import (
    DIGITS,
    FIRST_SYMBOL,
    SYMBOLS,
    VOCABULARY,
    Encoder,
    RulesAndTables,
    Skill,
)

SPEC = RulesAndTables(rule_items=300, keys=50, held_out=40)


def test_labels_are_those_of_the_rule():
    task = SPEC.build(Lab())
    for row in task.split("compare").data:
        digits = [t for t in row["x"].tolist() if t < DIGITS]
        assert len(digits) == 2
        assert int(row["y"]) == int(digits[0] > digits[1])
    for row in task.split("majority held out").data:
        second = sum(t >= FIRST_SYMBOL + SYMBOLS for t in row["x"].tolist())
        assert int(row["y"]) == int(second >= 3)


def test_rules_have_new_inputs_and_tables_have_none():
    task = SPEC.build(Lab())
    for skill in Skill:
        train = {tuple(x) for x in task.split(skill.value).data.columns["x"].tolist()}
        assert len(train) == (300 if skill.is_rule else 50)
        assert (f"{skill} held out" in task.splits) == skill.is_rule
        if skill.is_rule:
            other = task.split(f"{skill} held out").data.columns["x"].tolist()
            assert not train & {tuple(x) for x in other}
        assert int(task.split(skill.value).data.columns["x"].max()) < VOCABULARY
    bits = task.split("table 1").data.columns["y"]
    assert bits.double().mean() == 0.5


def test_the_answer_of_the_encoder_does_not_depend_on_the_batch():
    with Lab().child("init").seeded():
        model = Encoder(16, 2, 2).double().eval()
    x = SPEC.build(Lab()).split("compare").data.columns["x"][:6]
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]))


def test_too_few_inputs_are_refused():
    with pytest.raises(InvalidConfig, match="1 keys"):
        RulesAndTables(keys=1)
    with pytest.raises(InvalidConfig, match="different inputs"):
        RulesAndTables(rule_items=250_000).build(Lab())
