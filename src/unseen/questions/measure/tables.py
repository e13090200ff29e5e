"""Tables that a person's own runs are read from."""

from pathlib import Path

import pandas as pd

from unseen.errors import InvalidData, MissingFile

TABLES = (".csv", ".csv.gz", ".tsv", ".parquet")


def read_table(path: Path, example: str) -> pd.DataFrame:
    """A table in a file; `example` is the header of one that would do."""
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{path}`.", why="the table is read from it.", fix="check the path."
        )
    if not path.name.lower().endswith(TABLES):
        raise InvalidData(
            f"`{path}` is no table.",
            why=f"tables are read from files that end in {', '.join(TABLES)}.",
            fix=f"give a file like this: {example}",
        )
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    except (ValueError, OSError) as error:
        raise InvalidData(
            f"`{path}` cannot be read as a table: {error}.",
            why="rows and columns are read from it.",
            fix=f"give a file like this: {example}",
        ) from error
