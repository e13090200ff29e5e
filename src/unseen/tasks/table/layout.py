"""How the lines of a text table are laid out: which mark separates the fields, which line names the
columns, and what stands around them.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import TextIOBase
from itertools import islice

import numpy as np

from unseen.errors import InvalidData
from unseen.text import count_noun

DELIMITERS = ",;\t|"
BLANKS = " "
"""Any number of blanks between two fields."""
SAMPLE_LINES, SAMPLE_LETTERS = 500, 2_000_000
MOST_QUOTED = 60
"""Letters of a line that an error or a note quotes."""


@dataclass(frozen=True)
class Layout:
    """Where the columns of a text table are."""

    delimiter: str
    lines_before: int
    """Lines above the header."""
    names: tuple[str, ...]
    width: int
    """Fields of the widest row; those behind the last name are empty."""
    rows: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Record:
    """The fields of a row and the number of its last line."""

    line: int
    fields: Sequence[str]

    @property
    def n_filled(self) -> int:
        return sum(bool(field.strip()) for field in self.fields)

    @property
    def is_comment(self) -> bool:
        return self.fields[0].lstrip().startswith("#")


def layout_of(file: TextIOBase, name: str) -> Layout:
    """The layout of a text table, after every row was found to have as many fields as the
    header.
    """
    lines = _sample(file)
    delimiter, width = _delimiter(lines)
    header, skipped = _header(list(_records(lines, delimiter)), width, name)
    file.seek(0)
    names = [field.strip() or f"unnamed {k + 1}" for k, field in enumerate(header.fields)]
    refuse_numbers_as_names(names, name)
    rows, width, longer = 0, len(names), 0
    for record in _records(file, delimiter):
        if record.line <= header.line:
            continue
        surplus = record.fields[len(names) :]
        # pandas fills short lines with blanks and cuts or shifts long ones: both would move values
        # between columns
        if len(record.fields) < len(names) or any(field.strip() for field in surplus):
            raise _width_error(record, len(names), delimiter, name)
        rows, width = rows + 1, max(width, len(record.fields))
        longer += bool(surplus)
    before = _line_before(header, lines, delimiter)
    notes = [*_skipped_note(skipped, delimiter)]
    if longer:
        notes.append(
            f"{count_noun(longer, 'row')} end{'s' * (longer == 1)} in a separator: the empty field "
            "behind it was left out."
        )
    if delimiter == BLANKS:
        notes.append("The columns of the file are separated by blanks.")
    return Layout(delimiter, before, tuple(names), width, rows, tuple(notes))


def _sample(file: TextIOBase) -> list[str]:
    lines, letters = [], 0
    for line in islice(file, SAMPLE_LINES):
        lines.append(line)
        letters += len(line)
        if letters > SAMPLE_LETTERS:
            break
    return lines


def _records(lines: Iterable[str], delimiter: str) -> Iterator[_Record]:
    """The rows that hold anything."""
    is_blanks = delimiter == BLANKS
    reader = csv.reader(
        (line.strip() for line in lines) if is_blanks else lines,
        delimiter=delimiter,
        skipinitialspace=is_blanks,
    )
    for fields in reader:
        if len(fields) > 1 or (fields and (fields[0].strip() or not fields[0])):
            yield _Record(reader.line_num, fields)


def _delimiter(lines: Sequence[str]) -> tuple[str, int]:
    """The separator by which most rows have equally many fields, and how many these are."""
    best, best_score = (",", 1), (0.0, 1)
    for delimiter in DELIMITERS:
        width, share = _common_width(lines, delimiter)
        if width > 1 and (share, width) > best_score:
            best, best_score = (delimiter, width), (share, width)
    if best[1] == 1:
        width, share = _common_width(lines, BLANKS)
        if width > 1 and share > 0.9:
            return BLANKS, width
    return best


def _common_width(lines: Sequence[str], delimiter: str) -> tuple[int, float]:
    try:
        counts = Counter(len(record.fields) for record in _records(lines, delimiter))
    except csv.Error:
        return 1, 0.0
    if not counts:
        return 1, 0.0
    width, count = max(counts.items(), key=lambda item: (item[1], item[0]))
    return width, count / counts.total()


def _header(records: Sequence[_Record], width: int, name: str) -> tuple[_Record, Sequence[_Record]]:
    """The row that names the columns, and the comments and titles above it."""
    for k, record in enumerate(records):
        if not (_is_comment(records[k:], width) or _is_title(record, width)):
            return record, records[:k]
    raise InvalidData(
        f"`{name}` has no line that names its columns.",
        why="every line at its beginning is a comment or a title.",
        fix="put a line with one name per column above the rows.",
    )


def _is_comment(records: Sequence[_Record], width: int) -> bool:
    """Whether the first row is a comment. "#id,age" may name columns; not where names follow."""
    first, rest = records[0], [record for record in records[1:] if not record.is_comment]
    if not first.is_comment or not rest:
        return False
    return len(first.fields) != width or _names_columns(rest, width)


def _names_columns(records: Sequence[_Record], width: int) -> bool:
    """Whether the first row holds different words and the second one a number."""
    first, second = records[0].fields, records[1].fields if len(records) > 1 else []
    is_named = len(first) == width == len(set(first)) and not any(is_number(x) for x in first)
    return is_named and any(is_number(field) for field in second)


def _is_title(record: _Record, width: int) -> bool:
    """Whether a row above others with `width` fields holds too little to name their columns."""
    if len(record.fields) < width:
        return record.n_filled <= max(1, width // 2)
    # spreadsheets fill the line of a title with separators
    return width >= 3 and record.n_filled == 1 and bool(record.fields[0].strip())


def _line_before(header: _Record, lines: Sequence[str], delimiter: str) -> int:
    """How many lines end above the header: names may hold line breaks themselves."""
    before = 0
    reader = csv.reader(lines, delimiter=delimiter)
    for _ in reader:
        if reader.line_num >= header.line:
            return before
        before = reader.line_num
    return before


def _skipped_note(skipped: Sequence[_Record], delimiter: str) -> Iterator[str]:
    if skipped:
        first = quote(delimiter.join(skipped[0].fields).rstrip(delimiter))
        yield (
            f"Above the header {count_noun(len(skipped), 'line')} "
            f"{'was' if len(skipped) == 1 else 'were'} skipped ({first})."
        )


def _width_error(record: _Record, width: int, delimiter: str, name: str) -> InvalidData:
    return InvalidData(
        f"Line {record.line} of `{name}` has {count_noun(len(record.fields), 'field')}, the header "
        f"has {width}.",
        why="its values would end up in the wrong columns: "
        f"{quote(delimiter.join(record.fields))}.",
        fix=f'repair or delete the line (a text with "{delimiter}" in it needs quotes): sed -n '
        f"{record.line}p {name}",
    )


def refuse_numbers_as_names(names: Sequence[str], name: str) -> None:
    """Raises where the first line holds values instead of names."""
    if all(is_number(text) for text in names):
        raise InvalidData(
            f"The first line of `{name}` holds numbers ({', '.join(names[:3])}, …), not column "
            "names.",
            why="columns are chosen by name.",
            fix="put a line with one name per column at the top.",
        )


def is_number(text: str) -> bool:
    """Whether a field is a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def quote(text: str) -> str:
    """A text in quotation marks, on one line and cut where it is long."""
    flat = " ".join(text.split())
    return f"“{flat[:MOST_QUOTED]}…”" if len(flat) > MOST_QUOTED else f"“{flat}”"
