"""The invariance study: failures by brute force, slopes and crossings of known lines, and claims on
their rows.
"""

from dataclasses import replace
from itertools import combinations
from math import exp, log

import numpy as np
import pytest
import torch

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.invariance import excess_risks, invariance_gap, pooled_heads, represent
from unseen.studies.invariant_pac import candidates, enough, falling, growth, slope, study
from unseen.study import Scale, Verdict

SMOKE = study.scales[Scale.SMOKE]
SETTING = replace(SMOKE.base, training=(2, 8), unseen=60)
LAB = Lab(seed=9)


def test_the_largest_failure_is_that_of_a_loop_over_sets():
    task = replace(SETTING.task, nodes=6)
    base = task.mechanisms(LAB)
    moments = task.intervene(68, LAB).moments()
    stacks = candidates(base, replace(SETTING, task=task), LAB.numpy())
    rows = {row["n"]: row for row in falling(stacks, moments, SETTING)}
    eye = torch.eye(5, dtype=torch.float64)
    for n in SETTING.training:
        shares = []
        for k in (1, 2, 3):
            for chosen in combinations(range(5), k):
                phi = eye[list(chosen)]
                inside, across = represent(phi, moments.xx[:n], moments.xy[:n])
                head = pooled_heads(inside, across)
                if float(excess_risks(head, inside, across).max()) <= SETTING.eps:
                    gaps = invariance_gap(phi, head, moments.xx[8:], moments.xy[8:])
                    shares.append(float((gaps > 2 * SETTING.eps).double().mean()))
        assert rows[n]["share"] == pytest.approx(max(shares, default=0.0))
        assert rows[n]["feasible"] == pytest.approx(len(shares) / 25)


def test_the_parents_are_among_the_candidates_and_their_number_is_bounded():
    task = replace(SETTING.task, nodes=24)
    base = task.mechanisms(LAB)
    stacks = candidates(base, replace(SETTING, task=task, most=30), LAB.numpy())
    assert sum(len(stack) for stack in stacks) in (30, 31)
    (of_size,) = (stack for stack in stacks if stack.shape[1] == len(base.parents))
    found = of_size.argmax(-1).tolist()
    assert base.parents in found


def rows_of(power, nodes=6, scale=400.0, **facts):
    sizes = (2, 4, 8, 16, 32)
    return [
        {"part": "falling", "n": n, "seed": seed, "nodes": nodes, "unseen": 400, **facts}
        | {"failures": scale * n**power * (1 + 0.01 * seed) - 0.5}
        for n in sizes
        for seed in range(6)
    ]


def test_slopes_and_crossings_of_a_power_law():
    assert slope(rows_of(-1.5)).value == pytest.approx(-1.5)
    sizes, counts = (2, 4, 8, 16), np.array([[n**-1.0 * 400 - 0.5 for n in (2, 4, 8, 16)]])
    assert exp(enough(sizes, counts, 399, 0.1)) == pytest.approx(10)
    assert np.isnan(enough(sizes, counts, 399, 0.01))
    both = rows_of(-2.0) + rows_of(-2.0, nodes=24, scale=800.0)
    assert growth(both).value == pytest.approx(log(2) / 2, abs=1e-6)
    with pytest.raises(InvalidData, match="a slope needs two"):
        slope(rows_of(-2.0)[:6])


def rows_of_the_paper():
    rows = []
    settings = [(d, s, "inputs") for d in (6, 12, 24) for s in ("any", "neighbours")]
    settings += [(6, "neighbours", "12 of latent"), (12, "neighbours", "24 of latent")]
    for nodes, sites, seen in settings:
        facts = {"nodes": nodes, "sites": sites, "seen": seen}
        for row in rows_of(-2.0, **facts):
            share = (row["failures"] + 0.5) / 400
            share *= 1 + 0.01 * row["seed"] * (nodes == 24)  # else a ratio without any spread
            rows.append({**row, "failures": share * 400, "share": share, "feasible": 0.2})
        if seen == "inputs":
            for seed in range(6):
                rows.append({**facts, "seed": seed, "part": "pooled", "pooled": 0.6 + 0.01 * seed})
                over = {"part": "certificate", "exceeded": 0.01 + 0.001 * seed}
                rows.append({**facts, "seed": seed, **over})
    return rows


def test_claims_and_figures_read_the_rows(smoke_runs):
    rows = list(smoke_runs.rows("invariant_pac"))
    assert {claim.judge(rows, Scale.SMOKE).verdict for claim in study.claims} == {
        Verdict.NOT_JUDGED
    }
    made = rows_of_the_paper()
    verdicts = [claim.judge(made, Scale.LAPTOP).verdict for claim in study.claims]
    assert verdicts == [Verdict.SUPPORTED] * len(study.claims)
    assert study.table(made)
    for figure in study.figures:
        assert figure(made).title
