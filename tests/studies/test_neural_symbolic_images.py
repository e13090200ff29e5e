"""Claims read the machine's rows only; lengths of a split add up."""

from unseen.studies.neural_symbolic_images import ALL, CLAIMS, LAPTOP, Arm, Stage, study
from unseen.study import Scale


def test_smoke_rows_add_up(smoke_runs):
    rows = smoke_runs.rows("neural_symbolic_images")
    assert {row["arm"] for row in rows} == set(Arm)
    assert {row["stage"] for row in rows if row["split"] == "symbols"} == set(Stage)
    answers = [row for row in rows if row["split"] != "symbols"]
    for arm in Arm:
        for split in {row["split"] for row in answers}:
            inside = [row for row in answers if (row["arm"], row["split"]) == (arm, split)]
            for name in ("right", "n"):
                whole = [row[name] for row in inside if row["operators"] == ALL]
                assert whole == [sum(row[name] for row in inside if row["operators"] != ALL)]


def rows(learned, start, right, arm=Arm.MACHINE):
    found = []
    for seed in range(3):
        facts = {"seed": seed, "arm": arm}
        for stage, n in ((Stage.START, start - 2 * seed), (Stage.LEARNED, learned)):
            found.append(
                {
                    **facts,
                    "split": "symbols",
                    "stage": stage,
                    "right": n + seed,
                    "n": 1_000,
                    "exact": (n + seed) / 1_000,
                }
            )
        for split in ("same", "longer", "larger"):
            for operators, share in ((ALL, right), ("4", 0)):
                facts_of = {"split": split, "operators": operators, "n": 300}
                found.append({**facts, **facts_of, "right": share + seed})
    return found


def test_claims_hold_for_a_good_machine_whatever_the_transformer_does():
    good = [*rows(980, 880, 280), *rows(0, 0, 0, Arm.TRANSFORMER)]
    verdicts = [claim.judge(good, Scale.LAPTOP).verdict.value for claim in CLAIMS]
    assert verdicts == ["supported"] * len(CLAIMS)
    bad = [claim.judge(rows(700, 700, 30), Scale.LAPTOP).verdict.value for claim in CLAIMS]
    assert bad == ["refuted"] * len(CLAIMS)


def test_the_transformer_has_one_seed():
    cells = list(study.cells(LAPTOP))
    assert sum(cell.arm is Arm.TRANSFORMER for cell in cells) == 1
    assert sum(cell.arm is Arm.MACHINE for cell in cells) == LAPTOP.seeds == 3
