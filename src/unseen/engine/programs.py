"""Straight-line programs of arithmetic: read, run with a trace, and compare by what they computed.

Nothing is handed to `exec` or `eval`: the text is parsed to a syntax tree, of which assignments
and arithmetic alone are read. Numbers are exact fractions; a power is refused by the size of its
operands before it is computed, and a value that grows beyond `BITS` is not executable.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import isclose, isfinite

from unseen.errors import InvalidData

ANSWER = "answer"
BITS = 512
"""Longest numerator or denominator of a value."""
NUMBER = re.compile(r"[+-]?[\d.]{1,200}(?:/\d{1,200})?")
MOST_NODES = 400
"""Longest statement, in nodes of its syntax tree."""
TOLERANCE = 1e-4
"""How far two answers may be apart and count as one, as in the published code."""

Value = Fraction
StateKey = tuple[str, ...]
"""What was computed, sorted: names and order of independent statements do not count."""


class NotExecutable(Exception):
    """Why a program has no value: a division by zero, an unknown name, a value without end."""


@dataclass(frozen=True)
class Statement:
    """`name = expression`."""

    name: str
    expression: str

    @cached_property
    def tree(self) -> ast.expr:
        """Raises NotExecutable where the expression is no arithmetic."""
        return _arithmetic(self.expression)

    def __str__(self) -> str:
        return f"{self.name} = {self.expression}"


@dataclass(frozen=True)
class Program:
    """Statements one after the other; the value of `answer` is the answer."""

    statements: tuple[Statement, ...]

    @classmethod
    def parse(cls, text: str) -> "Program":
        """Statements divided by `;` or line ends; raises InvalidData where one is no assignment."""
        parts = [part.strip() for part in text.replace(";", "\n").splitlines() if part.strip()]
        return cls(tuple(_statement(part) for part in parts))

    def __len__(self) -> int:
        return len(self.statements)

    def __str__(self) -> str:
        return "; ".join(map(str, self.statements))

    def first(self, count: int) -> "Program":
        return Program(self.statements[:count])

    def starts_with(self, other: "Program") -> bool:
        return self.statements[: len(other)] == other.statements


@dataclass(frozen=True)
class Trace:
    """What a run computed: `values` in order, up to the first statement without a value or the
    first `answer`.
    """

    values: tuple[Value, ...]
    answer: Value | None = None
    failure: str = ""
    """Why the next statement has no value."""

    @cached_property
    def keys(self) -> tuple[StateKey, ...]:
        """The state after each statement."""
        return tuple(state_key(self.values[: k + 1]) for k in range(len(self.values)))


def state_key(values: Sequence[Value]) -> StateKey:
    return tuple(sorted(map(str, values)))


def execute(program: Program, constants: Mapping[str, Value] = {}) -> Trace:
    """Runs a program; `constants` are the numbers that its text is given by name."""
    known = dict(constants)
    values: list[Value] = []
    for statement in program.statements:
        try:
            value = evaluate(statement.tree, known)
        except NotExecutable as error:
            return Trace(tuple(values), failure=str(error))
        known[statement.name] = value
        values.append(value)
        if statement.name == ANSWER:
            return Trace(tuple(values), value)
    return Trace(tuple(values))


def is_correct(trace: Trace, answer: Value, tolerance: float = TOLERANCE) -> bool:
    """Whether the run ended in this answer."""
    return trace.answer is not None and same_value(trace.answer, answer, tolerance)


def same_value(a: Value, b: Value, tolerance: float = TOLERANCE) -> bool:
    """Equal up to `tolerance`, absolute, or one part in 10⁹."""
    return abs(a - b) <= tolerance or isclose(a, b, rel_tol=1e-9)


def read_number(text: str) -> Value | None:
    """`1,200`, `.5`, `3/4`, `12.50`; None where it is no number."""
    try:
        plain = text.replace(",", "").strip()
        # an exponent would be computed before its size is known
        return None if not NUMBER.fullmatch(plain) else limit_size(Fraction(plain))
    except (ValueError, ZeroDivisionError, NotExecutable):
        return None


def evaluate(tree: ast.expr, known: Mapping[str, Value]) -> Value:
    """The value of an expression; raises NotExecutable where there is none."""
    match tree:
        case ast.Constant(value=int() | float() as number):
            return limit_size(_literal(number))
        case ast.Name():
            if tree.id not in known:
                raise NotExecutable(f"`{shorten(tree.id)}` has no value")
            return known[tree.id]
        case ast.UnaryOp():
            value = evaluate(tree.operand, known)
            return -value if isinstance(tree.op, ast.USub) else value
        case ast.BinOp():
            left, right = evaluate(tree.left, known), evaluate(tree.right, known)
            return limit_size(_OPERATIONS[type(tree.op)](left, right))
    raise NotExecutable(f"`{ast.unparse(tree)}` is no arithmetic")


def _literal(number: int | float) -> Value:
    if isinstance(number, int):
        return Fraction(number)
    if not isfinite(number):
        raise NotExecutable("a number is too large")
    return Fraction(str(number))  # 0.1 is a tenth


def limit_size(value: Value) -> Value:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
        raise NotExecutable(f"a value has more than {BITS} bits")
    return value


def _divide(a: Value, b: Value) -> Value:
    if not b:
        raise NotExecutable("a division by zero")
    return a / b


def _divide_whole(a: Value, b: Value) -> Value:
    if not b:
        raise NotExecutable("a division by zero")
    return Fraction(a // b)


def _power(a: Value, b: Value) -> Value:
    """Roots are rounded to floats, as in Python."""
    if b.denominator > 1:
        return _root(a, b)
    if not a and b < 0:
        raise NotExecutable("a division by zero")
    if max(a.numerator.bit_length(), a.denominator.bit_length()) * abs(b) > BITS:
        raise NotExecutable(f"a power has more than {BITS} bits")
    return Fraction(a ** int(b))


def _root(a: Value, b: Value) -> Value:
    if a <= 0 or max(abs(b), a, 1 / a) > 1e6:
        raise NotExecutable("a power is no real number, or too large")
    try:
        return Fraction(float(a) ** float(b))
    except OverflowError as error:
        raise NotExecutable("a power is too large") from error


_OPERATIONS: Mapping[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divide,
    ast.FloorDiv: _divide_whole,
    ast.Pow: _power,
}
_NODES = (ast.BinOp, ast.UnaryOp, ast.Constant, ast.Name, ast.operator, ast.unaryop, ast.Load)


def _arithmetic(expression: str) -> ast.expr:
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        nodes = list(ast.walk(tree))
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise NotExecutable(f"`{shorten(expression)}` is no expression") from error
    if len(nodes) > MOST_NODES:
        raise NotExecutable(f"`{shorten(expression)}` has more than {MOST_NODES} parts")
    for node in nodes:
        if not _is_arithmetic(node):
            raise NotExecutable(f"`{shorten(expression)}` is no arithmetic")
    return tree


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and not isinstance(node.value, bool)
    if isinstance(node, ast.operator):
        return type(node) in _OPERATIONS
    if isinstance(node, ast.unaryop):
        return isinstance(node, ast.USub | ast.UAdd)
    return isinstance(node, _NODES)


def _statement(text: str) -> Statement:
    name, sign, expression = text.partition("=")
    if not sign or not name.strip().isidentifier() or not expression.strip():
        raise InvalidData(
            f"`{shorten(text)}` is no statement.",
            why="a program is a line of assignments `name = expression`.",
            fix="write for example: t0 = 48 / 2; answer = 48 + t0",
        )
    return Statement(name.strip(), expression.strip())


def shorten(text: str, most: int = 60) -> str:
    """The beginning of a text, for a message."""
    return text if len(text) <= most else text[: most - 1] + "…"
