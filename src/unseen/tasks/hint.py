"""Arithmetic on one-digit numbers, after HINT (Li et al., 2021, arXiv:2103.01403).

`a − b` is max(0, a − b) and `a ÷ b` is ⌈a / b⌉; × and ÷ bind stronger than + and −, equals go from
the left. Evaluation asks expressions with more operators (S: as many as in training, L: more) or
larger values (S, L), as the paper's five test parts do: I, SS, SL, LS, LL.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unseen.engine.token_pairs import Pair
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.task import Axis, Task
from unseen.tasks.token_pairs import TokenPairs

OPERATORS = ("+", "-", "*", "/")
DIGITS = tuple("0123456789")
SYMBOLS = (*DIGITS, *OPERATORS, "(", ")")
STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2}


class UndefinedValue(ArithmeticError):
    """A division by zero."""


def apply(operator: str, a: int, b: int) -> int:
    """Truncated minus, ceiling division."""
    if operator == "/":
        if b == 0:
            raise UndefinedValue
        return -(-a // b)
    return a + b if operator == "+" else max(0, a - b) if operator == "-" else a * b


@dataclass(frozen=True)
class Meaning:
    """The value of an expression and the largest value on the way."""

    value: int
    largest: int


def meaning(expression: Sequence[str]) -> Meaning:
    """Evaluates with two stacks (Dijkstra's shunting yard)."""
    values: list[int] = []
    waiting: list[str] = []
    largest = 0

    def reduce() -> None:
        nonlocal largest
        operator = waiting.pop()
        if len(values) < 2:
            refuse(expression)
        b, a = values.pop(), values.pop()
        values.append(apply(operator, a, b))
        largest = max(largest, values[-1])

    for symbol in expression:
        if symbol in DIGITS:
            values.append(int(symbol))
            largest = max(largest, values[-1])
        elif symbol == "(":
            waiting.append(symbol)
        elif symbol == ")":
            while waiting and waiting[-1] != "(":
                reduce()
            if not waiting:
                refuse(expression)
            waiting.pop()
        elif symbol in STRENGTH:
            while waiting and STRENGTH.get(waiting[-1], 0) >= STRENGTH[symbol]:
                reduce()
            waiting.append(symbol)
        else:
            refuse(expression)
    while waiting:
        if waiting[-1] == "(":
            refuse(expression)
        reduce()
    if len(values) != 1:
        refuse(expression)
    return Meaning(values[0], largest)


def refuse(expression: Sequence[str]) -> None:
    raise InvalidData(
        f"`{' '.join(expression)}` is no expression.",
        why="digits, + - * / and brackets must form one.",
        fix="repair or remove it.",
    )


def draw_expression(operators: int, rng: np.random.Generator) -> tuple[str, ...]:
    """A random tree with so many operators, written with the brackets that it needs."""
    symbols, _ = _draw(operators, rng)
    return symbols


def _draw(operators: int, rng: np.random.Generator) -> tuple[tuple[str, ...], int]:
    """Symbols, and how strongly the root binds (3: a digit)."""
    if operators == 0:
        return (DIGITS[rng.integers(10)],), 3
    on_left = int(rng.integers(operators))
    operator = OPERATORS[rng.integers(4)]
    strength = STRENGTH[operator]
    (left, a), (right, b) = _draw(on_left, rng), _draw(operators - 1 - on_left, rng)
    if a < strength:
        left = ("(", *left, ")")
    if b <= strength:
        right = ("(", *right, ")")
    return (*left, operator, *right), strength


def draw_pairs(
    n: int, operators: Sequence[int], low: int, high: int, rng: np.random.Generator
) -> list[Pair]:
    """So many different expressions with these numbers of operators and a largest value between
    `low` and `high`, shared evenly, in random order; fewer operators have fewer expressions.
    """
    found: dict[tuple[str, ...], int] = {}
    for k, size in enumerate(operators):
        wanted = len(found) + (n - len(found)) // (len(operators) - k)
        for _ in range(200 * n):
            if len(found) >= wanted:
                break
            expression = draw_expression(size, rng)
            try:
                value = meaning(expression)
            except UndefinedValue:
                continue
            if low <= value.largest <= high:
                found[expression] = value.value
    pairs = [Pair(symbols, tuple(str(value))) for symbols, value in found.items()]
    return [pairs[k] for k in rng.permutation(len(pairs))]


@dataclass(frozen=True)
class Hint:
    """Expressions of at most `operators` operators and values of at most `largest` in training.

    Evaluation: "same" (new expressions of that kind), "larger" (values up to `unseen_largest`),
    "longer" (up to `unseen_operators`), "longer and larger". The answer is written digit by digit.
    """

    operators: int = 3
    largest: int = 20
    unseen_operators: int = 6
    unseen_largest: int = 200
    n_train: int = 2_000
    n_test: int = 300

    def __post_init__(self) -> None:
        if (
            not 0 < self.operators < self.unseen_operators
            or not 9 <= self.largest < self.unseen_largest
            or min(self.n_train, self.n_test) < 1
        ):
            raise InvalidConfig(
                f"Hint(operators={self.operators}, largest={self.largest}, unseen_operators="
                f"{self.unseen_operators}, unseen_largest={self.unseen_largest}) is out of range.",
                why="evaluation asks more operators and larger values than training, whose values "
                "reach 9 at least.",
                fix="for example Hint(operators=3, largest=20).",
            )

    def pairs(self, lab: Lab) -> TokenPairs:
        few = range(self.operators + 1)
        more = range(self.operators + 1, self.unseen_operators + 1)
        small, large = (0, self.largest), (self.largest + 1, self.unseen_largest)
        train = draw_pairs(self.n_train, few, *small, lab.child("train").numpy())
        known = {one.source for one in train}
        parts = {
            "same": (range(2, self.operators + 1), small),
            "larger": (few[2:], large),
            "longer": (more, small),
            "longer and larger": (more, large),
        }
        evaluate = {}
        for name, (operators, values) in parts.items():
            drawn = draw_pairs(2 * self.n_test, operators, *values, lab.child(name).numpy())
            evaluate[name] = tuple(one for one in drawn if one.source not in known)[: self.n_test]
        return TokenPairs(
            "HINT", tuple(train), evaluate, Axis.COMPOSITION, {"train": "few", "same": "few"}
        )

    def build(self, lab: Lab) -> Task:
        return self.pairs(lab).build(lab)


def example() -> Hint:
    return Hint(n_train=200, n_test=30)
