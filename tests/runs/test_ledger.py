"""Rows kept with a ledger read back as they were; equal smoke rows settle a change only if they ran
what changed.
"""

import importlib
import json
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unseen.cli.main import main
from unseen.errors import CorruptFile
from unseen.runs import baseline, catalog, code_keys, ledger, rows
from unseen.runs.catalog import StudyLocation
from unseen.runs.definitions import Sources
from unseen.runs.ledger import Files, Stamp
from unseen.runs.settle import Changes

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=9)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(10**20), 10**20),
    NUMBERS,
    TEXTS,
    st.one_of(NUMBERS, st.integers(), st.booleans()).map(str),
    st.sampled_from(["", "true", "false", '"a"', "1e5", "nan", "-inf", "1.", ".5", "a,b", "a\nb"]),
)
NAMES = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=3)


@given(st.lists(st.dictionaries(NAMES, VALUES, min_size=1, max_size=5), min_size=1, max_size=6))
def test_rows_read_back_with_values_types_and_gaps(tmp_path_factory, given_rows):
    path = tmp_path_factory.mktemp("rows") / "a.csv.gz"
    rows.write(path, given_rows)
    found = rows.read(path)
    assert found == given_rows
    assert [{k: type(v) for k, v in row.items()} for row in found] == [
        {k: type(v) for k, v in row.items()} for row in given_rows
    ]
    first = path.read_bytes()
    rows.write(path, found)
    assert path.read_bytes() == first  # no time in it


