"""How Unseen itself is cited; `CITATION.cff` says the same to GitHub, and a test compares them."""

from unseen import __version__

TITLE = "Unseen: will it work on data it has not seen, why, and what can I change?"
AUTHORS = "The Unseen developers"
RELEASE_DATE = "2026-11-29"
URL = "https://github.com/unseen-ml/unseen"


def bibtex() -> str:
    """The entry for a bibliography; two braces, since the authors are no person."""
    year, month, _ = RELEASE_DATE.split("-")
    fields = {
        "title": TITLE,
        "author": f"{{{AUTHORS}}}",
        "year": year,
        "month": month,
        "version": __version__,
        "url": URL,
    }
    body = "\n".join(f"  {name} = {{{text}}}," for name, text in fields.items())
    return f"@software{{unseen,\n{body}\n}}"


def apa() -> str:
    """The line for a list of references in APA style."""
    return (
        f"{AUTHORS}. ({RELEASE_DATE[:4]}). {TITLE} (Version {__version__}) [Computer software]. "
        f"{URL}"
    )
