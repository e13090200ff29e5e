"""Arms have equally many rules and examples; families that are asked are in no training."""

from unseen.studies.instruction_domains import (
    CLAIMS,
    DOUBLED,
    LAPTOP,
    NEVER,
    SEVERAL,
    Families,
    half_of_mixed,
    study,
)
from unseen.study import Scale
from unseen.tasks.rewriting import pattern


def test_smoke_runs_hold_every_family(smoke_runs):
    rows = smoke_runs.rows("instruction_domains")
    for arm in Families:
        splits = {row["split"] for row in rows if row["families"] == arm}
        assert splits == {"seen rules", "unseen rules", *(f"family {name}" for name in NEVER)}
    assert len({row["rules"] for row in rows}) == 1


def test_families_are_patterns_and_unseen_ones_are_new():
    assert all(pattern(name) == name and len(name) == 4 for name in (*SEVERAL, *NEVER))
    assert set(DOUBLED) < set(SEVERAL)
    assert not set(SEVERAL) & set(NEVER)
    assert len(list(study.cells(LAPTOP))) == 2 * LAPTOP.seeds


def rows(restricted, mixed, seen=970):
    return [
        {
            "seed": seed,
            "families": arm,
            "split": split,
            "kind": kind,
            "right": right + 4 * seed * (arm == "several families"),
            "n": 1_000,
            "exact": right / 1_000 + 0.004 * seed * (arm == "several families"),
        }
        for seed in range(3)
        for arm, new in ((Families.RESTRICTED, restricted), (Families.MIXED, mixed))
        for split, kind, right in (
            ("seen rules", "seen rules", seen),
            ("family abcd", "never trained", new),
            ("family abca", "never trained", new + 10),
        )
    ]


def test_claims():
    def verdicts(found):
        return [claim.judge(found, Scale.LAPTOP).verdict.value for claim in CLAIMS]

    assert verdicts(rows(20, 800)) == ["supported"] * 3
    assert verdicts(rows(700, 800)) == ["supported", "refuted", "refuted"]
    assert half_of_mixed(rows(100, 600)).value < 0 < half_of_mixed(rows(400, 600)).value
