"""A key changes with whatever may change the rows, and with nothing else."""

import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from unseen.errors import InvalidConfig
from unseen.runs import code_keys
from unseen.runs.catalog import source
from unseen.runs.code_keys import Code, code_of, key, plain

STUDY = dedent('''
    """What it is about."""
    from dataclasses import dataclass
    from HELPER import used, unused
    from unseen.study import Claim, Row, Scale, Study
    from unseen import stats

    LIMIT = 3

    @dataclass(frozen=True)
    class Cell:
        seed: int

    def run(cell: Cell, lab) -> Row:
        """One job."""
        yield {"value": inner(cell.seed)}

    def inner(x):
        return used(x) + LIMIT

    def judged(rows):
        return stats.mean([1.0, 2.0])

    CLAIMS = (Claim(says="It is so.", effect=judged, above=0.5),)
    study = Study(name="NAME", run=run, claims=CLAIMS)
''')
HELPER = dedent("""
    from torch import nn  # not ours: followed no further
    def used(x):
        return x + deep.value
    def unused(x):
        return x
    from HELPER_DEEP import deep
""")


@pytest.fixture
def version(tmp_path, monkeypatch):
    """The code version of a package `NAME` with a study, a helper and a helper's helper, after some edits."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(study: str = STUDY, helper: str = HELPER, deep: str = "class deep:\n    value = 1\n") -> str:
        package = "fake_hashed"
        folder = tmp_path / package
        folder.mkdir(exist_ok=True)
        texts = {"__init__": "", "study": study, "helper": helper, "deep": deep}
        for name, text in texts.items():
            text = text.replace("HELPER_DEEP", f"{package}.deep").replace("HELPER", f"{package}.helper")
            (folder / f"{name}.py").write_text(text)
        code_keys._code.cache_clear()
        source.cache_clear()
        return code_of(f"{package}.study").version

    yield of
    source.cache_clear()
    sys.modules.pop("fake_hashed", None)  # the empty package; finding its modules imports it
    assert "fake_hashed.study" not in sys.modules  # nothing is imported to hash it


CHANGES = {
    "run itself": (("study", "yield {", "yield {'more': 1, "),),
    "a function that run calls": (("study", "+ LIMIT", "- LIMIT"),),
    "a constant that it reads": (("study", "LIMIT = 3", "LIMIT = 4"),),
    "the cell": (("study", "seed: int", "seed: int\n    size: int = 2"),),
    "an imported function": (("helper", "x + deep", "x - deep"),),
    "what the helper imports": (("deep", "value = 1", "value = 2"),),
    "a statement that runs on import": (("study", "LIMIT = 3", "LIMIT = 3\nprint(LIMIT)"),),
}
TEXTS = {"study": STUDY, "helper": HELPER, "deep": "class deep:\n    value = 1\n"}


@pytest.mark.parametrize("change", CHANGES)
def test_the_version_changes_with(change, version):
    texts = dict(TEXTS)
    for file, old, new in CHANGES[change]:
        assert old in texts[file]
        texts[file] = texts[file].replace(old, new)
    assert version(**texts) != version()


NOTHING = {
    "a comment": ("study", "LIMIT = 3", "LIMIT = 3  # of the paper"),
    "a docstring": ("study", "One job.", "One job of many."),
    "the layout": ("study", '"value": inner(cell.seed)', '\n        "value": inner(\n            cell.seed)'),
    "a margin": ("study", "above=0.5", "above=0.9"),
    "an effect": ("study", "[1.0, 2.0]", "[1.0, 3.0]"),
    "the helper's docstring": ("helper", "def used(x):", "def used(x):\n    'It adds.'"),
}


@pytest.mark.parametrize("change", NOTHING)
def test_the_version_does_not_change_with(change, version):
    file, old, new = NOTHING[change]
    assert old in TEXTS[file]
    assert version(**{**TEXTS, file: TEXTS[file].replace(old, new)}) == version()


def test_a_study_made_by_a_function_is_hashed_whole(version):
    made = STUDY.replace("study = Study(", "study = dict(").replace("run=run, ", "")
    assert version(made) != version(made.replace("above=0.5", "above=0.9"))


def test_the_real_study_reaches_the_engine_but_not_the_shell(store):
    found = {path.name for path in code_of("fake_counting").files}
    assert {"fake_counting.py", "fake_helper.py", "lab.py"} <= found
    assert not found & {"study.py", "cli.py", "stats.py"}


class Kind(StrEnum):
    A = "a"


@dataclass(frozen=True)
class Inner:
    x: float = 0.5


@dataclass(frozen=True)
class Other:
    x: float = 0.5


@dataclass(frozen=True)
class Full:
    inner: Any = Inner()
    kind: Kind = Kind.A
    sizes: tuple[int, ...] = (1, 2)
    lengths: range = range(1, 4)
    clip: float = float("inf")
    name: str | None = None
    place: Path = Path("a/b")
    dtype: torch.dtype = torch.float64
    f: Any = dedent
    weights: dict[str, float] = field(default_factory=lambda: {"b": 1.0, "a": 2.0})
    some: frozenset[str] = frozenset({"y", "x"})
    seed: int = 0


def test_a_cell_is_plain_values():
    assert plain(Full()) == {
        "class": "Full",
        "inner": {"class": "Inner", "x": 0.5},
        "kind": "a",
        "sizes": [1, 2],
        "lengths": "range(1, 4, 1)",
        "clip": "inf",
        "name": None,
        "place": "a/b",
        "dtype": "torch.float64",
        "f": "textwrap.dedent",
        "weights": {"b": 1.0, "a": 2.0},
        "some": ["x", "y"],
        "seed": 0,
    }


CODE = Code("v", ())
DIFFERENT = (Full(seed=1), Full(inner=Other()), Full(inner=Inner(0.25)), Full(sizes=(2, 1)), Full(name="None"))


def test_keys_are_equal_for_equal_cells_only():
    keys = {key("s", cell, CODE) for cell in (Full(), *DIFFERENT)}
    assert len(keys) == 1 + len(DIFFERENT)
    assert key("s", Full(), CODE) == key("s", Full(weights={"a": 2.0, "b": 1.0}), CODE)
    assert key("s", Full(), CODE) not in {key("t", Full(), CODE), key("s", Full(), Code("w", ()))}


@pytest.mark.parametrize("value", [object(), torch.ones(2), lambda: 0])
def test_a_cell_with_other_values_is_refused(value):
    with pytest.raises(InvalidConfig, match="A cell holds"):
        plain(Full(inner=value))


def test_the_class_of_a_value_counts_whatever_its_annotation(version, store):
    plainly = code_of("fake_counting")
    from unseen.engine.loop import Budget

    assert code_of("fake_counting", Full(inner=Budget())).version != plainly.version
