"""The compass study: what a simulated person marks, and its claims read its rows."""

import pytest
import torch

from unseen.engine.image_attributes import brightness
from unseen.lab import Lab
from unseen.studies.latent_compass import SimulatedPerson, study
from unseen.study import Scale, Verdict, pick


def grey(n: int) -> torch.Tensor:
    return torch.linspace(0, 1, n).view(n, 1, 1, 1).expand(n, 1, 4, 4)


def test_a_person_without_noise_marks_the_outer_thirds():
    person = SimulatedPerson(brightness, 0.3, noise=0)
    assert person.mark(grey(9), Lab()) == [-1, -1, -1, 0, 0, 0, 1, 1, 1]
    order = torch.randperm(9, generator=Lab().generator())
    marks = dict(zip(order.tolist(), person.mark(grey(9)[order], Lab()), strict=True))
    assert [marks[k] for k in range(9)] == [-1, -1, -1, 0, 0, 0, 1, 1, 1]


def test_lapses_are_random_marks_of_the_same_images():
    lapsed = SimulatedPerson(brightness, 0.3, noise=0, lapse=1)
    marks = torch.tensor([lapsed.mark(grey(9), Lab(k)) for k in range(200)])
    assert (marks[:, 3:6] == 0).all()
    # 1,200 fair coins: the mean has deviation 0.029
    assert abs(float(marks[marks != 0].double().mean())) < 0.15


def test_claims_are_not_judged_at_smoke(smoke_runs):
    rows = smoke_runs.rows("latent_compass")
    assert {claim.judge(rows, Scale.SMOKE).verdict for claim in study.claims} == {
        Verdict.NOT_JUDGED
    }
    # the first board of both kinds is the same
    for row in pick(rows, part="marks", shown=10, boards="random"):
        same = {name: row[name] for name in ("seed", "attribute", "person")}
        (other,) = pick(rows, part="marks", shown=10, boards="uncertain", **same)
        assert other["cosine"] == pytest.approx(row["cosine"])
