"""The table of all studies, from their ledgers alone."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unseen.errors import CorruptFile
from unseen.runs import ledger
from unseen.runs.store import write_atomic
from unseen.study import Verdict

BEGIN, END = "<!-- studies: unseen check --table -->", "<!-- end of studies -->"


def overview(folder: Path) -> str:
    """A Markdown table: claims by verdict, those that hold after Holm's correction, seeds, CPU
    seconds, and what is missing.
    """
    names = ("study", *Verdict, "after Holm", "seeds", "CPU s", "missing")
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 2) + "---|"]
    texts = [ledger.read(path) for path in sorted(folder.glob("*.json"))]
    for text in sorted(texts, key=lambda text: (text.get("system", ""), text["study"])):
        lines.append("| " + " | ".join(_cells(text)) + " |")
    return "\n".join(lines)


def _cells(text: Mapping[str, Any]) -> Sequence[str]:
    counts = Counter(line["verdict"] for line in text["claims"])
    name = text["study"]
    holm = [line["holm"] for line in text["claims"] if "holm" in line]
    return (
        f"[{text.get('system', '')} {name}](docs/studies/{name}.md)",
        *(str(counts[verdict.value]) for verdict in Verdict),
        str(sum(holm)) if holm else "–",
        str(text.get("seeds", "–")),
        f"{text['seconds']:,.0f}",
        "; ".join(missing(text)) or "–",
    )


def missing(text: Mapping[str, Any]) -> list[str]:
    """What a reader of the ledger has to do without."""
    found = []
    if "rows" not in text:
        found.append("rows (verdicts are of older rules)")
    waiting = [line for line in text["claims"] if line["verdict"] == Verdict.NOT_JUDGED.value]
    scales = Counter(
        match.group(1)
        for line in waiting
        if (match := re.search(r"from (\w+) scale on", line["because"]))
    )
    found += [f"{n} claim{'s' * (n != 1)} of {scale} scale" for scale, n in scales.items()]
    options = Counter(
        match.group(1)
        for line in waiting
        if (match := re.search(r"computed with (\S+) only", line["because"]))
    )
    found += [f"{n} with {option}" for option, n in options.items()]
    if single := len(waiting) - sum(scales.values()) - sum(options.values()):
        found.append(f"{single} of one model")
    undecided = [line for line in text["claims"] if line["verdict"] == Verdict.UNDECIDED.value]
    # ledgers that were not judged again say it in older words
    equal = ("over equal values", "without width")
    without = sum(any(words in line["because"] for words in equal) for line in undecided)
    if without:
        found.append(f"{without} with equal values")
    if blank := sum("has no value" in line["because"] for line in undecided):
        found.append(f"{blank} without a value")
    return found


def replace_table(page: str, table: str) -> str:
    """The page with the table between its marks."""
    if BEGIN not in page or END not in page:
        raise CorruptFile(
            "The page has no place for the table of studies.",
            why="it stands between two marks, so that it can be written again.",
            fix=f"add the lines {BEGIN} and {END}.",
        )
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


def write_table(page: Path, folder: Path) -> None:
    """Rewrites the table in a page."""
    text = replace_table(page.read_text(encoding="utf-8"), overview(folder))
    write_atomic(page, text)
