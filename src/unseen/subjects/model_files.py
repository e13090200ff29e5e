"""A model on the command line: `file.py:make`, `file.py:make(depth=3)` or a file of skops. Never a
pickle.
"""

from pathlib import Path
from typing import Any

from unseen.errors import InvalidConfig, InvalidData, MissingExtra, MissingFile
from unseen.subjects.python_files import load_call
from unseen.subjects.table_models import is_estimator
from unseen.text import join_words

HARMLESS = ("numpy.dtype",)
"""Types that skops does not list, which run nothing: encoders hold the types of their columns."""
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
    found = _of_skops(Path(text)) if suffix == ".skops" else load_call(text, "--model")
    if not is_estimator(found):
        raise InvalidData(
            f"`{text}` gives a {type(found).__name__}.",
            why="a model of a table has `fit` and `predict`, as scikit-learn's estimators.",
            fix="return one, fitted or not; a network is audited through a subject: unseen audit "
            "file.py:subject.",
        )
    return found


def _of_skops(path: Path) -> Any:
    try:
        from skops import io
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
    asked = io.get_untrusted_types(file=path)
    unknown = [name for name in asked if name not in HARMLESS]
    if unknown:
        raise InvalidData(
            f"`{path}` holds {join_words(list(unknown)[:5])}.",
            why="skops does not know these types, and making them may run code.",
            fix="if you trust the file, open it yourself: def load(): return skops.io.load(path, "
            "trusted=[…]), and give --model file.py:load.",
        )
    return io.load(path, trusted=asked)
