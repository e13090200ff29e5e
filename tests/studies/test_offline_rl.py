"""Effects of the study on made rows, and what its parts play."""

from dataclasses import replace

import numpy as np
import pytest

from unseen.lab import Lab
from unseen.studies.offline_rl import (
    EXPERT,
    LAPTOP,
    Online,
    diversity,
    over_cloning,
    players,
    shuffle_actions,
    size_minus_diversity,
    study,
)
from unseen.studies.offline_rl import Learner as Name
from unseen.study import Scale
from unseen.study.claim import Verdict
from unseen.tasks.levels import Skill


def rows(**success):
    """Success on unseen levels as named, in six seeds that differ by a little."""
    cells = {
        "few": {**EXPERT, "learner": "bc", "levels": 10},
        "middle": {**EXPERT, "learner": "bc", "levels": 100},
        "many": {**EXPERT, "learner": "bc", "levels": 300},
        "larger": {"part": "size", "skill": "expert", "learner": "bc", "levels": 100},
        "iql few": {**EXPERT, "learner": "iql", "levels": 10},
        "iql many": {**EXPERT, "learner": "iql", "levels": 300},
    }
    return [
        {**cells[name.replace("_", " ")], "seed": seed, "unseen": value + 0.01 * seed * (k + 1)}
        for k, (name, value) in enumerate(success.items())
        for seed in range(3 if name.startswith("iql") else 6)
    ]


def test_size_is_compared_with_diversity_in_both_directions():
    made = rows(few=0.2, middle=0.5, many=0.8, larger=0.6)
    up, down = (size_minus_diversity(sign)(made) for sign in (1.0, -1.0))
    # seeds 0 … 5 add (0.04 − 0.02) − (0.03 − 0.01) = 0 and, down, −0.04 per seed
    assert up.value == pytest.approx(0.1 - 0.6)
    assert down.value == pytest.approx(-0.1 - 0.6 - 0.04 * 2.5)
    assert up.n == 6


def test_effects_pair_seeds():
    made = rows(few=0.2, middle=0.5, many=0.8, iql_few=0.3, iql_many=0.8)
    assert diversity(Name.BC)(made).n == 6
    assert diversity(Name.IQL)(made).n == 3
    assert over_cloning(Name.IQL)(made).value == pytest.approx(0.05 + 0.01 * 2.5)


def test_the_laptop_trains_what_it_says():
    cells = list(study.cells(LAPTOP))
    assert sum(cell.arm is Name.BC for cell in cells) == 6 * 4 + 1
    assert sum(cell.arm is Name.IQL for cell in cells) == 3 * 2
    assert len({cell.setting.log.levels(Lab(seed=1)).unseen for cell in cells[:3]}) == 1


def test_the_longer_run_adds_mixed_data_and_learners_and_keeps_the_cells_of_the_ledger():
    usual, longer = (list(study.cells(one)) for one in (LAPTOP, replace(LAPTOP, longer=True)))
    assert {*usual} < {*longer}
    added = {*longer} - {*usual}
    assert {cell.setting.log.skill for cell in added} == {Skill.EXPERT, Skill.MIXED}
    assert {cell.arm for cell in longer} == {*Name}


def test_the_online_reference_plays_the_most_levels_and_decides_the_first_claim():
    usual, online = (list(study.cells(one)) for one in (LAPTOP, replace(LAPTOP, online=True)))
    added = [cell for cell in online if cell not in usual]
    assert {cell.arm for cell in added} == {Online(1_000_000)}
    assert [(cell.setting.log.train, cell.seed) for cell in added] == [(300, k) for k in range(3)]
    (claim,) = [one for one in study.claims if one.option == "--online"]
    made = [
        {**EXPERT, "learner": name, "levels": 300, "seed": seed, "train": success + seed / 99,
         "unseen": success + seed / 77 * k}
        for k, (name, success) in enumerate({"bc": 0.8, "cql": 0.7, "iql": 0.7, "ppo": 0.9}.items())
        for seed in range(6 if name == "bc" else 3)
    ]  # fmt: skip
    without = [row for row in made if row["learner"] != "ppo"]
    assert claim.judge(without, Scale.LAPTOP).verdict is Verdict.NOT_JUDGED
    assert claim.judge(made, Scale.LAPTOP).reading.readings.keys() == {
        f"{name}, {side} levels" for name in ("BC", "CQL", "IQL") for side in ("training", "unseen")
    }
    assert claim.judge(made, Scale.LAPTOP).reading.value == pytest.approx(0.1, abs=0.05)


def test_shuffled_actions_are_the_same_actions():
    log = study.scales[Scale.SMOKE].log
    lab = Lab(seed=2)
    data = log.data(log.levels(lab), lab)
    dealt = shuffle_actions(data, lab)
    before, after = (
        np.concatenate([one.actions for one in part.episodes]) for part in (data, dealt)
    )
    assert not np.array_equal(before, after)
    assert np.array_equal(np.sort(before), np.sort(after))


def test_the_planner_is_the_ceiling():
    log = replace(study.scales[Scale.SMOKE].log, train=5, most=60)
    lab = Lab(seed=3)
    levels = log.levels(lab)
    found = players(log, levels, log.data(levels, lab), lab)
    assert found["planner"] == 1.0
    assert found["random"] < 0.5
