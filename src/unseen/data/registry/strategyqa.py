"""StrategyQA: yes-or-no questions with their reasoning steps (Geva et al., 2021,
arXiv:2101.02235).
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://raw.githubusercontent.com/eladsegal/strategyqa"
COMMIT = "1ba1e97452e1"
CONTENT = {
    "train": (
        367_765,
        "9b2d9970a096bfe15654fa0a44754aa8db70dda2a285cf869d7f58e1fd516981",
    ),
    "dev": (
        40_744,
        "ee25e288b55e1d450c5461b82d785dab3fbf7322c8073ae6c6d5ab8b64b1dc75",
    ),
}


def drop_evidence(downloads: Sequence[Path]) -> bytes:
    """gzip of the questions without the field `evidence`, which names paragraphs of a corpus."""
    questions = json.loads(downloads[0].read_text(encoding="utf-8"))
    kept = [{k: v for k, v in entry.items() if k != "evidence"} for entry in questions]
    text = json.dumps(kept, indent=0, ensure_ascii=False)
    return gzip.compress(text.encode(), 9, mtime=0)


FILES = {
    f"strategyqa/{part}.json.gz": RegisteredFile(
        sha256=sha256,
        size=size,
        licence="MIT",
        page="https://github.com/eladsegal/strategyqa",
        origins=tuple(
            (f"{REPOSITORY}/{version}/data/strategyqa/{part}.json",) for version in (COMMIT, "HEAD")
        ),
        pack=drop_evidence,
    )
    for part, (size, sha256) in CONTENT.items()
}
