"""Tables and documents as LaTeX (booktabs): readings with their interval in small print, footnotes
below.
"""

import re
from collections.abc import Sequence

from unseen import wording
from unseen.document import Block, Document, Note, Paragraph, Passage, Table
from unseen.report.numbers import numbers, thin_rows
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
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
}
MOST_ROWS = 25
"""Longer tables of figures are thinned evenly, and say so."""


def latex(document: Document) -> str:
    """The whole report as an article for LuaLaTeX or XeLaTeX; figures become the tables of their
    numbers.
    """
    parts = [
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}",
        rf"\title{{{escape(document.title)}}}\date{{{escape(document.kicker)}}}\maketitle",
        escape(document.lead),
    ]
    for section in document.sections:
        parts.append(rf"\section*{{{escape(section.title)}}}")
        parts += [_block(block) for block in section.blocks]
    parts += [rf"\noindent {escape(name)}: {escape(fact)}" for name, fact in document.facts.items()]
    return "\n\n".join(part for part in [*parts, r"\end{document}"] if part) + "\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return escape(block.text)
        case Note():
            detail = rf"\\ {{\small {escape(block.detail)}}}" if block.detail else ""
            return rf"\paragraph{{{escape(wording.sign(block))}}} {escape(block.text)}{detail}"
        case Table():
            return table(block)
        case Passage():
            text = escape("".join(block.pieces))
            return f"{escape(block.title)}\n\\begin{{quote}}\n{text}\n\\end{{quote}}"
    behind = numbers(block)
    kept = thin_rows([dict(row) for row in behind.rows], MOST_ROWS)
    note = (f"{len(kept)} rows, evenly spaced.",) if len(kept) < len(behind.rows) else ()
    return table(Table(rows=kept, caption=block.title, footnotes=note or behind.footnotes))


def escape(text: object) -> str:
    """Plain text as LaTeX on one line."""
    line = " ".join(clean(text).split())
    return re.sub(r"[\\&%$#_{}~^−∞–<>|]", lambda found: _SPECIAL[found[0]], line)


def table(value: Table, label: str = "") -> str:
    """A `table` environment for `\\usepackage{booktabs}`."""
    names = wording.columns(value)
    cells = {name: [row.get(name) for row in value.rows] for name in names}
    units = {name: wording.shared_unit(cells[name]) for name in names}
    digits = wording.decimals_by_column(value, cells)
    heads = [
        name.strip() + (f" ({unit})" if (unit := wording.head_unit(name, units[name])) else "")
        for name in names
    ]
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
    """A row; what stands before it takes a `[` or `*` at its beginning for an argument."""
    line = " & ".join(cells) + r" \\"
    return "{}" + line if line.startswith(("[", "*")) else line
