"""The economy study: shares are those of sets, full rank changes nothing, and its claims read its
rows.
"""

from dataclasses import replace

import pytest
import torch

from unseen.lab import Lab
from unseen.studies.influence_economy import recall_of_best, study
from unseen.study import Scale, Verdict, pick

SMOKE = study.scales[Scale.SMOKE]


def test_recall_of_the_best_equals_sets():
    exact = torch.randn(3, 20, generator=Lab().generator())
    found = torch.stack([torch.randperm(20, generator=Lab(k).generator())[:8] for k in range(3)])
    shares = [
        len(set(sorted(range(20), key=lambda z: -row[z])[:5]) & set(mine.tolist())) / 5
        for row, mine in zip(exact, found, strict=True)
    ]
    assert recall_of_best(exact, found, 5) == pytest.approx(sum(shares) / 3)
    assert recall_of_best(exact, torch.arange(20).expand(3, -1), 5) == 1


def test_full_rank_is_exact_and_a_filter_that_keeps_all_loses_nothing():
    config = replace(SMOKE, ranks=(1, 64), shares=(1.0,), seeds=1)
    (cell,) = study.cells(config)
    rows = list(study.run(cell, Lab(seed=3)))
    assert pick(rows, rank=64)[0]["r"] == pytest.approx(1, abs=1e-5)
    assert pick(rows, rank=1)[0]["r"] < 1 - 1e-5
    assert pick(rows, part="filter")[0]["kept"] == 1


def test_claims_are_not_judged_at_smoke():
    rows = [
        {"part": "rank", "rank": rank, "seed": seed}
        | {"r": r + 1e-4 * seed, "rho": r + 1e-4 * seed, "kept": 1 - 1e-4 * seed}
        for rank, r in ((1, 0.9), (32, 0.995))
        for seed in range(3)
    ]
    rows += [
        {"part": "filter", "share": 0.1, "seed": seed, "kept": 0.95 + 1e-4 * seed}
        for seed in range(3)
    ]
    assert {claim.judge(rows, Scale.SMOKE).verdict for claim in study.claims} == {
        Verdict.NOT_JUDGED
    }
    assert {claim.judge(rows, Scale.LAPTOP).verdict for claim in study.claims} == {
        Verdict.SUPPORTED
    }
    assert len(study.table(rows)) == 3
    for figure in study.figures:
        assert figure(rows).title
