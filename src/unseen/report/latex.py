"""A table as LaTeX (booktabs): readings with their interval in small print, footnotes below."""

import re
from collections.abc import Sequence

from unseen import wording
from unseen.document import Table
from unseen.wording import Words, clean, words

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "∞": r"$\infty$",
    "–": "--",
}


def escape(text: object) -> str:
    """Plain text as LaTeX on one line."""
    line = " ".join(clean(text).split())
    return re.sub(r"[\\&%$#_{}~^−∞–]", lambda found: _SPECIAL[found[0]], line)


def table(value: Table, label: str = "") -> str:
    """A `table` environment for `\\usepackage{booktabs}`."""
    names = wording.columns(value)
    cells = {name: [row.get(name) for row in value.rows] for name in names}
    units = {name: wording.shared_unit(cells[name]) for name in names}
    digits = {name: wording.column_decimals(cells[name]) for name in names}
    heads = [name.strip() + (f" ({unit})" if (unit := wording.head_unit(name, units[name])) else "") for name in names]
    layout = "".join("r" if wording.is_numeric(cells[name]) else "l" for name in names)

    def cell(row: int, name: str) -> str:
        told = words(value.rows[row].get(name), units[name], digits[name])
        return _cell(told, (row, name) in value.strong, value.marks.get((row, name)))

    lines = [
        r"\begin{table}",
        r"\centering",
        *([rf"\caption{{{escape(value.caption)}}}"] if value.caption else []),
        *([rf"\label{{{label}}}"] if label else []),
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        _line([escape(head) for head in heads]),
        r"\midrule",
        *(_line([cell(k, name) for name in names]) for k in range(len(value.rows))),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {escape(note)}" for note in value.footnotes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _cell(told: Words, strong: bool, mark: int | None) -> str:
    main = rf"\textbf{{{escape(told.main)}}}" if strong else escape(told.main)
    main += "" if mark is None else rf"\textsuperscript{{{mark}}}"
    small = " ".join(part for part in (told.interval, told.unit) if part)
    return main + (rf" {{\scriptsize {escape(small)}}}" if small else "")


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
