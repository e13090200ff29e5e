"""The study of counterfactual fairness: known counterfactuals, known rules, adversaries that find
what is there.
"""

from dataclasses import replace
from itertools import product

import pytest
import torch
from made_rows import add_noise
from torch import nn
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.cdsae import CDSAE, Adversary
from unseen.models.mlp import mlp
from unseen.studies.counterfactual_fairness import (
    BOTH,
    CLAIMS,
    JUDGED,
    LAPTOP,
    NONE,
    ONLY_FAIRNESS,
    Arm,
    Where,
    evaluate,
    oracles,
    settings,
    study,
    telling,
)
from unseen.study import Scale, Verdict, pick
from unseen.task import Use
from unseen.tasks.group_input import (
    FUTURE,
    HELD_OUT,
    PRESENT,
    add_group_input,
    drop_group_input,
    shift_group_means,
)

SMOKE = study.scales[Scale.SMOKE]
LARGE = settings(4, 2, 400, 4_000)
WORLDS = [each for each in LARGE if each.where is not Where.REAL]
LAB = Lab(seed=1)


class Linear(nn.Module):
    """Says 1 where ⟨w, x⟩ > 0, with certainty."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = 1e6 * (x @ self.weights)
        return torch.stack([-z, z], 1)


def test_sizes_of_the_laptop_are_those_of_the_sheet():
    drift = LAPTOP.settings[0].spec
    assert (drift.fitted, drift.future, drift.n, drift.n_evaluate, drift.step) == (
        10,
        3,
        600,
        1_500,
        10,
    )
    assert [each.spec.step for each in LAPTOP.settings[1:3]] == [3, 10]


@pytest.mark.parametrize("setting", WORLDS, ids=lambda s: str(s.where))
def test_told_people_are_those_of_the_visible_world(setting):
    task, whole = (
        add_group_input(setting.spec.build(LAB)),
        replace(setting.spec, visible=True).build(LAB),
    )
    for name, split in task.of(Use.TRAIN).items():
        assert_close(split.data[:]["x"], whole.split(name).data[:]["x"])
    later = list(whole.unseen)
    assert len(later) == 2
    for column in ("x", "counterfactual"):
        wanted = torch.cat([whole.split(name).data[:][column] for name in later])
        assert_close(task.split(FUTURE).data[:][column], wanted)
        assert_close(drop_group_input(task).split(FUTURE).data[:][column], wanted[:, :-1])
    assert set(task.splits) - set(task.of(Use.TRAIN)) == {FUTURE, PRESENT, HELD_OUT}


@pytest.mark.parametrize("setting", WORLDS, ids=lambda s: str(s.where))
def test_exchanged_means_come_to_the_true_counterfactual(setting):
    own = add_group_input(setting.spec.build(LAB)).split(FUTURE).data[:]
    error = (own["outside"] - own["counterfactual"]).abs().mean()
    effect = (own["counterfactual"] - own["x"])[:, :-1].abs().mean()
    assert error < 0.1 * effect


def test_exchange_is_within_domains_and_undoes_itself():
    x = torch.tensor([[0.0], [2.0], [5.0], [10.0], [20.0]])
    a, domain = torch.tensor([0, 0, 1, 0, 1]), torch.tensor([0, 0, 0, 1, 1])
    other = shift_group_means(x, a, domain)
    assert_close(other, torch.tensor([[4.0], [6.0], [1.0], [20.0], [10.0]]))
    assert_close(shift_group_means(other, 1 - a, domain), x)


def test_rules_that_know_the_causes():
    spec = WORLDS[0].spec
    task = add_group_input(spec.build(LAB))
    found = oracles(spec, task)
    assert found[Arm.FAIR]["true"] == 0
    assert found[Arm.FAIR]["fair_accuracy"] == 100
    assert found[Arm.FAIR]["accuracy"] == pytest.approx(88.0, abs=1.5)
    # P(wrong) = arctan(σ_noise / σ_signal) / π for jointly normal signs; the pull of the group
    # makes it nearly so
    noise, signal = 0.3, (2 + 0.8**2 / 4) ** 0.5
    wrong = torch.atan(torch.tensor(noise / signal)) / torch.pi
    assert found[Arm.BIASED]["accuracy"] == pytest.approx(100 * (1 - float(wrong)), abs=1)
    assert found[Arm.BIASED]["true"] == pytest.approx(22.3, abs=1.5)  # P(|u₁ + u₂| < 0.4)


def test_a_classifier_on_a_alone_is_unfair_through_and_through():
    task = add_group_input(WORLDS[0].spec.build(LAB))
    inputs = task.split(FUTURE).data[:]["x"].shape[1]
    row = evaluate(Trained(Linear(*[0.0] * (inputs - 1), 1.0), task), LAB)
    assert row["true"] == row["outside"] == row["flips"] == row["parity"] == 100


def test_new_adversaries_find_the_group_where_it_is():
    task = add_group_input(WORLDS[0].spec.build(LAB))
    method = CDSAE(width=8, hidden=2)
    model = method.surgery(mlp([7, 2]), task, LAB)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.zero_()
        first = model.encoder[1].weight
        first[0, -1], model.encoder[3].weight[0, 0], model.encoder[5].weight[0, 0] = 1.0, 1.0, 4.0
    trained = Trained(model, task)
    config = replace(SMOKE, probe=replace(SMOKE.probe, steps=60))
    assert telling([trained], config, [LAB]) == [100.0]
    assert telling([trained], config, [LAB], sampled=True)[0] < 100
    with torch.no_grad():
        first[0, -1] = 0.0
    assert telling([trained], config, [LAB])[0] == pytest.approx(50, abs=6)


def rows(where, true, accuracy=80.0, seeds=6):
    """A row per arm and seed whose effect wanders a little."""
    made = []
    for seed, (arm, value) in product(range(seeds), true.items()):
        log = torch.tensor(value).log().item() + 0.02 * seed * (arm == str(JUDGED))
        made.append(
            {"where": str(where), "arm": str(arm), "seed": seed, "true": value, "log_true": log}
        )
        made[-1] |= {"accuracy": accuracy, "log_outside": log}
    return add_noise(made, "true", "log_true", "accuracy", size=1e-3)


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [(15.0, Verdict.SUPPORTED), (19.0, Verdict.UNDECIDED), (25.0, Verdict.REFUTED)],
)
def test_the_share_is_of_the_fairer_erm(effect, verdict):
    made = rows(Where.DRIFT, {Arm.TOLD: 30.0, Arm.HIDDEN: 40.0, str(JUDGED): effect})
    judgement = CLAIMS[0].judge(made, Scale.LAPTOP)
    assert judgement.verdict is verdict
    assert judgement.reading.value == pytest.approx(
        effect * torch.tensor(0.05).exp().item() / 30, rel=1e-2
    )
    assert CLAIMS[0].judge(made, Scale.SMOKE).verdict is Verdict.NOT_JUDGED


def test_claims_say_no():
    made = rows(
        Where.DRIFT,
        {str(NONE): 30.0, str(ONLY_FAIRNESS): 15.0, Arm.TOLD: 30.0, Arm.HIDDEN: 20.0},
    )
    made += rows(Where.DRIFT, {str(BOTH): 20.0, BOTH.name(Adversary.UNINFLUENCED): 20.0})
    verdicts = {
        claim.says.split()[0] + str(k): claim.judge(made, Scale.LAPTOP).verdict
        for k, claim in enumerate(CLAIMS)
    }
    assert verdicts["To8"] is verdicts["The9"] is verdicts["The12"] is Verdict.REFUTED
    assert verdicts["COMPAS,15"] is Verdict.UNDECIDED  # nothing ran there


def test_smoke_has_every_arm(smoke_runs):
    first, *_, real, other = (smoke_runs.rows_of(study.name, cell) for cell in study.cells(SMOKE))
    assert len(first) == SMOKE.seeds * (len(SMOKE.penalties) + 4)
    assert {row["arm"] for row in other} == {BOTH.name(Adversary.UNINFLUENCED)}
    assert not any("true" in row for row in pick(real, where=str(Where.REAL)))


def test_columns_of_the_hidden_task_are_copies_of_the_told_one():
    task = add_group_input(SMOKE.settings[0].spec.build(LAB))
    before = task.split(FUTURE).data[:]["x"].clone()
    assert isinstance(drop_group_input(task).split(FUTURE).data, Columns)
    assert torch.equal(task.split(FUTURE).data[:]["x"], before)
