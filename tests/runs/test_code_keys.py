"""A key changes with whatever may change the rows, and with nothing else."""

import functools
import importlib.util
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from unseen.errors import InvalidConfig
from unseen.runs.catalog import source
from unseen.runs.code_keys import (
    Code,
    Home,
    code_of,
    code_of_file,
    code_of_objects,
    data_sets,
    key,
    plain,
)
from unseen.runs.definitions import Sources

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
DEEP = "class deep:\n    value = 1\n"


@pytest.fixture
def version(tmp_path):
    """The code version of a package `fake_hashed` with a study, a helper and a helper's helper,
    after some edits.
    """

    def of(study: str = STUDY, helper: str = HELPER, deep: str = DEEP, **more: str) -> str:
        folder = tmp_path / "fake_hashed"
        folder.mkdir(exist_ok=True)
        for name, text in {
            "__init__": "",
            "study": study,
            "helper": helper,
            "deep": deep,
            **more,
        }.items():
            text = text.replace("HELPER_DEEP", "fake_hashed.deep").replace(
                "HELPER", "fake_hashed.helper"
            )
            (folder / f"{name}.py").write_text(text)
        return code_of_file(
            folder / "study.py", [Home("fake_hashed.study", "Cell")], (), Sources()
        ).version

    yield of
    assert "fake_hashed.study" not in sys.modules  # nothing is imported to hash it


CHANGES = {
    "run itself": (("study", "yield {", "yield {'more': 1, "),),
    "a function that run calls": (("study", "+ LIMIT", "- LIMIT"),),
    "a constant that it reads": (("study", "LIMIT = 3", "LIMIT = 4"),),
    "the cell": (("study", "seed: int", "seed: int\n    size: int = 2"),),
    "an imported function": (("helper", "x + deep", "x - deep"),),
    "what the helper imports": (("deep", "value = 1", "value = 2"),),
    "a statement that runs on import": (("study", "LIMIT = 3", "LIMIT = 3\nprint(LIMIT)"),),
    "one in a module that is only imported": (("deep", "class", "print(1)\nclass"),),
    "a default": (("helper", "def used(x):", "def used(x, y=1):"),),
    "a decorator": (("helper", "def used(x):", "@nn.thing\ndef used(x):"),),
    "where a name comes from": (
        ("helper", "from torch import nn", "from jax import nn"),
        ("helper", "x + deep", "nn + deep"),
    ),
    "a kind of error": (
        ("helper", "return x + deep", "raise ValueError(x) if 1 else deep\n    return x + deep"),
    ),
    "a field's name": (("study", "seed: int", "seeds: int"),),
    "a class variable made a field": (("study", "seed: int", "seed: int\n    a: ClassVar = 1"),),
}
TEXTS = {"study": STUDY, "helper": HELPER, "deep": DEEP}


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
    "the layout": (
        "study",
        '"value": inner(cell.seed)',
        '\n        "value": inner(\n            cell.seed)',
    ),
    "a margin": ("study", "above=0.5", "above=0.9"),
    "an effect": ("study", "[1.0, 2.0]", "[1.0, 3.0]"),
    "an annotation": ("helper", "def used(x):", "def used(x: nn.Linear) -> int:"),
    "the type of a field": ("study", "seed: int", "seed: float"),
    "the type of a constant": ("study", "LIMIT = 3", "LIMIT: int = 3"),
    "a function that nobody calls": (
        "helper",
        "def used(x):",
        "def more(x):\n    return 3\ndef used(x):",
    ),
    "an unused function": ("helper", "    return x\n", "    return 2 * x\n"),
    "an import for type checkers": (
        "study",
        "LIMIT = 3",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import x\nLIMIT = 3",
    ),
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
    assert not found & {"study.py", "cli.py", "means.py"}


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
DIFFERENT = (
    Full(seed=1),
    Full(inner=Other()),
    Full(inner=Inner(0.25)),
    Full(sizes=(2, 1)),
    Full(name="None"),
)


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


ERROR = 'def used(x):\n    if x:\n        raise ValueError(f"{x} is WORDS.")\n'


def test_the_words_of_an_error_do_not_count_and_its_kind_does(version):
    helper = HELPER.replace("def used(x):\n", ERROR)
    assert version(helper=helper) == version(helper=helper.replace("WORDS", "other words"))
    assert version(helper=helper) != version(helper=helper.replace("ValueError", "TypeError"))


