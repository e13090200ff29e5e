"""Where a method, measure or study comes from, as a citation."""

from dataclasses import dataclass


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
        return f"{first} ({self.year}), {self.title}" + (f", arXiv:{self.arxiv}" if self.arxiv else "")
