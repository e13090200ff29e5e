"""What looks wrong in an encoded table: cells read otherwise, numbers among words, columns that
give the target away.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from unseen.tasks.table.cells import Format, Kind, is_words, numbers, unreadable
from unseen.tasks.table.encoding import Encoder, NumericColumn


def type_mismatches(tidied: pd.DataFrame, encoder: Encoder) -> Iterator[str]:
    """Columns that hold numbers where fitted and other texts elsewhere: those cells count as
    missing.
    """
    for code in encoder.codes:
        column = tidied[code.name]
        if isinstance(code, NumericColumn) and is_words(column):
            bad = unreadable(column, code.format)
            if len(bad):
                yield (
                    f"Column `{code.name}` was fitted as a {code.format.kind}, but {len(bad)} "
                    "cells read otherwise "
                    f"(“{bad.iloc[0]}”, row {bad.index[0]}): taken as missing."
                )


def numbers_among_words(fit: pd.DataFrame, encoder: Encoder) -> Iterator[str]:
    """Columns read as categories of which four cells in five are numbers (">200" among 180, 195,
    …).
    """
    for name in fit.columns:
        column = fit[name]
        scaled = any(
            code.name == name and isinstance(code, NumericColumn) for code in encoder.codes
        )
        if scaled or not is_words(column) or not column.notna().any():
            continue
        words = column.dropna()
        is_text = np.isnan(numbers(words, Format(Kind.NUMBER)))
        if 0 < is_text.mean() < 0.2 and words.nunique() > 20:
            yield (
                f"Column `{name}` holds numbers, but {int(is_text.sum())} cells are texts "
                f"(“{words[is_text].iloc[0]}”, row "
                f"{words[is_text].index[0]}), so it was read as a category. Clean them to use it "
                "as a number."
            )
