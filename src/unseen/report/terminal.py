"""A document on the terminal: the answer, the findings, the tables; figures are for the report
file.
"""

import io

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Columns
from rich.text import Text

from unseen import wording
from unseen.document import Document, Note, Paragraph, Passage, Section, Table, Tone
from unseen.wording import clean, words

COLOURS = {Tone.GOOD: "green", Tone.NEUTRAL: "", Tone.CAUTION: "yellow", Tone.BAD: "red"}
MOST_ROWS = 40
MOST_LETTERS = 240
"""Of a passage: the report file has all of it."""


def show(document: Document, console: Console | None = None) -> None:
    """Prints the document; colour only doubles what a sign already says. Not on a terminal: plain
    text, full width.
    """
    console = console or _console()
    console.print(_whole(document))


def as_text(document: Document, width: int = 120) -> str:
    """The document as `show` prints it, in plain text of this width."""
    stream = io.StringIO()
    # in a notebook rich would write into the cell instead of the stream
    console = Console(
        file=stream, width=width, highlight=False, color_system=None, force_jupyter=False
    )
    console.print(_whole(document))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _whole(document: Document) -> Group:
    parts = [_heading(document), *(_section(section) for section in document.sections)]
    return Group(*(part for part in parts if part is not None))


def _console() -> Console:
    """A terminal as wide as it is; a file or pipe 160 columns wide."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def _heading(document: Document) -> RenderableType:
    title = Text(clean(document.title), style="bold")
    if document.kicker:
        title.append(f" · {clean(document.kicker)}", style="dim")
    return Group(title, Text(clean(document.lead))) if document.lead else title


def _section(section: Section) -> RenderableType | None:
    """The section's text blocks, or None where it has only figures."""
    blocks: list[RenderableType] = []
    for block in section.blocks:
        match block:
            case Paragraph():
                blocks.append(Text(clean(block.text)))
            case Note():
                blocks.append(_note(block))
            case Table():
                blocks.append(_table(block))
            case Passage():
                line = " ".join(clean("".join(block.pieces)).split())
                blocks.append(
                    Text.assemble((clean(block.title), "italic"), " ", line[:MOST_LETTERS])
                )
    if not blocks:
        return None
    inside = Padding(Group(*blocks), (0, 0, 0, 2), expand=False)
    return Group(Text(), Text(clean(section.title), style="bold"), inside)


def _note(note: Note) -> RenderableType:
    line = Columns.grid(padding=(0, 1))
    line.add_column(width=1)
    line.add_column(overflow="fold")
    text = Text(clean(note.text))
    if note.code:
        text.append(f" {clean(note.code)}", style="dim")
    if note.detail:
        text.append(f"\n{clean(note.detail)}", style="dim")
    line.add_row(Text(wording.sign(note), style=COLOURS[note.tone]), text)
    return line


def _cell(table: Table, row: int, column: str, told: wording.Words) -> Text:
    """Bold, and a star for streams without bold, where the table says so; the raised number of a
    footnote.
    """
    strong, mark = (
        (row, column) in table.strong,
        wording.superscript(table.marks.get((row, column))),
    )
    main = f"{told.main}{'*' if strong else ''}{mark}"
    text = " ".join(part for part in (main, told.interval, told.unit) if part)
    return Text(text, style="bold" if strong else "")


def _table(table: Table) -> RenderableType:
    table = wording.transpose(table, most=7) or table
    names = wording.columns(table)
    grid = Columns(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    cells = {name: [row.get(name) for row in table.rows] for name in names}
    units = {name: wording.shared_unit(cells[name]) for name in names}
    digits = wording.decimals_by_column(table, cells)
    for name in names:
        head = clean(name).strip() + (
            f" ({unit})" if (unit := wording.head_unit(name, units[name])) else ""
        )
        grid.add_column(
            Text(head),
            justify="right" if wording.is_numeric(cells[name]) else "left",
            overflow="fold",
        )
    for k, row in enumerate(table.rows[:MOST_ROWS]):
        cells_of = {name: words(row.get(name), units[name], digits[name]) for name in names}
        grid.add_row(*(_cell(table, k, name, cells_of[name]) for name in names))
    notes = list(table.footnotes)
    if len(table.rows) > MOST_ROWS:
        which = "all" if len(table.rows) <= wording.PAGE_ROWS else "more"
        notes.append(f"{MOST_ROWS} of {len(table.rows):,} rows ({which} in the report)")
    caption = [Text(clean(table.caption), style="italic")] if table.caption else []
    return Group(*caption, grid, *(Text(clean(note), style="dim") for note in notes))
