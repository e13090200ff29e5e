"""Reads pairs of texts from CSV, TSV or JSON-lines files; tokens are cut at white space."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from unseen.engine.token_pairs import Pair, pair
from unseen.errors import InvalidData, MissingFile, UnknownName
from unseen.tasks.token_pairs.rules import PairSplit

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PARTS = frozenset({"train.tsv", "test.tsv", "left_out.tsv", "split.json"})
"""What a split is written to."""


def read_pairs(path: Path | str, source: str = "source", target: str = "target") -> list[Pair]:
    """The pairs of a file whose columns (or keys) `source` and `target` hold the texts."""
    file = Path(path)
    if not file.is_file():
        raise MissingFile(
            f"There is no file {file}.",
            why="pairs are read from it.",
            fix="give the path of a .csv, .tsv or .jsonl file.",
        )
    if file.suffix not in (*DELIMITERS, ".jsonl"):
        raise InvalidData(
            f"{file.name} ends in `{file.suffix}`.",
            why="pairs are read from tables and JSON lines.",
            fix="save it as .csv, .tsv or .jsonl.",
        )
    rows = _objects(file) if file.suffix == ".jsonl" else _rows(file)
    found = []
    for line, row in rows:
        for column in (source, target):
            if row.get(column) is None:
                raise UnknownName.near(f"column of {file.name}, line {line}", column, row)
        one = pair(str(row[source]), str(row[target]))
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


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        # tabs separate whole texts, in which a quotation mark is a character like any other
        quoting = csv.QUOTE_NONE if file.suffix == ".tsv" else csv.QUOTE_MINIMAL
        reader = csv.DictReader(lines, delimiter=DELIMITERS[file.suffix], quoting=quoting)  # type: ignore[call-overload]
        for row in reader:
            yield reader.line_num, row


def _objects(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for line, text in enumerate(file.read_text("utf-8").splitlines(), 1):
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
