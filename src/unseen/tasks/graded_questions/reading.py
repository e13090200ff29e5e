"""Items out of JSON lines: the house's form, and those of ARC as published and on its hub."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unseen.characters import find_half
from unseen.errors import CorruptFile, InvalidData, MissingFile
from unseen.tasks.graded_questions.item import QUESTION_TEMPLATE, Annotation, Item

ROLES = ("question", "prompt", "choices", "answer", "answerKey", "id", "labels")
"""Fields that are no annotation."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FORM = '{"question": "2 + 3 = ?", "choices": ["4", "5"], "answer": "5", "grade": 1}'


def read_items(path: Path | str, keep: Callable[[Item], bool] = lambda item: True) -> list[Item]:
    """The items of a `.jsonl` file, which may be gzipped; a fault is named with its line."""
    items = [item for entry, where in read_objects(path) if keep(item := item_of(entry, where))]
    if not items:
        raise InvalidData(
            f"{path} holds no item.", why="it is empty.", fix=f"add lines like {FORM}"
        )
    return items


def read_objects(path: Path | str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The objects of a file of JSON lines, each with the words for where it stands."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile(
            f"There is no file {path}.", why="the items are read from it.", fix="check the path."
        )
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise CorruptFile(
            f"{path} cannot be read as text.", why=str(error), fix="save it as UTF-8."
        ) from error
    for number, line in enumerate(text.split("\n"), 1):  # U+2028 may stand inside a JSON text
        if line.strip():
            where = f"Line {number} of {path.name}"
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise InvalidData(
                    f"{where} is no JSON.", why=str(error), fix=f"write lines like {FORM}"
                ) from error
            if not isinstance(entry, dict):
                raise InvalidData(
                    f"{where} holds a {type(entry).__name__}, not an object.",
                    why="an item has named fields.",
                    fix=f"write lines like {FORM}",
                )
            if half := find_half(json.dumps(entry, ensure_ascii=False)):
                raise InvalidData(
                    f"{where} holds half a character, {half}.",
                    why="the text was cut through an emoji or another sign of two parts.",
                    fix="remove it.",
                )
            yield entry, where


def item_of(entry: Mapping[str, Any], where: str) -> Item:
    """The item of a JSON object.

    `question` (put into "Question: …\\nAnswer:") or `prompt` (read as it is), `choices`, and as
    `answer` an index from 0, a label or the text. Everything else that is a number, a text or a
    truth value is an annotation. ARC's own fields are understood, too: `question.stem`,
    `question.choices`, `answerKey`, and `choices.text` with `choices.label`.
    """
    question, choices = entry.get("question", entry.get("prompt")), entry.get("choices")
    if isinstance(question, Mapping):
        choices = question.get("choices", choices)
        question = question.get("stem")
    if not isinstance(question, str) or not question.strip():
        raise _refusal(where, "has no text in `question` or `prompt`")
    texts, labels = _texts_and_labels(choices, entry.get("labels"), where)
    answer = entry.get("answer", entry.get("answerKey"))
    if labels and str(answer) in labels:  # labels that the file gives come before texts
        index = labels.index(str(answer))
    else:
        index = _index(answer, texts, LETTERS[: len(texts)], where)
    annotations = tuple(
        (name, value if isinstance(value, str) else float(value))
        for name, value in entry.items()
        if name not in ROLES and isinstance(value, str | int | float)
    )
    template = QUESTION_TEMPLATE if "question" in entry else "{question}"
    name = "" if entry.get("id") is None else str(entry["id"])
    try:
        return Item(question, texts, index, name, annotations, template)
    except InvalidData as error:
        raise InvalidData(f"{where}: {error.what}", error.why, error.fix) from error


def _texts_and_labels(
    choices: Any, labels: Any, where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if isinstance(choices, Mapping):
        choices, labels = choices.get("text"), choices.get("label", labels)
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        raise _refusal(where, "has no list in `choices`")
    if choices and all(isinstance(choice, Mapping) for choice in choices):
        labels = [choice.get("label") for choice in choices]
        choices = [choice.get("text") for choice in choices]
    texts = tuple(str(choice) for choice in choices if isinstance(choice, str | int | float))
    if len(texts) < len(choices):
        raise _refusal(where, "has a choice that is no text")
    if labels is None:
        return texts, ()
    if not isinstance(labels, Sequence) or len(labels) != len(texts):
        raise _refusal(where, f"has {len(texts)} choices, and labels of another number")
    return texts, tuple(map(str, labels))


def _index(answer: Any, texts: Sequence[str], labels: Sequence[str], where: str) -> int:
    """Index of the answer, refused where it can mean two of the choices."""
    if isinstance(answer, bool):
        answer = "yes" if answer else "no"
        texts = [text.strip().lower() for text in texts]
    if not isinstance(answer, str | int):
        raise _refusal(where, "has no index, label or text in `answer`")
    found = {k for k, text in enumerate(texts) if text.strip() == str(answer).strip()}
    if isinstance(answer, int):
        found |= {answer} if 0 <= answer < len(texts) else set()
    else:
        found |= {k for k, label in enumerate(labels) if label == answer.strip()}
    if len(found) == 1:
        return found.pop()
    said = f"the answer {answer!r} of {len(texts)} choices ({', '.join(texts)[:80]})"
    if found:
        raise InvalidData(
            f"{where}: {said} can mean {len(found)} of them.",
            why="it is the text of one and the label or index of another.",
            fix="write the text of the choice, and `labels` that are no choice.",
        )
    raise InvalidData(
        f"{where}: {said} is not among them.",
        why="no choice would be right.",
        fix="give an index from 0, a label (A, B, … or those in `labels`) or the text.",
    )


def _refusal(where: str, what: str) -> InvalidData:
    return InvalidData(
        f"{where} {what}.",
        why="an item is a question with choices.",
        fix=f"write lines like {FORM}",
    )


def annotate(item: Item, **more: Annotation) -> Item:
    """The item with more annotations."""
    return Item(
        item.question,
        item.choices,
        item.answer,
        item.name,
        (*item.annotations, *more.items()),
        item.template,
    )
