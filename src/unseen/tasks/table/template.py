"""Rows of a table as short texts in one fixed wording, for models that read.

Template(("{age} years old", "main diagnosis {diagnosis}")).render(frame)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from unseen.errors import InvalidConfig, InvalidData, UnknownName

FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Template:
    """Phrases with names of columns in braces, one behind the other. A phrase of which a cell is
    empty is left out of the text of that row, so that the length of a text says how much is known.
    """

    phrases: tuple[str, ...]
    blank: tuple[str, ...] = ()
    """Cells that say nothing besides missing ones, as they are written: "No", "0"."""
    between: str = ", "
    end: str = "."

    def __post_init__(self) -> None:
        if isinstance(self.phrases, str) or not self.columns:
            raise InvalidConfig(
                f"The template {self.phrases!r} names no column.",
                why="every row would have the same text.",
                fix='give phrases with columns in braces: ("{age} years old", "{sex}").',
            )

    @property
    def columns(self) -> list[str]:
        """The columns that are read, in the order of the text."""
        return list(
            dict.fromkeys(name for phrase in self.phrases for name in FIELD.findall(phrase))
        )

    def render(self, frame: pd.DataFrame) -> list[str]:
        """The text of every row; empty where nothing is known of it."""
        for name in self.columns:
            if name not in frame:
                raise UnknownName.near("column", name, [str(column) for column in frame])
        if not len(frame):
            raise InvalidData(
                "The table has no rows.", why="a text is made of each.", fix="give rows."
            )
        cells = {name: self.words(frame[name]) for name in self.columns}
        rows = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
        return [self.text(row) for row in rows]

    def text(self, row: Mapping[str, str]) -> str:
        """The phrases of which every cell is known, filled in."""
        known = [p for p in self.phrases if all(row[name] for name in FIELD.findall(p))]
        filled = [FIELD.sub(lambda field: row[field[1]], phrase) for phrase in known]
        return self.between.join(filled) + self.end if filled else ""

    def words(self, column: pd.Series) -> list[str]:
        """The cells of a column as they stand in a text; "" where they say nothing."""
        found = ["" if pd.isna(cell) else write(cell) for cell in column]
        return ["" if word in self.blank else word for word in found]


def write(cell: object) -> str:
    """A cell as it is written: 3.0 is 3."""
    return f"{cell:g}" if isinstance(cell, float) else str(cell).strip()
