"""COGS as released."""

import os
from pathlib import Path

import pytest

from unseen.errors import InvalidConfig, InvalidData
from unseen.tasks.cogs import PARTS, Cogs, invent_part, published_part, read_lines


def needs(name):
    """Skips unless the file lies in UNSEEN_DATA."""
    here = (Path(os.environ.get("UNSEEN_DATA", "/nonexistent")) / name).is_file()
    return pytest.mark.skipif(not here, reason=f"{name} is not in UNSEEN_DATA")


@needs("cogs/gen.tsv.gz")
def test_the_release_has_its_published_sizes():
    parts = {part: published_part(part) for part in PARTS}
    assert [len(parts[part]) for part in PARTS] == [24_155, 3_000, 3_000, 21_000]
    kinds = {line.kind for line in parts["gen"]}
    assert len(kinds) == 21
    assert all(sum(line.kind == kind for line in parts["gen"]) == 1_000 for kind in kinds)
    known = {line.pair.source for line in parts["train"]}
    for part in PARTS[1:]:
        assert not known & {line.pair.source for line in parts[part]}


@needs("cogs/gen.tsv.gz")
def test_kinds_are_splits():
    spec = Cogs(most=20, kinds=("pp_recursion", "cp_recursion")).pairs()
    assert {name: len(part) for name, part in spec.evaluate.items()} == {
        "test": 20,
        "pp_recursion": 20,
        "cp_recursion": 20,
    }


def test_bad_input_is_refused():
    with pytest.raises(InvalidData, match=r"Line 1 of a\.tsv has 2 fields"):
        read_lines("a\tb\n", "a.tsv")
    with pytest.raises(InvalidConfig, match="recursion"):
        Cogs(kinds=("recursion",), read=invent_part).pairs()
