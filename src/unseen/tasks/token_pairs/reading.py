"""Reads pairs of texts from CSV, TSV or JSON-lines files; tokens are cut at white space."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from unseen.characters import find_half
from unseen.engine.token_pairs import Pair, pair
from unseen.errors import InvalidData, UnknownName
from unseen.tasks.text_corpus.queries import read_utf8
from unseen.tasks.token_pairs.rules import PairSplit
from unseen.text import join_words

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARTS = frozenset({"train.tsv", "test.tsv", "left_out.tsv", "split.json"})
"""What a split is written to."""


def read_pairs(path: Path | str, source: str = "source", target: str = "target") -> list[Pair]:
    """The pairs of a file whose columns (or keys) `source` and `target` hold the texts."""
    file = Path(path)
    kind = file.suffix.lower()
    text = read_utf8(file, "pairs")
    if kind not in (*DELIMITERS, ".jsonl"):
        raise InvalidData(
            f"{file.name} ends in `{file.suffix}`.",
            why="pairs are read from tables and JSON lines.",
            fix="save it as .csv, .tsv or .jsonl.",
        )
    rows = _objects(file, text) if kind == ".jsonl" else _rows(file, text, DELIMITERS[kind])
    found = []
    for line, row in rows:
        one = pair(*(_cell(row, column, file.name, line) for column in (source, target)))
        if not one.source:
            raise InvalidData(
                f"Line {line} of {file.name} has an empty {source}.",
                why="nothing is asked.",
                fix="remove the line, or write what is asked.",
            )
        found.append(one)
    if not found:
        raise InvalidData(
            f"{file.name} holds no pairs.", why="there is nothing to split.", fix="add lines."
        )
    return found


def write_parts(
    split: PairSplit, folder: Path | str, source: str = "source", target: str = "target"
) -> list[Path]:
    """train.tsv, test.tsv, left_out.tsv where there is any, and split.json with rule and counts. A
    folder that holds anything else is refused; parts that are there already are replaced.
    """
    where = Path(folder)
    refuse_other_files(where)
    parts = {"train": split.train, "test": split.test, "left_out": split.left_out}
    paths = []
    for name, part in parts.items():
        if part:
            lines = [f"{' '.join(one.source)}\t{' '.join(one.target)}" for one in part]
            paths.append(where / f"{name}.tsv")
            _write(paths[-1], "\n".join([f"{source}\t{target}", *lines, ""]))
        else:  # of an earlier split, whose counts it belongs to
            (where / f"{name}.tsv").unlink(missing_ok=True)
    paths.append(where / "split.json")
    facts = {"rule": split.rule, **split.counts(), "words": list(split.unknown_words)}
    _write(paths[-1], json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return paths


def _write(path: Path, text: str) -> None:
    """The whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}-{os.getpid()}.part")
    try:
        part.write_text(text, "utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def refuse_other_files(folder: Path) -> None:
    """Nobody's own `train.tsv` is overwritten because a folder was mistaken for another."""
    if folder.exists() and not folder.is_dir():
        raise InvalidData(
            f"{folder} is a file.", why="the parts go into a folder.", fix="name another folder."
        )
    found = {one.name for one in folder.iterdir()} if folder.exists() else set[str]()
    # parts without their rule were not written here
    if found - PARTS or (found and "split.json" not in found):
        others = sorted(found - PARTS) or sorted(found)
        raise InvalidData(
            f"The folder {folder} holds other files ({', '.join(others[:5])}).",
            why="train.tsv, test.tsv, left_out.tsv and split.json are written there, over what "
            "bears these names.",
            fix="name a new folder, or that of an earlier split.",
        )


def _no_column(where: str, column: str, row: Mapping[str, object]) -> UnknownName:
    there = list(row)
    source, target = there if len(there) == 2 else ("COLUMN", "COLUMN")
    return UnknownName(
        f"There is no `{column}` in {where}.",
        why=f"it has {join_words([f'`{name}`' for name in there]) or 'no columns'}.",
        fix=f"name the columns: --source {source} --target {target} (Python: source=, target=).",
    )


def _cell(row: Mapping[str, object], column: str, file: str, line: int) -> str:
    if column not in row:
        raise _no_column(f"line {line} of {file}", column, row)
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidData(
            f"Line {line} of {file} has no text in `{column}`.",
            why="tokens are cut out of a text at white space."
            if value is not None
            else "a pair has a source and a target.",
            fix="write the tokens as one text, with spaces between them.",
        )
    if half := find_half(str(value)):
        raise InvalidData(
            f"Line {line} of {file} holds half a character, {half}, in `{column}`.",
            why="the text was cut through an emoji or another sign of two parts.",
            fix="remove it.",
        )
    return str(value)


def _rows(file: Path, text: str, delimiter: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    # tabs separate whole texts, in which a quotation mark is a character like any other
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)  # type: ignore[call-overload]
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InvalidData(
            f"{file.name} cannot be read behind line {reader.line_num}: {error}.",
            why="a cell of so many characters is rather a quotation mark that is never closed.",
            fix="mend the line, or save the pairs as .jsonl.",
        ) from error


def _objects(file: Path, content: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    # not splitlines: U+2028 and others may stand inside a JSON string
    for line, text in enumerate(content.split("\n"), 1):
        if not text.strip():
            continue
        try:
            entry = json.loads(text)
        except ValueError as error:
            raise InvalidData(
                f"Line {line} of {file.name} is no JSON.", why=str(error), fix="repair the line."
            ) from error
        if not isinstance(entry, dict):
            raise InvalidData(
                f"Line {line} of {file.name} is no JSON object.",
                why="a pair has a source and a target.",
                fix='write {"source": …, "target": …}.',
            )
        yield line, entry
