"""The order-flip study: effects are gradients written out by hand, and its claims read them."""

import pytest
import torch

from unseen.attributions.influence import Curvature, sequence_nats
from unseen.engine.batches import whole
from unseen.lab import Lab
from unseen.studies.influence_order_flip import answer, effect, fit, prepare, study
from unseen.study import Scale, Verdict, pick
from unseen.tasks.order_flip import Document

SMOKE = study.scales[Scale.SMOKE]


def test_effects_are_dot_products_of_gradients_over_the_number_of_trained_documents():
    lab = Lab(seed=2, dtype=torch.float64)
    task = SMOKE.task.build(lab.child("data"))
    trained = fit(SMOKE, task, lab)
    documents = SMOKE.task.documents(lab.child("data"))
    influences = prepare(Curvature.IDENTITY, trained, documents, lab)
    params = [
        p for name in influences.layers for p in trained.model.get_submodule(name).parameters()
    ]

    def gradient(f, batch, k):
        one = {key: tensor[k : k + 1] for key, tensor in batch.items()}
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(f(trained.model, one).sum(), params)]
        )

    found = effect(influences, task.splits["new"].data)
    asked, n = whole(task.splits["new"].data, lab), len(task.splits["train"].data)
    for k in (0, 4):
        for place, kind in enumerate(Document):
            taught = gradient(sequence_nats, documents[kind].columns, k)
            assert found[k, place].item() == pytest.approx(
                -float(gradient(answer, asked, k) @ taught) / n, rel=1e-6
            )


def test_curvature_is_that_of_the_trained_documents_alone():
    lab = Lab(seed=2)
    task = SMOKE.task.build(lab.child("data"))
    trained = fit(SMOKE, task, lab)
    documents = SMOKE.task.documents(lab.child("data"))
    fewer = {kind: columns.subset(slice(0, 2)) for kind, columns in documents.items()}
    one, other = (
        prepare(Curvature.EKFAC, trained, d, lab).factors.blocks for d in (documents, fewer)
    )
    for name in one:
        assert torch.equal(one[name].values, other[name].values)


def test_smoke_runs_and_every_claim_reads_it_as_laptop_rows(smoke_runs):
    rows = smoke_runs.rows(study.name)
    judged = [claim.judge(rows, Scale.SMOKE) for claim in study.claims]
    assert {j.verdict for j in judged} == {Verdict.NOT_JUDGED}
    assert all(j.reading is not None and j.reading.n == 2 for j in judged)
    forward = pick(rows, document=str(Document.FORWARD))
    assert all(row["binding_share"] == row["log_p_share"] == 1 for row in forward)
    assert len(study.table(rows)) == 2 * len(Document) + 2
    for figure in study.figures:
        assert figure(rows).title


def test_equal_cells_give_equal_rows(smoke_runs):
    *_, cell = (cell for cell in study.cells(SMOKE) if cell.arm is Curvature.EKFAC)
    assert list(study.run(cell, Lab(seed=cell.seed))) == smoke_runs.rows_of(study.name, cell)
