"""The easy-to-hard study: the linear teacher, what is drawn, and what its claims read."""

import pytest
import torch

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.studies.easy_to_hard import (
    SETS,
    ItemSet,
    Teacher,
    draw_items,
    gap_of,
    learn_from_teacher,
    smoke_set,
    study,
    table_of,
)
from unseen.study import Scale, Verdict
from unseen.tasks.graded_questions import Stratum


def answers_rows(name, method, source, accuracy, stratum="hard", runs=2, items=60):
    right = "".join("1" if k % 20 < round(20 * accuracy) else "0" for k in range(items))
    return [
        {
            "part": "answers",
            "set": name,
            "method": method,
            "source": source,
            "stratum": stratum,
            "run": run,
            "right": right,
            "seed": 0,
        }
        for run in range(runs)
    ]


def rows_of_set(name):
    rows = [{"part": "items", "set": name, "guessing": 0.25, "seed": 0}]
    rows += answers_rows(name, "zero-shot", "nothing", 0.5, runs=1)
    rows += answers_rows(name, "zero-shot", "nothing", 0.9, "easy", runs=1)
    for method in ("linear head", "in context"):
        rows += answers_rows(name, method, "easy", 0.65)
        rows += answers_rows(name, method, "hard", 0.75)
    return rows


def test_easy_points_teach_a_linear_boundary_and_noise_on_hard_ones_makes_them_better():
    clean = [learn_from_teacher(Teacher(), Lab(seed=k)) for k in range(3)]
    noisy = [learn_from_teacher(Teacher(noise=0.3), Lab(seed=k)) for k in range(3)]
    assert all(0.9 <= row["recovered"] <= 1.1 for row in clean)
    assert all(row["recovered"] > 1 and row["easy"] > row["hard"] for row in noisy)


def test_the_gap_is_read_from_the_rows():
    gap = gap_of(rows_of_set("ARC-Easy"), "ARC-Easy")
    assert gap.recovered is not None
    assert gap.recovered.value == pytest.approx(0.8)
    over = gap_of(rows_of_set("ARC-Easy"), "ARC-Easy", "in context", "zero-shot")
    assert over.unsupervised.value == pytest.approx(0.5)
    table = table_of(rows_of_set("x"), set="x", method="linear head", source="easy")
    assert table.shape == (2, 60)


def test_a_further_draw_of_items_stands_beside_the_first():
    rows = rows_of_set("x")
    other = [{**row, "seed": 1} for row in rows]
    where = {"set": "x", "method": "linear head", "source": "easy"}
    assert table_of([*rows, *other], **where).shape == (2, 120)
    assert gap_of([*rows, *other], "x").recovered.value == pytest.approx(0.8)
    with pytest.raises(InvalidData, match="No row has the answers"):
        gap_of(rows, "y")


def test_a_draw_holds_the_items_to_read_and_no_others():
    chosen = smoke_set("sums")
    items, draw = draw_items(chosen, Lab(seed=1))
    assert set(draw.indices) <= set(range(len(items)))
    assert len(draw.test[Stratum.HARD]) == len(draw.test[Stratum.EASY]) == 20
    assert all(len(run) == 10 for run in draw.train[Stratum.HARD])
    assert Stratum.MEDIUM not in draw.train
    again, _ = draw_items(chosen, Lab(seed=1))
    assert items == again


def test_every_claim_reads_its_rows_and_an_undefined_share_decides_nothing():
    rows = [row for chosen in SETS for row in rows_of_set(chosen.name)]
    rows += [
        {"part": "teacher", "noise": noise, "recovered": value + 0.001 * seed, "seed": seed}
        for noise, value in ((0.0, 1.0), (0.3, 1.2))
        for seed in range(3)
    ]
    verdicts = [claim.judge(rows, Scale.LAPTOP).verdict for claim in study.claims]
    assert verdicts[:2] == [Verdict.SUPPORTED] * 2
    assert len(study.table(rows)) == 4 * len(SETS)
    assert all(figure(rows).title for figure in study.figures)
    name = "ARC-Easy"
    flat = [row for row in rows if row.get("set") != name]
    flat += [{"part": "items", "set": name, "guessing": 0.75, "seed": 0}]
    flat += answers_rows(name, "linear head", "easy", 0.65)
    flat += answers_rows(name, "linear head", "hard", 0.75)
    (share,) = (c for c in study.claims if c.says.startswith(f"{name}: at least 70 %"))
    assert share.judge(flat, Scale.LAPTOP).verdict is Verdict.UNDECIDED


def test_sets_are_values_that_travel():
    assert hash(SETS[0]) == hash(ItemSet(**vars(SETS[0])))
    assert torch.tensor([chosen.n_train for chosen in SETS]).min() >= 20
