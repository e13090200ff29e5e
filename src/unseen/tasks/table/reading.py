"""A table on disk as a DataFrame of the user's own cells, or an error that names the line."""

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, TextIOWrapper
from pathlib import Path

import pandas as pd

from unseen.errors import InvalidConfig, InvalidData, MissingExtra, MissingFile
from unseen.tasks.table.layout import BLANKS, MOST_QUOTED, layout_of, quote
from unseen.text import count_noun

PARQUET = (".parquet", ".pq")
"""How Parquet files end."""
SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".data", ".dat")
"""How files of text tables end, beside .gz behind these."""
GZIP = b"\x1f\x8b"
_MAGIC = {
    b"PAR1": "Parquet",
    b"PK\x03\x04": "zip or Excel",
    b"\x89PNG": "PNG",
    b"%PDF": "PDF",
    b"\xd0\xcf\x11\xe0": "old Excel",
}


@dataclass(frozen=True)
class TextTable:
    """The rows of a file as they are, and what was left out around them."""

    frame: pd.DataFrame
    notes: tuple[str, ...] = ()


def read(path: str | Path, encoding: str = "utf-8") -> pd.DataFrame:
    """The rows of a text table or a Parquet file, see `read_table`."""
    return read_table(path, encoding).frame


def read_table(path: str | Path, encoding: str = "utf-8") -> TextTable:
    """The rows of a text table (comma, semicolon, tab, bar or blanks; packed with gzip or not) or a
    Parquet file.

    Cells of a text table stay text, stripped of blanks around them: `encoding.tidy` decides what is
    a number, and nothing is guessed away ("NA" is Namibia until a column says otherwise). A
    byte-order mark is skipped; so are comments and titles above the header, which `notes` say.
    """
    path = Path(path).expanduser()
    _refuse_unknown_encoding(encoding)
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{path}`."
            if not path.exists()
            else f"`{path}` is a folder, not a table.",
            why="the audit reads one CSV or Parquet file.",
            fix=_nearby(path),
        )
    try:
        is_parquet = path.suffix.lower() in PARQUET
        table = TextTable(_parquet(path)) if is_parquet else _csv(path, encoding)
    except PermissionError as error:
        raise MissingFile(
            f"`{path}` cannot be opened.",
            why=f"{error.strerror}.",
            fix=f"give yourself the right: chmod u+r {path}",
        ) from error
    return TextTable(validate_frame(table.frame, str(path)), table.notes)


def with_index_columns(frame: pd.DataFrame, names: Collection[str | None]) -> pd.DataFrame:
    """The frame with those levels of its index as columns that are named here: Parquet files keep
    an index under its name.
    """
    levels = [
        level
        for level in frame.index.names
        if level is not None and str(level) in names and str(level) not in frame.columns
    ]
    return frame.reset_index(level=levels) if levels else frame


def validate_frame(frame: pd.DataFrame, name: str = "the DataFrame") -> pd.DataFrame:
    """The frame with text column names, refused without two rows and unique names."""
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    twice = [column for column, count in Counter(frame.columns).items() if count > 1]
    if twice:
        raise InvalidData(
            f"`{name}` has {Counter(frame.columns)[twice[0]]} columns named `{twice[0]}`.",
            why="a column is chosen by its name.",
            fix="rename one of them in the header line.",
        )
    if len(frame) < 2:
        raise InvalidData(
            f"`{name}` has {len(frame)} row{'s' * (len(frame) != 1)} below its header.",
            why="training and evaluation need different rows.",
            fix="give a table with at least some dozens of rows.",
        )
    return frame


def is_table_name(name: str) -> bool:
    """Whether a file is called as tables are."""
    return name.lower().removesuffix(".gz").endswith((*SUFFIXES, *PARQUET))


def _nearby(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    tables = sorted(
        p.name for p in (folder.iterdir() if folder.is_dir() else ()) if is_table_name(p.name)
    )
    if tables:
        return f"tables in {folder}: {', '.join(tables[:5])}."
    return "check the path; a relative one starts at the folder where you are (pwd)."


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise MissingExtra(
            "Reading Parquet needs pyarrow.",
            why="it is an optional dependency.",
            fix="pip install 'unseen[parquet]', or save the table as CSV.",
        ) from error
    except (ValueError, OSError) as error:
        raise InvalidData(
            f"`{path}` is not a readable Parquet file.",
            why=f"the reader says: {str(error).splitlines()[0][:120]}",
            fix="write it again, for example with DataFrame.to_parquet.",
        ) from error


def _csv(path: Path, encoding: str) -> TextTable:
    encoding = _refuse_binary(path, encoding)
    try:
        with _open_text(path, encoding) as file, _long_fields():
            layout = layout_of(file, str(path))
        with _open_text(path, encoding) as file:
            for _ in range(layout.lines_before):
                file.readline()
            frame = pd.read_csv(
                file,
                sep=r"\s+" if layout.delimiter == BLANKS else layout.delimiter,
                header=0,
                names=list(range(layout.width)),
                index_col=False,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=True,
            )
    except UnicodeError as error:
        raise _undecodable(path, encoding, error) from error
    except (csv.Error, pd.errors.ParserError) as error:
        raise InvalidData(
            f"`{path}` cannot be taken apart into fields: {str(error).strip()}.",
            why="a quote is probably opened and never closed.",
            fix="write the file again with a spreadsheet or DataFrame.to_csv.",
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidData(
            f"`{path}` cannot be unpacked: {error}.",
            why="the file is cut off or damaged.",
            fix="copy it again from where it comes from.",
        ) from error
    if len(frame) != layout.rows:
        raise InvalidData(
            f"`{path}` can be read as {layout.rows} rows or as {len(frame)}.",
            why="its quotes or line ends are not those of a CSV file.",
            fix="write the file again with a spreadsheet or DataFrame.to_csv.",
        )
    frame = frame[list(range(len(layout.names)))]
    frame.columns = pd.Index(layout.names)
    if len(set(layout.names)) == len(layout.names):
        for name in layout.names:
            frame[name] = frame[name].str.strip()
    return _without_nameless(TextTable(frame, layout.notes))


def _without_nameless(table: TextTable) -> TextTable:
    """The table without columns that have neither a name nor a cell, as a separator at the end of
    every line makes them.
    """
    frame = table.frame
    empty = [
        k
        for k, name in enumerate(frame.columns)
        if name == f"unnamed {k + 1}" and not frame.iloc[:, k].astype(bool).any()
    ]
    if not empty or len(empty) == frame.shape[1]:
        return table
    kept = frame.iloc[:, [k for k in range(frame.shape[1]) if k not in empty]]
    note = (
        f"{count_noun(len(empty), 'column')} without name and without any cell "
        f"{'was' if len(empty) == 1 else 'were'} left out ({frame.columns[empty[0]]})."
    )
    return TextTable(kept, (*table.notes, note))


def _open_binary(path: Path) -> gzip.GzipFile | BufferedReader:
    """The bytes of a file, unpacked where they are gzip whatever the file is called."""
    with path.open("rb") as file:
        is_packed = file.read(2) == GZIP
    return gzip.open(path) if is_packed or path.suffix.lower() == ".gz" else path.open("rb")


def _open_text(path: Path, encoding: str) -> TextIOWrapper:
    return TextIOWrapper(_open_binary(path), encoding=encoding, newline="")


def _undecodable(path: Path, encoding: str, error: UnicodeError) -> InvalidData:
    """The error that names byte and line, and the encoding that would read it."""
    line, text = _first_undecodable(path, encoding)
    if line is None or not isinstance(error, UnicodeDecodeError):
        return InvalidData(
            f"`{path}` is not {encoding.upper()} text: {error}.",
            why="its letters would be read wrongly.",
            fix='give the encoding in which it was written, for example encoding="latin-1".',
        )
    byte = text[_position(text, encoding)]
    # bytes from 0x80 to 0x9f are letters and marks in Windows' table only
    other = "cp1252" if any(0x80 <= b <= 0x9F for b in text) else "latin-1"
    shown = text.decode(other, errors="replace")
    start = max(0, _position(text, encoding) - MOST_QUOTED // 2)
    return InvalidData(
        f"`{path}` is not {encoding.upper()} text: byte {byte:#04x} in line {line} cannot be "
        "decoded.",
        why="letters with accents would be read wrongly.",
        fix=f'give encoding="{other}" if {quote(shown[start:])} reads '
        "rightly; else name another encoding, or save the table as “CSV UTF-8”.",
    )


def _first_undecodable(path: Path, encoding: str) -> tuple[int | None, bytes]:
    """The first line that is no text in an encoding whose line ends are single bytes."""
    if _is_wide(encoding):
        return None, b""
    with _open_binary(path) as file:
        for k, line in enumerate(file, 1):
            if _position(line, encoding) >= 0:
                return k, line
    return None, b""


def _position(line: bytes, encoding: str) -> int:
    """Where the first byte is that cannot be decoded; −1 if there is none."""
    try:
        line.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start
    return -1


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lets `csv` read fields of any length (clinical notes), inside the block only."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _refuse_binary(path: Path, encoding: str) -> str:
    """The encoding after a look at the first bytes; raises on binary and empty files."""
    try:
        with _open_binary(path) as file:
            start = file.read(65_536)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidData(
            f"`{path}` ends in .gz but is not a gzip file.",
            why=f"{error}.",
            fix="rename it, or pack it again.",
        ) from error
    if not start.strip():
        raise InvalidData(
            f"`{path}` is empty.",
            why="there is nothing to read.",
            fix="export the table again; the first line names columns.",
        )
    if start.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if _is_wide(encoding):
        return encoding
    kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")
    if kind or b"\0" in start:
        wide = _wide_encoding(start) if not kind else ""
        raise InvalidData(
            f"`{path}` is not a text table but binary{f' ({kind})' if kind else ''}.",
            why="a CSV file is lines of text.",
            fix=f'if it is a table, give encoding="{wide}".'
            if wide
            else "export it as CSV"
            + (", or rename it to end in .parquet." if kind == "Parquet" else "."),
        )
    return encoding


def _is_wide(encoding: str) -> bool:
    """Whether a letter takes two bytes or more."""
    return "a".encode(encoding).count(b"\0") > 0


def _wide_encoding(start: bytes) -> str:
    """UTF-16 without its mark has a zero in every second byte of plain letters."""
    zeros = [sum(byte == 0 for byte in start[k::2]) / max(1, len(start[k::2])) for k in (0, 1)]
    if max(zeros) < 0.5 or min(zeros) > 0.1:
        return ""
    return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"


def _refuse_unknown_encoding(encoding: str) -> None:
    try:
        "a".encode(encoding)
    except (LookupError, UnicodeError, ValueError) as error:
        raise InvalidConfig(
            f"There is no encoding `{encoding}`.",
            why="it says which bytes stand for which letters.",
            fix='for example encoding="latin-1"; others are cp1252, utf-16, mac-roman, shift-jis.',
        ) from error
