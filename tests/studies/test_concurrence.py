"""Benchmarks are fixed sets; claims read how learners are ordered."""

import numpy as np
import pytest

from unseen.errors import InvalidData
from unseen.studies.concurrence import (
    CLAIMS,
    LAPTOP,
    TEMPLATES,
    Benchmark,
    Learner,
    Source,
    Strategy,
    parts_of,
    split_of,
    study,
    table,
    token_f1,
)
from unseen.study import Scale
from unseen.study.grid import resize

SMALL = resize(LAPTOP, pool=200, longest=16, steps=50)


def test_smoke_runs_hold_every_learner_on_every_split(smoke_runs):
    rows = smoke_runs.rows("concurrence")
    splits = {row["split"] for row in rows}
    assert len(splits) == 8
    assert len(rows) == 8 * 6 * 2
    assert all(0 <= float(row["f1"]) <= 1 for row in rows)


def test_one_seed_has_no_other_to_compare_with(smoke_runs):
    rows = [row for row in smoke_runs.rows("concurrence") if row["seed"] == 0]
    for claim in (CLAIMS[0], CLAIMS[-1]):
        with pytest.raises(InvalidData, match="one seed"):
            claim.effect(rows)


def test_two_sources_three_strategies_and_a_variant_each_with_three_seeds():
    cells = list(study.cells(LAPTOP))
    assert len(cells) == 3 * (2 * 3 + 2)
    assert len(LAPTOP.learners) == 6


@pytest.mark.parametrize("source", Source)
def test_parts_share_no_pair_and_renaming_keeps_everything_but_the_words(source):
    plain, variant = (Benchmark(source, Strategy.TEMPLATE, renamed) for renamed in (False, True))
    train, inside, test = parts_of(SMALL, plain)
    assert not {*train, *inside} & set(test)
    assert not set(train) & set(inside)
    one, other = split_of(SMALL, plain), split_of(SMALL, variant)
    assert (len(one.train), len(one.test)) == (len(other.train), len(other.test))
    words = {word for pair in other.train for word in pair.source}
    assert not words & set(TEMPLATES[source].split())
    targets = [[len(pair.target) for pair in split.test] for split in (one, other)]
    assert targets[0] == targets[1]


def test_f1_counts_tokens():
    assert token_f1(("a", "b"), ("b", "a")) == 1
    assert token_f1((), ()) == 1
    assert token_f1(("a", "a"), ("a", "b")) == 0.5
    assert token_f1((), ("a",)) == 0


def rows(score, noise=0.08):
    """Three seeds of six learners, whose scores are `score(source, strategy, learner)`."""
    rng = np.random.default_rng(3)
    benchmarks = [Benchmark(a, b) for a in Source for b in Strategy]
    benchmarks += [Benchmark(a, Strategy.TEMPLATE, True) for a in Source]
    return [
        {
            "seed": seed,
            "split": one.name,
            "source": one.source,
            "strategy": one.strategy,
            "renamed": one.variant,
            "learner": learner,
            "f1": score(one.source, one.strategy, k) + noise * rng.normal(),
            "exact": 0.0,
            "f1 inside": 0.5,
            "n": 10,
            "train": 100,
        }
        for seed in range(3)
        for one in benchmarks
        for k, learner in enumerate(Learner)
    ]


def judge(found):
    return [claim.judge(found, Scale.LAPTOP) for claim in CLAIMS]


def order_by(kinds, seed):
    """An order of the learners for each kind."""
    draws = np.random.default_rng(seed)
    return {kind: draws.permutation(6) for kind in kinds}


def test_orders_that_follow_the_source_differ_between_splits_and_not_by_length():
    by = order_by(Source, 0)
    found = judge(rows(lambda source, strategy, k: by[source][k] / 10))
    assert found[0].verdict.value == "supported"
    assert found[1].reading.value > 0.5
    assert found[2].verdict.value != "supported"
    assert found[3].verdict.value != "supported"


def test_one_order_everywhere_supports_nothing():
    found = judge(rows(lambda source, strategy, k: k / 10))
    assert "supported" not in {one.verdict.value for one in found}


def test_orders_that_follow_the_strategy_speak_against_the_source():
    by = order_by(Strategy, 1)
    found = judge(rows(lambda source, strategy, k: by[strategy][k] / 10))
    assert found[1].reading.value < 0
    assert found[1].verdict.value != "supported"


def test_the_table_names_the_p_of_sixty_assignments():
    lines = [
        line
        for line in table(rows(lambda source, strategy, k: k % 4 / 10))
        if "assignments" in line
    ]
    assert lines[0]["assignments"] == 60
