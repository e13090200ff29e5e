"""The Federalist papers, 1787 and 1788: 85 essays, of which twelve are disputed (Project
Gutenberg, text 1404)."""

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path

from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/carcassonkp/NLP_Authorship"
COMMIT = "8da8efd582f8b5230e08b392a480b79b1c89bf65"
DISPUTED = (*range(49, 59), 62, 63)
"""Numbers that Hamilton and Madison both claimed; the edition gives them to Madison."""
AUTHOR = re.compile(r"\n\n((?:HAMILTON|MADISON|JAY)[^\n]*)\n\n")


def pack(downloads: Sequence[Path]) -> bytes:
    """One JSON object per paper, without the header and footer of Gutenberg."""
    text = downloads[0].read_text("utf-8").partition("End of the Project Gutenberg EBook")[0]
    numbered = re.split(r"\nFEDERALIST No\. (\d+)\n", text)[1:]
    papers = zip(numbered[::2], numbered[1::2], strict=True)
    lines = [
        json.dumps(read_paper(int(number), body), ensure_ascii=False) for number, body in papers
    ]
    return gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0)


def read_paper(number: int, body: str) -> dict[str, object]:
    """Heading, author's line and text of a paper."""
    found = AUTHOR.search(body)
    assert found is not None, number
    return {
        "number": number,
        "author_in_source": found[1],
        "heading": " ".join(body[: found.start()].split()),
        "text": body[found.end() :].strip(),
        "disputed": number in DISPUTED,
    }


FILES = {
    "federalist/federalist.jsonl.gz": RegisteredFile(
        sha256="b92c8a88bae055576ebcb4aeae5890e52a4b4ebdef0895671f311ee0a58f3b88",
        size=390_345,
        licence="public domain",
        page="https://www.gutenberg.org/ebooks/1404",
        origins=((f"{REPOSITORY}/raw/{COMMIT}/data/federalist.txt",),),
        pack=pack,
    ),
}
