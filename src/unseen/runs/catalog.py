"""What the folders hold, read from the sources: nothing is imported to list it.

Studies of other packages come through the entry-point group `unseen.studies`:
`name = "package.module"`, a module with an attribute `study`, or
`name = "package.module:attribute"`.
"""

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import io
import os
import re
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.errors import InvalidConfig, MissingFile, UnknownName
from unseen.lazy import definitions, modules

if TYPE_CHECKING:  # study.py imports torch, and a listing must not wait for it
    from unseen.study import Study

KINDS = ("studies", "tasks", "methods", "measures", "attributions", "models")
GROUP = "unseen.studies"
FILES = "UNSEEN_STUDY_FILES"
"""Where studies lie that were named by their files: name=path:attribute, a line each."""


@dataclass(frozen=True)
class Entry:
    """One line of a listing."""

    kind: str
    name: str
    says: str
    system: str = ""
    classes: tuple[str, ...] = ()
    compared_as: tuple[str, ...] = ()
    """What `unseen compare --method` takes from this file (methods only)."""


@dataclass(frozen=True)
class StudyLocation:
    """Where a study object is: `module` and `attribute`."""

    module: str
    attribute: str = "study"


def entries(kind: str) -> list[Entry]:
    """Every file of one of the plug folders, in order of name (studies: of system), with its first
    sentence.
    """
    found = [_entry(kind, name, file) for name, file in _files(kind).items()]
    if kind == "studies":
        found += [_entry(kind, name, source(where.module)) for name, where in _outside().items()]
    return sorted(
        found,
        key=lambda entry: (
            (entry.system or "~", entry.name) if kind == "studies" else ("", entry.name)
        ),
    )


def names() -> list[str]:
    """The studies that can be run."""
    return sorted({*_files("studies"), *_outside()})


def locate(name: str) -> StudyLocation:
    """Where the study of that name is, or `UnknownName` with near matches."""
    if name in _files("studies"):
        return StudyLocation(f"unseen.studies.{name}")
    outside = _outside()
    if name in outside:
        return outside[name]
    raise UnknownName.near("study", name, names())


def load(name: str) -> "Study[Any, Any]":
    """The study object, by its name or as `file.py:study`."""
    if name.endswith(".py") or ".py:" in name:
        name = name_file(name)
    where = locate(name)
    study = getattr(importlib.import_module(where.module), where.attribute, None)
    if study is None or study.name != name:
        seen = "no study" if study is None else f"a study named `{study.name}`"
        raise InvalidConfig(
            f"Module {where.module} has {seen} as `{where.attribute}`.",
            why=f"`{name}` is looked up under that attribute, and results are filed under the "
            "study's name.",
            fix=f"set `{where.attribute} = Study(name={name!r}, …)` at the end of the module.",
        )
    return study


def name_file(text: str) -> str:
    """The name of the study at `file.py:attribute`, which this process and its workers now know."""
    site, _, attribute = text.rpartition(".py")
    path = Path(f"{site}.py").resolve()
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{site}.py`.",
            why="the study is read from it.",
            fix="check the path.",
        )
    if not attribute.startswith(":"):
        raise InvalidConfig(
            f"`{text}` does not say what in it is meant.",
            why="a study is an object of the file.",
            fix=f"write its name behind the file: {text}:study",
        )
    found = _study_of_file(path, attribute[1:])
    known = os.environ.get(FILES, "").splitlines()
    entry = f"{found.name}={path}:{attribute[1:]}"
    # the environment, so that worker processes find it, too
    os.environ[FILES] = "\n".join(one for one in dict.fromkeys([*known, entry]) if one)
    return found.name


def _study_of_file(path: Path, attribute: str) -> "Study[Any, Any]":
    from unseen.study import Study

    module = importlib.import_module(_module_of(path))
    if not hasattr(module, attribute):
        raise UnknownName.near(f"name in {path.name}", attribute, vars(module))
    study = getattr(module, attribute)
    if not isinstance(study, Study):
        raise InvalidConfig(
            f"`{attribute}` in {path.name} is a {type(study).__name__}.",
            why="what is run is an unseen.Study: its cells, what each computes, and its claims.",
            fix="see docs/study.md.",
        )
    if study.name in _files("studies"):
        raise InvalidConfig(
            f"The study in {path.name} is called `{study.name}`, as one of this package.",
            why="results are filed under the name.",
            fix="give it another name.",
        )
    return study


def _module_of(path: Path) -> str:
    """The file's name as a module that can be imported; its folder is searched from now on."""
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found = source(path.stem)
    if path.stem in sys.stdlib_module_names or (found is not None and found.resolve() != path):
        raise InvalidConfig(
            f"Another module is called `{path.stem}`.",
            why=f"the study in {path.name} is imported by that name.",
            fix="rename the file.",
        )
    return path.stem


def _of_files() -> dict[str, StudyLocation]:
    """The studies that were named by their files."""
    found = {}
    for entry in os.environ.get(FILES, "").splitlines():
        name, _, place = entry.partition("=")
        file, _, attribute = place.rpartition(":")
        if file:
            found[name] = StudyLocation(_module_of(Path(file)), attribute)
    return found


@functools.cache
def source(module: str) -> Path | None:
    """The source of a module; None for what is no module. Only the top package is looked up: deeper
    look-ups import.
    """
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder, *inner)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _files(kind: str) -> dict[str, Path]:
    return modules(Path(__file__).parents[1] / kind)


def _outside() -> dict[str, StudyLocation]:
    found = importlib.metadata.entry_points(group=GROUP)
    installed = {point.name: StudyLocation(point.module, point.attr or "study") for point in found}
    return installed | _of_files()


def _entry(kind: str, name: str, file: Path | None) -> Entry:
    """Only methods are parsed as a whole: that costs milliseconds per file, and there are hundreds
    of others.
    """
    if file is None:
        return Entry(kind, name, "(its module is not there)")
    text = file.read_text(encoding="utf-8")
    classes = tuple(definitions(text))
    system = (
        re.search(r"""^\s+system=["'](\w+)["']""", text, re.MULTILINE)
        if kind == "studies"
        else None
    )
    compared_as = _trainable(text) if kind == "methods" else ()
    return Entry(
        kind, name, _first_sentence(text), system[1] if system else "", classes, compared_as
    )


def _trainable(text: str) -> tuple[str, ...]:
    """The classes that train within a budget and need no argument: the methods that a comparison
    can make by name.
    """
    found = []
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        fields = {
            ast.unparse(one.target): one
            for one in node.body
            if isinstance(one, ast.AnnAssign) and _is_field(one)
        }
        has_fit = any(isinstance(one, ast.FunctionDef) and one.name == "fit" for one in node.body)
        if has_fit and "budget" in fields and all(one.value is not None for one in fields.values()):
            found.append(node.name)
    return tuple(found)


def _is_field(node: ast.AnnAssign) -> bool:
    return isinstance(node.target, ast.Name) and "ClassVar" not in ast.unparse(node.annotation)


def _first_sentence(text: str) -> str:
    """The first paragraph of a module's docstring, as one line."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.STRING:
            return " ".join(
                inspect.cleandoc(ast.literal_eval(token.string)).split("\n\n")[0].split()
            )
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING):
            break
    return ""
