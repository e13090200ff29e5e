"""Options from a file: read as if typed, refused where no command line could hold them."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from unseen.cli.audit import parser
from unseen.cli.influence import parser as influence_parser
from unseen.cli.main import main
from unseen.cli.study_options import run_parser
from unseen.errors import InvalidConfig, MissingFile, UnknownName


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))


def options(text, *typed, of=parser):
    Path("options.toml").write_text(text)
    return of().parse_args(["--config", "options.toml", *typed])


def test_a_file_says_what_words_say():
    typed = parser().parse_args(
        ["t.csv", "--target=ill", "--drop=a", "--drop=b", "--no-remedies", "--bar=0.7"]
    )
    text = 'arguments = ["t.csv"]\ntarget = "ill"\ndrop = ["a", "b"]\nno-remedies = true\nbar = 0.7'
    assert options(text) == typed
    assert options(text.replace("no-remedies", "no_remedies")) == typed


def test_the_table_of_the_command_wins_over_the_file_and_typed_words_over_both():
    text = "seeds = 2\n[audit]\nseeds = 4\n[compare]\nseeds = 9\nunknown = 1"
    assert options(text).seeds == 4
    assert options(text, "--seeds", "5").seeds == 5


def test_a_value_that_looks_like_an_option_stays_a_value():
    assert options('positive = "-1"').positive == "-1"


def test_a_switch_that_is_off_is_not_given():
    assert not options("no-remedies = false").no_remedies


def test_a_list_takes_no_typed_argument_for_a_value():
    found = options('corpus = ["a.txt", "b.txt"]', "subject.py:model", of=influence_parser)
    assert (found.subject, found.corpus) == ("subject.py:model", ["a.txt", "b.txt"])
    typed = options('corpus = ["a.txt"]', "s.py:m", "--corpus", "c.txt", of=influence_parser)
    assert typed.corpus == ["c.txt"]


def test_flags_of_a_study_come_from_the_file_too():
    Path("options.toml").write_text('arguments = ["coherence"]\nscale = "smoke"\nwidth = 8')
    found, flags = run_parser().parse_known_args(["--config=options.toml"])
    assert (found.name, flags) == ("coherence", ["--width=8"])


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ('taget = "ill"', UnknownName, "target"),
        ('fail-on = ["U101", "U102"]', InvalidConfig, "given once"),
        ("seeds = true", InvalidConfig, "takes a value"),
        ("no-remedies = 1", InvalidConfig, "switch"),
        ("bar = nan", InvalidConfig, "a number"),
        ("target", InvalidConfig, "no TOML"),
    ],
)
def test_refusals(text, error, says):
    with pytest.raises(error, match=says):
        options(text)


def test_a_missing_file_is_refused():
    with pytest.raises(MissingFile, match="cannot be read"):
        parser().parse_args(["--config", "absent.toml"])


def test_the_report_quotes_the_command_with_the_options_of_the_file(monkeypatch, capsys):
    table = {"x": [*range(40)], "ill": [0, 1] * 20, "clinic": ["a"] * 20 + ["b"] * 20}
    pd.DataFrame(table).to_csv("t.csv", index=False)
    Path("audit.toml").write_text(
        'arguments = ["t.csv"]\ntarget = "ill"\nsite = "clinic"\nseeds = 1\nsteps = 2\n'
        'no-remedies = true\nreport = "r.json"\nquiet = true'
    )
    monkeypatch.setattr(sys, "argv", ["unseen", "audit", "--config", "audit.toml"])
    assert main() == 0
    command = json.loads(Path("r.json").read_text())["facts"]["command"]
    assert command.startswith("unseen audit t.csv --target=ill --site=clinic --seeds=1")
