"""What makes the ledgers of the studies stale, tried on a copy of the package: keys only,
nothing is run.
"""

import ast
import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import unseen
from unseen.runs import catalog
from unseen.runs.code_keys import Code, Parts, code_of_file
from unseen.runs.definitions import Sources
from unseen.study import Scale

PACKAGE = Path(unseen.__file__).parent


@pytest.fixture(scope="module")
def held():
    """Of every study, the classes and texts in its laptop cells."""
    return {
        name: Parts.of(tuple(study.cells(study.scales[Scale.LAPTOP])))
        for name in catalog.names()
        if catalog.locate(name).module.startswith("unseen.") and (study := catalog.load(name))
    }


@pytest.fixture(scope="module")
def codes(held, tmp_path_factory):
    """The code of every study after an edit of a copy of the package; `renamed` maps module
    names.
    """

    def of(
        edit: Callable[[Path], None] = lambda root: None, renamed: Callable[[str], str] = str
    ) -> dict[str, Code]:
        root = tmp_path_factory.mktemp("copy") / "unseen"
        shutil.copytree(PACKAGE, root, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
        edit(root)
        sources, found = Sources(), {}
        for name, parts in held.items():
            homes = [
                home._replace(module=renamed(home.module), file="") for home in sorted(parts.homes)
            ]
            file = next(
                f
                for f in (root / f"studies/{name}.py", root / f"studies/{name}/__init__.py")
                if f.exists()
            )
            found[name] = code_of_file(file, homes, sorted(parts.texts), sources)
        assert all(root in file.parents for code in found.values() for file in code.files)
        return found

    return of


@pytest.fixture(scope="module")
def before(codes):
    return codes()


def append(file: str, text: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        path = root / file
        path.write_text((path.read_text() if path.exists() else "") + text)

    return edit


def transform(change: ast.NodeTransformer, *files: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        for file in files:
            text = (root / file).read_text()
            new = ast.unparse(change.visit(ast.parse(text)))
            assert new != ast.unparse(ast.parse(text))
            (root / file).write_text(new)

    return edit


class Annotate(ast.NodeTransformer):
    """Another annotation for every argument and result."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        for argument in (*node.args.args, *node.args.kwonlyargs):
            argument.annotation = ast.Name("Something", ast.Load())
        node.returns = ast.Name("Something", ast.Load())
        return node


class Reword(ast.NodeTransformer):
    """Other words in every error."""

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        if isinstance(node.exc, ast.Call):
            node.exc.args = [ast.Constant("Other words.")]
        return node


def rename(root: Path) -> None:
    for path in root.rglob("*.py"):
        text = path.read_text()
        new = re.sub(r"\bunseen\.engine\.loop\b", "unseen.engine.renamed", text)
        if new != text:
            path.write_text(new)
    (root / "engine/loop.py").rename(root / "engine/renamed.py")


NEW_SET = 'FILES = {"another-set/a": RegisteredFile(sha256="' + "a" * 64 + '")}\n'
HARMLESS = {
    "version bump": append("__init__.py", '\n__version__ = "9.9.9"\n'),
    "new function in stats": append("stats/means.py", "\n\ndef another(x):\n    return x\n"),
    "new objective": append("objectives.py", "\n\ndef another(x):\n    return x\n"),
    "new error class": append("errors.py", "\n\nclass Another(UnseenError):\n    pass\n"),
    "new data set": append("data/registry/another_set.py", NEW_SET),
    "annotation": transform(
        Annotate(), "engine/loop.py", "engine/batches.py", "task.py", "stats/means.py", "lab.py"
    ),
    "other wording of an error": transform(
        Reword(), "engine/loop.py", "engine/batches.py", "task.py"
    ),
    "rename of an engine module": rename,  # the last: others edit it by its name
}


def edit_all(root: Path) -> None:
    for edit in HARMLESS.values():
        edit(root)


def test_no_ledger_becomes_stale_by_any_of_the_harmless_edits(codes, before):
    """All of them in one copy, since reading a copy is what costs: a hash that one edit changes is
    not changed back by another.
    """
    moved = {"unseen.engine.loop": "unseen.engine.renamed"}

    def stale(edit: Callable[[Path], None], moved: dict[str, str]) -> list[str]:
        after = codes(edit, lambda name: moved.get(name, name))
        return [name for name, code in after.items() if code.version != before[name].version]

    assert len(before) >= 26
    if stale(edit_all, moved):
        found = {
            name: stale(edit, moved if edit is rename else {}) for name, edit in HARMLESS.items()
        }
        pytest.fail(f"stale by edit: {found}")


WARM_UP = "(step + 1) / self.warmup"


def test_another_warm_up_makes_stale_exactly_those_that_train_with_it(codes, before):
    def edit(root: Path) -> None:
        path = root / "engine/loop.py"
        assert WARM_UP in path.read_text()
        path.write_text(path.read_text().replace(WARM_UP, f"0.5 * {WARM_UP}", 1))

    after = codes(edit)
    stale = {name for name, code in after.items() if code.version != before[name].version}
    reaches = {
        name
        for name, code in before.items()
        if "unseen.engine.loop:Budget.rate" in code.definitions
    }
    trains = {
        name for name, code in before.items() if "unseen.engine.loop:train" in code.definitions
    }
    assert trains <= stale == reaches
    # gradient descent of its own, closed forms, machines of its own
    others = {"xor_grokking", "invariant_pac", "unsupervised_pretraining", "nested_systems"}
    # a language model that is read as it is
    others |= {"hard_explanations", "easy_to_hard"}
    others |= {"genil"}  # scikit-learn's classifiers on fixed features
    others |= {"authorship"}  # classifiers of texts, and a language model that is read as it is
    assert set(before) - stale == others


@pytest.mark.parametrize("name", ["xor_grokking", "train_longer"])
def test_every_reached_definition_changes_the_key_and_no_other_does(name):
    study = catalog.load(name)
    parts = Parts.of(tuple(study.cells(study.scales[Scale.LAPTOP])))
    study = catalog.source(catalog.locate(name).module)
    sources = Sources()
    code = code_of_file(study, sorted(parts.homes), sorted(parts.texts), sources)
    wrong, counted, tried = [], 0, 0
    for file in code.files:
        module = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        )
        text = file.read_text()
        for label, mutant in mutants(text):
            if (
                label == "study"
            ):  # of this statement only `run=` counts, which is an entry of its own
                continue
            # what a data file holds is settled by its checksum, however it is found
            reached = f"{module}:{label}" in code.definitions and label != "data_file"
            mutated = sources.with_text(file, mutant.encode())
            changed = (
                code_of_file(study, sorted(parts.homes), sorted(parts.texts), mutated).version
                != code.version
            )
            tried, counted = tried + 1, counted + reached
            if changed != reached:
                wrong.append(f"{module}:{label} is {'reached' if reached else 'not reached'}")
    assert wrong == []
    assert 50 < counted < tried


def mutants(text: str) -> list[tuple[str, str]]:
    """The source with one definition changed, for every definition and every method of a class in
    it.
    """
    lines, found = text.splitlines(keepends=True), []
    for statement in ast.parse(text).body:
        first = min([statement.lineno, *(d.lineno for d in decorators(statement))]) - 1
        for label, change in changes(statement):
            changed = copy.deepcopy(statement)
            change(changed)
            # only this statement is written anew: a file has a hundred
            words = ast.unparse(ast.fix_missing_locations(changed)) + "\n"
            found.append((label, "".join([*lines[:first], words, *lines[statement.end_lineno :]])))
    return found


def decorators(statement: ast.stmt) -> list[ast.expr]:
    return getattr(statement, "decorator_list", [])


def changes(statement: ast.stmt) -> list[tuple[str, Callable[[ast.stmt], None]]]:
    if isinstance(statement, ast.FunctionDef):
        return [(statement.name, extend)]
    if isinstance(statement, ast.ClassDef):
        is_error = any(
            "Error" in ast.unparse(base) for base in statement.bases
        )  # its words do not count
        methods = (
            [] if is_error else [m.name for m in statement.body if isinstance(m, ast.FunctionDef)]
        )
        inner = [
            (f"{statement.name}.{m}", lambda node, m=m: extend(method(node, m))) for m in methods
        ]
        return [(statement.name, extend), *inner]
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return [(statement.targets[0].id, wrap)]
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return [(ast.unparse(statement.target), wrap)]
    return []


def method(node: ast.stmt, name: str) -> ast.stmt:
    return next(m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == name)


def extend(node: ast.stmt) -> None:
    # a function that ends with an error still does
    place = 0 if isinstance(node, ast.FunctionDef) else len(node.body)
    node.body.insert(place, ast.parse("mutated = 1").body[0])


def wrap(node: ast.stmt) -> None:
    node.value = ast.Tuple([node.value], ast.Load())
