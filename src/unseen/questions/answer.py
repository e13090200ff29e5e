"""What a question returns: its results as values, and their document for the terminal, a notebook
and files.
"""

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from unseen.document import Document
from unseen.errors import InvalidConfig
from unseen.report.html import html, notebook
from unseen.report.json import as_json, plain
from unseen.report.latex import latex
from unseen.report.markdown import markdown
from unseen.report.terminal import as_text, show
from unseen.runs.store import check_writable, write_atomic

Results = TypeVar("Results", covariant=True)

WRITERS: Mapping[str, Callable[[Document], str]] = {
    ".html": html,
    ".md": markdown,
    ".json": as_json,
    ".tex": latex,
}
"""How a report is written, by the suffix of its file."""
REPR_WIDTH, REPR_LINES = 100, 12


def check_report_path(path: str | Path) -> Path:
    """The path, refused where no writer knows its suffix or nothing can be written: before any work
    is done for it.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise InvalidConfig(
            f"The report `{path}` has an unknown suffix.",
            why="it says how the report is written.",
            fix=f"use one of {', '.join(WRITERS)}.",
        )
    check_writable(path)
    return path


LIMITS = "What these data cannot tell"
"""The section that a card never leaves out."""


def check_card_path(path: str | Path) -> Path:
    """The path of a model card, refused before the work where nothing can be written there."""
    path = Path(path)
    if path.suffix.lower() != ".md":
        raise InvalidConfig(
            f"The model card `{path}` does not end in .md.",
            why="it is Markdown with front matter.",
            fix="use README.md, as the hub does.",
        )
    check_writable(path)
    return path


def brief_of(document: Document, sections: int | None = None) -> Document:
    """The first sections of a document (None: all), without those that are folded."""
    return replace(document, sections=[s for s in document.sections[:sections] if not s.folded])


def card_body(document: Document, brief: Document) -> str:
    """A card below its front matter, as Markdown: the summary and what the data cannot tell."""
    limits = [s for s in document.sections if s.title == LIMITS]
    return markdown(replace(brief, sections=[*brief.sections, *limits]))


def card_text(front_matter: Mapping[str, Any], body: str) -> str:
    """A card of the Hugging Face hub."""
    # JSON is YAML, and quotes every text
    head = [f"{key}: {json.dumps(value)}" for key, value in front_matter.items()]
    return "\n".join(["---", *head, "---", "", body])


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer(Generic[Results]):
    """The results of a question with their document. A notebook shows the page in a frame of its
    own.
    """

    results: Results
    """Every number as a value: `Findings` per subject, `Results`, explanations or influences."""
    document: Document
    summary_sections: int | None = None
    """How many sections the summary has; None: all. The report always has all."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """What `--json` prints."""
    front_matter: Mapping[str, Any] = field(default_factory=dict)
    """What a model card begins with; empty where the question makes none."""

    @property
    def brief(self) -> Document:
        """The document with the sections of the summary only: none that is folded."""
        return brief_of(self.document, self.summary_sections)

    def summary(self) -> str:
        """The answer, the findings and the tables as plain text."""
        return as_text(self.brief)

    def show(self) -> None:
        """Prints the summary, in colour on a terminal."""
        show(self.brief)

    def report(self, path: str | Path) -> Path:
        """Writes the whole report: .html, .md, .json or .tex, in one step."""
        path = check_report_path(path)
        write_atomic(path, WRITERS[path.suffix.lower()](self.document))
        return path

    def card(self, path: str | Path) -> Path:
        """Writes a model card: front matter for the Hugging Face hub, then the summary and what the
        data cannot tell.
        """
        path = check_card_path(path)
        if not self.front_matter:
            raise InvalidConfig(
                "This question makes no model card.",
                why="a card is about one model at its sites.",
                fix="take the answer of unseen.audit.",
            )
        write_atomic(path, card_text(self.front_matter, card_body(self.document, self.brief)))
        return path

    def json(self, **more: str) -> str:
        """The results for machines; `more` comes first, as the path of the report does on the
        command line.
        """
        return json.dumps(plain({**more, **self.machine}), indent=1, ensure_ascii=False)

    def _repr_html_(self) -> str:
        return notebook(self.document)

    def __repr__(self) -> str:
        lead = [
            line
            for paragraph in self.document.lead.splitlines()
            for line in textwrap.wrap(paragraph, REPR_WIDTH)
        ]
        cut = [*lead[: REPR_LINES - 1], "…"] if len(lead) > REPR_LINES else lead
        titles = ", ".join(section.title for section in self.document.sections)
        return "\n".join(
            [
                textwrap.shorten(
                    f"{self.document.title} · {self.document.kicker}", REPR_WIDTH, placeholder="…"
                ),
                *cut,
                textwrap.shorten(f"sections: {titles}", REPR_WIDTH, placeholder=" …"),
                '.summary() has the findings, .report("page.html") writes all, .results holds the '
                "numbers",
            ]
        )
