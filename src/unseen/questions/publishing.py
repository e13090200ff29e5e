"""A stored answer as the folder of a repository on the Hugging Face hub: its card, its numbers and
its page.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from unseen.errors import CorruptFile, InvalidConfig, MissingFile
from unseen.questions.answer import card_text
from unseen.runs.answers import KEY, Answers, StoredAnswer
from unseen.runs.hub import SIGNATURE
from unseen.runs.store import write_atomic

FILES = ("README.md", "results.json", "report.html")
MODEL_ONLY = "model-index"
"""Front matter that the hub reads in cards of models alone."""


def find_answer(answers: Answers, what: str | Path | None) -> StoredAnswer:
    """The answer with a key, the one whose report a file is, or (None) the newest."""
    if what is not None and KEY.fullmatch(str(what)):
        return answers.get(str(what))
    listing = answers.listing()
    if what is None:
        if not listing:
            raise _no_answer_error(f"No answer is stored below {answers.root}.")
        return listing[0]
    try:
        page = Path(what).read_bytes()
    except OSError as error:
        raise MissingFile(
            f"{what} is no report and no key of a stored answer.",
            why=f"{error.strerror or error}.",
            fix="name a report that a command wrote as .html, or the folder of <home>/answers/.",
        ) from None
    for one in listing:
        if answers.report(one.key).encode() == page:
            return one
    raise _no_answer_error(f"{what} is the report of no stored answer.")


def write_folder(answers: Answers, key: str, folder: Path, is_dataset: bool) -> Sequence[Path]:
    """Writes the card, the numbers and the page of an answer; returns the files. Predictions of
    single examples stay at home.
    """
    _refuse_other_files(folder)
    answer, results = answers.get(key), answers.results(key)
    card = results.get("card")
    if not isinstance(card, dict):
        raise CorruptFile(
            f"The stored answer {key} has no card.",
            why="an earlier version of Unseen stored it.",
            fix=f"run it again: {answer.command or 'unseen ' + answer.question}",
        )
    head = {
        name: value
        for name, value in card["front_matter"].items()
        if not (is_dataset and name == MODEL_ONLY)
    }
    numbers = {"question": answer.question, "version": answer.version, **results["machine"]}
    texts = (
        card_text(head, card["body"]),
        json.dumps(numbers, indent=1, ensure_ascii=False) + "\n",
        answers.report(key),
    )
    paths = [folder / name for name in FILES]
    for path, text in zip(paths, texts, strict=True):
        write_atomic(path, text)
    return paths


def _refuse_other_files(folder: Path) -> None:
    """A folder goes up as a whole: what else lies there, a table for example, would be published,
    and a card that somebody wrote would be replaced.
    """
    if not folder.is_dir():
        return
    others = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
    card = folder / FILES[0]
    if not others and card.is_file():
        text = card.read_text("utf-8", errors="replace")
        others = [] if SIGNATURE in text.split("\n---", 1)[0] else [card.name]
    if others:
        raise InvalidConfig(
            f"The folder {folder} holds `{others[0]}`, which Unseen did not write.",
            why="the folder is uploaded as a whole, and its card is replaced.",
            fix="name an empty or new folder: --folder unseen-push",
        )


def _no_answer_error(what: str) -> MissingFile:
    return MissingFile(
        what,
        why="the commands store their answers in UNSEEN_HOME, and what is pushed is made of them.",
        fix="run the command (unseen audit …) here, and push its report.",
    )
