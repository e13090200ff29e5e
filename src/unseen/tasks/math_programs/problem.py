"""Word problems with a program that computes the answer, read from three forms.

* GSM8K: the solution marks its calculations, `<<48/2=24>>`, and ends in `#### 72`. Each mark is a
  statement, a number computed earlier becomes its variable, and the last statement is the answer.
* Equations in prefix form over numbered quantities, `+ number0 * number1 number2`.
* JSON lines of one's own: `question`, `program` (or a marked solution in `answer`), `answer`,
  optionally `constants`, `id`.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from unseen.engine.programs import (
    ANSWER,
    Program,
    Statement,
    Trace,
    Value,
    execute,
    is_correct,
    read_number,
    same_value,
    shorten,
)
from unseen.errors import InvalidData
from unseen.tasks.graded_questions.reading import read_objects

MARK = re.compile(r"<<([^=<>]*)=([^<>]*)>>")
FORM = '{"question": "…", "program": "t0 = 48 / 2; answer = 48 + t0", "answer": "72"}'
OPERATORS = "+-*/"


@dataclass(frozen=True)
class MathProblem:
    """A question, a program that answers it, and the answer."""

    question: str
    program: Program
    answer: Value
    name: str = ""
    constants: Mapping[str, Value] = field(default_factory=dict, hash=False)
    """Numbers of the question that the program calls by name."""

    def __post_init__(self) -> None:
        trace = self.run(self.program)
        if not is_correct(trace, self.answer):
            found = trace.failure or (
                f"it gives {show(trace.answer)}" if trace.answer is not None else "it has no answer"
            )
            raise InvalidData(
                f"The program of problem `{shorten(self.name)}` does not compute "
                f"{show(self.answer)}: "
                f"{found}.",
                why="it stands for the correct solution.",
                fix=f"correct the program `{shorten(str(self.program))}` or the answer.",
            )

    def run(self, program: Program) -> Trace:
        return execute(program, self.constants)


def show(value: Value) -> str:
    """As a number of a text."""
    return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"


def marked_calculations(solution: str) -> list[tuple[str, str]]:
    """(expression, printed value) of every mark."""
    return [(left.replace(",", "").strip(), right) for left, right in MARK.findall(solution)]


def program_of_marks(solution: str, answer: Value) -> Program | None:
    """The marked calculations as a program; None where a mark is wrong, or the last one is not the
    answer.
    """
    marks = marked_calculations(solution)
    if not marks or any(not _holds(left, right) for left, right in marks):
        return None
    names = [f"t{k}" for k in range(len(marks) - 1)] + [ANSWER]
    lines, printed = [], dict[Value, str]()
    for name, (left, right) in zip(names, marks, strict=True):
        lines.append(Statement(name, name_values(left, printed)))
        value = read_number(right)
        if value is not None:
            printed[value] = name
    for program in (Program(tuple(lines)), _literal(names, marks)):
        if is_correct(execute(program), answer):
            return program
    return None


def _holds(expression: str, printed: str) -> bool:
    value = read_number(printed)
    answer = execute(Program((Statement(ANSWER, expression),))).answer
    return value is not None and answer is not None and same_value(answer, value)


def _literal(names: Sequence[str], marks: Sequence[tuple[str, str]]) -> Program:
    """Without variables: printed values may be rounded too coarsely to stand for what they name."""
    lines = (name_values(left, {}) for left, _ in marks)
    return Program(tuple(Statement(name, line) for name, line in zip(names, lines, strict=True)))


def name_values(expression: str, printed: Mapping[Value, str]) -> str:
    """The expression with names for the numbers that have one."""

    class Rename(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.expr:
            name = printed.get(Fraction(str(node.value)))
            return node if name is None else ast.Name(name, ast.Load())

    return ast.unparse(Rename().visit(Statement(ANSWER, expression).tree))


def program_of_prefix(equation: str) -> Program:
    """`+ number0 * number1 number2` as `t0 = number1 * number2; answer = number0 + t0`."""
    tokens = iter(equation.split())
    lines: list[Statement] = []
    try:
        value = _operand(tokens, lines)
    except StopIteration:
        value = ""
    if not value or next(tokens, None) is not None:
        raise InvalidData(
            f"`{equation}` is no equation in prefix form.",
            why="an operator stands before its two operands.",
            fix="write for example `+ number0 * number1 number2`.",
        )
    last = lines[-1].expression if lines else value
    return Program((*lines[:-1], Statement(ANSWER, last)))


def _operand(tokens: Iterator[str], lines: list[Statement]) -> str:
    """Appends the statements of the next operand; gives the name of its value."""
    token = next(tokens)
    if token not in OPERATORS:
        return token.removesuffix(".0")
    expression = f"{_operand(tokens, lines)} {token} {_operand(tokens, lines)}"
    lines.append(Statement(f"t{len(lines)}", expression))
    return lines[-1].name


def read_problems(path: Path | str) -> list[MathProblem]:
    """Problems out of JSON lines; what has no program is refused with its line."""
    problems = [problem_of(entry, where) for entry, where in read_objects(path)]
    if not problems:
        raise InvalidData(f"{path} holds no problem.", why="it is empty.", fix=f"add {FORM}")
    return problems


def problem_of(entry: Mapping[str, Any], where: str) -> MathProblem:
    lacking = [name for name in ("question", ANSWER) if not str(entry.get(name, "")).strip()]
    if lacking:
        raise InvalidData(
            f"{where} has no `{lacking[0]}`.", why="a problem has both.", fix=f"write {FORM}"
        )
    solution, _, last = str(entry[ANSWER]).rpartition("####")
    answer = read_number(last)
    if answer is None:
        raise InvalidData(
            f"{where} has the answer `{last.strip()[:40]}`.",
            why="answers are numbers.",
            fix=f"write {FORM}",
        )
    numbers = entry.get("constants") or {}
    if not isinstance(numbers, Mapping):
        raise InvalidData(
            f"{where} has `constants` that are no object.",
            why="they are numbers by name.",
            fix='write "constants": {"number0": 12.5}',
        )
    constants = {str(k): _constant(str(v), where) for k, v in numbers.items()}
    program = entry.get("program")
    found = _parse(str(program), where) if program else program_of_marks(solution, answer)
    if found is None:
        raise InvalidData(
            f"{where} has no program: {len(marked_calculations(solution))} marked calculations do "
            "not end in the answer.",
            why="the program is the target of training.",
            fix=f"leave the line out, or write {FORM}",
        )
    name = str(entry.get("id", where))
    return MathProblem(str(entry["question"]), found, answer, name, constants)


def _parse(program: str, where: str) -> Program:
    try:
        return Program.parse(program)
    except InvalidData as error:
        raise InvalidData(f"{where}: {error.what}", why=error.why, fix=error.fix) from None


def _constant(text: str, where: str) -> Value:
    value = read_number(text)
    if value is None:
        raise InvalidData(
            f"{where} has the constant `{text[:40]}`.", why="it is no number.", fix="write 12.5"
        )
    return value


__all__ = [
    "MathProblem",
    "marked_calculations",
    "problem_of",
    "program_of_marks",
    "program_of_prefix",
    "read_problems",
    "show",
]
