"""Keys of cells: what decides the rows, as one hash. Sources are read with `ast`; nothing is imported to hash it.

    key = SHA-256(schema, study name, cell as canonical JSON, code that the cell uses)

The code that a cell uses: of the study's module every definition that `run` reaches by name (claims, figures and the
table are left out, so changing a margin recomputes nothing), and every module of the same package that these import,
directly or through others, whole (of a study in a loose file: also the files beside it). Comments, docstrings and
layout do not count. The classes in the cell count, too, whichever annotation they hide behind.
"""

import ast
import dataclasses
import enum
import functools
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from unseen.errors import InvalidConfig
from unseen.runs.catalog import source
from unseen.runs.store import SCHEMA, canonical

# what a study's `run` may import from unseen.study: names of types, which do not decide any number
_TYPES_ONLY = {"unseen.study": {"Row", "Rows", "Value", "Scale"}}


@dataclass(frozen=True)
class Code:
    """A hash over sources, and the files that it read."""

    version: str
    files: tuple[Path, ...]


def key(study: str, cell: Any, code: Code) -> str:
    """The name of the cell's directory: 32 hexadecimal digits."""
    text = canonical([SCHEMA, study, plain(cell), code.version])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plain(value: Any) -> Any:
    """A cell as JSON values. Dataclasses carry their class's name, so two with equal fields stay apart."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__qualname__, **fields}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=canonical)
    if isinstance(value, range):
        return f"range({value.start}, {value.stop}, {value.step})"
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, pathlib.PurePath):
        return value.as_posix()
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device"):
        return str(value)
    if isinstance(value, type) or (callable(value) and getattr(value, "__name__", "<lambda>") != "<lambda>"):
        return f"{value.__module__}.{value.__qualname__}"
    raise InvalidConfig(
        f"A cell holds {value!r} ({type(value).__name__}).",
        why="a cell's key and its way to other processes need plain values.",
        fix="use numbers, strings, tuples, enums, named functions or frozen dataclasses of these.",
    )


def code_of(module: str, cell: Any = None) -> Code:
    """The code that a cell of the study in `module` uses."""
    return _code(module, tuple(sorted(_classes(cell))))


@functools.cache
def _code(module: str, classes: tuple[tuple[str, str], ...]) -> Code:
    roots = {name for home, name in classes if home == module}
    text, imports = _reached(module, roots)
    parts, waiting = {module: text}, [*imports, *(home for home, _ in classes if home != module)]
    while waiting:
        name = waiting.pop()
        if name in parts or not _is_ours(name, module):
            continue
        tree = _tree(name)
        parts[name] = ast.unparse(tree)
        waiting += [imported for node in ast.walk(tree) for imported in _imported(node, name)]
    body = "\n".join(f"# {name}\n{text}" for name, text in sorted(parts.items()))
    return Code(
        hashlib.sha256(body.encode()).hexdigest()[:16],
        tuple(path for name in sorted(parts) if (path := source(name)) is not None),
    )


def _is_ours(name: str, study: str) -> bool:
    """A module of Unseen, of the study's package, or of a file beside it that nobody installed."""
    top, mine = name.split(".")[0], study.split(".")[0]
    file = source(name)
    if file is None or top in (mine, "unseen"):
        return file is not None
    beside = source(mine) or source(study)
    if beside is None:
        return False
    folder = beside.parent.parent if beside.name == "__init__.py" else beside.parent
    return folder.name not in ("site-packages", "dist-packages") and folder in file.parents


def _reached(module: str, roots: set[str]) -> tuple[str, list[str]]:
    """Source and imports of the definitions that the study's `run` reaches; of the whole module if it has none."""
    tree = _tree(module)
    entry = _entry(tree)
    if entry is None:
        return ast.unparse(tree), [name for node in ast.walk(tree) for name in _imported(node, module)]
    bound: dict[str, list[ast.stmt]] = {}
    waiting = list(roots | _names(entry))
    for statement in tree.body:
        names = list(_bound(statement))
        for name in names:
            bound.setdefault(name, []).append(statement)
        if not names:  # a bare call or a branch may change anything
            waiting += _names(statement)
            bound.setdefault("", []).append(statement)
    used: set[str] = {""}
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += [other for statement in bound.get(name, ()) for other in _names(statement)]
    chosen = [s for s in tree.body if any(s in bound.get(name, ()) for name in used)]
    code = [s for s in chosen if not isinstance(s, ast.Import | ast.ImportFrom)]
    imports = [name for s in chosen for node in ast.walk(s) for name in _imported(node, module, used)]
    return "\n".join([ast.unparse(entry), *map(ast.unparse, code)]), imports


def _entry(tree: ast.Module) -> ast.expr | None:
    """The expression given as `run` in `study = Study(…, run=…)`."""
    for statement in tree.body:
        named = [
            t.id for t in getattr(statement, "targets", [getattr(statement, "target", None)]) if isinstance(t, ast.Name)
        ]
        call = getattr(statement, "value", None)
        if "study" in named and isinstance(call, ast.Call):
            return next((keyword.value for keyword in call.keywords if keyword.arg == "run"), None)
    return None


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.split(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _names(node: ast.AST) -> set[str]:
    """Every name that occurs, also within annotations that are strings."""
    found = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    strings = (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant))
    return found | {text for text in strings if isinstance(text, str) and text.isidentifier()}


def _imported(node: ast.AST, module: str, used: set[str] | None = None) -> Iterable[str]:
    """Modules that an import statement may load: `from a import b` names a and perhaps a.b."""
    if isinstance(node, ast.Import):
        return [a.name for a in node.names if used is None or (a.asname or a.name.split(".")[0]) in used]
    if not isinstance(node, ast.ImportFrom):
        return []
    home = node.module or ""
    if node.level:
        path = source(module)
        is_package = path is not None and path.name == "__init__.py"
        parents = module.split(".")[: len(module.split(".")) - node.level + is_package]
        home = ".".join([*parents, *filter(None, [node.module])])
    names = {a.name for a in node.names if used is None or (a.asname or a.name) in used}
    if not names or names <= _TYPES_ONLY.get(home, set()):
        return []
    return [home, *(f"{home}.{name}" for name in names)]


def _classes(value: Any) -> set[tuple[str, str]]:
    """Module and name of every class and function in a cell."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = (getattr(value, field.name) for field in dataclasses.fields(value))
        return {(type(value).__module__, type(value).__name__)}.union(*map(_classes, inner))
    if isinstance(value, Mapping):
        return set[tuple[str, str]]().union(*map(_classes, value.values()))
    if isinstance(value, tuple | list | set | frozenset):
        return set[tuple[str, str]]().union(*map(_classes, value))
    if isinstance(value, enum.Enum):
        return {(type(value).__module__, type(value).__name__)}
    if isinstance(value, type) or callable(value):
        return {(value.__module__, value.__name__)}
    return set()


def _tree(module: str) -> ast.Module:
    path = source(module)
    if path is None:
        raise InvalidConfig(
            f"The source of module `{module}` cannot be found.",
            why="the key of a stored cell includes the code that made it.",
            fix="put the study into a .py file that Python can import.",
        )
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # docstrings and the text below an attribute
            node.body = [s for s in body if not _is_text(s)] or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