def test_the_words_of_an_error_that_a_function_returns_do_not_count(version):
    helper = HELPER.replace("return x + deep", "return x + refusal(x) + deep")
    helper += "class Bad(ValueError):\n    pass\ndef refusal(x):\n    return Bad('WORDS')\n"
    assert version(helper=helper) == version(helper=helper.replace("WORDS", "other words"))


def test_what_only_makes_or_raises_an_error_does_not_count_and_what_it_reaches_neither(version):
    helper = HELPER.replace(
        "return x + deep", "if x < 0:\n        raise refusal(x)\n    return x + deep"
    )
    maker = "def refusal(x):\n    return ValueError(words(x))\ndef words(x):\n    return 'WORDS'\n"
    other = maker.replace("'WORDS'", "str(x)").replace("Error(words(x))", "Error(words(x + 1))")
    assert version(helper=helper + maker) == version(helper=helper + other)
    value = maker.replace("return ValueError(words(x))", "return words(x)")
    assert version(helper=helper + value) != version(
        helper=helper + value.replace("WORDS", "other words")
    )
    raising = "def refusal(x):\n    y = x + 1\n    raise ValueError(y)\n"
    assert version(helper=helper + raising) == version(helper=helper + raising.replace("1", "2"))
    partly = raising.replace("    raise", "    if y:\n        return y\n    raise")
    assert version(helper=helper + partly) != version(helper=helper + partly.replace("1", "2"))


def test_a_module_may_be_renamed(version, tmp_path):
    """Also where it is used as `module.name`; but the same name taken from a module with another
    definition counts.
    """
    through = STUDY.replace("from HELPER import used, unused", "from fake_hashed import helper")
    through = through.replace("used(x)", "helper.used(x)")
    before = version(through)
    assert before == version()  # however it is imported
    renamed = through.replace("import helper", "import renamed").replace(
        "helper.used", "renamed.used"
    )
    assert version(renamed, renamed=HELPER) == before
    twin = HELPER.replace("x + deep", "x - deep")
    assert version(renamed, renamed=twin) != before


def test_two_definitions_of_one_name_are_told_apart(version):
    both = STUDY.replace("import used, unused", "import used, second").replace(
        "used(x) + LIMIT", "used(x) + second(x)"
    )
    helper = HELPER + "from fake_hashed.other import used as second\n"
    other = "def used(x):\n    return 7\n"
    swapped = both.replace("used(x) + second(x)", "second(x) + used(x)")
    assert version(both, helper, other=other) != version(swapped, helper, other=other)


DISPATCH = """
from functools import singledispatch
from HELPER_DEEP import deep
@singledispatch
def used(x):
    return deep.value
@used.register
def _(x: int):
    return 1
"""


def test_registrations_of_a_reached_dispatcher_count(version):
    before = version(helper=DISPATCH)
    assert version(helper=DISPATCH.replace("return 1", "return 2")) != before
    assert version(helper=DISPATCH.replace("x: int", "x: str")) != before
    assert version(helper=DISPATCH.replace("used(x)", "used(x: int)")) == before
    elsewhere = (
        "class deep:\n    value = 1\nfrom HELPER import used\n@used.register\ndef "
        "other(x: "
        "str):\n    return 3\n"
    )
    assert version(helper=DISPATCH, deep=elsewhere) != before


@pytest.mark.parametrize(
    "search",
    [
        "globals()['a' + str(x)]",
        "getattr(sys.modules[__name__], x)",
        "eval(x)",
        "vars(fake_hashed.helper)",
    ],
)
def test_a_module_that_is_searched_by_name_counts_whole(search, version):
    helper = "import fake_hashed.helper\nimport sys\n" + HELPER.replace(
        "x + deep", f"{search} + deep"
    )
    assert version(helper=helper) != version(
        helper=helper.replace("    return x\n", "    return 2 * x\n")
    )


def test_modules_imported_by_name_count_whole(version):
    helper = "import importlib\n" + HELPER.replace(
        "x + deep", "importlib.import_module(f'fake_hashed.{x}') + deep"
    )
    before = version(helper=helper, other="a = 1\n")
    assert version(helper=helper, other="a = 2\n") != before


