"""The study's problems are what they say; claims read the machine's rows only."""

import pytest

from unseen.lab import Lab
from unseen.studies.neural_symbolic import (
    CLAIMS,
    LAPTOP,
    NUMBER_ARITY,
    SCAN_ARITY,
    STRING_ARITY,
    Arm,
    Setting,
    problem,
    strings,
    study,
)
from unseen.study import Scale
from unseen.tasks.scan import commands

SMOKE = study.scales[Scale.SMOKE]


def test_smoke_runs_and_every_symbol_has_its_number_of_children(smoke_runs):
    rows = smoke_runs.rows("neural_symbolic")
    assert {row["setting"] for row in rows} == set(Setting)
    assert {row["arm"] for row in rows} == set(Arm)
    assert all(0 <= int(row["right"]) <= int(row["n"]) for row in rows)


@pytest.mark.parametrize("setting", Setting)
def test_problems_hold_known_symbols_and_no_training_pair_in_evaluation(setting):
    given = problem(SMOKE, setting, Lab(5))
    used = {s for p in given.pairs.train for s in p.source}
    assert used <= set(given.arity)
    for name in given.pairs.evaluate:
        part = given.pairs.evaluate[name]
        assert part
        assert {s for p in part for s in p.source} <= set(given.arity)
        assert not set(part) & set(given.pairs.train)


def test_numbers_of_children_are_those_of_the_languages():
    assert set(SCAN_ARITY) == {word for one in commands() for word in one.source}
    assert len(STRING_ARITY) == 10 + 48 + 1
    assert sum(NUMBER_ARITY.values()) == 2 * 5
    rows = strings(Lab())
    assert all((*one.target, ",") == one.source for one in rows)
    assert {len(one.target) for one in rows} == {0, 1, 2, 3, 4}


def rows(right, arm=Arm.MACHINE):
    scan = [Setting.LENGTH, Setting.JUMP, Setting.AROUND]
    asked = [(s, "unseen") for s in scan] + [(Setting.STRINGS, "more functions")]
    asked += [(Setting.NUMBERS, s) for s in ("longer", "larger", "longer and larger")]
    return [
        {
            "seed": seed,
            "setting": setting,
            "scan": setting.is_scan,
            "arm": arm,
            "split": split,
            "right": right,
            "n": 500,
        }
        for seed in range(3)
        for setting, split in asked
    ]


def test_claims_hold_for_a_perfect_machine_whatever_the_transformer_does():
    found = [*rows(500), *rows(0, Arm.TRANSFORMER)]
    verdicts = [claim.judge(found, Scale.LAPTOP).verdict.value for claim in CLAIMS]
    assert verdicts == ["supported"] * 5
    worse = [claim.judge(rows(300), Scale.LAPTOP).verdict.value for claim in CLAIMS]
    assert worse == ["refuted"] * 5


def test_the_baseline_is_one_seed():
    cells = list(study.cells(LAPTOP))
    assert sum(cell.arm is Arm.TRANSFORMER for cell in cells) == len(LAPTOP.baselines)
    assert sum(cell.arm is Arm.MACHINE for cell in cells) == 5 * LAPTOP.seeds
