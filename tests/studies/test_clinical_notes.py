"""The study of rendered notes: effects on rows made by hand, inputs that belong to their rows, and
a smoke run that every claim can read.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unseen import stats
from unseen.errors import MissingFile
from unseen.lab import Lab
from unseen.studies.clinical_notes import (
    CODED,
    FROZEN,
    TITLE,
    Arm,
    Corpus,
    Kind,
    few_rows,
    hospital_slope,
    no_narratives,
    pooled_task,
    read_by,
    reading_gap,
    run,
    site_drivers,
    study,
    vectors,
    words_rank,
    yearly_slope,
)
from unseen.study import Scale, Verdict
from unseen.study.grid import Cell

SMOKE = study.scales[Scale.SMOKE]


def test_inputs_belong_to_their_rows():
    tabular, split = pooled_task(SMOKE, Corpus.RANDOM, Lab())
    x = torch.arange(len(tabular.frame)).float()[:, None]
    task = read_by(tabular, x).task
    for name, part in task.splits.items():
        batch = part.data[list(range(len(part.data)))]
        assert batch["x"][:, 0].tolist() == tabular.rows[name].tolist()
    assert split == "seen"
    assert len(tabular.rows["train"]) == SMOKE.notes
    again = few_rows(tabular, 10, Lab())
    assert set(again.rows["train"]) < set(tabular.rows["train"])
    assert again.rows["seen"] is tabular.rows["seen"]


def test_vectors_are_those_of_the_notes_and_computed_once():
    x = vectors(SMOKE, False)
    assert vectors(SMOKE, False) is x
    torch.testing.assert_close(x.norm(dim=1), torch.full((len(x),), x.shape[1] ** 0.5))


def test_cells_repeat_and_longer_runs_have_more_seeds():
    cell = Cell(SMOKE, Arm(Kind.SITES, Corpus.LATER), 0)
    assert list(run(cell, Lab())) == list(run(cell, Lab()))
    laptop = list(study.scales[Scale.LAPTOP].cells())
    assert len([one for one in laptop if one.arm.kind is Kind.SITES]) == 10
    assert len([one for one in laptop if one.arm.kind is Kind.TUNED]) == 2
    assert not any(one.arm.corpus is Corpus.NARRATIVES for one in laptop)


def pooled(gap: float) -> list[dict]:
    rows = []
    for seed in range(3):
        for k in range(6):
            common = {
                "part": Kind.POOLED.value,
                "corpus": Corpus.RANDOM.value,
                "seed": seed,
                "department": f"d{k}",
                "judged": k != 5,
            }
            base = 0.6 + 0.01 * k + 0.002 * seed
            rows.append(common | {"reads": CODED, "auc": base})
            rows.append(common | {"reads": FROZEN, "auc": base + gap * (1 if k < 5 else 50)})
    return rows


def test_readers_are_compared_in_departments_with_enough_cases():
    found = reading_gap(Corpus.RANDOM, FROZEN, CODED)(pooled(-0.03))
    assert found.value == pytest.approx(-0.03)
    assert found.n == stats.crossed_mean(np.zeros((3, 5))).n


def test_slopes_are_those_of_hospitals_and_years():
    rows = [{"hospital": f"h{k}", "n": 10**k, "auc": 0.5 + 0.02 * k} for k in range(1, 6)]
    rows += [{"year": 2010 + k, "auc": 0.7 - 0.01 * k} for k in range(6)]
    assert hospital_slope(rows).value == pytest.approx(0.02)
    assert yearly_slope(rows).value == pytest.approx(-0.01)


def test_the_number_of_words_counts_within_the_first_four():
    rows = [{"cause": "words", "rank": rank, "seed": rank} for rank in (2, 4, 5, 30)]
    assert words_rank(rows).value == 0.5


def test_claims_about_narratives_are_not_judged_and_their_absence_is_named(smoke_runs):
    rows = smoke_runs.rows("clinical_notes")
    (claim,) = [one for one in study.claims if one.needs is Scale.PAPER]
    assert claim.judge(rows, Scale.LAPTOP).verdict is Verdict.NOT_JUDGED
    with pytest.raises(MissingFile, match="NEISS"):
        no_narratives()


def test_every_table_and_figure_says_what_the_notes_are(smoke_runs):
    rows = smoke_runs.rows("clinical_notes")
    lines = study.table(rows)
    assert all(TITLE in line for line in lines if "year" not in str(line) and "auc" not in line)
    assert set(site_drivers(rows)) <= {"words", "n_local", "positives", "age"}
    tuned = [row for row in rows if row.get("part") == Kind.TUNED_SITES]
    assert {row["variant"] for row in tuned} == {"unseen", "local"}
    assert len({row["site"] for row in tuned}) == 2


def test_a_model_without_a_step_changes_nothing_at_a_site():
    still = replace(SMOKE, then=replace(SMOKE.then, steps=0))
    rows = list(run(Cell(still, Arm(Kind.SITES), 0), Lab()))
    by_site = {}
    for row in rows:
        by_site.setdefault(row["site"], []).append(row["auc"])
    assert all(a == b for a, b in by_site.values())
