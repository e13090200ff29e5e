"""Whose code a definition is: Unseen's, a library's or the user's; and which libraries read more
than their arguments.
"""

import hashlib
import sys
import sysconfig
from enum import StrEnum
from functools import cache
from importlib import metadata
from pathlib import Path
from types import FunctionType, ModuleType

import torch


class Origin(StrEnum):
    """Who answers for a piece of code."""

    UNSEEN = "unseen"
    """Known by its source: `runs/code_keys.py`."""
    LIBRARY = "library"
    """Known by its version."""
    USER = "user"
    """Known by its bytecode and all that it reads."""


PURE = {
    "abc",
    "array",
    "bisect",
    "builtins",
    "cmath",
    "collections",
    "contextlib",
    "copy",
    "copyreg",
    "dataclasses",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "json",
    "logging",
    "math",
    "numbers",
    "operator",
    "re",
    "statistics",
    "string",
    "struct",
    "textwrap",
    "types",
    "typing",
    "unicodedata",
    "warnings",
    "weakref",
    "_collections_abc",
    "_functools",
    "_operator",
    "_collections",
    "zlib",
    "hashlib",
}
"""Modules of the standard library whose functions give the same result for the same arguments."""
WORLDLY = {
    "environ",
    "environb",
    "getenv",
    "fromfile",
    "from_file",
    "from_pretrained",
    "genfromtxt",
    "load",
    "load_file",
    "loadtxt",
    "memmap",
    "open",
    "open_memmap",
    "safe_open",
    "read_text",
    "read_bytes",
    "read_csv",
    "read_parquet",
    "read_table",
    "read_excel",
    "read_json",
    "read_pickle",
    "read_image",
    "read_file",
    "imread",
    "cwd",
    "home",
    "stat",
    "exists",
    "is_file",
    "glob",
    "iterdir",
    "expanduser",
    "urlopen",
    "urlretrieve",
    "load_url",
    "load_state_dict_from_url",
    "load_dataset",
}
"""Names of library functions that read files, the network or the environment."""
WORLDLY_MODULES = ("numpy.random", "torch.hub", "torch.distributed", "torch.multiprocessing")
UNSTEADY = {
    "open",
    "input",
    "eval",
    "exec",
    "compile",
    "__import__",
    "globals",
    "locals",
    "breakpoint",
    "id",
    "hash",
}
"""Built-in functions whose result depends on more than their arguments."""


def of_module(name: str) -> Origin:
    """Whose module this is, by where its file lies."""
    if name.split(".")[0] == "unseen":
        return Origin.UNSEEN
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is not None:
        return of_path(file)
    is_standard = name.split(".")[0] in sys.stdlib_module_names and name != "__main__"
    # a namespace or an extension without a file: a library's, unless nobody has imported it under
    # this name
    return (
        Origin.LIBRARY
        if is_standard or (module is not None and name != "__main__")
        else Origin.USER
    )


@cache
def of_path(file: str) -> Origin:
    """Whose file this is: installed files and Python's own are a library's."""
    path = Path(file)
    if file.startswith("<frozen") or {"site-packages", "dist-packages"} & set(path.parts):
        return Origin.LIBRARY
    is_standard = any(
        path.is_relative_to(sysconfig.get_paths()[name]) for name in ("stdlib", "platstdlib")
    )
    return Origin.LIBRARY if is_standard else Origin.USER


def of_function(function: FunctionType) -> Origin:
    """By the file of its code: a wrapper of a library that calls itself the user's is the
    library's.
    """
    home = str(function.__globals__.get("__name__", ""))
    if home.split(".")[0] == "unseen":
        return Origin.UNSEEN
    file = function.__code__.co_filename
    return of_module(home) if file.startswith("<") and file != "<stdin>" else of_path(file)


def of_class(kind: type) -> Origin:
    """By the file of its first method, where it has one: a user's file may be called like a
    library.
    """
    if kind.__module__.split(".")[0] == "unseen":
        return Origin.UNSEEN
    for member in vars(kind).values():
        file = member.__code__.co_filename if isinstance(member, FunctionType) else "<"
        if not file.startswith("<"):
            return of_path(file)
    module = sys.modules.get(kind.__module__)
    found: object = module
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    if module is None or (found is not None and found is not kind):
        return Origin.USER
    return of_module(kind.__module__)


def is_worldly(dotted: str) -> bool:
    """Whether this part of a library reads files, the network, the clock or the environment."""
    top, last = dotted.split(".")[0], dotted.rsplit(".", 1)[-1]
    if top in sys.stdlib_module_names and top not in PURE:
        return True
    if top == "builtins":
        return last in UNSTEADY
    return any(dotted == name or dotted.startswith(name + ".") for name in WORLDLY_MODULES) or bool(
        WORLDLY & set(dotted.split(".")[1:])
    )


@cache
def version_of(module: str) -> str:
    """The version of the package that a library's module belongs to, and a digest of the module's
    file.
    """
    top = module.split(".")[0]
    if top in sys.stdlib_module_names:
        return ""  # Python's version is part of every identity
    try:
        version = metadata.version({"sklearn": "scikit-learn"}.get(top, top))
    except metadata.PackageNotFoundError:
        version = str(getattr(sys.modules.get(top), "__version__", ""))
    if top in ("torch", "numpy", "sklearn", "scipy"):
        return version
    file = getattr(sys.modules.get(module), "__file__", None)
    text = (
        Path(file).read_bytes() if file and file.endswith(".py") and Path(file).is_file() else b""
    )
    return f"{version} {hashlib.sha256(text).hexdigest()[:16]}"


def surroundings() -> str:
    """What decides every number beside code and data: Python, the libraries that compute, and
    torch's global switches.
    """
    switches = (torch.get_default_dtype(), torch.get_float32_matmul_precision())
    return " ".join([_library_versions(), *map(str, switches)])


@cache
def _library_versions() -> str:
    names = ("torch", "numpy", "scipy", "scikit-learn")
    versions = [f"{name} {metadata.version(name)}" for name in names]
    return " ".join([f"python {'.'.join(map(str, sys.version_info[:3]))}", *versions])


def is_library(value: ModuleType) -> bool:
    """Whether the module is installed or Python's own."""
    return of_module(value.__name__) is Origin.LIBRARY
