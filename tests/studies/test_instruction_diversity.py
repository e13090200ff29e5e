"""Numbers of examples are equal whatever the number of rules; claims read the rows they name."""

import pytest

from unseen.studies.instruction_diversity import CLAIMS, LAPTOP, Diversity, study
from unseen.study import Scale


def test_smoke_runs_hold_every_split_of_every_number_of_rules(smoke_runs):
    rows = smoke_runs.rows("instruction_diversity")
    assert {(row["diversity"], row["split"]) for row in rows} == {
        (diversity, split) for diversity in Diversity for split in ("seen rules", "unseen rules")
    }
    assert all(0 <= int(row["right"]) <= int(row["n"]) == 40 for row in rows)


def test_every_number_of_rules_has_the_same_examples_and_steps():
    cells = list(study.cells(LAPTOP))
    assert {cell.setting.examples for cell in cells} == {112_000}
    assert len(cells) == 2 * LAPTOP.seeds


def rows(few, many, seen=990):
    """Three seeds, which differ in how far many rules carry."""
    return [
        {
            "seed": seed,
            "diversity": diversity,
            "judged": True,
            "split": split,
            "right": right + 5 * seed * (right == many),
            "n": 1_000,
            "exact": right / 1_000 + 0.005 * seed * (right == many),
        }
        for seed in range(3)
        for diversity, unseen in ((Diversity.FEW, few), (Diversity.MANY, many))
        for split, right in (("seen rules", seen), ("unseen rules", unseen))
    ]


@pytest.mark.parametrize(
    ("found", "verdicts"),
    [
        (rows(0, 950), ["supported", "supported"]),
        (rows(600, 950), ["supported", "refuted"]),
        (rows(450, 945), ["supported", "undecided"]),
        (rows(0, 950, seen=500), ["refuted", "supported"]),
    ],
)
def test_claims(found, verdicts):
    assert [claim.judge(found, Scale.LAPTOP).verdict.value for claim in CLAIMS] == verdicts
