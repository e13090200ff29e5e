"""Both arms see the same functions, strings and numbers of examples; claims read the rows they
name.
"""

import pytest

from unseen.lab import Lab
from unseen.studies.cross_task import CLAIMS, LAPTOP, Arm, study
from unseen.study import Scale
from unseen.tasks.symbolic_instructions import OTHER


def test_smoke_runs_hold_every_split(smoke_runs):
    rows = smoke_runs.rows("cross_task")
    splits = {"primitives", "seen functions", "unseen functions"}
    found = {}
    for row in rows:
        found.setdefault(row["arm"], set()).add(row.get("split"))
    assert found.pop(Arm.NONE) == splits | {None}
    assert found == {arm: splits | {OTHER, None} for arm in set(Arm) - {Arm.NONE}}
    assert len([row for row in rows if "function" in row]) == 10 * len(Arm)


def test_arms_share_functions_strings_and_numbers_of_examples():
    cells = list(study.cells(LAPTOP))
    judged = [cell.arm for cell in cells if cell.arm is not Arm.UPPER_BOUND]
    assert judged == [Arm.DEFINITION, Arm.NONE] * LAPTOP.seeds
    assert len(cells) == len(judged) + 1
    specs = [LAPTOP.spec(arm) for arm in Arm]
    assert {spec.n_train for spec in specs} == {208_000}
    unseen = [spec.split_functions(Lab(5))[1] for spec in specs]
    assert all(one == unseen[0] for one in unseen)


def rows(own, other, none, seen=0.95):
    """Three seeds."""
    found = []
    for seed in range(3):
        for arm, splits in (
            (Arm.DEFINITION, {"primitives": 0.99, "seen functions": seen,
                              "unseen functions": own, OTHER: other}),
            (Arm.NONE, {"unseen functions": none}),
        ):  # fmt: skip
            for split, value in splits.items():
                exact = value + 0.01 * seed * (value == own)
                found.append({"seed": seed, "arm": arm, "split": split, "exact": exact,
                              "right": round(1000 * exact), "n": 1000})  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("found", "verdicts"),
    [
        (rows(0.5, 0.02, 0.05), ["supported"] * 4),
        (rows(0.5, 0.45, 0.05), ["supported", "supported", "supported", "refuted"]),
        (rows(0.1, 0.0, 0.05), ["supported", "supported", "refuted", "supported"]),
        (rows(0.5, 0.02, 0.05, seen=0.6), ["supported", "refuted", "supported", "supported"]),
    ],
)
def test_claims(found, verdicts):
    assert [claim.judge(found, Scale.LAPTOP).verdict.value for claim in CLAIMS] == verdicts
