"""The answers of `unseen audit`, `compare` and the other commands, stored in the user's home.

    <home>/answers/<key>/report.html    the page, as it was written
    <home>/answers/<key>/results.json   every number of it, and what pairs it with another answer
    <home>/answers/<key>/answer.json    what a list shows; written last, so that the answer is whole

The key is a hash over the content, so that the same answer again takes no further room. Files are
written whole or not at all, and nothing else in the home depends on them: a folder may be deleted
at any time.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from unseen.errors import CorruptFile, UnknownName
from unseen.runs.locks import writing
from unseen.runs.store import canonical, write_atomic

FORMAT = 1
TEXTS = ("question", "title", "kicker", "lead", "command", "folder", "date", "version")
"""Fields of an answer that are texts."""
KEY = re.compile(r"[0-9a-f]{16}")
VARYING = frozenset({"seconds", "date", "took", "wall_seconds"}) | {
    "seconds to train",
    "seconds for influence",
    "seconds to retrain",
    "seconds for the curvature",
    "seconds for the scores",
    "tokens scored per second",
    "peak memory in GiB",
}
"""Fields of an answer that are others each time: no part of its key."""


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """What a list shows of an answer, and how to ask again."""

    key: str
    question: str
    """The command that answered: audit, compare, run …"""
    title: str
    kicker: str = ""
    lead: str = ""
    notes: Sequence[Mapping[str, str]] = ()
    """Its findings: code, tone, text and detail."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """As at the foot of the report: the command, the file with its checksum, versions."""
    command: str = ""
    """As it was typed; empty where Unseen was called from Python."""
    folder: str = ""
    """Where it was typed."""
    date: str = ""
    """When it was answered: ISO 8601, with the zone."""
    version: str = ""
    format: int = FORMAT

    @property
    def codes(self) -> list[str]:
        """Of the findings that are no good news."""
        found = {note.get("code", "") for note in self.notes if note.get("tone") != "good"}
        return sorted(found - {""})


def key_of(question: str, content: Mapping[str, Any]) -> str:
    """A hash over everything that does not vary from one time to the next."""
    text = canonical([question, _constant(content)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _constant(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _constant(one) for name, one in value.items() if name not in VARYING}
    return [_constant(one) for one in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Answers:
    """The answers below a home."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "answers"

    def put(self, answer: StoredAnswer, results: Mapping[str, Any], report: str) -> Path:
        """Stores an answer with its results (plain values) and its page; returns its folder."""
        folder = self._folder(answer.key)
        with writing(self.root, "answers"):
            write_atomic(folder / "report.html", report)
            write_atomic(folder / "results.json", _text(results))
            write_atomic(folder / "answer.json", _text(asdict(answer)))
        return folder

    def listing(self) -> list[StoredAnswer]:
        """What can be read, the newest first."""
        found = []
        for path in self.folder.glob("*/answer.json"):
            try:
                found.append(self.get(path.parent.name))
            except (CorruptFile, UnknownName):  # counted by `count_damaged`
                continue
        return sorted(found, key=lambda one: (one.date, one.key), reverse=True)

    def count_damaged(self) -> int:
        """How many folders hold no answer that can be read."""
        return sum(1 for path in self.folder.glob("*") if path.is_dir()) - len(self.listing())

    def get(self, key: str) -> StoredAnswer:
        return _parse(self._read(key, "answer.json"), self._folder(key))

    def results(self, key: str) -> dict[str, Any]:
        return _object(self._read(key, "results.json"), self._folder(key))

    def report(self, key: str) -> str:
        try:
            return self._read(key, "report.html").decode("utf-8")
        except UnicodeDecodeError as error:
            raise _damage_error(self._folder(key), str(error)) from error

    def _folder(self, key: str) -> Path:
        if not KEY.fullmatch(key):  # nothing else ever becomes part of a path
            raise _unknown_key_error(key)
        return self.folder / key

    def _read(self, key: str, name: str) -> bytes:
        try:
            return (self._folder(key) / name).read_bytes()
        except OSError as error:
            raise _unknown_key_error(key) from error


def _unknown_key_error(key: str) -> UnknownName:
    return UnknownName(
        f"There is no stored answer `{key[:40]}`.",
        why="it was never stored here, or it was deleted.",
        fix="go back to the list.",
    )


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def _object(data: bytes, folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damage_error(folder, str(error)) from error
    if not isinstance(found, dict):
        raise _damage_error(folder, "it is no object")
    return found


def _parse(data: bytes, folder: Path) -> StoredAnswer:
    found = _object(data, folder)
    if found.get("format") != FORMAT or found.get("key") != folder.name:
        raise _damage_error(
            folder, f"its format is {found.get('format')!r}, its key {found.get('key')!r}"
        )
    known = {one.name for one in fields(StoredAnswer)}
    try:
        answer = StoredAnswer(**{name: value for name, value in found.items() if name in known})
        texts = [getattr(answer, name) for name in TEXTS]
        if not all(isinstance(text, str) for text in (*texts, *answer.facts.values())):
            raise TypeError("a text is missing")
        answer.codes  # noqa: B018 - raises where the notes are none
        return answer
    except (TypeError, AttributeError) as error:
        raise _damage_error(folder, str(error)) from error


def _damage_error(folder: Path, what: str) -> CorruptFile:
    return CorruptFile(
        f"{folder} holds no stored answer: {what}.",
        why="it was changed, or written by another version.",
        fix="delete the folder; the command writes it again.",
    )
