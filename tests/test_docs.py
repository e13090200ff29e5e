"""Every Python snippet of the documentation runs. The snippets of one page share their names, top
to bottom.
"""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = (ROOT / "docs", ROOT / "docs" / "quickstart")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [page for folder in FOLDERS for page in sorted(folder.glob("*.md"))]
SNIPPET = re.compile(
    r"(?P<skip><!-- skip[^>]*-->\s*)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


def snippets(text: str) -> list[tuple[int, str]]:
    """First line and code of every snippet, without those after `<!-- skip: why -->`."""
    found = SNIPPET.finditer(text)
    return [(text.count("\n", 0, m.start("code")) + 1, m["code"]) for m in found if not m["skip"]]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.exists()], ids=lambda page: page.name
)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("snippet")
    monkeypatch.setitem(sys.modules, "snippet", module)  # classes of a page can be pickled
    for line, code in snippets(page.read_text("utf-8")):
        exec(compile("\n" * (line - 1) + code, page, "exec"), vars(module))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.exists()], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(
        r"\]\((?!https?:)([^)#]+)",
        re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL),
    ):
        assert (page.parent / target).exists(), target


def test_snippets_are_found_and_skipped() -> None:
    text = (
        "a\n```python\nx = 1\n```\n<!-- skip: needs a file -->\n```python\ny = "
        "1\n```\n```\nz\n```\n"
    )
    assert snippets(text) == [(3, "x = 1\n")]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=str)
def test_notebooks_hold_the_code_of_their_page_and_its_outputs(path: Path) -> None:
    page = ROOT / "docs" / "quickstart" / f"{path.stem}.md"
    cells = [
        cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"
    ]
    code = [code.strip() for _, code in snippets(page.read_text("utf-8"))]
    assert ["".join(cell["source"]) for cell in cells][: len(code)] == code
    assert any(cell["outputs"] for cell in cells), "run `make notebooks`"
    assert all(out["output_type"] != "error" for cell in cells for out in cell["outputs"])


def test_there_are_notebooks() -> None:
    assert len(list((ROOT / "docs" / "notebooks").glob("*.ipynb"))) >= 3
