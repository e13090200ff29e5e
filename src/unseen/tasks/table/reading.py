"""A table on disk as a DataFrame of the user's own cells, or an error that names the line."""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

import numpy as np
import pandas as pd

from unseen.errors import InvalidData, MissingExtra, MissingFile

_PARQUET = (".parquet", ".pq")
_DELIMITERS = ",;\t|"
_MAGIC = {
    b"PAR1": "Parquet",
    b"PK\x03\x04": "zip or Excel",
    b"\x89PNG": "PNG",
    b"%PDF": "PDF",
    b"\x1f\x8b": "gzip",
}


def read(path: str | Path, encoding: str = "utf-8") -> pd.DataFrame:
    """The rows of a CSV (comma, semicolon, tab or bar; optionally .gz) or Parquet file.

    CSV cells stay text, stripped of blanks around them: `encoding.tidy` decides what is a number,
    and nothing is guessed away ("NA" is Namibia until a column says otherwise). A UTF-8 byte-order
    mark is skipped.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{path}`."
            if not path.exists()
            else f"`{path}` is a folder, not a table.",
            why="the audit reads one CSV or Parquet file.",
            fix=_nearby(path),
        )
    try:
        frame = _parquet(path) if path.suffix.lower() in _PARQUET else _csv(path, encoding)
    except PermissionError as error:
        raise MissingFile(
            f"`{path}` cannot be opened.",
            why=f"{error.strerror}.",
            fix=f"give yourself the right: chmod u+r {path}",
        ) from error
    return validate_frame(frame, str(path))


def validate_frame(frame: pd.DataFrame, name: str = "the DataFrame") -> pd.DataFrame:
    """The frame with text column names, refused without two rows and unique names."""
    frame = frame.rename(columns=str)
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


def _nearby(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    tables = sorted(
        p.name
        for p in (folder.iterdir() if folder.is_dir() else ())
        if p.suffix in (".csv", ".tsv", *_PARQUET)
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


def _csv(path: Path, encoding: str) -> pd.DataFrame:
    packed = path.suffix.lower() == ".gz"
    encoding = _refuse_binary(path, packed, encoding)

    def open_text() -> TextIOWrapper:
        if packed:
            return gzip.open(path, "rt", encoding=encoding, newline="")
        return path.open(encoding=encoding, newline="")

    try:
        with open_text() as file, _long_fields():
            delimiter, names = _scan_lines(file, path)
        with open_text() as file:
            frame = pd.read_csv(
                file,
                sep=delimiter,
                header=0,
                names=list(range(len(names))),
                index_col=False,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=True,
            )
    except UnicodeDecodeError as error:
        raise InvalidData(
            f"`{path}` is not {encoding.upper()} text: byte {error.object[error.start]:#04x} "
            "cannot be decoded.",
            why="letters with accents would be read wrongly.",
            fix=f"convert it: iconv -f latin1 -t utf-8 {path} > utf8.csv (or save as “CSV UTF-8” "
            "in a spreadsheet).",
        ) from error
    except (csv.Error, pd.errors.ParserError) as error:
        raise InvalidData(
            f"`{path}` cannot be taken apart into fields: {error}.",
            why="a quote is probably opened and never closed.",
            fix="write the file again with a spreadsheet or DataFrame.to_csv.",
        ) from error
    frame.columns = pd.Index(names)
    for name in names if len(set(names)) == len(names) else ():
        frame[name] = frame[name].str.strip()
    return frame


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lets `csv` read fields of any length (clinical notes), inside the block only."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _refuse_binary(path: Path, packed: bool, encoding: str) -> str:
    """The encoding after a look at the first bytes; raises on binary and empty files."""
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.read(65_536)
    except (gzip.BadGzipFile, EOFError) as error:
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
    kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")
    if kind or b"\0" in start:
        raise InvalidData(
            f"`{path}` is not a text table but binary{f' ({kind})' if kind else ''}.",
            why="a CSV file is lines of text.",
            fix="export it as CSV"
            + (", or rename it to end in .parquet." if kind == "Parquet" else "."),
        )
    return encoding


def _scan_lines(file: TextIOWrapper, path: Path) -> tuple[str, list[str]]:
    """Delimiter and column names, after every line was found to have as many fields as the
    header.
    """
    header = next(line for line in file if line.strip())
    delimiter = max(_DELIMITERS, key=header.count)
    file.seek(0)
    lines = csv.reader(file, delimiter=delimiter)
    names: list[str] = []
    for fields in lines:
        # pandas fills short lines with blanks and cuts or shifts long ones: both would move values
        # between columns
        if not names and any(field.strip() for field in fields):
            names = [field.strip() or f"unnamed {k + 1}" for k, field in enumerate(fields)]
        elif fields and len(fields) != len(names):
            raise InvalidData(
                f"Line {lines.line_num} of `{path}` has {len(fields)} fields, the header has "
                f"{len(names)}.",
                why="its values would end up in the wrong columns.",
                fix=f'repair or delete the line (a text with "{delimiter}" in it needs quotes): '
                f"sed -n {lines.line_num}p {path}",
            )
    if all(_is_number(name) for name in names):
        raise InvalidData(
            f"The first line of `{path}` holds numbers ({', '.join(names[:3])}, …), not column "
            "names.",
            why="columns are chosen by name.",
            fix="put a line with one name per column at the top.",
        )
    return delimiter, names


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
