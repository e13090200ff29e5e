"""Arms see as many target tokens; the base model is the same in both; texts are graded as asked."""

import pytest

from unseen.lab import Lab
from unseen.studies.skill_composition import CLAIMS, LAPTOP, Arm, answer_size, study
from unseen.study import Scale
from unseen.tasks.skill_mix import Prompt, SkillMix, compose


def test_smoke_runs_grade_every_split_of_every_arm(smoke_runs):
    rows = smoke_runs.rows("skill_composition")
    splits = {arm: {row["split"] for row in rows if row["arm"] == arm} for arm in Arm}
    assert splits[Arm.BASE] == splits[Arm.SINGLE] == splits[Arm.SETS]
    assert {"k=1, everything", "k=5, unseen sets", "k=4, held-out skills"} <= splits[Arm.SETS]
    assert all(float(row["full_marks"]) <= float(row["all_skills"]) for row in rows)


def test_arms_predict_as_many_target_tokens():
    rng = Lab().numpy()
    for arm in (Arm.SINGLE, Arm.SETS):
        size = answer_size(LAPTOP.spec(arm))
        total = LAPTOP.steps(arm) * LAPTOP.budget.batch_size * size
        assert total == pytest.approx(LAPTOP.target_tokens, rel=1e-3)
    texts = [compose(Prompt((0, 5, 11), 3), rng) for _ in range(500)]
    mean = sum(len(text) + 1 for text in texts) / len(texts)
    alone = SkillMix(replay=0.0, weights=(1e-9, 1e-9, 1.0))
    assert answer_size(alone) == pytest.approx(mean, abs=0.1)
    assert len(list(study.cells(LAPTOP))) == 2 * LAPTOP.seeds


def rows(sets, single, base):
    found = []
    for seed in range(3):
        for arm, full in ((Arm.SETS, sets), (Arm.SINGLE, single), (Arm.BASE, base)):
            for part in ("training sets", "unseen sets", "held-out skills"):
                for k in (2, 3, 4):
                    n = full + 2 * seed * (arm is Arm.SETS)
                    found.append(
                        {"seed": seed, "arm": arm, "split": f"k={k}, {part}", "full": n, "n": 300}
                        | {"full_marks": n / 300}
                    )
            one = {"seed": seed, "arm": arm, "split": "k=1, everything", "full": full, "n": 300}
            found.append(one)
    return found


def test_claims():
    def verdicts(found):
        return [claim.judge(found, Scale.LAPTOP).verdict.value for claim in CLAIMS]

    assert verdicts(rows(294, 3, 0)) == ["supported"] * 7
    assert verdicts(rows(10, 3, 0)) == ["refuted"] * 7
