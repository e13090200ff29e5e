"""Published sets: GSM8K with the solutions of four language models, and MAWPS + ASDiv-A → SVAMP."""

import csv
import gzip
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from unseen.data.files import data_file
from unseen.engine.programs import (
    ANSWER,
    Program,
    StateKey,
    Statement,
    Value,
    execute,
    read_number,
    state_key,
)
from unseen.engine.token_pairs import Pair, pair
from unseen.errors import CorruptFile
from unseen.tasks.math_programs.problem import (
    MathProblem,
    marked_calculations,
    program_of_marks,
    program_of_prefix,
)

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def gsm8k(part: str = "train") -> tuple[list[MathProblem], int]:
    """The problems of `train` or `test` whose marks end in the answer, and how many do not."""
    problems, left_out = [], 0
    for number, entry in enumerate(_lines(f"gsm8k/{part}.jsonl.gz")):
        solution, _, last = entry["answer"].rpartition("####")
        answer = read_number(last)
        program = None if answer is None else program_of_marks(solution, answer)
        if answer is None or program is None:
            left_out += 1
        else:
            problems.append(MathProblem(entry["question"], program, answer, f"{part} {number}"))
    return problems, left_out


@dataclass(frozen=True)
class PublishedSolution:
    """What a published model wrote for a test problem of GSM8K."""

    model: str
    problem: int
    is_correct: bool
    """As published."""
    shares_states: bool
    """Whether it computes a state of the reference solution, before its last."""


def published_solutions() -> list[PublishedSolution]:
    """Four models × 1,319 test problems."""
    found = []
    for number, entry in enumerate(_lines("gsm8k/example_model_solutions.jsonl.gz")):
        states = set(_states(entry["ground_truth"])[:-1])
        for model in MODELS:
            solution = entry[model]["solution"]
            shares = bool(states & set(_states(solution)))
            found.append(PublishedSolution(model, number, bool(entry[model]["is_correct"]), shares))
    return found


def _states(solution: str) -> list[StateKey]:
    """The state after each marked calculation that can be executed."""
    values: list[Value] = []
    keys = []
    for left, _ in marked_calculations(solution):
        value = execute(Program((Statement(ANSWER, left),))).answer
        if value is None:
            break
        values.append(value)
        keys.append(state_key(values))
    return keys


def equations(part: str = "train") -> list[MathProblem]:
    """MAWPS + ASDiv-A (`train`, 3,138) or SVAMP (`dev`, 1,000), quantities numbered."""
    text = gzip.decompress(data_file(f"svamp/mawps-asdiv-a_svamp_{part}.csv.gz").read_bytes())
    rows = csv.DictReader(text.decode("utf-8").splitlines())
    return [_of_row(row, f"{part} {number}") for number, row in enumerate(rows)]


def _of_row(row: Mapping[str, str], name: str) -> MathProblem:
    """The answer is the equation's: those of the file are rounded in 9 of 3,138 rows, and another
    number in 6.
    """
    numbers = [read_number(number) for number in row["Numbers"].split()]
    constants = {f"number{k}": number for k, number in enumerate(numbers) if number is not None}
    program = program_of_prefix(row["Equation"])
    computed = execute(program, constants).answer
    if computed is None:
        raise CorruptFile(
            f"The equation of row {name} has no value.",
            why=str(program),
            fix="fetch the file again.",
        )
    return MathProblem(row["Question"], program, computed, name, constants)


def prefix_pairs(part: str = "train") -> list[Pair]:
    """The same rows as pairs of a question's words and its equation in prefix notation."""
    text = gzip.decompress(data_file(f"svamp/mawps-asdiv-a_svamp_{part}.csv.gz").read_bytes())
    rows = csv.DictReader(text.decode("utf-8").splitlines())
    return [pair(row["Question"].lower(), row["Equation"]) for row in rows]


def asdiv_a() -> list[MathProblem]:
    """The training rows whose question, without its numbers, is one of ASDiv: 1,236 rows of 882
    texts.
    """
    raw = gzip.decompress(data_file("asdiv/ASDiv.xml.gz").read_bytes())
    texts = {
        text_key(" ".join(child.text or "" for child in problem if child.tag in PARTS))
        for problem in ElementTree.fromstring(raw).iter("Problem")
    }
    return [problem for problem in equations() if text_key(problem.question) in texts]


PARTS = ("Body", "Question")


def text_key(question: str) -> str:
    """Letters alone, of any script: equal for problems that differ in numbers, blanks and signs."""
    without = re.sub(r"number\d+|\d", " ", question)
    text = unicodedata.normalize("NFC", without).lower()
    # marks belong to letters: vowels of Devanagari and Thai are among them
    return "".join(sign for sign in text if unicodedata.category(sign)[0] in "LM")


def _lines(name: str) -> list[dict[str, Any]]:
    text = gzip.decompress(data_file(name).read_bytes()).decode("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]
