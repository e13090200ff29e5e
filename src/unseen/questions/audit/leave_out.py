"""How to audit again without some features: columns by an option, words of a text by hand."""

import shlex
from collections.abc import Sequence

from unseen.tasks.table.texts import length_column

WORD, LENGTH = "“", length_column("")
"""What the names of a text's features begin with: a word of TF-IDF, the number of words."""


def ways_to_leave_out(features: Sequence[str]) -> str:
    """ "--drop age --drop 'blood pressure'"; a word is in no column that an option could name."""
    words = [name for name in features if name.startswith(WORD)]
    lengths = [name for name in features if name.startswith(LENGTH)]
    columns = [name for name in features if name not in (*words, *lengths)]
    ways = [" ".join(f"--drop {shlex.quote(name)}" for name in columns)] if columns else []
    if words:
        ways.append(f"{', '.join(words)} cut out of the texts")
    if lengths:
        ways.append("texts cut to one length")
    return "; ".join(ways)
