"""Which cells of a table's columns read otherwise than their column: all named, not the first."""

from collections.abc import Iterator

from unseen.tasks.table import Tabular
from unseen.tasks.table.cells import is_words, unreadable
from unseen.tasks.table.encoding import NumericColumn

SHOWN = 5
"""Cells of a column that are named; a column of more of them is looked at in the table."""


def misread_cells(tab: Tabular) -> Iterator[str]:
    """A sentence per column whose warning names the first of several such cells."""
    for code in tab.encoder.codes:
        # most columns have none, and to look for them is to read the whole column again
        if not any(text.startswith(f"Column `{code.name}` was fitted as") for text in tab.warnings):
            continue
        column = tab.tidied[code.name]
        if not (isinstance(code, NumericColumn) and is_words(column)):
            continue
        further = unreadable(column, code.format)[1:]
        named = [f"row {row} “{cell}”" for row, cell in further[:SHOWN].items()]
        if named:
            rest = len(further) - len(named)
            more = f", and {rest} more" if rest else ""
            yield f"Column `{code.name}` reads otherwise in {', '.join(named)}{more}, too."
