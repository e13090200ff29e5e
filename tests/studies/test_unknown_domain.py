"""The study of unknown domains: equal passes are counted, rows are readings, claims are judged on
rows made up.
"""

from dataclasses import replace
from itertools import product

import pytest
import torch
from made_rows import add_noise

from unseen.engine.evaluate import scores
from unseen.lab import Lab
from unseen.measures.sharpness import SAMSharpness
from unseen.method import Trained
from unseen.studies.unknown_domain import (
    CLAIMS,
    Part,
    Variant,
    build,
    lowest_gain,
    mean_norm,
    method,
    read,
    sources,
    study,
)
from unseen.study import Scale, Verdict
from unseen.study.trial import untrained_model
from unseen.task import Use

LAB = Lab(seed=5)
SMOKE = study.scales[Scale.SMOKE]
SETTING = SMOKE.sources
TASK = SETTING.specs[0].build(LAB.child("data"))


def passes(variant: Variant) -> float:
    """Examples that went through the model, by those in a minibatch and step of the setting."""
    model, rows = untrained_model(lambda: build(TASK, SETTING.hidden), LAB), [0]

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        rows[0] += len(inputs[0])

    handle = model.register_forward_pre_hook(count)
    method(variant, SETTING).fit(model, TASK, LAB)
    handle.remove()
    return rows[0] / (SETTING.budget.steps * SETTING.budget.batch_size * len(TASK.of(Use.TRAIN)))


def test_as_many_passes():
    assert passes(Variant.ERM) == 1
    assert passes(Variant.SAM) == passes(Variant.ASAM) == 2
    assert passes(Variant.UDIM) == passes(Variant.LONG_ERM) == passes(Variant.LONG_SAM) == 5


def test_controls_differ_from_udim_in_one_thing_each():
    udim, worst, random, loud, heavy = (
        method(v, SETTING)
        for v in (Variant.UDIM, Variant.WORST, Variant.RANDOM, Variant.LOUD, Variant.HEAVY)
    )
    assert worst == replace(udim, variance_weight=0)
    assert random == replace(worst, perturbation=random.perturbation)
    assert loud == replace(random, radius=4 * random.radius)
    assert heavy == replace(udim, variance_weight=10)
    assert method(Variant.SAM, SETTING).rho == udim.rho


def test_rows_are_readings():
    trained = Trained(untrained_model(lambda: build(TASK, SETTING.hidden), LAB), TASK)
    (row,) = read(SAMSharpness(most=20), trained, LAB)
    found = scores(trained, LAB)
    known = [f"seen:{split.at}" for split in TASK.of(Use.TRAIN).values()]
    assert list(sources(TASK)) == known
    assert row["target"] == TASK.split("unseen").at
    assert row["accuracy"] == found["unseen"].value
    assert row["source_accuracy"] == pytest.approx(
        sum(found[name].value for name in known) / len(known)
    )
    assert row["sharpness"] == SAMSharpness("unseen", most=20)(trained, LAB).value


@pytest.mark.parametrize(
    ("setting", "n"), [(SMOKE.sources, 1), (SMOKE.rotation, 2), (SMOKE.corruption, 6)]
)
def test_every_unknown_domain_has_a_row(setting, n):
    cell = next(cell for cell in study.cells(SMOKE) if cell.setting == setting)
    rows = list(study.run(replace(cell, setting=replace(setting, variants=(Variant.ERM,))), LAB))
    assert len({row["target"] for row in rows}) == len(rows) == n


def test_norm_of_the_inputs_by_a_loop():
    found = [
        row["x"].flatten().norm() for split in TASK.of(Use.TRAIN).values() for row in split.data
    ]
    assert mean_norm(TASK, LAB) == pytest.approx(float(torch.stack(found).mean()), rel=1e-6)


def made_up(**accuracies: float):
    """Rows in which variants have these accuracies (0.5 if not named), on two unknown domains and
    three seeds.
    """
    rows = []
    for part, variant, seed, target in product(Part, Variant, range(3), ("a", "b")):
        value = accuracies.get(variant.name, 0.5)
        facts = {
            "part": part.value,
            "variant": variant.value,
            "seed": seed,
            "target": target,
            "radius_share": 0.1,
        }
        # the more accurate, the flatter
        means = {
            "accuracy": value,
            "source_accuracy": value,
            "sharpness": 1 - value,
            "source_sharpness": 1.0,
        }
        rows.append({**facts, **means})
    return add_noise(rows, "accuracy", "source_accuracy", "sharpness")


def judged(rows):
    return [claim.judge(rows, Scale.LAPTOP).verdict for claim in CLAIMS]


def test_claims_can_hold_fail_and_stay_open():
    assert set(judged(made_up(UDIM=0.6, WORST=0.55, HEAVY=0.4))) == {Verdict.SUPPORTED}
    assert set(judged(made_up(UDIM=0.4, WORST=0.45, RANDOM=0.6, HEAVY=0.5))) == {Verdict.REFUTED}
    rows = [
        {
            **row,
            "accuracy": float(row["accuracy"])
            + (row["seed"] - 1) * (row["variant"] == Variant.UDIM),
        }
        for row in made_up()
    ]
    assert judged(rows)[0] is Verdict.UNDECIDED


def test_lowest_gain_is_that_of_the_worst_domain():
    rows = made_up(UDIM=0.7)
    rows = [
        {**row, "accuracy": 0.45}
        if row["target"] == "b" and row["variant"] == Variant.UDIM
        else row
        for row in rows
    ]
    assert lowest_gain(Part.SOURCES, Variant.UDIM, Variant.SAM)(rows).value == pytest.approx(
        -0.05, abs=1e-3
    )


def test_equal_cells_give_equal_rows(smoke_runs):
    *_, cell = study.cells(SMOKE)
    assert list(study.run(cell, Lab(seed=cell.seed))) == smoke_runs.rows_of(study.name, cell)
