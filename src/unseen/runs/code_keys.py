"""Keys of cells: what decides the rows, as one hash. Sources are read with `ast`; nothing is
imported to hash it.

    key = SHA-256(schema, study name, cell as canonical JSON, code that the cell uses)

The code that a cell uses is the closure of the *definitions* that the study's `run` reaches by
name, through imports (`definitions.py`). Claims, figures and tables are left out, so changing a
margin recomputes nothing. Module paths, versions, comments, docstrings, annotations and the words
of errors do not count; defaults, constants, decorators and the checksums of data files do. What
cannot be followed exactly counts whole: classes with all their methods, loose statements of every
module that is imported, modules that are searched by name at run time. The classes and functions in
the cell count, too, whichever annotation they hide behind.
"""

import dataclasses
import enum
import functools
import hashlib
import pathlib
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from unseen.errors import InvalidConfig
from unseen.runs.catalog import source
from unseen.runs.code_files import is_installed, require
from unseen.runs.definitions import ENTRY, WHOLE, Definition, Node, Sources, digest
from unseen.runs.store import SCHEMA, canonical


@dataclass(frozen=True)
class Code:
    """A hash over definitions, and the files that hold them."""

    version: str
    files: tuple[Path, ...]
    definitions: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """The hash of each definition, of a class each method apart:
    `unseen.engine.loop:Budget.validate`.
    """
    unknown: tuple[str, ...] = ()
    """Functions and classes without a source file: typed into a console, or made by `exec`."""


def key(study: str, cell: Any, code: Code) -> str:
    """The name of the cell's directory: 32 hexadecimal digits."""
    text = canonical([SCHEMA, study, plain(cell), code.version])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plain(value: Any) -> Any:
    """A cell as JSON values. Dataclasses carry their class's name, so two with equal fields stay
    apart.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
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
    if isinstance(value, type) or (
        callable(value) and getattr(value, "__name__", "<lambda>") != "<lambda>"
    ):
        # of ours the definition is part of the code, so that its module may be renamed
        return (
            value.__qualname__
            if Home.of(value).is_ours
            else f"{value.__module__}.{value.__qualname__}"
        )
    raise InvalidConfig(
        f"A cell holds {value!r} ({type(value).__name__}).",
        why="a cell's key and its way to other processes need plain values.",
        fix="use numbers, strings, tuples, enums, named functions or frozen dataclasses of these.",
    )


def code_of(module: str, cell: Any = None) -> Code:
    """The code that a cell of the study in `module` uses."""
    parts = Parts.of(cell)
    return _code(module, tuple(sorted(parts.homes)), tuple(sorted(parts.texts)))


@functools.cache
def _code(module: str, homes: "tuple[Home, ...]", texts: tuple[str, ...]) -> Code:
    return code_of_file(require(source(module), module), homes, texts, _SOURCES)


def definitions_of(module: str, cells: Iterable[Any]) -> dict[Node, Definition]:
    """Every definition that the study in `module` uses for one of the cells."""
    parts = Parts.of(tuple(cells))
    return _SOURCES.closure(_roots(require(source(module), module), sorted(parts.homes), _SOURCES))


def code_of_objects(*objects: Any) -> Code:
    """The code that functions, classes and instances use, where it is Unseen's or the user's own.

    Values are searched for more: fields, containers, `partial`, bound methods, what a function
    closes over, the layers of a model. Of installed packages nothing counts but the names that are
    asked of them.
    """
    parts = Parts.of(objects)
    roots = [node for home in sorted(parts.homes) if (node := home.node(None, _SOURCES))]
    return assemble_code(_SOURCES, roots, parts.texts, tuple(sorted(parts.unknown)))


def code_of_file(
    file: Path, homes: "Iterable[Home]", texts: Iterable[str], sources: Sources
) -> Code:
    """The code that the study in `file` uses for a cell that holds these classes and texts."""
    return assemble_code(sources, _roots(file, homes, sources), texts)


def _roots(file: Path, homes: "Iterable[Home]", sources: Sources) -> list[Node]:
    roots = [Node(file, ENTRY if sources.module(file).entry is not None else WHOLE)]
    # `run` is handed a lab, whose class it need not name
    return roots + [
        node for home in (*homes, Home("unseen.lab", "Lab")) if (node := home.node(file, sources))
    ]


def assemble_code(
    sources: Sources, roots: Iterable[Node], texts: Iterable[str], unknown: tuple[str, ...] = ()
) -> Code:
    """The closure of the roots as one hash."""
    found = sources.closure(roots)
    definitions = {
        definition.label + (f".{part}" if part else ""): value
        for definition in found.values()
        for part, value in definition.digests.items()
    }
    # modules may be renamed: their names are left out
    lines = [f"{label.rpartition(':')[2]} {value}" for label, value in definitions.items()]
    lines += _ambiguous(found)
    for node in found:
        if sources.is_boundary(node):
            words = set(texts).union(*(definition.texts for definition in found.values()))
            data = data_sets(words, sources.checksums(node.file))
            lines += [f"data {name} {value}" for name, value in data.items()]
            definitions |= {f"data:{name}": value for name, value in data.items()}
    return Code(
        digest("\n".join(sorted(set(lines)))),
        tuple(sorted({node.file for node in found})),
        dict(sorted(definitions.items())),
        unknown,
    )


def _ambiguous(found: Mapping[Node, Definition]) -> Iterator[str]:
    """Who uses which, where definitions of one name differ: the name in a text would not tell."""
    bearers: dict[str, set[str]] = {}
    for node, definition in found.items():
        bearers.setdefault(node.name, set()).add(definition.digest)
    for definition in found.values():
        for place, node in enumerate(
            node for node in definition.reaches if len(bearers[node.name]) > 1
        ):
            yield f"{definition.digest} uses {place} {node.name} {found[node].digest}"


def data_sets(words: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Those of the known data sets that texts name; all, if none is named.

    A set is named by the folder that a text starts with, as a whole, or as far as a definition
    completes it: `mnist` of `mnist-small`.
    """
    folders = {word.split("/")[0] for word in words}
    named = {
        name
        for name in known
        if any(name == f or (f and name.startswith(f"{f}-")) for f in folders)
    }
    return {name: known[name] for name in sorted(named or known)}


