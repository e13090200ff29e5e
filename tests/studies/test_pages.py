"""A reader of a study's page finds what differs from the paper, and how many seeds there are."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BROKEN_WORD = re.compile(r'[a-z]- "\n\s*f?"(?!and |or |to )')
"""A word whose hyphen ends one piece of a text, with a space behind it."""
PAGES = sorted((ROOT / "docs/studies").glob("*.md"))


def test_every_ledger_has_a_page():
    ledgers = {path.stem for path in (ROOT / "results").glob("*.json")}
    assert ledgers == {path.stem for path in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_how_the_study_differs_and_over_how_many_seeds(page):
    text = page.read_text()
    assert re.search(r"^\d+ seeds?[;.]", text, re.MULTILINE)
    found = re.search(r"^## Differences from the paper\n+(.+)$", text, re.MULTILINE)
    assert found is not None
    assert len(found[1].split()) > 20
    assert re.search(r"^Not tested: \S", text, re.MULTILINE)


def test_no_text_of_the_package_breaks_a_word_at_its_hyphen():
    """Pieces of a text are joined as they are: "pre- " "training" would read "pre- training"."""
    assert BROKEN_WORD.search('"What pre- "\n    "training lacks"')
    assert not BROKEN_WORD.search('"pre- "\n "and post-training", "What "\n "pre-training"')
    sources = (ROOT / "src/unseen").rglob("*.py")
    assert [str(path) for path in sources if BROKEN_WORD.search(path.read_text("utf-8"))] == []
