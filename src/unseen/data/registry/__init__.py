"""Where public data files come from, under which licence, and what they must hold.

One module per data set, called like its data folder with underscores (`fashion_mnist.py` for
`fashion-mnist/…`). Its `FILES` maps the names that `unseen.data.files.data_file` takes to what is
registered about them. The folder listing is the registry; a data set's module is imported when
one of its files is asked for.
"""

import pkgutil
from collections.abc import Mapping
from importlib import import_module

from unseen.data.registered_file import RegisteredFile
from unseen.errors import UnknownName


def data_sets() -> list[str]:
    """The data sets by their folders, for example `fashion-mnist`."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def files_of(data_set: str) -> Mapping[str, RegisteredFile]:
    """The files of one data set by name; imports its module only."""
    return import_module(f"{__name__}.{data_set.replace('-', '_')}").FILES


def registered_files() -> dict[str, RegisteredFile]:
    """Every file by name; imports every data set's module."""
    return {name: file for data_set in data_sets() for name, file in files_of(data_set).items()}


def find_file(name: str) -> RegisteredFile:
    """What is registered about a file; for an unknown one the error lists near matches."""
    data_set = name.split("/")[0]
    if data_set in data_sets() and name in (files := files_of(data_set)):
        return files[name]
    raise UnknownName.near("data file", name, registered_files())
