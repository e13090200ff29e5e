"""The leaderboard: scores of arms are those of definitions, and its claims read every arm."""

import pytest
import torch
from oracles import gradients as gradient_oracle
from torch.testing import assert_close

from unseen.engine.batches import whole
from unseen.engine.loop import erm_step, train
from unseen.engine.retrain import reweight_task
from unseen.lab import Lab
from unseen.studies.attribution_leaderboard import (
    BEHAVIOURS,
    Arm,
    Data,
    arms,
    ask,
    project,
    retrained_outputs,
    study,
)
from unseen.study import Scale, Verdict
from unseen.study.grid import Cell

SMOKE = study.scales[Scale.SMOKE]


def test_the_model_asked_about_is_the_one_that_is_retrained_without_nothing():
    lab = Lab(seed=5)
    for data in Data:
        trial = ask(SMOKE, data, lab)
        n = len(whole(trial.descent.trained.task.split("train").data, lab)[trial.column])
        kept = torch.ones(2, n, dtype=torch.bool)
        kept[1, :3] = False
        outputs = retrained_outputs(trial, kept)
        with torch.no_grad():
            said = BEHAVIOURS[data](trial.descent.trained.model, trial.queries).double()
        assert_close(outputs[0, 0], said, rtol=1e-4, atol=1e-4)
        setting, task = SMOKE.setting, trial.descent.trained.task
        with lab.child("init", 1).seeded():
            model = setting.model(data)
        train(
            model,
            reweight_task(task, kept[1].float()),
            erm_step,
            setting.budget(data),
            lab.child("fit", 1),
        )
        with torch.no_grad():
            said = BEHAVIOURS[data](model, trial.queries).double()
        assert_close(outputs[1, 1], said, rtol=1e-4, atol=1e-4)


def test_projection_is_a_ridge_of_gradients_made_one_by_one():
    trial = ask(SMOKE, Data.IMAGES, Lab(seed=5))
    model, task = trial.descent.trained.model, trial.descent.trained.task
    examples = whole(task.split("train").data, trial.lab)
    asked, given = (
        gradient_oracle.flattened(
            gradient_oracle.per_example_gradients(model, batch, trial.behaviour)
        )
        for batch in (trial.queries, examples)
    )
    k, generator = SMOKE.projections, trial.lab.child("projection").generator()
    matrix = torch.randn(given.shape[1], k, generator=generator) / k**0.5
    asked, given = asked @ matrix, given @ matrix
    gram = given.T @ given
    inverse = torch.linalg.inv(gram + 0.1 * gram.diagonal().mean() * torch.eye(k))
    right = model(examples["x"]).softmax(1).gather(1, examples["y"][:, None])[:, 0].detach()
    want = asked @ inverse @ given.T * (1 - right)
    assert_close(project(trial, examples), want, rtol=1e-3, atol=1e-4)


def test_words_rank_texts_only_and_every_arm_is_scored():
    assert Arm.WORDS not in arms(Data.IMAGES)
    assert set(arms(Data.TEXT)) == set(Arm)


def test_claims_are_not_judged_at_smoke_and_read_every_arm(smoke_runs):
    once = [row for data in Data for row in smoke_runs.rows_of(study.name, Cell(SMOKE, data, 0))]
    assert {(row["data"], row["strategy"]) for row in once} == {
        (data, arm) for data in Data for arm in arms(data)
    }
    rows = [{**row, "seed": seed} for row in once for seed in (0, 1)]
    judged = [claim.judge(rows, Scale.SMOKE) for claim in study.claims]
    assert {j.verdict for j in judged} == {Verdict.NOT_JUDGED}
    assert all(j.reading is not None for j in judged)
    assert len(study.table(rows)) == len(once)
    assert all(figure(rows).values for figure in study.figures)
    costs = {row["strategy"]: row["operations"] for row in once if row["data"] == Data.TEXT}
    assert costs[Arm.RANDOM] == 0 < costs[Arm.EKFAC] < costs[Arm.CG]
    assert costs[Arm.CG] == pytest.approx(costs[Arm.ASTRA], rel=1.5)