def test_a_name_may_be_found_by_a_folder(version):
    """A package whose `__getattr__` looks for the module that defines a name."""
    study = STUDY.replace("from HELPER import used, unused", "from fake_hashed import used")
    lazy = {"__init__": "def __getattr__(name):\n    ...\n"}
    assert version(study, **lazy) == version()
    assert version(study, HELPER.replace("x + deep", "x - deep"), **lazy) != version()


def test_local_names_are_no_imports(version):
    helper = HELPER.replace(
        "return x + deep", "stats = [stats for stats in x]\n    return x + deep"
    )
    imports = "from unseen import stats\n"
    assert version(helper=helper) == version(helper=imports + helper)


def test_data_count_by_the_checksums_of_the_sets_that_are_named():
    known = {"mnist": "1", "mnist-small": "2", "heart": "3"}
    assert data_sets({"heart/x"}, known) == {"heart": "3"}
    assert set(data_sets({"mnist"}, known)) == {"mnist", "mnist-small"}
    assert data_sets({"something"}, known) == known  # not followed: all


def test_the_checksum_of_the_data_that_a_cell_names_counts():
    from unseen.data.registry import data_sets as registered

    file = source("unseen.data.files")
    sums = Sources().checksums(file)
    assert set(sums) == set(registered())
    changed = Sources(lambda path: path.read_bytes().replace(b"3afd7b52", b"3afd7b53"))
    assert {name for name, value in changed.checksums(file).items() if value != sums[name]} == {
        "usps"
    }


SUBJECT = """
import torch
from helping import scaled
RATE = 2.0
class Net(torch.nn.Module):
    def forward(self, x):
        return scaled(x)
def made():
    return Net()
def loss(weight):
    def inner(output):
        return RATE * output
    return inner
"""


@pytest.fixture
def subject(tmp_path):
    """The module of a person's file, with a helper beside it, after edits."""

    def of(text: str = SUBJECT, helping: str = "def scaled(x):\n    return x\n") -> Any:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "helping.py").write_text(helping)
        (folder / "mine.py").write_text(text)
        spec = importlib.util.spec_from_file_location("mine", folder / "mine.py")
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(folder))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(folder))
            sys.modules.pop("helping", None)
        return module

    return of


VIEWS = {
    "a function": lambda m: m.made,
    "a partial": lambda m: functools.partial(m.made),
    "an instance": lambda m: m.Net(),
    "a layer of a model": lambda m: torch.nn.Sequential(m.Net()),
    "a value in a field": lambda m: Full(inner=m.made),
    "a bound method": lambda m: m.Net().forward,
}


@pytest.mark.parametrize("view", VIEWS)
def test_the_code_of_objects_reaches_the_files_of_a_person(view, subject):
    look = VIEWS[view]
    code = code_of_objects(look(subject()))
    assert {"mine.py", "helping.py"} <= {file.name for file in code.files}
    assert code.version == code_of_objects(look(subject())).version
    other = code_of_objects(look(subject(helping="def scaled(x):\n    return 2 * x\n")))
    assert other.version != code.version
    assert not code.unknown


def test_a_class_is_of_its_own_file_also_where_its_modules_name_was_taken(subject, monkeypatch):
    first, second = subject(), subject(helping="def scaled(x):\n    return 2 * x\n")
    monkeypatch.setitem(sys.modules, "mine", first)
    assert code_of_objects(second.Net()).version != code_of_objects(first.Net()).version


def test_the_code_of_a_function_within_a_function_is_that_of_both(subject):
    code = code_of_objects(subject().loss(2.0))
    assert (
        code.version
        != code_of_objects(subject(SUBJECT.replace("RATE = 2.0", "RATE = 3.0")).loss(2.0)).version
    )


def test_the_code_of_objects_reaches_unseen():
    from unseen.engine.loop import train

    code = code_of_objects(train)
    assert "unseen.engine.loop:train" in code.definitions
    assert (
        code.version == code_of_objects(train).version != code_of_objects(torch.nn.Linear).version
    )
    assert not code_of_objects(torch.nn.Linear, 3, "text", None).files


def test_what_was_typed_is_unknown():
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("def typed(x):\n    return x\n", "<stdin>", "exec"), scope)
    assert code_of_objects(scope["typed"]).unknown == ("__main__.typed",)
