"""The published texts: novels, news, the Federalist papers, essays and answers, and pairs of person
and machine."""

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from unseen.data.files import data_file
from unseen.data.registry.fast_detect_gpt import CHECKSUMS
from unseen.errors import InvalidConfig
from unseen.tasks.authorship.passages import Pair, Passage, cut_passages

HUMAN, MACHINE = "human", "ChatGPT"
FILES = {tuple(name.partition("/")[2].split("_", 1)): name for name in CHECKSUMS}
"""(domain, generator) of each file of pairs."""
GENERATORS = tuple(dict.fromkeys(generator for _, generator in FILES))


def _texts(name: str) -> Iterator[tuple[str, str]]:
    """Name and text of every file of an archive."""
    with tarfile.open(data_file(name), "r:xz") as archive:
        for member in sorted(archive.getmembers(), key=lambda one: one.name):
            file = archive.extractfile(member)
            if file is not None:
                yield member.name.removeprefix("./"), file.read().decode("utf-8", "replace")


@lru_cache(maxsize=4)
def novels(words: int = 500, most: int = 20) -> tuple[Passage, ...]:
    """Passages of 26 novels by 11 authors, grouped by book."""
    found: list[Passage] = []
    for name, text in _texts("british-fiction/british_fiction_excerpts.tar.xz"):
        author, _, book = Path(name).stem.partition("_")
        found += cut_passages(text, author, f"{author} {book}", words=words, most=most)
    return tuple(found)


@lru_cache(maxsize=1)
def news() -> tuple[Passage, ...]:
    """1,500 articles by 15 authors of Reuters; each is its own group."""
    found = []
    for name, text in _texts("reuters-c50-subset/reuters_c50_subset.tar.xz"):
        part, author, file = name.split("/")
        found.append(Passage(text.strip(), author, file, part))
    return tuple(found)


@lru_cache(maxsize=1)
def federalist_papers() -> tuple[Passage, ...]:
    """The 77 papers with one author and the 12 disputed ones among them, in order; those of two
    authors are left out."""
    lines = gzip.decompress(data_file("federalist/federalist.jsonl.gz").read_bytes()).splitlines()
    papers = [json.loads(line) for line in lines]
    return tuple(
        Passage(
            one["text"],
            one["author_in_source"].title(),
            str(one["number"]),
            order=one["number"],
            disputed=one["disputed"],
        )
        for one in papers
        if "," not in one["author_in_source"]
    )


@lru_cache(maxsize=1)
def essays() -> tuple[Passage, ...]:
    """84 essays by people and 84 by ChatGPT, grouped by topic."""
    found = []
    for name, text in _texts("human-vs-llm/essays.tar.xz"):
        kind, _, topic = name.partition("/")
        if topic:
            author = HUMAN if kind == "human" else MACHINE
            found.append(Passage(text.strip(), author, Path(topic).stem, "essays"))
    return tuple(one for one in found if one.text)


@lru_cache(maxsize=1)
def answers() -> tuple[Passage, ...]:
    """Answers of people and of ChatGPT to the questions of TruthfulQA, grouped by question."""
    data = gzip.decompress(data_file("human-vs-llm/TruthfulQA_chatgpt.csv.gz").read_bytes())
    rows = csv.DictReader(io.StringIO(data.decode("utf-8")))
    found: list[Passage] = []
    for k, row in enumerate(rows):
        pair = Passage(row["Best Answer"].strip(), HUMAN, str(k), "answers")
        found += [pair, replace(pair, text=row["chatgpt_answer"].strip(), author=MACHINE)]
    return tuple(one for one in found if one.text)


@lru_cache(maxsize=32)
def machine_pairs(domain: str, generator: str) -> tuple[Pair, ...]:
    """150 pairs of one domain and generator."""
    if (domain, generator) not in FILES:
        raise InvalidConfig(
            f"There are no pairs of {generator} in {domain}.",
            why="the release has " + ", ".join(f"{a} by {b}" for a, b in FILES) + ".",
            fix="choose one of them.",
        )
    name = f"fast-detect-gpt/{FILES[domain, generator]}.raw_data.json.gz"
    found = json.loads(gzip.decompress(data_file(name).read_bytes()))
    return tuple(
        Pair(human, machine, domain, generator)
        for human, machine in zip(found["original"], found["sampled"], strict=True)
    )
