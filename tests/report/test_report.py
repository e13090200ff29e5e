"""Reports: escaped, self-contained, small, equal bytes for equal documents, and with the numbers
behind every figure.
"""

import io
import json
import math
import re
import struct
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from rich.console import Console

from unseen.document import Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.errors import InvalidData
from unseen.figure import Bars, Curves, Diagram, Dots, Grid, Images, Points, Wire
from unseen.reading import Reading
from unseen.report.canvas import DARK, LIGHT
from unseen.report.diagram import arrange, choose_lanes
from unseen.report.figures import _markup_of, _png, draw
from unseen.report.html import anchors, html, notebook
from unseen.report.json import as_json
from unseen.report.latex import latex
from unseen.report.markdown import escape, markdown
from unseen.report.numbers import MOST_ROWS, numbers
from unseen.report.terminal import as_text, show
from unseen.study import Claim, Scale, Study, average, column
from unseen.study.document import document, means
from unseen.study.effects import worst
from unseen.study.source import Source
from unseen.wording import number, words

from .audit_document import HOSTILE, audit

FIGURES = {
    "curves": Curves(
        title="c", x=[0, 1, 2], y={"a": [1.25, 2.5, math.nan], "b": [3, 2, 1]}, x_label="step"
    ),
    "log curves": Curves(title="c", x=[0, 1, 10], y={"a": [0.0, 2, 30]}, log_x=True, log_y=True),
    "band": Curves(title="c", x=[0, 1], y={"a": [1.25, 2.5]}, band={"a": [(1, 1.5), (2, 3)]}),
    "dots": Dots(
        title="AUC per site",
        rows=["Bern", "Genf"],
        values={
            "there": [Reading(0.7, 0.6, 0.8), None],
            "known": [Reading(0.9, math.nan, math.nan)] * 2,
        },
        label="AUC",
    ),
    "bars": Bars(
        title="b", values={"a": 0.31, "_b": -0.2}, intervals={"a": (0.1, 0.5)}, label="AUC"
    ),
    "points": Points(title="p", groups={"a": [(0.11, 0.22)], "b": [(0.3, 0.4)]}, diagonal=True),
    "grid": Grid(title="g", rows=["r"], columns=["c", "d"], values=[[0.71, -0.2]]),
    "large grid": Grid(
        title="g",
        rows=list("abcdefghij"),
        columns=[str(k) for k in range(50)],
        values=[[0.3] * 50] * 10,
    ),
    "images": Images(title="i", pixels=[[[0.0, 1.0], [0.5, 0.25]]], captions=["one"]),
    "diagram": Diagram(
        title="d",
        boxes={"first": (["x", "dy"], ["y"]), "second": (["x"], ["y", "dx"])},
        frame=(["x"], ["y"]),
        wires=[
            Wire(source="x", sink="first.x", kind="values"),
            Wire(source="first.y", sink="second.x", kind="values"),
            Wire(source="second.y", sink="y", kind="values"),
            Wire(source="second.dx", sink="first.dy", kind="gradients"),
        ],
    ),
}


