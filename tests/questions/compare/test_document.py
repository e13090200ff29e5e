"""The document and the exports of a comparison: bold, footnotes, missing cells, escapes."""

import csv
import io
import json
from dataclasses import replace

from questions.compare.results_by_hand import METHODS, by_hand
from rich.console import Console

from unseen.document import Table
from unseen.questions.compare.document import (
    as_csv,
    as_json,
    as_latex,
    as_markdown,
    by_site,
    document,
    summary,
)
from unseen.questions.compare.protocols import Protocol
from unseen.reading import Reading
from unseen.report import latex
from unseen.report.html import html
from unseen.report.markdown import markdown
from unseen.report.terminal import show


def test_what_stands_out_is_bold_everywhere():
    page = document(by_hand())
    assert "<b>0.750</b>" in html(page)
    assert "**0.750**" in markdown(page)
    assert r"\textbf{0.750}" in as_latex(by_hand())
    stream = io.StringIO()
    show(page, Console(file=stream, width=200))
    assert "0.750*" in stream.getvalue()


def test_nothing_is_bold_where_nothing_stands_out():
    results = by_hand(gain=0.0)
    assert "<b>" not in html(document(results))
    assert r"\textbf" not in as_latex(results)
    assert "**0." not in as_markdown(results)


def test_a_missing_cell_has_a_dash_and_a_footnote_with_its_reason():
    table = by_site(by_hand(), "accuracy", Protocol.TRAINING)
    row = METHODS.index("gone")
    number = table.marks[row, "west"]
    assert table.rows[row]["west"] is None
    assert f"{number}: every run diverged." in table.footnotes
    raised = str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    assert f"–{raised}" in html(document(by_hand()))
    assert f"–{raised}" in as_markdown(by_hand())
    assert rf"--\textsuperscript{{{number}}}" in as_latex(by_hand())


def test_protocols_stand_side_by_side_and_are_named():
    table = summary(by_hand())
    for name in ("training-domain", "leave-one-domain-out", "oracle"):
        assert f"average: {name}" in table.rows[0]
        assert f"worst site: {name}" in table.rows[0]
        assert any(note.startswith(f"{name}: the draw") for note in table.footnotes)
    assert table.caption.endswith(
        "n = 100 evaluation examples, 3 seeds unless a footnote says otherwise."
    )


def test_the_csv_holds_every_cell_and_the_json_everything():
    results = by_hand()
    rows = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert len(rows) == len(results.cells)
    first = rows[0]
    reading = results.cells[0].reading
    assert (float(first["value"]), float(first["low"]), first["best"]) == (
        reading.value,
        reading.low,
        "False",
    )
    lost = next(row for row in rows if row["method"] == "gone" and row["column"] == "west")
    assert (lost["value"], lost["note"]) == ("", "every run diverged")
    told = json.loads(as_json(results))
    assert told["diverged"]["gone"] == [20, 24]
    assert len(told["cells"]) == len(results.cells)


def test_latex_escapes_what_is_special_and_keeps_one_line_per_row():
    row = {"a_b": "50 % & #1 {x} ~ ^ \\ $", "v": Reading(-0.5, -1.0, 0.0)}
    text = latex.table(Table(rows=[row], caption="x_1 & y", footnotes=["50 %"]), label="tab:x")
    assert r"50 \% \& \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \$" in text
    assert r"$-$0.5 {\scriptsize [$-$1.0, 0.0]} \\" in text
    assert r"\caption{x\_1 \& y}" in text
    assert r"\label{tab:x}" in text
    assert text.count(r"\\") == 2  # the head and one row
    assert latex.escape("<a|b>") == r"\textless{}a\textbar{}b\textgreater{}"


def test_a_bracket_first_in_a_row_is_no_argument_of_the_line_before():
    lines = latex.table(Table(rows=[{"[a": "[1, 2]", "b": 1}, {"[a": "*", "b": 2}])).splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert [row[:4] for row in rows] == ["{}[a", "{}[1", "{}* "]


def test_a_spreadsheet_finds_no_formula():
    results = by_hand()
    names = ["=1+1", "+x", "-x", "@x", "ERM"]
    cells = [replace(cell, method=name) for cell, name in zip(results.cells, names, strict=False)]
    rows = list(csv.DictReader(io.StringIO(as_csv(replace(results, cells=cells)))))
    assert [row["method"] for row in rows] == ["'=1+1", "'+x", "'-x", "'@x", "ERM"]
    negative = replace(results.cells[0], reading=Reading(-0.5, -1.0, 0.0))
    row = next(csv.DictReader(io.StringIO(as_csv(replace(results, cells=[negative])))))
    assert float(row["value"]) == -0.5


def test_a_long_row_that_is_turned_keeps_its_marks():
    names = [f"c{k}" for k in range(12)]
    table = Table(
        rows=[
            {"method": "ERM", **dict.fromkeys(names, 0.5)},
            {"method": "SAM", **dict.fromkeys(names, 0.25)},
        ],
        strong=[(0, "c3")],
        marks={(1, "c4"): 2},
        footnotes=["2: why."],
    )
    from unseen import wording

    turned = wording.transpose(table)
    assert turned is not None
    assert turned.strong == [(3, "ERM")]
    assert turned.marks == {(4, "SAM"): 2}
    assert turned.rows[4]["SAM"] == 0.25


def test_names_are_escaped_in_the_page():
    page = html(document(by_hand()))
    assert "<two>" not in page
    assert "&lt;two&gt;" in page
    assert "clinics &amp; more" in page


def test_no_two_of_many_series_look_alike():
    from unseen.report.canvas import DASHES, LIGHT, MARKERS, _turn

    for kinds in (MARKERS, DASHES):
        assert len({(k % len(LIGHT), _turn(kinds, k)) for k in range(30)}) == 30
