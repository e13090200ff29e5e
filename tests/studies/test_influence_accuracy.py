"""The accuracy study: its rows are those of definitions written out by hand, and its claims read
them.
"""

import pytest
import torch
from scipy.stats import spearmanr

from unseen.engine.batches import whole
from unseen.engine.loop import erm_step, train
from unseen.engine.retrain import restrict_task
from unseen.lab import Lab
from unseen.measures.datamodeling_score import random_subsets
from unseen.studies.influence_accuracy import DOT, GAUSS_NEWTON, Part, margin, study
from unseen.study import Scale, Verdict, pick
from unseen.study.grid import Cell, resize

SMOKE = study.scales[Scale.SMOKE]


def cell(part: Part, **changes: object) -> Cell:
    return Cell(resize(SMOKE, **changes), part, 0)


def test_score_of_the_dot_product_is_that_of_gradients_and_models_made_one_by_one():
    made = cell(Part.SCORE, subsets=5, asked=1)
    setting, lab = made.setting.scored, Lab(seed=0, dtype=torch.float64)
    task = setting.task(lab)
    trained, queries = setting.train(task, lab), whole(task.splits["test"].data, lab)
    params = list(trained.model.parameters())

    def gradients(f, batch):
        rows = [{k: v[i : i + 1] for k, v in batch.items()} for i in range(len(batch["y"]))]
        each = [torch.autograd.grad(f(trained.model, row).sum(), params) for row in rows]
        return torch.stack([torch.cat([g.flatten() for g in one]) for one in each])

    scores = (
        -gradients(margin, queries)
        @ gradients(task.objective.loss, whole(task.splits["train"].data, lab)).T
    )
    kept = random_subsets(120, 5, lab.child("subsets"))
    outputs = []
    for rows in kept:
        with lab.child("halves").child("init", 0).seeded():
            model = setting.model()
        train(
            model,
            restrict_task(task, rows),
            erm_step,
            setting.steps(60),
            lab.child("halves").child("fit", 0),
        )
        outputs.append(margin(model, queries).detach())
    each = [
        spearmanr((scores[q] * kept).sum(1), [out[q].item() for out in outputs]).statistic
        for q in range(len(queries["y"]))
    ]
    (row,) = pick(list(study.run(made, lab)), strategy=DOT.label)
    assert row["lds"] == pytest.approx(sum(each) / len(each), abs=1e-9)


def test_exact_influence_is_the_response_and_others_are_not():
    rows = list(study.run(cell(Part.RESPONSE, copies=-0.005), Lab(seed=1)))
    (exact,) = pick(rows, strategy=GAUSS_NEWTON.label)
    assert exact["response_r"] > 0.99
    assert exact["slope"] == pytest.approx(1, abs=0.05)
    assert all(row["response_r"] < exact["response_r"] for row in rows if row is not exact)


def test_claims_are_not_judged_at_smoke_and_read_every_part(smoke_runs):
    cells = [cell(part) for part in Part]
    once = [row for c in cells for row in smoke_runs.rows_of(study.name, c)]
    rows = [{**row, "seed": seed} for row in once for seed in (0, 1)]
    judged = [claim.judge(rows, Scale.SMOKE) for claim in study.claims]
    assert {j.verdict for j in judged} == {Verdict.NOT_JUDGED}
    assert all(j.reading is not None and j.reading.n == 2 for j in judged)
    assert len(study.table(rows)) == len({row["strategy"] for row in rows})
    assert all(figure(rows).values for figure in study.figures)
