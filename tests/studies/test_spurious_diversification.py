"""The study of spurious feature diversification: votes by brute force, averages by hand, claims on
rows made for them.
"""

from dataclasses import replace
from itertools import product
from math import sqrt

import pytest
import torch
from made_rows import add_noise
from torch.testing import assert_close

from unseen.engine import parameters
from unseen.engine.batches import whole
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.studies.spurious_diversification import (
    CLAIMS,
    MANY,
    ONE,
    PATTERNS,
    SHARED,
    Part,
    compare_with_average,
    finetune,
    scale_outputs,
    study,
)
from unseen.studies.spurious_diversification.votes import (
    Voters,
    Voting,
    closed_form,
    rankings,
)
from unseen.study import Scale, Verdict, pick

SMOKE = study.scales[Scale.SMOKE]
LAB = Lab(seed=5)


@pytest.fixture
def smoke(smoke_runs):
    """The rows of the fine-tuning part of the smoke scale."""
    (cell,) = (cell for cell in study.cells(SMOKE) if cell.arm is Part.WISE)
    return smoke_runs.rows_of(study.name, cell)


def by_brute_force(voters, voting, p, classes):
    """Every combination of what the spurious features of both models show, one after the other."""
    mine = [f"a{k}" for k in range(voters.spurious)]
    other = [f"a{k}" if k < voters.shared_spurious else f"b{k}" for k in range(voters.spurious)]
    if voting is Voting.SINGLE:
        other = []
    weight = dict.fromkeys({*mine, *other}, 1)
    invariant = voters.invariant if voting is Voting.SINGLE else 2 * voters.invariant
    if voting is Voting.OUTPUTS:
        weight = {f: (f in mine) + (f in other) for f in weight}
    if voting is Voting.WEIGHTS:  # ¼ (w + w')(Φ + Φ'): two heads times two masks
        weight = {f: ((f in mine) + (f in other)) ** 2 for f in weight}
        invariant = 2 * (voters.invariant - voters.shared_invariant) + 4 * voters.shared_invariant
    total = 0.0
    for shown in product(range(classes), repeat=len(weight)):
        votes = [float(invariant), *[0.0] * (classes - 1)]
        chance = 1.0
        for (_, w), k in zip(sorted(weight.items()), shown, strict=True):
            votes[k] += w
            chance *= 1 - p + p / classes if k == 0 else p / classes
        if votes[0] == max(votes):
            total += chance / votes.count(max(votes))
    return total


@pytest.mark.parametrize(
    "voters",
    [Voters(2, 3), Voters(1, 3, 0, 1), Voters(2, 3, 1, 2), Voters(1, 2, 1, 2), Voters(0, 2)],
)
@pytest.mark.parametrize("voting", list(Voting))
@pytest.mark.parametrize(("p", "classes"), [(0.9, 3), (0.4, 3), (0.7, 4)])
def test_accuracy_of_voters_by_brute_force(voters, voting, p, classes):
    assert voters.accuracy(voting, p, classes) == pytest.approx(
        by_brute_force(voters, voting, p, classes), abs=1e-12
    )


def test_closed_forms_and_numbers_of_the_paper():
    for voting, p in product(Voting, (0.0, 0.3, 0.9, 1.0)):
        assert Voters(2, 3).accuracy(voting, p) == pytest.approx(closed_form(voting, p), abs=1e-12)
    assert closed_form(Voting.SINGLE, 0.9) == pytest.approx(0.865)
    assert closed_form(Voting.OUTPUTS, 0.9) == pytest.approx(0.973, abs=5e-4)


def test_the_normal_approximation_ranks_who_votes_as_enumeration_does():
    rows = list(rankings((0.3, 0.6, 0.9)))
    assert sum(row["ranked"] for row in rows) > 0.9 * sum(row["pairs"] for row in rows)


