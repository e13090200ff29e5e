"""Where the source of a module lies: in which file, under which root, ours or installed."""

import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from unseen.errors import InvalidConfig


def _files_of(base: Path) -> Iterator[Path]:
    """The file of the module at that path without suffix."""
    for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if path.is_file():
            yield path


@cache
def _root(file: Path) -> Path:
    """The folder from which a module is imported: that of its top package, or its own."""
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _top(file: Path, root: Path) -> str:
    return file.relative_to(root).parts[0].removesuffix(".py")


def _module_name(file: Path) -> str:
    parts = file.relative_to(_root(file)).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def is_installed(folder: Path) -> bool:
    """Whether a folder belongs to Python or to installed packages."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    # the folder of another environment may be on the path, too (a .pth file)
    return bool({"site-packages", "dist-packages"} & set(folder.parts)) or any(
        folder.is_relative_to(place) for place in places if place
    )


def require(file: Path | None, module: str) -> Path:
    """The file, or why the code of a module cannot be read."""
    if file is None:
        raise InvalidConfig(
            f"The source of module `{module}` cannot be found.",
            why="the key of a stored cell includes the code that made it.",
            fix="put the study into a .py file that Python can import.",
        )
    return file