class Home(NamedTuple):
    """Where a class or function is defined."""

    module: str
    name: str
    """Of the top-level definition that holds it."""
    file: str = ""
    """Empty if unknown."""

    @staticmethod
    def of(value: Any) -> "Home":
        name = value.__qualname__.split(".")[0]
        code = getattr(value, "__code__", None)
        module = getattr(sys.modules.get(value.__module__), "__file__", None)
        file = module if code is None else code.co_filename
        if isinstance(value, type):
            # of a file that was run, or whose module's name another file has taken since
            codes = (getattr(member, "__code__", None) for member in vars(value).values())
            files = [c.co_filename for c in codes if c and not c.co_filename.startswith("<")]
            if files and file not in files and not is_installed(Path(files[0]).resolve().parent):
                file = files[0]
        return Home(value.__module__ or "", name, file or "")

    @property
    def is_ours(self) -> bool:
        if self.module.split(".")[0] == "unseen":
            return True
        return (
            bool(self.file)
            and not self.file.startswith("<")
            and not is_installed(Path(self.file).resolve().parent)
        )

    @property
    def is_unknown(self) -> bool:
        """Whether it was typed or generated: there is no file to read."""
        if self.module == "builtins" or self.is_ours:
            return False
        known = getattr(sys.modules.get(self.module), "__spec__", None) is not None
        return self.file.startswith("<") or not (self.file or known)

    def node(self, near: Path | None, sources: Sources) -> Node | None:
        """The definition as the sources have it; None for what is not ours."""
        file = None if near is None else sources.locate(self.module, near)
        if file is None and self.is_ours:
            file = (
                source(self.module)
                if self.module.split(".")[0] == "unseen"
                else Path(self.file).resolve()
            )
        if file is None:
            return None
        # a lambda has no name of its own
        return Node(file, self.name if self.name in sources.module(file).statements else WHOLE)


@dataclass
class Parts:
    """Classes, functions and texts that a value holds, however deep."""

    homes: set[Home] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    _seen: dict[int, Any] = field(default_factory=dict)

    @staticmethod
    def of(value: Any) -> "Parts":
        parts = Parts()
        parts.add(value)
        return parts

    def add(self, value: Any) -> None:
        if isinstance(value, str):
            self.texts.add(str(value))
        if value is None or (
            isinstance(value, bool | int | float | str | bytes) and not isinstance(value, enum.Enum)
        ):
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, type | types.FunctionType):
            self._add_definition(value)
        elif isinstance(value, types.MethodType):
            self.add(value.__func__)
            self.add(value.__self__)
        elif isinstance(value, functools.partial):
            self._all((value.func, value.args, value.keywords))
        elif isinstance(value, Mapping):
            self._all((*value.keys(), *value.values()))
        elif isinstance(value, tuple | list | set | frozenset):
            self._all(value)
        elif callable(
            inner := getattr(value, "__wrapped__", None)
        ):  # `functools.cache` and the like
            self.add(inner)
        else:
            self._instance(value)

    def _all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.add(value)

    def _add_definition(self, value: Any) -> None:
        if inner := getattr(value, "__wrapped__", None):
            self.add(inner)
        home, code = Home.of(value), getattr(value, "__code__", None)
        if (
            inner
            and code
            and (code.co_filename.startswith("<") or is_installed(Path(code.co_filename).parent))
        ):
            return  # a wrapper of another package around code of ours
        if home.is_unknown:
            self.unknown.add(f"{home.module}.{value.__qualname__}")
        else:
            self.homes.add(home)
        if isinstance(value, types.FunctionType):
            for cell in value.__closure__ or ():
                try:
                    self.add(cell.cell_contents)
                except ValueError:  # not bound yet
                    continue
            self._all((value.__defaults__, value.__kwdefaults__))

    def _instance(self, value: Any) -> None:
        self.add(type(value))
        if isinstance(value, enum.Enum):
            self.add(value.value)
        elif dataclasses.is_dataclass(value):
            self._all(getattr(value, one.name) for one in dataclasses.fields(value))
        elif (
            hasattr(value, "_modules") or Home.of(type(value)).is_ours
        ):  # a model of torch, or an object of ours
            self._all(getattr(value, "__dict__", {}).values())
        elif callable(getattr(value, "get_params", None)):  # an estimator of scikit-learn
            self._all(value.get_params(deep=False).values())


_SOURCES = Sources()
"""The sources as this process found them first: what it has imported does not change under it
either.
"""