def test_accuracy_of_voters_by_simulation():
    voters, p, n, rng = Voters(2, 4, 1, 2), 0.8, 40_000, LAB.numpy()
    for voting in Voting:
        invariant, weights = voters.weights(voting)
        votes = rng.random((n, 3)) * 1e-6  # lots for ties
        votes[:, 0] += invariant
        for w in weights:
            shown = rng.integers(3, size=n) * (rng.random(n) < p)
            votes[range(n), shown] += w
        exact = voters.accuracy(voting, p)
        assert (votes.argmax(1) == 0).mean() == pytest.approx(
            exact, abs=3 * sqrt(exact * (1 - exact) / n)
        )


def test_signals_are_the_formulas():
    v, p = Voters(3, 5, 1, 2), 0.7
    assert v.signal(Voting.SINGLE, p) == pytest.approx((0.3 * 5 + 3) / sqrt(5))
    assert v.signal(Voting.OUTPUTS, p) == pytest.approx((0.3 * 10 + 6) / sqrt(10 + 2 * 2))
    assert v.signal(Voting.WEIGHTS, p) == pytest.approx(
        (0.3 * (10 + 2 * 2) + 6 + 2 * 1) / sqrt(10 + 14 * 2)
    )
    same = Voters(2, 4, 2, 4)
    assert same.accuracy(Voting.WEIGHTS, p) == pytest.approx(
        same.accuracy(Voting.SINGLE, p), abs=1e-12
    )


def test_a_scaled_network_answers_the_same_and_is_surer():
    model = mlp([6, 5, 4, 3]).double()
    x = torch.randn(20, 6, generator=LAB.generator(), dtype=torch.float64)
    assert_close(scale_outputs(model, 3.0)(x), 27 * model(x))
    assert_close(
        dict(scale_outputs(model, 1.0).state_dict()), dict(model.state_dict()), rtol=0, atol=0
    )


def test_transitions_add_up_to_the_differences():
    bits = torch.rand(3, 500, generator=LAB.generator()) < torch.tensor([[0.6], [0.5], [0.8]])
    found = compare_with_average(*bits)
    assert sum(found[name] for name in PATTERNS) == pytest.approx(1)
    assert found["ensemble"] - found["first"] == pytest.approx(
        found["FFT"] + found["FTT"] - found["TTF"] - found["TFF"]
    )
    one_right = (found["TFT"] + found["FTT"] - found["TFF"] - found["FTF"]) / 2
    assert found["gain"] == pytest.approx(found["FFT − TTF"] + one_right)
    assert found["over better"] == pytest.approx(
        float(bits[2].double().mean() - max(bits[0].sum(), bits[1].sum()) / 500)
    )


def test_the_pair_learned_other_patches_of_other_digits():
    pair = finetune(SMOKE, LAB)
    spec, data = SMOKE.tuned, LAB.child("data")
    fitted = whole(pair.task.split("train").data, LAB)
    before = whole(replace(spec, active=tuple(range(16))).build(data).split("train").data, LAB)
    told = [
        (batch["colours"] == batch["y"][:, None]).double().mean(0) for batch in (before, fitted)
    ]
    assert told[0][:16].min() == told[1][16:].min() == 1
    assert max(told[0][16:].max(), told[1][:16].max()) < 0.2
    assert not {*before["index"].tolist()} & {*fitted["index"].tolist()}
    for alpha, model in ((0.0, pair.before), (1.0, pair.after)):
        assert_close(parameters.state(pair.average(alpha)), parameters.state(model), rtol=0, atol=0)
    assert (
        pair.average(0.5)[1].weight[0, 0]
        == (pair.before[1].weight[0, 0] + pair.after[1].weight[0, 0]) / 2
    )


