"""Published items with human annotations of their hardness."""

import gzip
import json
import tarfile
from collections.abc import Sequence
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

import numpy as np

from unseen.data.files import data_file
from unseen.errors import CorruptFile
from unseen.tasks.graded_questions.item import Item
from unseen.tasks.graded_questions.reading import annotate, read_items

ANNOTATIONS = "easy-to-hard/arc-challenge-easy-annotations.json.gz"
SUBSETS = {"Easy": "ARCEZ_", "Challenge": "ARCCH_"}
"""Parts of ARC and how their ids begin in the annotations."""
AI2_GRADES = {"Elementary": 5.0, "8thGr": 8.0}


def ai2_science() -> list[Item]:
    """Science questions of elementary school (`grade` 5, 516 items) and of grade 8 (358)."""
    return [
        annotate(item, grade=grade, part=part.lower())
        for level, grade in AI2_GRADES.items()
        for part in ("Train", "Dev")
        for item in read_items(data_file(f"ai2-science/AI2-{level}-NDMC-Feb2016-{part}.jsonl.gz"))
    ]


def arc(subsets: Sequence[str] = ("Easy",), graded: bool = True) -> list[Item]:
    """ARC with its annotations `grade`, `bloom`, `depth_of_knowledge`, `difficulty` and `part`.

    `graded`: only the items that were annotated (3,361 of Easy, 1,759 of Challenge). Of grades,
    "Biology" and "Earth and Space Sciences" (599 items) have no order and count as none.
    """
    known = json.loads(gzip.decompress(data_file(ANNOTATIONS).read_bytes()))
    found = []
    for subset in subsets:
        for part in ("Train", "Dev", "Test"):
            for item in read_items(data_file(f"arc/ARC-{subset}-{part}.jsonl.gz")):
                levels = known.get(SUBSETS[subset] + item.name)
                if levels or not graded:
                    found.append(annotate(item, part=part.lower(), **(levels or {})))
    return found


def piqa() -> list[Item]:
    """1,838 goals with two ways to reach them; of `steps` or grades nothing is known."""
    lines = gzip.decompress(data_file("piqa/valid.jsonl.gz").read_bytes()).decode().splitlines()
    labels = data_file("piqa/valid-labels.lst").read_text().split()
    if len(lines) != len(labels):
        raise CorruptFile(
            f"PIQA has {len(lines)} goals and {len(labels)} labels.",
            why="line k of one belongs to line k of the other.",
            fix="get both files anew.",
        )
    entries = [json.loads(line) for line in lines]
    return [
        Item(entry["goal"], (entry["sol1"], entry["sol2"]), int(label), f"piqa-{k}")
        for k, (entry, label) in enumerate(zip(entries, labels, strict=True))
        if entry["sol1"] != entry["sol2"]
    ]


def strategyqa() -> list[Item]:
    """Yes-or-no questions with the number of reasoning `steps`."""
    return [
        Item(
            entry["question"].strip(),
            ("yes", "no"),
            0 if entry["answer"] else 1,
            entry["qid"],
            (("steps", float(len(entry["decomposition"]))), ("part", part)),
        )
        for part in ("train", "dev")
        for entry in json.loads(
            gzip.decompress(data_file(f"strategyqa/{part}.json.gz").read_bytes())
        )
    ]


def asdiv() -> list[Item]:
    """Word problems of ASDiv with one operation on two numbers and a whole answer, with `grade`
    and `operation`.

    The release has no choices. The wrong ones are numbers that a pupil might give: results of
    another operation on the numbers of the formula, then neighbours of the answer; their order
    is drawn once per problem. The smallest choice is right in 55 % of the problems (68 % from
    grade 4 on): compare with that, not with chance alone.
    """
    root = ElementTree.fromstring(gzip.decompress(data_file("asdiv/ASDiv.xml.gz").read_bytes()))
    problems = (_asdiv_item(problem) for problem in root.iter("Problem"))
    return [item for item in problems if item is not None]


def _asdiv_item(problem: Any) -> Item | None:
    text = {child.tag: (child.text or "").strip() for child in problem}
    right = _number(text["Answer"].split(" ")[0])
    numbers = [number for part in _operands(text["Formula"]) if (number := _number(part))]
    if right is None or right.denominator > 1 or len(numbers) != 2:
        return None
    name = problem.attrib["ID"]
    choices = [right, *wrong_results(numbers[0], numbers[1], right)]
    order = np.random.default_rng(int(name.split("-")[1])).permutation(len(choices))
    return Item(
        f"{text['Body']} {text['Question']}",
        tuple(str(choices[k]) for k in order),
        int(np.flatnonzero(order == 0)[0]),
        name,
        (("grade", float(problem.attrib["Grade"])), ("operation", text["Solution-Type"])),
    )


def wrong_results(a: Fraction, b: Fraction, right: Fraction, count: int = 3) -> list[Fraction]:
    """Results of the other operations on a and b, then right ± 1, 2, …; none is negative."""
    results = [a + b, a - b, b - a, a * b, a / b if b else a, b / a if a else b]
    results += [right + step * sign for step in range(1, 9) for sign in (1, -1)]
    whole = [x for x in dict.fromkeys(results) if x != right and x >= 0 and x.denominator == 1]
    return whole[:count]


def _operands(formula: str) -> list[str]:
    """The numbers on the left of a formula with one operation."""
    left = formula.split("=")[0].replace("(", " ").replace(")", " ")
    for sign in "+-*/":
        left = left.replace(sign, " ")
    return left.split()


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


SENTIMENTS = ("positive", "negative")
REVIEW = "Review: {question}\nSentiment:"


def sentiment() -> list[Item]:
    """Sentences of film reviews with their sentiment, 400 of the Stanford Sentiment Treebank."""
    archive = data_file("instruction-induction/instruction_induction_subset.tar.xz")
    found = []
    with tarfile.open(archive) as tar:
        for part in ("induce", "execute"):
            file = tar.extractfile(f"data/raw/{part}/sentiment.json")
            for name, pair in json.loads(file.read())["examples"].items():  # type: ignore[union-attr]
                answer = SENTIMENTS.index(pair["output"])
                found.append(
                    Item(pair["input"], SENTIMENTS, answer, f"{part}-{name}", template=REVIEW)
                )
    return found
