"""The generated SCAN is the published one."""

import hashlib
import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from tests.oracles import scan as oracle
from unseen.data.files import data_file
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.tasks.scan import (
    ARCHIVE,
    RULES,
    Scan,
    commands,
    published_split,
    read_lines,
    reorder,
)


def needs(name):
    """Skips unless the file lies in UNSEEN_DATA."""
    here = (Path(os.environ.get("UNSEEN_DATA", "/nonexistent")) / name).is_file()
    return pytest.mark.skipif(not here, reason=f"{name} is not in UNSEEN_DATA")


SHA = "6be4b39bc8bf3a20be810b6991250d0493e608560609db6765dd679e1ed1c98e"


def lines(pairs):
    return [f"IN: {' '.join(source)} OUT: {' '.join(target)}" for source, target in pairs]


@pytest.fixture(scope="module")
def release():
    """Texts of the release by file name, of the splits that are generated."""
    wanted = {f"tasks_{part}_{name}.txt" for part in ("train", "test") for name in RULES}
    with tarfile.open(data_file(ARCHIVE)) as archive:
        members = ((m.name.split("/")[-1], m) for m in archive)
        return {
            name: archive.extractfile(member).read().decode()
            for name, member in members
            if name in wanted | {"tasks.txt"}
        }


@needs(ARCHIVE)
def test_the_grammar_gives_the_published_commands(release):
    found = sorted(line.encode() for line in lines(commands()))
    assert len(found) == len(set(found)) == 20_910
    assert hashlib.sha256(b"\n".join(found) + b"\n").hexdigest() == SHA
    assert set(lines(commands())) == set(release["tasks.txt"].splitlines())


@needs(ARCHIVE)
@pytest.mark.parametrize("split", RULES)
def test_every_generated_split_is_the_published_one_as_a_multiset(split, release):
    rule = RULES[split]()
    for part, pairs in (("train", rule.train), ("test", rule.test)):
        assert Counter(lines(pairs)) == Counter(release[f"tasks_{part}_{split}.txt"].splitlines())
    assert not set(rule.train) & set(rule.test)


def test_a_second_interpreter_agrees():
    assert all(oracle.actions(" ".join(c.source)) == list(c.target) for c in commands())


@needs(ARCHIVE)
def test_random_splits_are_read():
    rule = published_split("fewshot_num2_rep1")
    generated = RULES["filler_num1"]()
    assert len(rule.train) == 15_225 + 2
    assert set(generated.test) == set(rule.test)
    assert set(rule.train) | set(rule.test) <= set(commands())


def test_reordering_changes_manners_only():
    assert reorder(("jump", "around", "left", "twice")) == ("jump", "left", "around", "twice")
    for one in commands():
        assert sorted(reorder(one.source)) == sorted(one.source)


def test_a_smaller_task_draws_from_its_split():
    spec = Scan("addprim_jump", most=50).pairs(Lab(3))
    assert len(spec.train) == len(spec.evaluate["unseen"]) == 50
    assert all("jump" in one.source for one in spec.evaluate["unseen"])


@needs(ARCHIVE)
def test_what_is_no_scan_is_refused():
    with pytest.raises(UnknownName, match="addprim_jmp") as error:
        Scan("addprim_jmp").pairs(Lab())
    assert "addprim_jump" in str(error.value)
    with pytest.raises(InvalidData, match=r"Line 2 of mine\.txt"):
        read_lines("IN: jump OUT: I_JUMP\njump: I_JUMP\n", "mine.txt")
    with pytest.raises(InvalidConfig):
        Scan(most=-1)
