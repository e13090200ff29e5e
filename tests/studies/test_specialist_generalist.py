"""Arms differ in what stands beside the target only; claims read the rows they name."""

from dataclasses import replace

import pytest
import torch

from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.models.transformer import Decoder, Transformer
from unseen.studies.specialist_generalist import (
    CLAIMS,
    LAPTOP,
    Arm,
    count_targets,
    study,
    tune,
)
from unseen.study import Scale
from unseen.study.trial import untrained_model
from unseen.tasks.skills_and_facts import VOCABULARY, SkillsAndFacts, Target


def test_smoke_runs_hold_every_arm_and_equal_target_tokens(smoke_runs):
    rows = [row for row in smoke_runs.rows("specialist_generalist") if "exact" in row]
    config = study.scales[Scale.SMOKE]
    assert len(rows) == len(list(config.arms()))
    by_size = {}
    for row in rows:
        if not row["replaced"]:
            by_size.setdefault((row["target"], row["n"]), set()).add(row["target_tokens"])
    assert all(len(tokens) == 1 for tokens in by_size.values())
    assert len(by_size) == 7


def test_the_laptop_scale_has_the_broad_target_and_facts():
    assert {arm.target for arm in LAPTOP.arms()} == {Target.BROAD, Target.FACTS}
    shares = [
        arm.hallucination for arm in LAPTOP.arms() if arm.target is Target.FACTS and arm.mixed
    ]
    assert shares == [0.0, 0.25, 0.5]
    assert len(list(study.cells(LAPTOP))) == 3


def test_with_no_general_data_the_mixture_is_the_specialist_bit_for_bit():
    spec = SkillsAndFacts(n=30, general=0, n_test=5)
    shape = Decoder(vocabulary=len(VOCABULARY), width=16, layers=1, heads=2)
    budget = Budget(steps=4, batch_size=8)

    def weights(task):
        model = untrained_model(lambda: Transformer(shape), Lab(0))
        return tune(model, task, budget, Lab(1)).model.state_dict()

    one = weights(LAPTOP.spec(Arm(Target.BROAD, 30)).build(Lab(2)))
    other = weights(
        replace(LAPTOP.spec(Arm(Target.BROAD, 30, mixed=True)), general=0).build(Lab(2))
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    alone, mixed = (replace(spec, general=g).build(Lab(2)) for g in (0, 50))
    assert count_targets(alone, budget, Lab(1)) == count_targets(mixed, budget, Lab(1)) > 0
    mixed_weights = weights(mixed)
    assert any(not torch.equal(one[name], mixed_weights[name]) for name in one)


def rows(few=0.3, many=0.1, facts=(0.1, 0.0, -0.1), replaced=-0.01):
    found = []
    for seed in range(3):
        noise = 0.01 * seed
        base = {"seed": seed, "mixed": True, "hallucination": 0.0, "replaced": 0.0}
        for n, gain in ((100, few), (1_000, many)):
            found.append({**base, "target": "broad", "n": n, "gain": gain + noise * n / 100})
        for share, gain in zip((0.0, 0.25, 0.5), facts, strict=True):
            found.append({**base, "target": "facts", "n": 100, "hallucination": share,
                          "gain": gain + noise * (1 + share)})  # fmt: skip
        found.append({**base, "target": "broad", "n": 1_000, "mixed": False, "replaced": 0.2,
                      "gain": replaced + noise})  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("found", "verdicts"),
    [
        (rows(many=-0.2), ["supported"] * 6),
        (rows(few=-0.3, many=-0.9)[:], ["refuted", "supported", *["supported"] * 4]),
        (rows(many=-0.2, facts=(-0.3, -0.2, 0.1)),
         ["supported", "supported", "refuted", "refuted", "refuted", "supported"]),
        (rows(many=-0.2, replaced=-0.4), [*["supported"] * 5, "refuted"]),
    ],
)  # fmt: skip
def test_claims(found, verdicts):
    assert [claim.judge(found, Scale.LAPTOP).verdict.value for claim in CLAIMS] == verdicts
