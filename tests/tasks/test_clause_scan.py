"""Clause-SCAN and SCAN*: what training shows, what is asked, and that targets are right."""

import pytest
import torch

from unseen.engine.token_pairs import Pair
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.tasks.clause_scan import FRESH, TRAINED, UNSEEN, ClauseScan, contexts, fill
from unseen.tasks.scan import commands
from unseen.tasks.scan_star import ScanStar


def interpret(words: tuple[str, ...]) -> tuple[str, ...]:
    """A second interpreter: joined from the left, `and` and `after` with equal rank."""
    joins = [k for k, word in enumerate(words) if word in ("and", "after")]
    if joins:
        last = joins[-1]
        first, second = interpret(words[:last]), interpret(words[last + 1 :])
        return first + second if words[last] == "and" else second + first
    if words[-1] in ("twice", "thrice"):
        return interpret(words[:-1]) * (2 if words[-1] == "twice" else 3)
    act = (f"I_{words[0].upper()}",)
    if len(words) == 1:
        return act
    turn = (f"I_TURN_{words[-1].upper()}",)
    if "around" in words:
        return (turn + act) * 4
    return turn * (2 if "opposite" in words else 1) + act


def test_contexts_without_copies_are_those_of_scan():
    assert len(contexts()) == 21
    known = set(commands())
    for verb in ("walk", "jump"):
        assert {fill(one, verb, 0) for one in contexts()} <= known
    assert all(interpret(s) == t for s, t in (fill(one, "run", 3) for one in contexts()))


def test_jump_is_trained_alone_and_asked_in_all_other_clauses():
    spec = ClauseScan(copies=3, asked=2)
    singles, joint = spec.commands(Lab())
    assert len(singles) == len(set(singles)) == spec.singles == 3 * 4 * 21
    assert joint == []
    assert not any("jump" in word for one in singles for word in one.source)
    assert [one.source for one in spec.isolated_pairs()] == [
        ("jump",),
        ("jump1",),
        ("jump2",),
        ("jump3",),
    ]
    assert len(spec.test_pairs()) == 2 * 20
    assert not set(spec.test_pairs()) & {*singles, *spec.isolated_pairs()}


def test_training_draws_the_shares_that_were_asked():
    spec = ClauseScan(copies=2, distinct=50, joined=0.6, n_test=20)
    data = spec.build(Lab()).splits["train"].data
    assert len(data) == 3 + 50
    assert data.weights.sum().item() == pytest.approx(1)
    assert data.weights[:3].sum().item() == pytest.approx(0.1)
    assert data.weights[3:23].sum().item() == pytest.approx(0.9 * 0.4)
    copied = ClauseScan(copies=0, token_copies=4).build(Lab()).splits["train"].data
    assert len(copied) == 5 * 64
    assert copied.weights[:5].sum().item() == pytest.approx(0.1)


def test_joint_commands_are_right_short_enough_and_new_where_fresh():
    spec = ClauseScan(copies=2, distinct=60, joined=0.5, n_test=40)
    singles, joint = spec.commands(Lab())
    fresh = spec.new_pairs(singles, joint, Lab())
    assert len({*singles, *joint}) == 60
    assert len(fresh) == 40
    assert not set(fresh) & {*singles, *joint}
    for one in (*joint, *fresh):
        assert interpret_verbs(one)
        assert len(one.target) <= 24
    assert set(spec.build(Lab()).splits) == {"train", TRAINED, FRESH, UNSEEN}


def interpret_verbs(one: Pair) -> bool:
    return interpret(one.source) == one.target


def test_scan_star_is_right_within_its_limits_and_new_where_evaluated():
    spec = ScanStar(primitives=5, longest=16, after=True, n_train=100, beyond=30, n_test=30)
    pairs = spec.pairs(Lab())
    every = {"train": pairs.train, **pairs.evaluate}
    for name, part in every.items():
        assert len(part) == len(set(part))
        for source, target in part:
            assert interpret(source) == target
            assert len({word for word in source if word.startswith("prim_")}) <= 2
            assert (len(target) > 16) == (name == "longer")
    assert not set(pairs.train) & set(pairs.evaluate["same"])
    assert ScanStar().pairs(Lab()) == ScanStar().pairs(Lab())


def test_refusals():
    with pytest.raises(InvalidConfig, match="252 single clauses"):
        ClauseScan(copies=3, distinct=300)
    with pytest.raises(InvalidConfig, match="shares lie between"):
        ClauseScan(isolated=1.0)
    with pytest.raises(InvalidConfig, match="shortest clause"):
        ScanStar(longest=0)
    with pytest.raises(InvalidConfig, match="different commands of"):
        ScanStar(primitives=1, conjunctions=0, n_train=50).pairs(Lab())


def test_seeds_draw_other_commands():
    spec = ClauseScan(copies=2, distinct=50, joined=0.6)
    first, second = (spec.build(Lab(seed)).splits["train"].data for seed in (0, 1))
    tokens = [data.columns["tokens"] for data in (first, second)]
    assert tokens[0].shape != tokens[1].shape or not torch.equal(*tokens)
