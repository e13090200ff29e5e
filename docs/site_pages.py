"""Pages of the documentation site that are made from what exists: home, studies, reference.

A hook of MkDocs (`mkdocs.yml`). Nothing is listed by hand: a new plug file appears in the
reference, a new study page in the list of studies.
"""

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from unseen.runs.overview import overview

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "unseen"
FOLDERS = {
    "tasks": "Tasks",
    "methods": "Methods",
    "measures": "Measures",
    "attributions": "Attributions",
    "models": "Models",
    "engine": "Engine",
    "study": "Study kit",
    "subjects": "Subjects",
    "questions": "Questions",
    "report": "Report writers",
    "runs": "Runs and stores",
    "testing": "Contract checks",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages to those that lie in docs/."""
    pages = {"index.md": _home(), "contributing.md": _contributing()}
    has_page = any(file.src_uri == "studies/all.html" for file in files)
    pages["studies/index.md"] = _studies(has_page)
    pages |= _reference()
    if not any(file.src_uri == "gallery/index.md" for file in files):
        pages["gallery/index.md"] = (
            "# Gallery of reports\n\n`make gallery` writes real reports here.\n"
        )
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def _home() -> str:
    text = (ROOT / "README.md").read_text("utf-8")
    return _relink(re.sub(r"<!-- .*? -->\n?", "", text))


def _contributing() -> str:
    return _relink((ROOT / "CONTRIBUTING.md").read_text("utf-8"))


def _relink(text: str) -> str:
    """Links as seen from inside docs/: pages lose their folder, other files their link."""
    text = re.sub(r"\]\(docs/([^)]*\.md[^)]*)\)", r"](\1)", text)
    text = text.replace("](CONTRIBUTING.md)", "](contributing.md)").replace(
        "](docs/studies)", "](studies/index.md)"
    )
    text = text.replace("](docs)", "](architecture.md)")
    return re.sub(r"\[([^\]]+)\]\((?!https?:|[\w/]+\.md)[^)]*\)", r"\1", text)


def _studies(has_page: bool) -> str:
    """The table of the README, the page of all studies where `make docs` has written it, and a
    list.
    """
    table = overview(ROOT / "results").replace("](docs/studies/", "](")
    rows = ["# Studies", ""]
    if has_page:
        rows += [
            "[All studies on one page](all.html): claims by verdict, seconds, what the laptop "
            "cannot show, and the figure of each central claim.",
            "",
        ]
    rows += [
        table,
        "",
        "Each page: the claims with margins, intervals and verdicts of the laptop scale.",
        "",
    ]
    for path in sorted((ROOT / "docs" / "studies").glob("*.md")):
        title = path.read_text("utf-8").splitlines()[0].lstrip("# ")
        rows.append(f"* [{title}]({path.name})")
    return "\n".join(rows) + "\n"


def _reference() -> dict[str, str]:
    """One page per folder, one entry per public module in it."""
    pages = {}
    top = [path for path in sorted(SOURCE.glob("*.py")) if not path.stem.startswith("_")]
    index = [
        "# Reference",
        "",
        "Made from the docstrings. [The nouns and the questions](unseen.md)",
        "",
    ]
    pages["reference/unseen.md"] = _page("unseen", top)
    for folder, title in FOLDERS.items():
        modules = [
            path for path in sorted((SOURCE / folder).rglob("*.py")) if _has_documentation(path)
        ]
        pages[f"reference/{folder}.md"] = _page(title, modules)
        index.append(f"* [{title}]({folder}.md): {len(modules)} modules")
    pages["reference/index.md"] = "\n".join(index) + "\n"
    return pages


def _page(title: str, modules: list[Path]) -> str:
    names = [".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in modules]
    entries = [f"::: {name.removesuffix('.__init__')}\n" for name in names]
    return f"# {title}\n\n" + "\n".join(entries)


def _has_documentation(path: Path) -> bool:
    is_private = any(part.startswith("_") and part != "__init__.py" for part in path.parts)
    return not is_private and ast.get_docstring(ast.parse(path.read_text("utf-8"))) is not None
