"""A file of pairs is split from the command line."""

import json

import pytest

from unseen.cli.main import main
from unseen.tasks.scan import commands
from unseen.tasks.token_pairs import read_pairs


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.tsv"
    lines = [f"{' '.join(s)}\t{' '.join(t)}" for s, t in commands()[:400]]
    path.write_text("\n".join(["input\toutput", *lines]) + "\n")
    return path


def run(file, *options):
    return main(["compare", str(file), "--source", "input", "--target", "output", *options])


def test_parts_are_written_with_rule_counts_and_overlap(file, tmp_path, capsys):
    folder = tmp_path / "parts"
    assert run(file, "--by", "length", "--split-only", str(folder)) == 0
    train, test = (read_pairs(folder / f"{p}.tsv", "input", "output") for p in ("train", "test"))
    assert len(train) + len(test) == 400
    assert max(len(o.target) for o in train) < min(len(o.target) for o in test)
    facts = json.loads((folder / "split.json").read_text())
    assert (facts["train"], facts["test"], facts["overlap"]) == (len(train), len(test), 0)
    assert "training targets have at most" in capsys.readouterr().out


def test_the_split_as_json(file, tmp_path, capsys):
    assert run(file, "--by", "primitive", "--split-only", str(tmp_path / "p"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["by"] == "primitive"
    assert "is trained alone" in found["rule"]


def test_a_rule_without_a_folder_is_refused(file, capsys):
    assert run(file, "--by", "length") == 2
    assert "--split-only" in capsys.readouterr().err


def test_a_folder_with_other_files_is_refused_and_an_earlier_split_replaced(file, tmp_path, capsys):
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "train.tsv").write_text("mine")
    ask = ("--by", "length", "--split-only", str(folder))
    assert run(file, *ask) == 2
    assert "holds other files (train.tsv)" in capsys.readouterr().err
    assert [one.name for one in folder.iterdir()] == ["train.tsv"]
    assert (folder / "train.tsv").read_text() == "mine"
    (folder / "train.tsv").unlink()
    assert run(file, *ask) == 0
    first = {one.name: one.read_text() for one in folder.iterdir()}
    assert run(file, *ask) == 0
    assert {one.name: one.read_text() for one in folder.iterdir()} == first
    (folder / "notes.txt").write_text("x")
    assert run(file, *ask) == 2
    assert "(notes.txt)" in capsys.readouterr().err
