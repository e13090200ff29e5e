"""Arms differ in what training shows; claims read the rows they name."""

import pytest

from unseen.engine.batches import length
from unseen.lab import Lab
from unseen.studies.data_factors import (
    CLAIMS,
    COMPLEXITY,
    DISTINCT,
    JUDGED,
    LAPTOP,
    QUESTIONS,
    Arm,
    build,
    study,
)
from unseen.study import Scale
from unseen.study.grid import resize


def test_smoke_runs_every_arm(smoke_runs):
    rows = smoke_runs.rows("data_factors")
    assert {row["arm"] for row in rows} == set(Arm)
    assert all(0 <= int(row["right"]) <= int(row["n"]) for row in rows)


def test_the_laptop_scale_has_three_seeds_of_what_is_judged_and_one_of_the_rest():
    cells = list(study.cells(LAPTOP))
    assert [sum(cell.arm is arm for cell in cells) for arm in JUDGED] == [3, 3]
    assert {cell.arm for cell in cells if cell.arm not in JUDGED} == {*DISTINCT, *COMPLEXITY}
    assert len(cells) == 6 + 3 + 5


def test_compared_arms_train_on_equally_many_examples_for_as_many_steps():
    small = resize(LAPTOP, complex={"n_train": 100, "n_test": 20}, pool=400)
    for arms in (COMPLEXITY, QUESTIONS):
        tasks = [build(small, arm, Lab(7)) for arm in arms]
        assert len({length(task.splits["train"].data) for task in tasks}) == 1
        assert len({small.budget_of(arm) for arm in arms}) == 1
    short, _, simple, hard, mixed = (
        build(small, arm, Lab(7)).splits["train"].data.columns["length"].double().mean()
        for arm in COMPLEXITY
    )
    assert simple < mixed < hard
    assert short < 12


def test_evaluation_is_the_same_for_arms_that_are_compared():
    small = resize(LAPTOP, complex={"n_train": 100, "n_test": 20}, pool=400)
    for arms in (COMPLEXITY[:2], COMPLEXITY[2:]):
        words = [build(small, arm, Lab(7)).splits["same"].data.columns["length"] for arm in arms]
        assert all((w == words[0]).all() for w in words)


def rows(copies, none, inside=1.0, many=0.3):
    """Three seeds, which differ in the unseen clauses."""
    found = []
    for seed in range(3):
        for arm, exact in ((Arm.COPIES, copies), (Arm.NONE, none)):
            value = exact + 0.01 * seed * (arm is Arm.COPIES)
            for split, share in (("trained", inside), ("unseen", value)):
                right = round(300 * share)
                found.append({"seed": seed, "arm": arm, "judged": True, "split": split,
                              "right": right, "n": 300, "exact": share})  # fmt: skip
    for arm, exact in ((Arm.MANY, many), (Arm.FEW, 0.1)):
        found.append({"seed": 0, "arm": arm, "judged": False, "split": "unseen",
                      "right": 0, "n": 80, "exact": exact})  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("found", "verdicts"),
    [
        (rows(0.7, 0.0), ["supported", "supported"]),
        (rows(0.3, 0.0), ["supported", "undecided"]),
        (rows(0.1, 0.0, inside=0.5), ["refuted", "refuted"]),
    ],
)
def test_claims(found, verdicts):
    judged = [claim.judge(found, Scale.LAPTOP) for claim in CLAIMS[:2]]
    assert [one.verdict.value for one in judged] == verdicts


def test_one_seed_is_reported():
    claim = CLAIMS[2].judge(rows(0.7, 0.0), Scale.LAPTOP)
    assert claim.verdict.value == "not judged"
    assert claim.reading.value == pytest.approx(0.2)
