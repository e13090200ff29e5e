"""Packages whose names are found by reading their sources: a file is imported when a name of it is
asked for.
"""

import functools
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from unseen.errors import UnknownName

Lookup = Callable[[str], Any]
Listing = Callable[[], list[str]]


class _FunctionFirst(ModuleType):
    """A package in which `mlp` is the function of `mlp.py`, not the file, as for functions in files
    of another name.
    """

    def __setattr__(self, name: str, value: object) -> None:
        # whoever imports a file below a package has it set here, under the file's name
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}":
            value = vars(value).get(name, value)
        super().__setattr__(name, value)


def modules(folder: Path) -> dict[str, Path]:
    """The source of every public module of a folder by name, a package by its `__init__.py`."""
    files = {path.stem: path for path in folder.glob("*.py")}
    files |= {path.parent.name: path for path in folder.glob("*/__init__.py")}
    return {name: path for name, path in sorted(files.items()) if not name.startswith("_")}


def definitions(source: str, keywords: Sequence[str] = ("class",)) -> list[str]:
    """The public names that a source defines at its top level."""
    pattern = rf"^(?:{'|'.join(keywords)}) ([A-Za-z]\w*)"
    return list(dict.fromkeys(re.findall(pattern, source, re.MULTILINE)))


def exports(package: str, file: str, *, functions: bool = False) -> tuple[Lookup, Listing]:
    """`__getattr__` and `__dir__` of a package that gives the classes (and functions) of its files.

    The folder is the list: nothing is imported before a name is asked for, and a new file needs no
    entry anywhere. A name that several files define is refused with the paths to choose from.
    """
    folder = Path(file).parent
    keywords = ("class", "def") if functions else ("class",)

    @functools.cache
    def homes() -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        files = modules(folder)
        for module, path in files.items():
            for name in definitions(path.read_text(encoding="utf-8"), keywords):
                # a file's name stays the module, unless its main function bears it
                if name not in files or (functions and name == module):
                    found[name].append(module)
        return found

    if functions:
        sys.modules[package].__class__ = _FunctionFirst

    def lookup(name: str) -> Any:
        places = () if name.startswith("_") else homes().get(name, ())
        if not places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if len(places) > 1:
            paths = [f"{package}.{module}" for module in places]
            raise UnknownName(
                f"`{name}` is defined in {' and in '.join(paths)}.",
                why=f"`from {package} import {name}` cannot know which one is meant.",
                fix=f"name the file: from {paths[0]} import {name}.",
            )
        return getattr(importlib.import_module(f"{package}.{places[0]}"), name)

    def listing() -> list[str]:
        return sorted(
            {*modules(folder), *(name for name, places in homes().items() if len(places) == 1)}
        )

    return lookup, listing
