"""What the study reads: partners of traced questions, the course of training, and which claims hold
on rows that have what the paper says, or its opposite.
"""

import pytest
import torch

from unseen.lab import Lab
from unseen.studies.grokked_reasoning import (
    CLAIMS,
    LAPTOP,
    SMALL,
    Arm,
    Course,
    best_guess,
    pair_queries,
    study,
)
from unseen.study import Scale, Verdict

SMOKE = study.scales[Scale.SMOKE]


def test_smoke_runs_and_reads_every_arm(smoke_runs):
    rows = smoke_runs.rows("grokked_reasoning")
    assert {row["arm"] for row in rows} == set(Arm)
    ends = [row for row in rows if row["part"] == "end"]
    assert len(ends) == 2 * 2 + 3
    for row in ends:
        assert 0 <= row["iid hits"] <= row["iid n"]
        assert ("bridge − answer" in row) == (row["arm"] != Arm.COMPARISON)
    shared = [row for row in rows if row["part"] == "lens" and row["arm"] == Arm.SHARED]
    assert {row["layer"] for row in shared} == {1, 2, 3, 4}  # two layers applied twice
    for draw in study.figures:
        draw(rows)


def test_a_partner_differs_in_its_head_bridge_and_answer_only():
    task = SMALL.build(Lab(3))
    data = task.splits["train_inferred"].data.columns
    known = {
        tuple(row[:3]): (row[3], bridge)
        for row, bridge in zip(data["tokens"].tolist(), data["bridge"].tolist(), strict=True)
    }
    queries = pair_queries(task, 20, Lab(1))
    assert 10 < len(queries["tokens"]) <= 20
    for one, other in zip(queries["tokens"].tolist(), queries["counterfactual"].tolist(),
                          strict=True):  # fmt: skip
        assert one[1:] == other[1:]
        assert all(a != b for a, b in zip(known[tuple(one)], known[tuple(other)], strict=True))


def test_the_step_at_which_something_is_known_is_the_first_or_the_last():
    course = Course(SMOKE, SMALL.build(Lab(0)), Lab(0), (4, 8, 12))
    course.rows += [{"part": "course", "step": s, "iid": a} for s, a in ((4, 0.2), (8, 0.95))]
    assert course.step_at("iid", 0.9) == 8
    assert course.step_at("iid", 0.99) == 12


def test_equal_seeds_share_their_graph_whatever_is_trained_on():
    graphs = [LAPTOP.task(arm).build(Lab(2)) for arm in (Arm.COMPOSITION, Arm.SMALL, Arm.SHARED)]
    ood = [task.splits["ood"].data.columns["tokens"] for task in graphs]
    assert torch.equal(ood[0], ood[1])
    assert torch.equal(ood[0], ood[2])
    assert len(graphs[1].splits["train_inferred"].data) == 2 * 973


def test_the_best_guess_knows_some_tokens_only():
    task = SMOKE.comparison.build(Lab(0))
    one, two = (best_guess(task, read) for read in (1, 2))
    data = task.splits["iid"].data.columns["tokens"]
    seen = task.splits["train_inferred"].data.columns["tokens"]
    (attribute,) = data[:, 0].unique().tolist()  # so the attribute says nothing more
    most = seen[:, 3].bincount().argmax()
    assert (seen[:, 0] == attribute).all()
    assert one >= float((data[:, 3] == most).float().mean())
    assert two >= one - 0.2
    assert 0 < one < 1


def end(arm: Arm, **changes: float) -> list[dict[str, object]]:
    row = {"train_inferred hits": 999, "train_inferred n": 1000, "iid − chance": 0.9,
           "log delay 0.9": 0.4, "ood_atomic hits": 51, "ood_atomic n": 51, "iid − ood": 0.9,
           "bridge − answer": 0.6, "log ood/iid": -0.02}  # fmt: skip
    row |= changes
    return [
        {"part": "end", "arm": arm, "seed": seed}
        | {
            name: value + 0.001 * seed * ("−" in name or "log" in name)
            for name, value in row.items()
        }
        for seed in range(3)
    ]


def verdicts(composition: dict[str, float], comparison: dict[str, float]) -> list[Verdict]:
    rows = end(Arm.COMPOSITION, **composition) + end(Arm.COMPARISON, **comparison)
    return [claim.judge(rows, Scale.LAPTOP).verdict for claim in CLAIMS]


def test_claims_hold_on_what_the_paper_says():
    assert set(verdicts({}, {})) == {Verdict.SUPPORTED}


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"train_inferred hits": 500}, 0),
        ({"iid − chance": 0.1}, 1),
        ({"log delay 0.9": 0.0}, 2),
        ({"ood_atomic hits": 20}, 3),
        ({"iid − ood": 0.1}, 4),
        ({"bridge − answer": -0.3}, 5),
    ],
)
def test_the_opposite_is_refuted(changes, claim):
    assert verdicts(changes, {})[claim] is Verdict.REFUTED


@pytest.mark.parametrize(
    ("changes", "claim"), [({"iid − chance": 0.0}, 7), ({"log ood/iid": -1}, 9)]
)
def test_a_comparison_that_does_not_generalize_is_refuted(changes, claim):
    assert verdicts({}, changes)[claim] is Verdict.REFUTED
