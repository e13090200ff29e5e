"""The diversification study: optima of the two penalties, selections by hand, claims on rows made
for them.
"""

import math
from dataclasses import replace

import pytest
import torch
from made_rows import add_noise
from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.prediction_diversity import mutual_information
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.diversify import agreement
from unseen.models.ensemble_model import Committee, SingleMember
from unseen.objectives import classify
from unseen.studies.diversification import (
    CLAIMS,
    GROUPS,
    Encoder,
    Selection,
    evaluate,
    evaluate_selections,
    reliance_on_halves,
    starting_network,
    study,
)
from unseen.study import Scale, Verdict, pick
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.dominoes import agreement_rates

SMOKE = study.scales[Scale.SMOKE]
LAB = Lab(seed=3)


@pytest.fixture
def smoke(smoke_runs):
    """The rows of the first cell of the smoke scale."""
    return smoke_runs.rows_of(study.name, next(iter(study.cells(SMOKE))))


@pytest.mark.parametrize("r", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_optima_of_both_penalties(r):
    """With h₁ the upper image: D-BAT's penalty of the semantic rule is r · 16.1, and zero for "not
    the upper image"; the mutual information of the semantic rule is log 2 − H(r), and zero at r = ½
    only."""
    pairs = replace(SMOKE.task, unlabelled_agreement=r).sample(LAB)["unlabelled"].columns
    upper, lower = (torch.eye(2, dtype=torch.float64)[pairs[name]] for name in ("cue", "y"))
    top = upper.max(1).indices[:, None]

    def dbat(h):
        return float(
            agreement(torch.ones(len(h), dtype=torch.float64), h.gather(1, top)[:, 0]).mean()
        )

    assert dbat(lower) == pytest.approx(
        -r * math.log(1e-7) - (1 - r) * math.log(1 + 1e-7), abs=1e-9
    )
    assert dbat(1 - upper) == pytest.approx(0, abs=1e-6)
    entropy = -sum(p * math.log(p) for p in (r, 1 - r) if p)
    assert float(mutual_information(upper, lower)) == pytest.approx(math.log(2) - entropy, abs=1e-9)
    assert agreement_rates({"unlabelled": Columns(**pairs)}) == {"unlabelled": r}


class Reads(nn.Module):
    """Answers with one pixel of a picture [1, 2, 1], or with its opposite."""

    def __init__(self, place, opposite=False):
        super().__init__()
        self.place, self.opposite = place, opposite

    def forward(self, x):
        z = 10 * (2 * x.flatten(1)[:, self.place] - 1)
        z = -z if self.opposite else z
        return torch.stack([-z, z], 1)


def pictures(groups):
    g = torch.tensor(groups)
    y, cue = g // 2, g % 2
    x = torch.stack([cue, y], 1).float().view(-1, 1, 2, 1)
    return Columns(x=x, y=y, cue=cue, group=g, index=torch.arange(len(g)))


TASK = Task(
    name="two pixels",
    axis=Axis.DOMAIN,
    splits={
        "train": Split(pictures([0, 3]), Use.TRAIN),
        "test": Split(pictures([0, 1, 2, 3] * 5), Use.EVALUATE),
    },
    objective=classify,
)


def test_what_is_judged_of_rules_that_read_one_image():
    upper, lower, other = (
        evaluate(model, TASK, LAB) for model in (Reads(0), Reads(1), Reads(0, opposite=True))
    )
    assert (upper["accuracy"], upper["upper"], upper["opposed"], upper["worst"]) == (0.5, 1, 0, 0)
    assert (lower["accuracy"], lower["upper"], lower["opposed"], lower["worst"]) == (1, 0.5, 1, 1)
    # "not the upper image" is always right on opposed pairs: only the worst of four groups shows
    # that it knows nothing
    assert (other["accuracy"], other["upper"], other["opposed"], other["worst"]) == (0.5, 0, 1, 0)
    assert [upper[name] for name in GROUPS] == [1, 0, 0, 1]
    reliance = reliance_on_halves(Reads(1), TASK, LAB)
    assert reliance["relies on upper"] == 0
    assert reliance["relies on lower"] > 0.2


def test_selections():
    trained = Trained(Committee([Reads(0), Reads(1)], SingleMember(0)), TASK)
    found = evaluate_selections(trained, pictures([0, 3, 1, 2] * 4), 4, LAB)
    assert [found[s]["worst"] for s in (Selection.FIRST, Selection.RANDOM)] == [0, 0.5]
    assert [found[s]["worst"] for s in (Selection.QUERIED, Selection.ORACLE)] == [1, 1]
    assert found[Selection.RANDOM]["accuracy"] == 0.75
    # no pair is disputed where both images agree: the first member is as good as any
    assert (
        evaluate_selections(trained, pictures([0, 3] * 4), 4, LAB)[Selection.QUERIED]["worst"] == 0
    )


def test_encoders_share_the_head_and_frozen_ones_stay():
    made = {e: starting_network(SMOKE, e, LAB) for e in (Encoder.SCRATCH, Encoder.LOWER_FROZEN)}
    plain, frozen = made.values()
    assert torch.equal(plain[-1].weight, frozen[-1].weight)
    assert not torch.equal(plain[1].weight, frozen[1].weight)
    assert [p.requires_grad for p in frozen.parameters()] == [False, False, True, True]
    assert all(p.requires_grad for p in plain.parameters())


def test_the_first_member_of_dbat_is_erms_model_and_small_committees_begin_large_ones(smoke):
    rows = pick(smoke, part="chosen", encoder="scratch")
    names = ("accuracy", "worst", *GROUPS)
    (erm,) = pick(rows, way="ERM", selection="first")
    for row in pick(rows, way="D-BAT", selection="first"):
        assert [row[n] for n in names] == [erm[n] for n in names]
    for r in SMOKE.shares:
        few, most = (
            pick(rows, way="D-BAT", selection="oracle", members=k, r=r)[0] for k in SMOKE.members
        )
        assert most["worst"] >= few["worst"]
    for row in pick(smoke, part="committee"):
        assert row["agreement of unlabelled"] == row["r"]
        assert (row["agreement of train"], row["agreement of test"]) == (1.0, 0.5)


def test_the_table_has_a_line_for_each_way_and_share(smoke):
    table = study.table(smoke)
    assert [(row["way"], row["r"]) for row in table] == [("ERM", "any")] + [
        (way, r) for way in ("D-BAT", "DivDis") for r in SMOKE.shares
    ]
    for row in table[1:]:
        assert row["agreement of unlabelled"] == row["r"]
        assert row["worst: oracle"] >= max(
            row["worst: first"], row["worst: queried"], row["worst: random"]
        )


def test_paper_scale_exists():
    assert len(list(study.cells(study.scales[Scale.PAPER]))) == 25


def world(sign):
    """Rows of five seeds in which everything is as claimed (sign 1), or the other way round
    (−1).
    """
    good = {  # way, encoder, members, r: accuracy, opposed, worst
        ("D-BAT", "scratch", 2, 0.0): (0.95, 0.95, 0.90),
        ("D-BAT", "scratch", 2, 0.5): (0.90, 0.98, 0.90),
        ("D-BAT", "scratch", 2, 0.75): (0.82, 0.98, 0.50),
        ("D-BAT", "scratch", 2, 1.0): (0.5, 0.5, 0.2),
        ("DivDis", "scratch", 2, 0.0): (0.80, 0.60, 0.60),
        ("DivDis", "scratch", 2, 0.5): (0.94, 0.93, 0.85),
        ("DivDis", "scratch", 2, 1.0): (0.5, 0.5, 0.3),
        ("DivDis", "scratch", 5, 0.0): (0.80, 0.60, 0.60),
        ("DivDis", "scratch", 5, 1.0): (0.5, 0.5, 0.1),
        ("D-BAT", "lower, frozen", 2, 0.5): (0.92, 0.9, 0.85),
        ("D-BAT", "lower, frozen", 2, 1.0): (0.92, 0.9, 0.88),
        ("DivDis", "lower, frozen", 2, 0.0): (0.92, 0.9, 0.88),
        ("DivDis", "lower, frozen", 2, 0.5): (0.92, 0.9, 0.88),
        ("DivDis", "lower, frozen", 2, 1.0): (0.92, 0.9, 0.88),
        ("DivDis", "upper, frozen", 2, 0.0): (0.72, 0.5, 0.45),
        ("ERM", "scratch", 1, -1.0): (0.55, 0.1, 0.05),
    }
    bad = {key: tuple(1 - v for v in values) for key, values in good.items()}
    bad["DivDis", "lower, frozen", 2, 0.0] = (0.3, 0.3, 0.3)
    rows = []
    for (way, encoder, members, r), values in (good if sign > 0 else bad).items():
        for seed in range(5):
            named = dict(
                zip(
                    ("accuracy", "opposed", "worst"),
                    (v + 0.002 * seed for v in values),
                    strict=True,
                )
            )
            base = {
                "part": "chosen",
                "way": way,
                "encoder": encoder,
                "members": members,
                "seed": seed,
                **named,
            }
            worse = 0.01 if sign > 0 else 0.5
            queried = {**base, "selection": "queried", "worst": named["worst"] - worse}
            rows += [
                {**each, **({} if way == "ERM" else {"r": r})}
                for each in ({**base, "selection": "oracle"}, queried)
            ]
    return add_noise(rows, "accuracy", "opposed", "worst")


def test_claims_say_yes_and_no():
    assert [c.judge(world(1), Scale.LAPTOP).verdict for c in CLAIMS] == [Verdict.SUPPORTED] * len(
        CLAIMS
    )
    verdicts = {c.says: c.judge(world(-1), Scale.LAPTOP).verdict for c in CLAIMS}
    still = {says for says, verdict in verdicts.items() if verdict is not Verdict.REFUTED}
    assert still == {CLAIMS[8].says}  # five hypotheses are no better than two, here as well
    gained = [{**row, "worst": row["worst"] + 0.3 * (row["members"] == 5)} for row in world(1)]
    assert CLAIMS[8].judge(gained, Scale.LAPTOP).verdict is Verdict.REFUTED
    noisy = [{**row, "worst": 0.6 + 0.3 * (row["seed"] % 2)} for row in world(1)]
    assert CLAIMS[5].judge(noisy, Scale.LAPTOP).verdict is Verdict.UNDECIDED