class Reader(HTMLParser):
    """Tags, attributes and text of a page; nothing is executed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return html(audit())


def test_text_is_escaped_everywhere(page: str) -> None:
    read = Reader(page)
    assert "script" not in read.tags
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    # heading, contents, paragraph, note twice, caption, head, cell, figure; `b` is code there
    assert read.text.replace("`", "").count(HOSTILE.replace("`", "")) >= 8


@given(st.text(min_size=1, max_size=60))
@examples(8)
def test_no_text_changes_the_structure_of_the_page(text: str) -> None:
    def shape(word: str) -> list[str]:
        blocks = [
            Paragraph(word),
            Note(word),
            Table(rows=[{word: word}]),
            Bars(title=word, values={word: 1.0}),
        ]
        document = Document(title=word, sections=[Section(word, blocks)], facts={word: word})
        return [tag for tag in Reader(html(document)).tags if tag != "code"]

    assert shape(text) == shape("plain")


def test_the_page_asks_nobody_for_anything(page: str) -> None:
    for name, value in Reader(page).attributes:
        if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            assert value.startswith(("#", "data:")), (name, value)
    style = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL)) + "".join(
        re.findall(r'style="([^"]*)"', page)
    )
    assert not re.search(r"@import|url\((?!#)", style)
    assert "xmlns" not in page
    assert len(page.encode()) < 300_000  # a realistic audit; the limit is 1 MB


def test_every_link_on_the_page_has_its_target_once(page: str) -> None:
    read = Reader(page)
    ids = [value for name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {v[1:] for name, v in read.attributes if name == "href" and v.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(ids)


def test_equal_documents_give_equal_bytes(page: str) -> None:
    _markup_of.cache_clear()  # drawn again, not remembered
    assert html(audit()) == page
    assert markdown(audit()) == markdown(audit())


@pytest.mark.parametrize("kind", FIGURES)
def test_every_kind_of_figure_is_drawn_with_its_numbers(kind: str) -> None:
    figure = FIGURES[kind]
    drawn = draw(figure)
    _markup_of.cache_clear()  # drawn again, not remembered
    assert drawn == draw(figure)
    assert ("<img" if kind == "images" else '<svg class="plot"') in drawn
    page = html(Document(title="t", sections=[Section("s", [figure])]))
    behind = Reader(page[page.index("<details>") : page.index("</details>")]).text
    for row in numbers(figure).rows:
        for value in row.values():
            assert words(value).main in behind


def test_drawing_leaves_the_users_matplotlib_alone() -> None:
    import matplotlib

    matplotlib.rcParams["font.size"] = 17
    before = dict(matplotlib.rcParams)
    _markup_of.cache_clear()
    first = draw(FIGURES["bars"])
    assert dict(matplotlib.rcParams) == before
    matplotlib.rcdefaults()
    _markup_of.cache_clear()  # drawn again, not remembered
    assert draw(FIGURES["bars"]) == first


def test_a_remembered_drawing_is_of_the_same_content() -> None:
    values = {"a": 1.0, "b": 2.0}
    figure = Bars(title="b", values=values)
    first = draw(figure)
    assert draw(Bars(title="b", values=dict(values))) == first
    values["a"] = 3.0
    assert draw(figure) == draw(Bars(title="b", values={"a": 3.0, "b": 2.0})) != first
    view = MappingProxyType(values)  # cannot be pickled
    assert draw(Bars(title="b", values=view)) == draw(figure)


def test_a_figure_without_values_says_so() -> None:
    for figure in (
        Curves(title="", x=[1.0], y={"a": [math.nan]}),
        Bars(title="", values={}),
        Dots(title="", rows=["a"], values={"there": [None]}),
        Points(title="", groups={"a": []}),
        Grid(title="", rows=[], columns=[], values=[]),
        Images(title="", pixels=[]),
        Diagram(title="", boxes={}, frame=([], []), wires=[]),
    ):
        assert "no finite value" in draw(figure)


def test_boxes_stand_right_of_what_feeds_them_and_long_wires_have_lanes_of_their_own() -> None:
    figure = FIGURES["diagram"]
    assert isinstance(figure, Diagram)
    slabs = arrange(figure)
    assert slabs["first"].x < slabs["second"].x
    lanes = choose_lanes([(0, 1), (3, 0), (2, 0), (0, 5)], -1, 1)
    assert lanes[2] < lanes[1] < -1
    assert lanes[3] > 1
    assert 0 not in lanes


def test_large_figures_stay_small_and_say_what_is_left_out() -> None:
    many = [(k / 1e5, (k * 7919 % 1000) / 1e3) for k in range(100_000)]
    line = [math.sin(k / 50) for k in range(20_000)]
    blocks = [
        Points(title="p", groups={"a": many}),
        Curves(title="c", x=range(20_000), y={"a": line, "b": line}),
        Grid(
            title="g",
            rows=[str(k) for k in range(300)],
            columns=["a"] * 200,
            values=[[k / 300] * 200 for k in range(300)],
        ),
        Images(title="i", pixels=[[[0.5] * 300] * 300] * 100),
        Table(rows=[{"k": k} for k in range(5_000)]),
    ]
    page = html(Document(title="t", sections=[Section("s", blocks)]))
    assert len(page.encode()) < 1_000_000
    assert "Every 67th of 100,000 points" in page
    assert f"{MOST_ROWS} of 20,000 rows" in page
    assert "400 of 5,000 rows" in page
    assert "The first 64 of 100" in page


def contrast(a: str, b: str) -> float:
    """WCAG 2.2: ratio of relative luminances."""

    def luminance(colour: str) -> float:
        channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        r, g, b = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_contrast_in_light_and_dark(page: str) -> None:
    light, dark = re.findall(r":root \{([^}]*)\}", page)
    for block, series in ((light, LIGHT), (dark, DARK)):
        colour = dict(re.findall(r"--(\w+): (#\w+)", block))
        paper = "#ffffff" if colour["paper"] == "#fff" else colour["paper"]
        for name in ("ink", "muted", "link", "good", "neutral", "caution", "bad"):
            assert contrast(colour[name], paper) >= 4.5, name
            assert contrast(colour[name], colour["soft"]) >= 4.5, name
        assert min(contrast(colour, paper) for colour in series) >= 4.5


def test_png_holds_the_pixels() -> None:
    png = _png([[0.0, 1.0, 0.5], [math.nan, 2.0, -1.0]])
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (3, 2)
    body = png[png.index(b"IDAT") + 4 : png.index(b"IEND") - 8]
    assert zlib.decompress(body) == bytes([0, 0, 255, 128, 0, 0, 255, 0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Reading(0.8312, 0.79, 0.87, 200), "0.831 [0.790, 0.870]"),
        (Reading(-0.0123, -0.0451, 0.02), "−0.012 [−0.045, 0.020]"),
        (Reading(1234.0, 1200.0, 1260.0, unit="steps"), "1,234 [1,200, 1,260] steps"),
        (Reading(0.5), "0.500"),
        (Reading(2.0, -math.inf, math.inf), "2 [−∞, ∞]"),
        (None, "–"),
        (math.nan, "–"),
        (True, "yes"),
        (12_345, "12,345"),
        (0.000012, "1.20e-05"),
        (-0.0, "0"),
        ("a\0b", "a�b"),
    ],
)
def test_values_in_words(value: object, text: str) -> None:
    assert str(words(value)) == text  # type: ignore[arg-type]


@given(st.floats(-1e300, 1e300))
def test_a_number_in_words_is_the_number_to_three_digits(x: float) -> None:
    text = number(x)
    assert float(text.replace("−", "-").replace(",", "")) == pytest.approx(x, rel=0.0051)


def test_readings_of_a_column_share_their_decimals_where_they_are_alike() -> None:
    wide, narrow = Reading(0.5, 0.31, 0.69), Reading(0.8, 0.797, 0.803)
    alike = Table(rows=[{"a": wide}, {"a": Reading(0.7, 0.66, 0.74)}])
    apart = Table(rows=[{"a": wide}, {"a": narrow}, {"a": Reading(12.0, 2.0, 22.0)}])

    def values(table: Table) -> list[str]:
        text = markdown(Document(title="", sections=[Section("", [table])]))
        return re.findall(r"^\| ([\d.]+) \\\[", text, re.MULTILINE)

    assert values(alike) == ["0.500", "0.700"]
    assert values(apart) == ["0.50", "0.8000", "12"]


def test_a_unit_is_said_once() -> None:
    rows = [
        {"AUC": Reading(0.5, 0.3, 0.7, unit="AUC"), "loss": Reading(0.5, 0.3, 0.7, unit="nats")}
    ]
    text = Reader(html(Document(title="", sections=[Section("", [Table(rows=rows)])]))).text
    assert text.count("AUC") == 1
    assert text.count("nats") == 1


def test_markdown_escapes_what_would_be_markup() -> None:
    text = markdown(audit())
    line = next(line for line in text.splitlines() if line.startswith("| \\<script"))
    assert (
        len(re.findall(r"(?<!\\)\|", line)) == 4
    )  # the borders of three columns; the text's own bar is escaped
    assert not re.search(r"(?<!\\)<", text)
    assert escape("1. no list") == "1\\. no list"
    assert escape("12) no list") == "12\\) no list"
    assert escape("1.5 -") == "1.5 -"
    assert escape("---") == "\\---"
    assert escape("- no list\n# no heading") == "\\- no list \\# no heading"


BIDIRECTIONAL = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))


@pytest.mark.parametrize("control", [chr(number) for number in BIDIRECTIONAL])
def test_no_bidirectional_control_reaches_a_reader(control: str) -> None:
    text = f"safe{control}txt.exe"
    blocks = [
        Paragraph(text),
        Note(text, detail=text),
        Table(rows=[{text: text}], caption=text),
        Bars(title=text, values={text: 1.0}),
    ]
    made = Document(title=text, lead=text, sections=[Section(text, blocks)], facts={text: text})
    for write in (html, markdown, latex, as_text):
        assert control not in write(made)


def test_markdown_is_read_back_as_the_same_text() -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    read = Reader(parser.render(markdown(audit())))
    assert "script" not in read.tags
    assert read.tags.count("table") == 3 + 6  # three tables, and the numbers behind six figures
    assert read.text.count(HOSTILE) >= 8


def test_a_table_too_long_for_the_terminal_says_where_the_rest_is() -> None:
    rows: list[dict[str, Value]] = [{"a": k, "b": ""} for k in range(75)]
    document = Document(title="t", sections=[Section("s", [Table(rows=rows)])])
    assert "40 of 75 rows (all in the report)" in as_text(document)
    assert "blank" not in html(document)  # an empty cell is hidden as td:empty


def test_terminal_shows_the_answer_first_without_colour_or_figures() -> None:
    out = io.StringIO()
    show(audit(), Console(file=out, width=100))
    text = out.getvalue()
    assert "\x1b" not in text
    assert (
        text.index("loses 20 points")
        < text.index("What to do next")
        < text.index("Zurich and Basel  ")
    )
    assert "0.61 [0.52, 0.70]" in text
    assert "✗ Check cholesterol" in text
    assert "Numbers" not in text
    assert "[c](http://d)" in text  # rich markup is not interpreted


def test_json_is_strict_and_complete() -> None:
    read = json.loads(as_json(audit()), parse_constant=pytest.fail)
    assert read["kind"] == "document"
    blocks = read["sections"][1]["blocks"]
    zurich = {
        "kind": "reading",
        "value": 0.61,
        "low": 0.52,
        "high": 0.7,
        "n": 123,
        "unit": "fraction",
    }
    assert blocks[0]["rows"][2]["accuracy"] == zurich
    assert blocks[3]["values"][3][3] is None  # NaN
    assert read["sections"][0]["blocks"][0]["detail"].startswith("Site-wise")


def test_a_notebook_gets_the_page_in_a_frame() -> None:
    (frame,) = [value for name, value in Reader(notebook(audit())).attributes if name == "srcdoc"]
    assert frame == html(audit())


def test_anchors_are_unique() -> None:
    assert anchors(["What now?", "what-now", "日本"]) == ["what-now", "what-now-2", "section"]


ROWS = [
    {
        "method": method,
        "after": step,
        "seed": seed,
        "accuracy": base + seed / 100,
        "correct": 80 + seed,
    }
    for method, base in (("erm", 0.8), ("sam", 0.85))
    for step in (1, 10)
    for seed in (0, 1, 2)
]
SOURCE = Source(
    key="k",
    title="A <b>title</b>",
    authors=("Doe, Jane", "Roe, Rick"),
    year=2024,
    arxiv="2401.00001",
)


def study(**changes: object) -> Study:
    claims = (
        Claim(says="SAM is accurate.", effect=average("accuracy", method="sam"), above=0.7),
        Claim(says="ERM is perfect.", effect=average("accuracy", method="erm"), above=0.99),
        Claim(says="SAM is near 0.86.", effect=average("accuracy", method="sam"), above=0.86),
        Claim(
            says="At paper scale more.", effect=average("accuracy"), above=0.9, needs=Scale.PAPER
        ),
        Claim(says="XYZ is there.", effect=average("accuracy", method="xyz"), above=0.9),
    )
    settings = {"name": "two_methods", "source": SOURCE, "scales": {}, "cells": lambda config: (),
                "run": lambda cell, lab: (), "claims": claims, "system": "99"}  # fmt: skip
    return Study(**(settings | changes))  # type: ignore[arg-type]


def of(study: Study, rows: list[dict]) -> Document:
    return document(
        study,
        Scale.LAPTOP,
        rows,
        [c.judge(rows, Scale.LAPTOP) for c in study.claims],
        {"seconds": "3"},
    )


def test_a_study_becomes_verdicts_table_and_source() -> None:
    report = of(study(), ROWS)
    assert (
        report.lead
        == "Of 5 claims at laptop scale: 1 supported, 1 refuted, 2 undecided, 1 not judged. 4 are "
        "judged; after Holm's correction for so many 2 verdicts hold."
    )
    units, *notes = report.sections[0].blocks
    assert units.text == "3 seeds; claims over seeds (n = 3)."
    assert [note.sign for note in notes] == ["✓", "✗", "?", "–", "?"]
    assert [note.tone for note in notes] == [
        Tone.GOOD,
        Tone.BAD,
        Tone.CAUTION,
        Tone.NEUTRAL,
        Tone.CAUTION,
    ]
    assert "above 0.7" in notes[0].detail
    assert "n = 3 seeds" in notes[0].detail
    page = html(report)
    assert "2401.00001" in page
    assert "Jane Doe, Rick Roe (2024). A &lt;b&gt;title&lt;/b&gt;. arXiv:2401.00001." in page


def test_a_page_says_how_to_read_claims_about_groups_and_which_seeds_were_doubled() -> None:
    groups = worst(average("accuracy"), "method", 0.0)
    report = of(
        study(
            claims=(
                Claim("Both.", groups, above=0.1),
                Claim("Later.", groups, above=0.9, needs=Scale.PAPER),
            )
        ),
        ROWS,
    )
    units, supported, later = report.sections[0].blocks
    assert "the group that decides is named, with its own value and interval." in units.text
    assert "doubled" not in units.text
    assert supported.detail.startswith("supported: method ")
    assert "; here method sam: " in later.detail or "; here method erm: " in later.detail
    judgement = replace(study().claims[0].judge(ROWS, Scale.LAPTOP), doublings=2)
    page = document(study(), Scale.LAPTOP, ROWS, [judgement], {})
    units, note = page.sections[0].blocks
    assert "The interval of one claim ended near the margin at first" in units.text
    assert "; seeds doubled twice" in note.detail


def test_the_table_of_a_study_without_its_own_has_means_over_seeds_per_condition() -> None:
    table = means(ROWS)
    assert [(row["method"], row["after"]) for row in table] == [
        ("erm", 1),
        ("erm", 10),
        ("sam", 1),
        ("sam", 10),
    ]
    assert table[0]["accuracy"].value == pytest.approx(0.81)
    assert table[0]["accuracy"].n == 3
    assert table[0]["correct"].value == pytest.approx(81)
    assert means(ROWS) == means(list(ROWS))
    assert {row["method"]: row for row in means(ROWS[::-1])}.keys() == {"erm", "sam"}


def test_a_row_too_long_to_read_becomes_a_column() -> None:
    rows = [
        {"setting": s} | {f"c{k}": Reading(k, k - 1, k + 1, unit="nats") for k in range(12)}
        for s in ("a", "b")
    ]
    long = Document(title="t", sections=[Section("s", [Table(rows=rows)])])
    assert re.search(r'<th scope="row"[^>]*>c11</th><td [^>]*class="num">11\.0', html(long))
    assert "whisker" not in html(long).split("</style>")[1]  # twelve quantities share no scale
    out = io.StringIO()
    show(long, Console(file=out, width=80))
    assert re.search(r"c11 +11\.0 \[10\.0, 12\.0\] +11\.0 \[10\.0, 12\.0\]", out.getvalue())
    twins = [row | {"setting": "a"} for row in rows]  # no names for the columns: left as it is
    assert '<th scope="row">c11</th>' not in html(
        Document(title="t", sections=[Section("s", [Table(rows=twins)])])
    )


def test_a_figure_or_table_that_fails_is_a_note() -> None:
    def broken(rows: list[dict]) -> Bars:
        return Bars(title="b", values={"x": column(rows, "accuracy", method="none")[0]})

    report = of(study(figures=(broken,), table=broken), ROWS)
    texts = [
        block.text
        for section in report.sections
        for block in section.blocks
        if isinstance(block, Note)
    ]
    assert any("figure could not be made: No row has method=none" in text for text in texts)
    assert any("table could not be made" in text for text in texts)
    with pytest.raises(ZeroDivisionError):  # a bug is not data that are missing
        of(study(figures=(lambda rows: 1 / 0,)), ROWS)


def test_a_study_without_rows_still_reports() -> None:
    assert "No cell has finished" in html(of(study(), []))
    with pytest.raises(InvalidData):
        column([], "accuracy")


def test_quantities_of_several_units_share_no_scale() -> None:
    def drawn(*units: str) -> bool:
        rows = [{"measure": u, "value": Reading(1, 0, 2 + k, unit=u)} for k, u in enumerate(units)]
        page = html(Document(title="t", sections=[Section("s", [Table(rows=rows)])]))
        return "whisker" in page.split("</style>")[1]

    assert drawn("nats", "nats")
    assert not drawn("nats", "bits")


def test_names_between_backticks_are_code_on_the_page() -> None:
    said = "`age` and `a<b` moved; 5`6 and a lone ` stay, and so does ``."
    page = html(
        Document(
            title="t",
            lead=said,
            sections=[Section("s", [Note(said, detail="Drop `x`."), Table(rows=[{"`y`": said}])])],
        )
    )
    shown = "<code>age</code> and <code>a&lt;b</code> moved; 5`6 and a lone ` stay, and so does ``."
    assert page.count(shown) == 3
    assert "Drop <code>x</code>." in page
    assert "<code>y</code></th>" in page
    assert 'data-head="y"' in page


def test_a_table_of_many_readings_has_its_intervals_below_their_values() -> None:
    reading = Reading(0.5, 0.4, 0.6)

    def page(columns: int) -> str:
        row = {"site": "Bern"} | {f"score {k}": reading for k in range(columns)}
        return html(Document(title="t", sections=[Section("s", [Table(rows=[row, row])])]))

    assert '<table class="wide stack">' in page(2)
    assert '<table class="stack">' in page(3)
    assert '<table class="dense stack">' in page(4)


def test_many_columns_leave_no_room_for_long_whiskers() -> None:
    row = {"task": "a_long_name", **dict.fromkeys("abcd", 1.0), "benefit": Reading(0.5, 0.4, 0.6)}
    page = html(Document(title="t", sections=[Section("s", [Table(rows=[row])])]))
    assert '<table class="stack">' in page
