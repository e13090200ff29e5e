"""Coloured texts in every kind of report: the sign has a second sign, the text stays the text."""

import re
from html import unescape
from io import StringIO

from rich.console import Console

from unseen.document import Document, Passage, Section
from unseen.report.html import html
from unseen.report.json import plain
from unseen.report.markdown import markdown
from unseen.report.terminal import show

PIECES = ("To ", "<b>be</b>", " or\n", "not", " ", "*so*")
WEIGHTS = (0.5, -1.0, 0.0, 0.01, float("nan"), 1.0)


def page(**more) -> Document:
    return Document(
        title="t", sections=[Section("s", [Passage(title="+1 & more", pieces=PIECES, **more)])]
    )


def test_the_text_survives_and_colours_follow_the_weights():
    text = html(page(weights=WEIGHTS, unit="nats"))
    inside = re.search(r'<p class="passage">(.*?)</p>', text, re.DOTALL)[1]
    assert unescape(re.sub(r"</?span[^>]*>", "", inside)) == "".join(PIECES)
    spans = re.findall(r'<span class="(\w+)" style="--w:(\d+)%" title="([^"]*)">', inside)
    assert spans == [("up", "28", "0.500 nats"), ("down", "55", "−1 nats"), ("up", "55", "1 nats")]
    assert "+1 &amp; more" in text


def test_equal_factors_on_weights_change_no_colour():
    colours = [
        re.findall(r"--w:\d+%", html(page(weights=[k * w for w in WEIGHTS]))) for k in (1, 7e-5)
    ]
    assert colours[0] == colours[1]


def test_without_weights_nothing_is_coloured():
    assert "<span class" not in re.search(r'<p class="passage">.*?</p>', html(page()), re.DOTALL)[0]
    assert (
        "--w"
        not in re.search(r'<p class="passage">.*?</p>', html(page(weights=(0.0,) * 6)), re.DOTALL)[
            0
        ]
    )


def test_other_reports_have_the_text():
    assert r"> To \<b\>be\</b\> or not \*so\*" in markdown(page(weights=WEIGHTS))
    console = Console(record=True, width=100, file=StringIO())
    show(page(weights=WEIGHTS), console)
    assert "To <b>be</b> or not *so*" in console.export_text()
    block = plain(page(weights=WEIGHTS))["sections"][0]["blocks"][0]
    assert (block["kind"], block["weights"][4]) == ("passage", None)
