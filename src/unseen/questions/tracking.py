"""An answer in an experiment tracker: its numbers with their intervals, the codes of its findings,
its verdicts, and the page as an artifact.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, redirect_stdout
from pathlib import Path
from typing import Any

from unseen.document import Document
from unseen.questions.storage import notes_of
from unseen.report.html import html
from unseen.report.json import plain
from unseen.runs.trackers import open_tracker

ENDS = ("low", "high")
IDENTITY = (
    "task",
    "held_out",
    "site",
    "source",
    "model",
    "method",
    "name",
    "split",
    "group",
    "protocol",
    "measure",
    "metric",
    "says",
    "column",
    "level",
)
"""Fields that say of which thing an entry of a list is, in the order of a name."""
DETAILS = frozenset({"checked", "dots", "worst", "self_influential"})
"""Parts of an answer that explain its numbers: in results.json, no scalars of a tracker."""
Scalars = Iterator[tuple[tuple[str, ...], float]]


def track_answer(
    tracker: str, question: str, document: Document, machine: Mapping[str, Any]
) -> str:
    """Writes an answer to a tracker; returns where it is."""
    numbers = plain(machine)
    files = {"report.html": html(document), "results.json": json.dumps(numbers, indent=1)}
    # trackers may copy files no earlier than when they are closed: the folder is left last; and
    # what they say is no part of an answer on the standard output
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr), ExitStack() as end:
        tracked = end.enter_context(closing(open_tracker(tracker, f"unseen-{question}")))
        tracked.describe(texts_of(question, document, numbers))
        for path, value in scalars_of(numbers):
            tracked.log(path[:-1], {path[-1]: value})
        for code in codes_of(document):
            tracked.log(("raised",), {code: 1.0})
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
            tracked.file(Path(folder) / name)
    return tracked.location


def codes_of(document: Document) -> list[str]:
    """Of the findings that are no good news."""
    found = {note["code"] for note in notes_of(document) if note["tone"] != "good"}
    return sorted(found - {""})


def texts_of(question: str, document: Document, numbers: Mapping[str, Any]) -> dict[str, str]:
    """What is no number: the question, the lead, findings, verdicts, and the facts."""
    found = {"question": question, "title": document.title, "lead": document.lead}
    found["findings"] = ", ".join(codes_of(document))
    verdicts = {f"verdict: {'/'.join(path)}": says for path, says in verdicts_of(numbers)}
    return found | verdicts | dict(document.facts)


def verdicts_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The verdicts in plain values: of claims, and of sites against a margin."""
    if isinstance(value, Mapping) and isinstance(value.get("verdict"), str):
        yield path, value["verdict"]
    for name, one in entries(value):
        yield from verdicts_of(one, (*path, *name))


def scalars_of(value: Any, path: tuple[str, ...] = ()) -> Scalars:
    """The readings in plain values: each with the ends of its interval, below its names."""
    if isinstance(value, Mapping) and {"value", *ENDS} <= value.keys():
        for part in ("value", *ENDS):
            if isinstance(value[part], int | float):  # None: no value, or no interval
                yield (*path, part), float(value[part])
    for name, one in entries(value):
        yield from scalars_of(one, (*path, *name))


def entries(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What lies in a mapping or list, with names; entries of equal names are numbered."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            if name not in DETAILS:
                yield (() if name == "reading" else (name,)), one
    elif isinstance(value, Sequence) and not isinstance(value, str):
        names = [identity(one) for one in value]
        for k, (name, one) in enumerate(zip(names, value, strict=True)):
            is_unique = name and names.count(name) == 1
            yield (name if is_unique else (*name, str(k))), one


def identity(entry: Any) -> tuple[str, ...]:
    """The names of an entry of a list."""
    if not isinstance(entry, Mapping):
        return ()
    return tuple(entry[key] for key in IDENTITY if isinstance(entry.get(key), str) and entry[key])
