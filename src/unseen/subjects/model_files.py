"""A model on the command line: `file.py:make`, `file.py:make(depth=3)` or a file of skops. Never a
pickle.
"""

import ast
import sys
from pathlib import Path
from typing import Any

from unseen.errors import InvalidConfig, InvalidData, MissingExtra, MissingFile
from unseen.subjects.python_files import load_object
from unseen.subjects.table_models import is_estimator
from unseen.text import join_words

PICKLES = (".pkl", ".pickle", ".joblib", ".sav", ".p")


def load_model(text: str) -> Any:
    """The estimator that is named."""
    suffix = Path(text).suffix.lower()
    if suffix in PICKLES:
        raise InvalidConfig(
            f"`{text}` is a pickle and is not opened.",
            why="opening one runs whatever code it holds, with your rights.",
            fix='save the model with skops.io.dump(model, "model.skops") and give --model '
            "model.skops; or write a function that opens it, if you trust it: --model "
            "file.py:load.",
        )
    found = _of_skops(Path(text)) if suffix == ".skops" else _of_python(text)
    if not is_estimator(found):
        raise InvalidData(
            f"`{text}` gives a {type(found).__name__}.",
            why="a model of a table has `fit` and `predict`, as scikit-learn's estimators.",
            fix="return one, fitted or not; a network is audited through a subject: unseen audit "
            "file.py:subject.",
        )
    return found


def _of_python(text: str) -> Any:
    """What `file.py:name`, or `file.py:name(arguments)`, makes."""
    site, _, call = text.partition(".py:")
    if not call:
        raise InvalidConfig(
            f"`--model {text}` names no model.",
            why="a model is the function or object of a Python file, or a file of skops.",
            fix="for example --model my_model.py:make, --model 'my_model.py:make(depth=3)' or "
            "--model model.skops.",
        )
    path = Path(f"{site}.py")
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{path}`.", why="the model is read from it.", fix="check the path."
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


def _of_skops(path: Path) -> Any:
    try:
        import skops.io
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"`{path}` needs skops.",
            why="it is a file of skops, which is not installed.",
            fix="pip install 'unseen[skops]'",
        ) from error
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{path}`.", why="the model is read from it.", fix="check the path."
        )
    unknown = skops.io.get_untrusted_types(file=path)
    if unknown:
        raise InvalidData(
            f"`{path}` holds {join_words(list(unknown)[:5])}.",
            why="skops does not know these types, and making them may run code.",
            fix="if you trust the file, open it yourself: def load(): return skops.io.load(path, "
            "trusted=[…]), and give --model file.py:load.",
        )
    return skops.io.load(path)
