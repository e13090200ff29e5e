"""Which cells of a table's columns read otherwise than their column: all named, not the first."""

from collections.abc import Iterator

import pandas as pd

from unseen.tasks.table import Tabular
from unseen.tasks.table.cells import Kind, is_words, unreadable
from unseen.tasks.table.encoding import NumericColumn

SHOWN = 5
"""Cells of a column that are named; a column of more of them is looked at in the table."""


def misread_cells(tab: Tabular) -> Iterator[str]:
    """A sentence per column whose warning names the first of several such cells, and per column
    that all rows say to hold dates, but which the training rows alone do not.
    """
    yield from _dates_taken_as_text(tab)
    for code in tab.encoder.codes:
        # most columns have none, and to look for them is to read the whole column again
        if not any(text.startswith(f"Column `{code.name}` was fitted as") for text in tab.warnings):
            continue
        column = tab.tidied[code.name]
        if not (isinstance(code, NumericColumn) and is_words(column)):
            continue
        further = unreadable(column, code.format)[1:]
        if len(further):
            yield f"Column `{code.name}` reads otherwise in {_places(further)}, too."


def _dates_taken_as_text(tab: Tabular) -> Iterator[str]:
    levels = {code.name for code in tab.encoder.codes if not isinstance(code, NumericColumn)}
    for name, form in tab.formats.items():
        lost = f"Column `{name}` was dropped: "
        # "a different text in every row …", "none of its 60 texts …"
        dropped = [text[len(lost) :] for text in tab.encoder.decisions if text.startswith(lost)]
        is_text = name in levels or any(" text" in why for why in dropped)
        if form.kind is not Kind.DATE or not is_text:
            continue
        wrong = unreadable(tab.tidied[name], form)
        if len(wrong):
            yield (
                f"Column `{name}` was taken as text: too many training rows hold something else "
                f"than a date. It reads otherwise in {_places(wrong)}: correct them to have days."
            )


def _places(cells: pd.Series) -> str:
    shown = ", ".join(f"row {row} “{cell}”" for row, cell in cells[:SHOWN].items())
    rest = len(cells) - SHOWN
    return f"{shown}, and {rest} more" if rest > 0 else shown
