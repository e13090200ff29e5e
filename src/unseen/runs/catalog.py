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
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.errors import InvalidConfig, UnknownName
from unseen.lazy import definitions, modules

if TYPE_CHECKING:  # study.py imports torch, and a listing must not wait for it
    from unseen.study import Study

KINDS = ("studies", "tasks", "methods", "measures", "attributions", "models")
GROUP = "unseen.studies"


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
    """The study object."""
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
    return {point.name: StudyLocation(point.module, point.attr or "study") for point in found}


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
