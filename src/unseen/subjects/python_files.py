"""Subjects that a person's own Python file makes: `path/to/file.py:name`."""

import ast
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName, UnseenError
from unseen.subjects.subject import Subject
from unseen.subjects.tables import TABLES


def from_file(text: str) -> list[Subject]:
    """The subjects at `path/to/file.py:name`: one or a list of them, or a function without
    arguments that returns one or a list.
    """
    site, _, name = text.rpartition(":")
    path = Path(site or text)
    if Path(text).suffix == ".py" and Path(text).is_file():
        refuse_nameless(Path(text))
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


def refuse_nameless(path: Path) -> NoReturn:
    """Raises where a file is named without what is meant in it; says what it defines."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [one.name for one in tree.body if isinstance(one, kinds)]
    names += [
        target.id
        for one in tree.body
        if isinstance(one, ast.Assign)
        for target in one.targets
        if isinstance(target, ast.Name)
    ]
    likely = sorted(names, key=lambda name: name not in ("subject", "subjects", "study", "make"))
    raise InvalidConfig(
        f"`{path}` does not say what in it is meant.",
        why=f"it defines {', '.join(likely[:8])}." if likely else "it defines nothing.",
        fix=f"write the name behind the file: {path}:{likely[0] if likely else 'subject'}",
    )


def load_call(text: str, option: str) -> Any:
    """What `file.py:name`, or `file.py:name(arguments)`, makes; `option` is how it was given."""
    site, _, call = text.partition(".py:")
    if not call:
        raise InvalidConfig(
            f"`{option} {text}` names nothing that can be made.",
            why="it is the function, class or object of a Python file.",
            fix=f"for example {option} my_file.py:make, or {option} 'my_file.py:make(depth=3)'.",
        )
    path = Path(f"{site}.py")
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{path}`.", why="Python code is read from it.", fix="check the path."
        )
    here = str(Path.cwd())
    if here not in sys.path:  # as for `python file.py` started here
        sys.path.append(here)
    name, arguments, options = parse_call(call)
    return load_object(path, name, *arguments, **options)


def parse_call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Name, arguments and options of "make", or of "make(3, kind='deep')"."""
    try:
        tree = ast.parse(text, mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, [], {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            arguments = [ast.literal_eval(one) for one in tree.args]
            options = {str(one.arg): ast.literal_eval(one.value) for one in tree.keywords}
            return tree.func.id, arguments, options
    except (SyntaxError, ValueError):
        pass
    raise InvalidConfig(
        f"`{text}` is no name, and no call with plain arguments.",
        why="numbers, texts, lists and dictionaries can be given.",
        fix="for example 'file.py:make(depth=3, kind=\"deep\")', in quotation marks for the shell.",
    )


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
