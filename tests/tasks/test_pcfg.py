"""PCFG SET: the semantics reproduces every published answer."""

import os
from pathlib import Path

import pytest

from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.tasks.pcfg import (
    PcfgSet,
    depth,
    generate_part,
    longest_argument,
    meaning,
    number_letters,
)
from unseen.tasks.pcfg import published_part as part


def needs(name):
    """Skips unless the file lies in UNSEEN_DATA."""
    here = (Path(os.environ.get("UNSEEN_DATA", "/nonexistent")) / name).is_file()
    return pytest.mark.skipif(not here, reason=f"{name} is not in UNSEEN_DATA")


@needs("pcfg/pcfg_10k.tar.xz")
def test_the_semantics_gives_every_published_answer():
    sizes = {"dev": 4_860, "test": 9_721, "systematicity": 10_175, "productivity": 11_333}
    assert sum(sizes.values()) == 36_089
    for name, n in sizes.items():
        lines = part(name)
        assert len(lines) == n
        assert all(meaning(one.source) == one.target for one in lines)
    assert all(meaning(one.source) == one.target for one in part("train"))


@needs("pcfg/pcfg_10k.tar.xz")
def test_systematicity_lines_hold_one_of_four_pairs_and_productivity_many_functions():
    pairs = (
        "swap_first_last repeat",
        "append remove_second",
        "repeat remove_second",
        "append swap_first_last",
    )
    texts = [" ".join(one.source) for one in part("systematicity")]
    counts = [sum(pair in text for text in texts) for pair in pairs]
    assert counts == [3_289, 2_526, 2_669, 2_381]
    assert all(any(pair in text for pair in pairs) for text in texts)
    depths = [depth(one.source) for one in part("productivity")]
    assert (min(depths), max(depths)) == (9, 35)


@needs("pcfg/pcfg_10k.tar.xz")
def test_training_has_few_functions_and_evaluation_holds_none_of_its_lines():
    spec = PcfgSet().pairs()
    assert len(spec.train) > 2_000
    assert all(depth(o.source) <= 3 and longest_argument(o.source) <= 5 for o in spec.train)
    assert {depth(o.source) for o in spec.evaluate["more functions"]} == {4, 5, 6}
    for name in spec.evaluate:
        assert not set(spec.train) & set(spec.evaluate[name])


@needs("pcfg/pcfg_10k.tar.xz")
def test_numbered_letters_are_the_same_edit():
    for one in part("train")[:500]:
        numbered = number_letters(one)
        assert meaning(numbered.source) == numbered.target
        assert len(set(numbered.source)) == len(set(one.source))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("append A1 B2", "lacks the comma"),
        ("append A1 , ", "empty argument"),
        ("copy A1 , B2", "goes on"),
    ],
)
def test_broken_lines_are_refused(line, says):
    with pytest.raises(InvalidData, match=says):
        meaning(line.split())


def test_unknown_parts_and_senseless_sizes_are_refused():
    with pytest.raises(UnknownName, match="productivty"):
        part("productivty")
    with pytest.raises(InvalidConfig):
        PcfgSet(functions=4)


def test_generated_lines_are_of_the_same_language():
    spec = PcfgSet(read=generate_part).pairs()
    for part_of in (spec.train, *spec.evaluate.values()):
        assert part_of
        assert all(meaning(one.source) == one.target for one in part_of)
    assert generate_part("test") == generate_part("test")
