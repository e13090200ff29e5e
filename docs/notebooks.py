"""Notebooks from the quickstart pages: the same text and code, run, with their outputs.

    python docs/notebooks.py [FOLDER]

Needs the extra `notebooks`. The pages are the source; `tests/test_docs.py` holds the notebooks
against them.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

QUICKSTART = Path(__file__).parent / "quickstart"
PAGES = ("table", "images", "scikit_learn")
SHOW = "answer  # the report, in a frame of its own"
FENCE = re.compile(r"^```python\n(.*?)^```$\n?", re.DOTALL | re.MULTILINE)


def cells(text: str) -> list[nbformat.NotebookNode]:
    """A page as Markdown cells and code cells, in its order."""
    kinds = (nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell)
    parts = enumerate(FENCE.split(text))  # text, code, text, code, …
    return [kinds[index % 2](part.strip()) for index, part in parts if part.strip()]


def notebook(page: str) -> nbformat.NotebookNode:
    book = nbformat.v4.new_notebook(cells=cells((QUICKSTART / f"{page}.md").read_text("utf-8")))
    if page == "table":
        book.cells.append(nbformat.v4.new_code_cell(SHOW))
    for index, cell in enumerate(book.cells):
        cell["id"] = f"{page}-{index}"  # a random name would change the file at every run
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    return book


def _drop_warnings(book: nbformat.NotebookNode) -> None:
    """Warnings of the machine's Jupyter say nothing to a reader, and name its folders."""
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        book = notebook(page)
        with tempfile.TemporaryDirectory() as scratch:  # pages write reports where they run
            NotebookClient(
                book,
                timeout=600,
                kernel_name="python3",
                record_timing=False,
                resources={"metadata": {"path": scratch}},
            ).execute()
        _drop_warnings(book)
        nbformat.write(book, folder / f"{page}.ipynb")
        print(folder / f"{page}.ipynb")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "notebooks"))
