"""Rows of a table as short texts in one fixed wording, for models that read.

Template(("{age} years old", "main diagnosis {diagnosis}")).render(frame)
"""

import re
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
        texts: list[list[str]] = [[] for _ in range(len(frame))]
        for phrase in self.phrases:
            names = FIELD.findall(phrase)
            for row, text in enumerate(texts):
                if all(cells[name][row] for name in names):
                    text.append(FIELD.sub(lambda field, row=row: cells[field[1]][row], phrase))
        return [self.between.join(text) + self.end if text else "" for text in texts]

    def words(self, column: pd.Series) -> list[str]:
        """The cells of a column as they stand in a text; "" where they say nothing."""
        found = ["" if pd.isna(cell) else write(cell) for cell in column]
        return ["" if word in self.blank else word for word in found]


def write(cell: object) -> str:
    """A cell as it is written: 3.0 is 3."""
    return f"{cell:g}" if isinstance(cell, float) else str(cell).strip()
