"""A column of texts: which of its cells can be read, and how many words they hold."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.errors import InvalidConfig, InvalidData
from unseen.text import count_noun

LOOKED_AT = 1_000
"""Cells that tell whether a column holds texts."""
NAMED = 8
"""Rows without a text that are named."""


def length_column(column: str) -> str:
    """What the number of words of each text is called."""
    return f"words in {column}"


def with_lengths(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with the number of words in each text as a further column."""
    refuse_no_texts(frame[column])
    name = length_column(column)
    if name in frame:
        raise InvalidConfig(
            f"The table has a column `{name}`.",
            why=f"the number of words in each text of `{column}` is called so.",
            fix="rename it.",
        )
    return frame.assign(**{name: count_words(frame[column])})


def count_words(cells: pd.Series) -> NDArray[np.float64]:
    """Words by white space; NaN where there is no text."""
    return np.array([np.nan if pd.isna(one) else float(len(str(one).split())) for one in cells])


def refuse_no_texts(cells: pd.Series) -> None:
    """Refuses a column of numbers or dates."""
    known = cells.dropna()
    few = known.iloc[:LOOKED_AT]
    is_number = not pd.api.types.is_string_dtype(few) and few.dtype != object
    if not len(few) or isinstance(few.dtype, pd.CategoricalDtype):
        is_number = False
    elif not is_number:
        is_number = all(not isinstance(one, str) or _is_number(one) for one in few)
    if is_number:
        raise InvalidData(
            f"The text column `{cells.name}` holds no texts, but values such as {known.iloc[0]!r}.",
            why="words are read, not numbers or dates.",
            fix="name the column of the texts: --text COLUMN.",
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell.strip()
    return True


def rows_without(gone: NDArray[np.bool_]) -> str:
    """ " (rows 3, 7 and 12 more)"."""
    rows = np.flatnonzero(gone)
    shown = ", ".join(str(row) for row in rows[:NAMED])
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f" ({count_noun(len(rows), 'row').split()[1]} {shown}{more})"
