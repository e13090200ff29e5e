"""Where a method, measure or study comes from: `reference(key)` reads the entry of
`references.bib`.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from unseen.errors import UnknownName


@dataclass(frozen=True, kw_only=True)
class Source:
    """A paper: enough to find it and to cite it."""

    key: str
    """Citation key, for example `chatterjee2022mystery`."""
    title: str
    authors: tuple[str, ...]
    year: int
    venue: str = ""
    arxiv: str = ""
    doi: str = ""

    @property
    def bibtex(self) -> str:
        fields = {
            "title": self.title,
            "author": " and ".join(self.authors),
            "year": str(self.year),
            "journal": self.venue or (f"arXiv:{self.arxiv}" if self.arxiv else ""),
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else "",
            "doi": self.doi,
        }
        body = "\n".join(f"  {name} = {{{text}}}," for name, text in fields.items() if text)
        return f"@article{{{self.key},\n{body}\n}}"

    def __str__(self) -> str:
        first = self.authors[0].split(",")[0] + (" et al." if len(self.authors) > 2 else "")
        if len(self.authors) == 2:
            first = " & ".join(name.split(",")[0] for name in self.authors)
        return f"{first} ({self.year}), {self.title}" + (
            f", arXiv:{self.arxiv}" if self.arxiv else ""
        )


def reference(key: str) -> Source:
    """The paper with this citation key."""
    entries = references()
    if key not in entries:
        error = UnknownName.near("reference", key, entries)
        fix = f"{error.fix} A new paper is an entry of unseen/study/references.bib."
        raise UnknownName(error.what, why=error.why, fix=fix)
    return entries[key]


@cache
def references() -> dict[str, Source]:
    """All entries of `references.bib`."""
    text = (files("unseen.study") / "references.bib").read_text(encoding="utf-8")
    return parse_references(text)


def parse_references(text: str) -> dict[str, Source]:
    """Entries `@article{key, name = {text}, …}`, one field per line, without braces inside a
    field.
    """
    entries = {}
    for key, body in re.findall(r"^@article\{(\S+),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        fields = dict(re.findall(r"^ *(\w+) = \{(.*)\},?$", body, re.MULTILINE))
        entries[key] = Source(
            key=key,
            title=fields["title"],
            authors=tuple(fields["author"].split(" and ")),
            year=int(fields["year"]),
            venue=fields.get("journal", ""),
            arxiv=fields.get("eprint", ""),
            doi=fields.get("doi", ""),
        )
    return entries
