"""The study of LEVI: regimes that share colours and no digit, arms that are what they are called,
claims that can say no.
"""

from itertools import product

import pytest
import torch

from unseen.engine.batches import whole
from unseen.lab import Lab
from unseen.studies.layerwise_views import (
    CLAIMS,
    ENSEMBLES,
    FIRST,
    LATER,
    RANDOM,
    SINGLES,
    Arm,
    Regime,
    arms,
    before_and_after,
    over,
    over_best,
    study,
)
from unseen.study import Scale, Verdict
from unseen.tasks.patch_digits import corners

SMOKE = study.scales[Scale.SMOKE]


def test_pre_training_and_fine_tuning_share_colours_and_no_digit():
    before, after = before_and_after(SMOKE, SMOKE.settings[0])
    lab = Lab(seed=3).child("data")
    one, other = before.build(lab), after.build(lab)
    assert not set(whole(one.split("train").data, lab)["index"].tolist()) & set(
        whole(other.split("train").data, lab)["index"].tolist()
    )
    colours = []
    for task in (one, other):
        batch, (row, column) = whole(task.split("train").data, lab), corners(1)[0]
        colours.append(
            {
                int(k): tuple(v.tolist())
                for k, v in zip(batch["colours"][:, 0], batch["x"][:, :, row, column], strict=True)
            }
        )
    assert colours[0] == colours[1]


def test_patches_tell_the_label_where_they_should():
    before, after = before_and_after(SMOKE, SMOKE.settings[0])
    lab = Lab(seed=3).child("data")
    for task, telling in ((before.build(lab), FIRST), (after.build(lab), LATER)):
        batch = whole(task.split("train").data, lab)
        right = (batch["colours"] == batch["y"][:, None]).double().mean(0)
        silent = [k for k in range(32) if k not in telling]
        assert right[list(telling)].min() > 0.3 > right[silent].max()
    judged = whole(after.build(lab).split(RANDOM).data, lab)
    assert (judged["colours"] == judged["y"][:, None]).double().mean() == pytest.approx(
        0.1, abs=0.02
    )


def test_frozen_backbones_stay_and_weight_averages_lie_between():
    before, after = before_and_after(SMOKE, SMOKE.settings[0])
    lab = Lab(seed=3)
    task, given = after.build(lab.child("data")), before.build(lab.child("data"))
    found = {(arm, size): model for arm, size, model in arms(SMOKE, given, task, lab)}
    assert set(found) == {(arm, 0) for arm in (*SINGLES[:-1], Arm.TUNED_AND_SCRATCH)} | set(
        product([arm for arm in Arm if "small" in arm or "LEVI" in arm], SMOKE.sizes)
    )
    probe, lpft, wise = (
        dict(found[arm, 0].named_parameters()) for arm in (Arm.PROBE, Arm.LPFT, Arm.WISE)
    )
    for name, p in wise.items():
        assert torch.allclose(p, (probe[name] + lpft[name]) / 2)
    size = SMOKE.sizes[0]
    frozen, tuned, chance = (
        found[arm, size].backbone for arm in (Arm.LEVI, Arm.LEVI_TUNED, Arm.LEVI_RANDOM)
    )
    assert torch.equal(frozen[1].weight, probe["1.weight"])
    assert not torch.equal(tuned[1].weight, probe["1.weight"])
    assert not torch.equal(chance[1].weight, probe["1.weight"])


def rows(unseen, regime=Regime.INSUFFICIENT, seeds=6):
    """One row per arm, judged size and seed; LEVI's advantage wanders a little from seed to
    seed.
    """
    made = []
    for seed, (arm, value) in product(range(seeds), unseen.items()):
        size = 0 if arm in (*SINGLES[:-1], Arm.TUNED_AND_SCRATCH) else 64
        made.append({"regime": str(regime), "arm": str(arm), "size": size, "seed": seed})
        made[-1] |= {
            "unseen": value + 0.1 * seed * (arm is Arm.LEVI),
            "same": value,
            "relies_first": 0.0,
            "relies_later": 0.0,
        }
    return made


@pytest.mark.parametrize(
    ("levi", "verdict"),
    [(78.0, Verdict.SUPPORTED), (76.8, Verdict.UNDECIDED), (74.0, Verdict.REFUTED)],
)
def test_a_lead_is_over_the_best_other_arm(levi, verdict):
    made = rows({**dict.fromkeys(SINGLES, 70.0), Arm.SMALL: 76.0, Arm.LEVI: levi})
    assert CLAIMS[0].judge(made, Scale.LAPTOP).verdict is verdict
    assert CLAIMS[0].judge(made, Scale.SMOKE).verdict is Verdict.NOT_JUDGED
    assert over_best(SINGLES)(made).value == pytest.approx(levi + 0.25 - 76.0)


def test_controls_say_no_where_levi_wins():
    made = rows({**dict.fromkeys((*SINGLES, *ENSEMBLES), 80.0), Arm.LEVI: 82.0}, Regime.SUFFICIENT)
    made += rows({Arm.SMALL: 70.0, Arm.LEVI: 72.0}, Regime.USELESS)
    assert [claim.judge(made, Scale.LAPTOP).verdict for claim in CLAIMS[-2:]] == [
        Verdict.REFUTED
    ] * 2
    assert over(Arm.LEVI, Arm.SMALL, regime=Regime.USELESS)(made).value == pytest.approx(2.25)
    assert (
        CLAIMS[0].judge(made, Scale.LAPTOP).verdict is Verdict.UNDECIDED
    )  # nothing ran in that regime


def test_equal_cells_give_equal_rows(smoke_runs):
    *_, cell = study.cells(SMOKE)
    assert list(study.run(cell, Lab(seed=cell.seed))) == smoke_runs.rows_of(study.name, cell)
