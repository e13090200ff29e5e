"""Subjects that a person's own Python file makes: `path/to/file.py:name`."""

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName, UnseenError
from unseen.subjects.subject import Subject
from unseen.subjects.tables import TABLES


def from_file(text: str) -> list[Subject]:
    """The subjects at `path/to/file.py:name`: one or a list of them, or a function without
    arguments that returns one or a list.
    """
    site, _, name = text.rpartition(":")
    path = Path(site or text)
    if path.suffix != ".py" or not site:
        raise InvalidConfig(
            f"`{text}` is neither a table nor a Python subject.",
            why=f"tables end in {', '.join(TABLES)}; a subject is written file.py:name.",
            fix="for example: unseen audit data.csv --target outcome, or unseen audit "
            "my_model.py:subject.",
        )
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{path}`.", why="the subject is read from it.", fix="check the path."
        )
    found = load_object(path, name)
    if isinstance(found, Subject):
        return [found]
    is_list = isinstance(found, list | tuple) and all(isinstance(one, Subject) for one in found)
    if not is_list or not found:
        raise InvalidData(
            f"`{name}` in {path} is a {type(found).__name__}, not a Subject.",
            why="an audit needs a task and a way to make the model.",
            fix="return unseen.Subject(task=…, model=…), or a list of subjects.",
        )
    return list(found)


def load_object(path: Path, name: str, *arguments: Any, **options: Any) -> Any:
    """What a Python file calls `name`, or what the function of that name returns for these
    arguments; errors say the file's line.
    """
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # as `python file.py` has it, and it stays so: a factory may import what lies beside the file
    # when it is called
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[spec.name] = module  # dataclasses look up the module of a class by its name
    try:
        spec.loader.exec_module(module)
        known = [key for key in vars(module) if not key.startswith("_")]
        if not hasattr(module, name):
            raise UnknownName.near(f"name in {path}", name, known)
        found = getattr(module, name)
        if callable(found) and not isinstance(found, Subject):
            return found(*arguments, **options)
        return found
    except UnseenError:
        raise
    except Exception as error:  # the user's own code: say where it failed
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).resolve() == path.resolve()
        ]
        line = f", line {frames[-1].lineno}" if frames else ""
        raise InvalidData(
            f"{path}{line} raised {type(error).__name__}: {error}",
            why=f"`{name}` could not be made.",
            fix=f"run `python {path}` and mend it; nothing was written.",
        ) from error


def _module_name(path: Path) -> str:
    """The file's name, unless another module is called so: a subject may lie in `random.py`."""
    known = sys.modules.get(path.stem)
    file = getattr(known, "__file__", None)
    is_free = known is None or (file is not None and Path(file).resolve() == path.resolve())
    return path.stem if is_free and path.stem not in sys.stdlib_module_names else f"{path.stem}.py"