def test_parts_of_the_fine_tuning_agree_with_each_other(smoke):
    rows, p = smoke, 0.9
    (average,) = pick(rows, what="average", kind="weights", p=p)
    for alpha, name in ((0.0, "first"), (0.5, "ensemble"), (1.0, "second")):
        (row,) = pick(rows, what="sweep", alpha=alpha, p=p)
        assert row["accuracy"] == pytest.approx(average[name], abs=1e-9)
    (plain,) = pick(rows, what="soft", way="plain", kind="weights", p=p)
    (scale,) = pick(rows, what="balance", kind="weights", scale=1.0, p=p)
    assert plain["accuracy"] == pytest.approx(
        average["ensemble"], abs=0.01
    )  # another order of sums in the loss
    assert scale["accuracy"] == pytest.approx(average["ensemble"], abs=1e-9)
    members = [row["accuracy"] for row in pick(rows, what="balance", kind="member", p=p)]
    assert members == pytest.approx([average["second"]] * len(members), abs=1e-9)
    sure = [row["confidence"] for row in pick(rows, what="balance", kind="member", p=p)]
    assert sure == sorted(sure)


def test_equal_cells_give_equal_rows_and_paper_scale_exists(smoke_runs):
    cell = list(study.cells(SMOKE))[1]
    assert list(study.run(cell, Lab(seed=cell.seed))) == smoke_runs.rows_of(study.name, cell)
    assert len(list(study.cells(study.scales[Scale.PAPER]))) == 1 + 20 * 4


def world(sign):
    """Rows of six seeds in which everything is as claimed (sign 1), or the other way round (−1)."""
    s = float(sign)
    rows = []
    for seed, p in product(range(6), (0.7, 0.9)):
        e = 0.0005 * seed
        base = {"seed": seed, "p": p}
        for sheet, gain in ((MANY, 0.05 * s), (ONE, 0.01), (SHARED, 0.005 if sign > 0 else 0.03)):
            rows.append(
                {
                    **base,
                    "part": "two seeds",
                    "sheet": sheet.label,
                    "gain": gain + e,
                    "FFT − TTF": 0.004 * s + e / 10,
                }
            )
        for kind, over, total in (
            ("weights", 0.12 * s, 0.78 if sign > 0 else 0.6),
            ("probabilities", 0.11, 0.77),
            ("weights, unrelated", -0.05 * s, 0.65),
        ):
            fft = {"weights": 0.02, "probabilities": 0.01}.get(kind, 0) * s
            rows.append(
                {
                    **base,
                    "what": "average",
                    "kind": kind,
                    "over better": over + e,
                    "ensemble": total + e * (1 + over),
                    "FFT": fft + e * (1 + over),
                    "FFT − TTF": fft - 0.001 + e / 10,
                }
            )
        for scale, accuracy in ((0.125, 0.70), (1.0, 0.78 if sign > 0 else 0.6), (8.0, 0.70)):
            rows.append(
                {
                    **base,
                    "what": "balance",
                    "kind": "weights",
                    "scale": scale,
                    "accuracy": accuracy + e * scale,
                }
            )
        for way, k in (("plain", 0.0), ("both", s)):
            member = {"accuracy": 0.6 - 0.2 * k + e * k, "confidence": 0.6 - 0.2 * k + e * k}
            rows.append({**base, "what": "soft", "way": way, "kind": "member", **member})
            rows.append(
                {
                    **base,
                    "what": "soft",
                    "way": way,
                    "kind": "weights",
                    "accuracy": 0.7 + 0.02 * k + e * k,
                }
            )
    return add_noise(rows, "FFT", "FFT − TTF", "ensemble")


def test_claims_say_yes_and_no():
    for sign, verdict in ((1, Verdict.SUPPORTED), (-1, Verdict.REFUTED)):
        assert {c.judge(world(sign), Scale.PAPER).verdict for c in CLAIMS} == {verdict}
    noisy = [
        {**row, "gain": 0.025 + 0.02 * (-1) ** int(row["seed"])} if "gain" in row else row
        for row in world(1)
    ]
    assert CLAIMS[0].judge(noisy, Scale.LAPTOP).verdict is Verdict.UNDECIDED


def test_softened_training_needs_the_scale_of_the_paper():
    (bang,) = [c for c in CLAIMS if "(BANG)" in c.says]
    assert bang.judge(world(-1), Scale.LAPTOP).verdict is Verdict.NOT_JUDGED
