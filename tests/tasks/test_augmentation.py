"""Copies of primitives and of tokens: how many, which, and that nothing else changes."""

import re

import pytest

from unseen.engine.token_pairs import Pair, pair
from unseen.errors import InvalidConfig, InvalidData
from unseen.tasks.scan import RULES, commands
from unseen.tasks.token_pairs.augmentation import (
    copy_primitives,
    copy_tokens,
    count_variants,
    find_primitives,
)

VERBS = {"walk": "I_WALK", "look": "I_LOOK", "run": "I_RUN", "jump": "I_JUMP"}


def strip(one: Pair) -> Pair:
    return Pair(*(tuple(re.sub(r"\d+$", "", token) for token in side) for side in one))


def test_primitives_of_scan_are_its_verbs():
    assert find_primitives(commands()) == VERBS
    assert find_primitives([pair("turn left", "L"), pair("stay", "")]) == {}


def test_sizes_of_the_augmented_jump_split():
    known = set(RULES["addprim_jump"]().train) - {pair("jump", "I_JUMP")}
    # computed in the sheet: commands without jump by number of different primitives
    sizes = {1: 36_324, 2: 70_029, 5: 234_648, 20: 2_486_583, 200: 215_259_003}
    for copies, size in sizes.items():
        assert count_variants(list(known), VERBS, copies) == size


def test_every_variant_is_there_once_and_comes_from_a_pair():
    pairs = [pair("walk and walk", "I_WALK I_WALK"), pair("run after look", "I_LOOK I_RUN")]
    found = copy_primitives(pairs, VERBS, 2)
    assert len(found) == len(set(found)) == count_variants(pairs, VERBS, 2) == 3 + 9
    assert set(map(strip, found)) == set(pairs)
    assert pair("walk2 and walk2", "I_WALK2 I_WALK2") in found
    assert pair("walk1 and walk2", "I_WALK1 I_WALK2") not in found  # both change together


def test_at_most_so_many_variants_hold_the_pair_itself():
    pairs = [pair("run after look", "I_LOOK I_RUN"), pair("turn left", "L")]
    found = copy_primitives(pairs, VERBS, 20, most=5, seed=3)
    assert len(found) == len(set(found)) == 6
    assert set(pairs) <= set(found)
    assert found == copy_primitives(pairs, VERBS, 20, most=5, seed=3)
    assert found != copy_primitives(pairs, VERBS, 20, most=5, seed=4)


def test_copies_of_all_tokens_share_none():
    pairs = [pair("run left", "L I_RUN"), pair("walk", "I_WALK")]
    found = copy_tokens(pairs, 2)
    parts = [found[2 * k : 2 * k + 2] for k in range(3)]
    words = [{token for one in part for side in one for token in side} for part in parts]
    assert found[:2] == pairs
    assert not (words[0] & words[1])
    assert not (words[0] & words[2])
    assert not (words[1] & words[2])
    assert [len(side) for one in parts[2] for side in one] == [2, 2, 1, 1]


def test_refusals():
    with pytest.raises(InvalidConfig, match="0 primitives"):
        copy_primitives([pair("turn left", "L")], {}, 2)
    with pytest.raises(InvalidData, match="`walk1` would have the name"):
        copy_primitives([pair("walk walk1", "I_WALK")], VERBS, 2)
    with pytest.raises(InvalidConfig, match="copies"):
        copy_tokens([pair("walk", "I_WALK")], -1)
