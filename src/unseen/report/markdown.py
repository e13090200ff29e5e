"""A document as Markdown: figures become the tables of their numbers, images their captions."""

import re
from collections.abc import Sequence

from unseen import wording
from unseen.document import Block, Document, Note, Paragraph, Passage, Table, Tone
from unseen.report.numbers import numbers, thin_rows
from unseen.wording import clean, words

MOST_ROWS = 25
"""Longer tables of figures are thinned evenly, and say so."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")
_LINE_START = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[-+=](?:[-=\s]|$)))(.)")


def markdown(document: Document) -> str:
    """The whole report; every text is escaped, so that a column named `a|b` or `<script>` stays
    text.
    """
    parts = [f"# {escape(document.title)}"]
    parts += [f"*{escape(document.kicker)}*"] if document.kicker else []
    parts += [f"**{escape(document.lead)}**"] if document.lead else []
    for section in document.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [_block(block) for block in section.blocks]
    if document.facts:
        parts.append("---")
        parts.append(
            "\n".join(f"- {escape(name)}: {escape(fact)}" for name, fact in document.facts.items())
        )
    return "\n\n".join(parts) + "\n"


def escape(text: object) -> str:
    """Plain text as Markdown on one line."""
    line = " ".join(clean(text).split())
    return _LINE_START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", line))


def table(value: Table) -> str:
    """A pipe table; numbers right-aligned, readings with their interval."""
    value = wording.transpose(value) or value
    names = wording.columns(value)
    cells = {name: [row.get(name) for row in value.rows] for name in names}
    units = {name: wording.shared_unit(cells[name]) for name in names}
    digits = wording.decimals_by_column(value, cells)
    heads = [
        name.strip() + (f" ({unit})" if (unit := wording.head_unit(name, units[name])) else "")
        for name in names
    ]
    lines = [
        _line([escape(head) for head in heads]),
        _line(["---:" if wording.is_numeric(cells[name]) else "---" for name in names]),
        *(
            _line([_cell(value, k, name, units[name], digits[name]) for name in names])
            for k in range(len(value.rows))
        ),
    ]
    caption = [f"**{escape(value.caption)}**"] if value.caption else []
    return "\n\n".join(
        [*caption, "\n".join(lines), *(f"*{escape(note)}*" for note in value.footnotes)]
    )


def _cell(table: Table, row: int, column: str, unit: str, digits: int | None) -> str:
    told = words(table.rows[row].get(column), unit, digits)
    main = f"**{escape(told.main)}**" if (row, column) in table.strong else escape(told.main)
    more = escape(" ".join(part for part in (told.interval, told.unit) if part))
    return f"{main}{wording.superscript(table.marks.get((row, column)))} {more}".strip()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return escape(block.text)
        case Note():
            tone = "" if block.sign or block.tone is Tone.NEUTRAL else f" *{block.tone}*"
            detail = f"  \n  {escape(block.detail)}" if block.detail else ""
            code = f" {escape(block.code)}" if block.code else ""
            return f"- {escape(wording.sign(block))}{tone} **{escape(block.text)}**{code}{detail}"
        case Table():
            return table(block)
        case Passage():
            return f"**{escape(block.title)}**\n\n> {escape(''.join(block.pieces))}"
    behind = numbers(block)
    kept = thin_rows([dict(row) for row in behind.rows], MOST_ROWS)
    note = (f"{len(kept)} rows, evenly spaced.",) if len(kept) < len(behind.rows) else ()
    return table(Table(rows=kept, caption=block.title, footnotes=note or behind.footnotes))