def test_rows_differ_by_more_than_a_processor_explains():
    base = [{"a": 1.0, "n": 3, "s": "x", "b": True}]
    for same in ({"a": 1.0 + 5e-7}, {"a": 1.0}):
        assert not rows.difference(base, [{**base[0], **same}])
    for other in ({"a": 1.00001}, {"n": 4}, {"n": 3.0}, {"s": "y"}, {"b": 1}, {"more": 1}):
        assert "row 0" in rows.difference(base, [{**base[0], **other}])
    assert not rows.difference([{"a": 0.0}], [{"a": 1e-9}])
    assert rows.difference(base, base * 2) == "2 rows instead of 1"


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08broken"])
def test_a_damaged_file_of_rows_is_refused(data, tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(data)
    with pytest.raises(CorruptFile, match="does not hold rows"):
        rows.read(tmp_path / "a.csv.gz")


STUDY = dedent("""
    from dataclasses import dataclass
    from unseen.study import Claim, Scale, Study, average
    from unseen.study.source import Source

    FACTOR = 2.0

    @dataclass(frozen=True)
    class Config:
        arms: tuple = ("small",)
        seeds: int = 2

    @dataclass(frozen=True)
    class Cell:
        arm: str
        seed: int

        def double(self):
            return 2 * self.seed

    def cells(config):
        for seed in range(config.seeds):
            for arm in config.arms:
                yield Cell(arm, seed)

    def run(cell, lab):
        yield {"arm": cell.arm, "seed": cell.seed, "y": value(cell)}

    def value(cell):
        return large(cell) if cell.arm != "small" else small(cell)

    def small(cell):
        return cell.double() * FACTOR

    def large(cell):
        return 100.0 + cell.seed

    study = Study(
        name="settled", system="00",
        source=Source(key="a", title="A", authors=("Doe, Jane",), year=2026),
        scales={Scale.SMOKE: Config(), Scale.LAPTOP: Config(("small", "large"), 3)},
        cells=cells, run=run,
        claims=(Claim(says="It is positive.", effect=average("y", pair="arm"), above=0.5),),
    )
""")


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """Writes the study after a replacement of its text, as a new process would find it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalog, "_outside", lambda: {"settled": StudyLocation("settled_study")})

    def of(old: str = "", new: str = "") -> None:
        assert old in STUDY
        Path("settled_study.py").write_text(STUDY.replace(old, new))
        sys.modules.pop("settled_study", None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            importlib.import_module("settled_study")
        finally:
            sys.dont_write_bytecode = before
        monkeypatch.setattr(code_keys, "_SOURCES", Sources())
        code_keys._code.cache_clear()
        catalog.source.cache_clear()

    of()
    assert main(["run", "settled", "--scale", "laptop", "--ledger", "--no-report"]) in (0, 3)
    yield of
    sys.modules.pop("settled_study", None)
    code_keys._code.cache_clear()
    catalog.source.cache_clear()


CHECK = ["check", "settled", "--home", "elsewhere"]

EQUAL = {
    "another order": ("cell.double() * FACTOR", "FACTOR * cell.double()"),
    "a constant": ("FACTOR = 2.0", "FACTOR = 4.0 / 2"),
    "a method": ("return 2 * self.seed", "return self.seed * 2"),
    "another name": ("small(cell)", "tiny(cell)"),
}


@pytest.mark.parametrize("change", EQUAL)
def test_equal_smoke_rows_restamp_a_ledger(change, edit, capsys):
    before = Path("results/settled.json").read_text()
    edit(*EQUAL[change])
    assert main(CHECK) == 3
    assert main([*CHECK, "--smoke"]) == 0
    assert "restamped" in capsys.readouterr().out
    after = json.loads(Path("results/settled.json").read_text())
    assert after["compared"].startswith("smoke rows")
    same = {"code", "compared"}
    assert {k: v for k, v in after.items() if k not in same} == {
        k: v for k, v in json.loads(before).items() if k not in same
    }
    assert main(CHECK) == 0


UNSETTLED = {
    "another factor": (
        "FACTOR = 2.0",
        "FACTOR = 3.0",
        "smoke rows differ: row 1: y is 6.0 instead of 4.0",
    ),
    "an arm of the laptop scale": (
        "100.0 + cell.seed",
        "cell.seed + 100.0",
        "does not run what changed: settled_study:large",
    ),
    "more cells": ('"large"), 3', '"large"), 4', "its cells have changed"),
    "an arm less": (
        "large(cell) if cell.arm",
        "small(cell) if cell.arm",
        "does not run what changed: settled_study:large",
    ),
}


@pytest.mark.parametrize("change", UNSETTLED)
def test_a_change_that_smoke_rows_cannot_settle_asks_for_the_laptop_run(change, edit, capsys):
    old, new, reason = UNSETTLED[change]
    before = Path("results/settled.json").read_text()
    edit(old, new)
    assert main([*CHECK, "--smoke"]) == 3
    out = capsys.readouterr().out
    assert reason in out
    assert "unseen run settled --scale laptop --ledger" in out
    assert Path("results/settled.json").read_text() == before


def test_one_seed_of_every_arm_settles_what_the_smoke_scale_does_not_run(edit, capsys):
    before = json.loads(Path("results/settled.json").read_text())
    edit("100.0 + cell.seed", "cell.seed + 100.0")
    assert main([*CHECK, "--one-seed"]) == 0
    assert "restamped: rows of seed 0 as before" in capsys.readouterr().out
    after = json.loads(Path("results/settled.json").read_text())
    assert after["compared"].startswith("rows of seed 0")
    assert (after["claims"], after["rows"]) == (before["claims"], before["rows"])
    assert main(CHECK) == 0


def test_one_seed_of_cells_that_train_several_as_a_stack(edit, capsys):
    several = """
        for k in (0, 10):
            yield {"arm": cell.arm, "seed": cell.seed + k, "y": value(cell) + k}
    """
    line = '    yield {"arm": cell.arm, "seed": cell.seed, "y": value(cell)}\n'
    edit(line, several)
    run = ["run", "settled", "--scale", "laptop", "--ledger", "--no-report", "--home", "stacked"]
    assert main(run) in (0, 3)
    edit(line, several.replace("value(cell) + k", "k + value(cell)"))
    assert main([*CHECK, "--one-seed"]) == 0
    assert "restamped: rows of seed 0 as before" in capsys.readouterr().out
    edit(line, several.replace("+ k}", "+ 2 * k}"))
    assert main([*CHECK, "--one-seed"]) in (1, 3)
    assert "row 1: y is" in capsys.readouterr().out


DIFFERENT = {
    "an arm of the laptop scale": ("100.0 +", "101.0 +", "row 1: y is 101.0 instead of 100.0"),
    "more seeds": ('"large"), 3', '"large"), 4', "no rows are kept of seeds 3"),
    "more arms": ('"large"), 3', '"large", "huge"), 3', "3 rows instead of 2"),
    "rows of another seed": (
        '"seed": cell.seed',
        '"seed": 1 + cell.seed',
        "seed is 1 instead of 0",
    ),
    "arms that start later": (
        "yield Cell(arm, seed)",
        "yield Cell(arm, seed + (arm != 'small'))",
        "seed 0 does not have every arm",
    ),
}


@pytest.mark.parametrize("change", DIFFERENT)
def test_what_one_seed_cannot_settle_asks_for_the_laptop_run(change, edit, capsys):
    old, new, reason = DIFFERENT[change]
    before = Path("results/settled.json").read_text()
    edit(old, new)
    assert main([*CHECK, "--one-seed"]) in (1, 3)
    assert reason in capsys.readouterr().out
    assert Path("results/settled.json").read_text() == before


def of_another_processor() -> None:
    """The ledger as another processor would have left it: its numbers lie a little apart."""
    files = Files(Path("results"), "settled")
    text = json.loads(files.claims.read_text())
    for path in (files.smoke, files.rows):
        rows.write(path, [{**row, "y": row["y"] + 1e-4} for row in rows.read(path)])
    digests = {"rows": files.rows, "smoke": files.smoke}
    text |= {name: ledger.digest_of_file(path) for name, path in digests.items()}
    ledger.write_text(files, {**text, "processor": "Another"})


@pytest.mark.parametrize("how", ["--smoke", "--one-seed"])
def test_another_processor_is_settled_by_what_the_code_of_the_ledger_gives_here(
    how, edit, capsys, monkeypatch
):
    of_another_processor()
    before = Path("results/settled.json").read_text()
    edit(*EQUAL["a constant"])
    y = {"--smoke": [0.0, 4.0], "--one-seed": [0.0, 100.0]}[how]
    seeds = {"--smoke": [0, 1], "--one-seed": [0, 0]}[how]
    arms = {"--smoke": ["small"] * 2, "--one-seed": ["small", "large"]}[how]
    here = [{"arm": a, "seed": s, "y": v} for a, s, v in zip(arms, seeds, y, strict=True)]
    for found, changed in ((None, 0.0), (here, 1e-4)):
        wrong = found and [{**row, "y": row["y"] + changed} for row in found]
        monkeypatch.setattr(baseline, "rows_here", lambda *_, _rows=wrong, **__: _rows)
        assert main([*CHECK, how]) == 3
        assert "computed on Another, here on" in capsys.readouterr().out
        assert Path("results/settled.json").read_text() == before
    monkeypatch.setattr(baseline, "rows_here", lambda *_, **__: here)
    assert main([*CHECK, how]) == 0
    assert " of both on " in capsys.readouterr().out
    after = json.loads(Path("results/settled.json").read_text())
    assert after["claims"] == json.loads(before)["claims"]
    smoke = ledger.read_rows(Files(Path("results"), "settled").smoke, after["smoke"])
    assert [row["y"] for row in smoke] == [0.0, 4.0]
    assert main(CHECK) == 0


def test_a_ledger_says_which_definitions_the_smoke_scale_ran(edit):
    stamp = Stamp.read(Files(Path("results"), "settled").code)
    ran = {
        label.removeprefix("settled_study:") for label in stamp.executed if "settled_study" in label
    }
    assert ran == {"<run>", "run", "value", "small", "FACTOR", "Cell", "Cell.double"}
    assert "settled_study:large" in stamp.definitions
    text = json.loads(Path("results/settled.json").read_text())
    assert text["processor"]
    assert text["threads"]
    assert text["compared"] == "laptop rows"


def test_kept_rows_are_judged_again_without_computing(edit, capsys):
    edit(
        'average("y", pair="arm")',
        'lambda rows: average("y")([{"y": 1e3 + row["seed"]} for row in rows])',
    )
    assert main(CHECK) == 1
    assert "was undecided, is supported" in capsys.readouterr().out
    assert main([*CHECK, "--rejudge"]) == 0
    assert json.loads(Path("results/settled.json").read_text())["claims"][0]["value"] == 1001.0
    assert not Path("elsewhere").exists()


def test_rows_of_another_ledger_are_refused(edit, capsys):
    files = Files(Path("results"), "settled")
    rows.write(files.rows, [{**row, "y": 1.0} for row in rows.read(files.rows)])
    assert main(CHECK) == 2
    assert "does not belong to its ledger" in capsys.readouterr().err


def test_a_definition_that_moved_has_not_changed():
    old, new = {"a.b:f": "1", "a.b:g": "2"}, {"a.c:f": "1", "a.b:g": "3"}
    assert Changes.between(old, new) == Changes(("a.b:g",), ("a.b:g",))
    assert ledger.digest(["b", "a"]) == ledger.digest(["a", "b"])
