"""Programs over lists or whole numbers, and their induction from inputs and outputs.

Induction enumerates expressions from the smallest on and keeps one of each behaviour on the
examples (observational equivalence, Albarghouthi et al., 2013; Udupa et al., 2013). Numbers have
primitive recursion: `iterate` repeats a step, `count` says how many steps lead to zero.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

Value: TypeAlias = tuple[str, ...] | int
"""A list of tokens, or a whole number. The empty list is also what a symbol without a meaning is
worth.
"""
EMPTY: tuple[str, ...] = ()
LONGEST, LARGEST = 1_000, 1_000_000
"""Longer lists and larger numbers are missing values: chains of `repeat` would grow for ever."""


class Expression(NamedTuple):
    """An operation and what it is applied to; `literal` holds a constant."""

    operation: str
    arguments: tuple["Expression", ...] = ()
    literal: Value = EMPTY

    @property
    def size(self) -> int:
        return 1 + sum(argument.size for argument in self.arguments)


Inputs: TypeAlias = tuple[Value, ...]
Function: TypeAlias = Callable[[Inputs], Value | None]
"""Inputs to a value; None: missing."""

LISTS: Mapping[str, Callable[[tuple[str, ...]], tuple[str, ...]]] = MappingProxyType(
    {
        "first": lambda x: x[:1],
        "last": lambda x: x[-1:],
        "tail": lambda x: x[1:],
        "init": lambda x: x[:-1],
        "reverse": lambda x: x[::-1],
    }
)
NUMBERS: Mapping[str, Callable[[int], int]] = MappingProxyType(
    {"inc": lambda x: x + 1, "dec": lambda x: max(0, x - 1)}
)
VARIABLES = ("x", "y", "z")
STEP = "a"
"""The value that a step of a recursion starts from."""


@dataclass(frozen=True)
class Program:
    """An expression of as many variables as its symbol has children."""

    body: Expression
    arity: int
    library: Mapping[str, Function] = field(default_factory=dict, compare=False)
    """Functions of symbols that were solved before, by symbol."""

    def __call__(self, inputs: Inputs) -> Value | None:
        if len(inputs) != self.arity:
            return None
        names: dict[str, Value] = dict(zip(VARIABLES, inputs, strict=False))
        return evaluate(self.body, names, self.library)

    def __str__(self) -> str:
        return text(self.body)


def evaluate(
    body: Expression, names: Mapping[str, Value], library: Mapping[str, Function]
) -> Value | None:
    """The value of an expression; None where it is missing: a list too long, a number too large, an
    operation on the wrong kind of value, a recursion without an end.
    """
    operation = body.operation
    if operation == "literal":
        return body.literal
    if operation in names:
        return names[operation]
    if operation in ("iterate", "count"):
        return _recur(body, names, library)
    values = [evaluate(argument, names, library) for argument in body.arguments]
    if any(value is None for value in values):
        return None
    return apply(operation, [value for value in values if value is not None], library)


def apply(operation: str, values: Sequence[Value], library: Mapping[str, Function]) -> Value | None:
    """One operation on values."""
    first = values[0] if values else None
    if operation == "concat":
        if not all(isinstance(value, tuple) for value in values):
            return None
        joint = tuple(token for value in values for token in value)  # type: ignore[union-attr]
        return joint if len(joint) <= LONGEST else None
    if operation in LISTS:
        return LISTS[operation](first) if isinstance(first, tuple) else None
    if operation in NUMBERS:
        return NUMBERS[operation](first) if isinstance(first, int) else None
    if operation in library:
        return library[operation](tuple(values))
    return None


def _recur(
    body: Expression, names: Mapping[str, Value], library: Mapping[str, Function]
) -> Value | None:
    """`iterate(step, start, times)`: the step so often; `count(step, start)`: how often until 0."""
    step, *rest = body.arguments
    bounds = [evaluate(argument, names, library) for argument in rest]
    if not all(isinstance(bound, int) for bound in bounds):
        return None
    value = bounds[0]
    if body.operation == "iterate":
        times = int(bounds[1])  # type: ignore[arg-type]
        if step.operation in NUMBERS and step.arguments[0].operation == STEP:
            # steps of one at once: every other function counts by them
            steps = times if step.operation == "inc" else -times
            return min(max(0, int(value) + steps), LARGEST)  # type: ignore[arg-type]
        if times > LONGEST:
            return None
        for _ in range(times):
            value = evaluate(step, {**names, STEP: value}, library)  # type: ignore[dict-item]
            if not isinstance(value, int) or value > LARGEST:
                return None
        return value
    steps = 0
    while value:
        after = evaluate(step, {**names, STEP: value}, library)
        # a step that does not come closer never ends
        if not isinstance(after, int) or not isinstance(value, int) or after >= value:
            return None
        value, steps = after, steps + 1
    return steps


def text(body: Expression) -> str:
    """The expression as a person would write it."""
    parts = [text(argument) for argument in body.arguments]
    joint = body.operation in ("concat",) or not (body.operation.isidentifier() or not parts)
    inner = [
        f"({part})" if joint and not argument.operation.isidentifier() else part
        for part, argument in zip(parts, body.arguments, strict=True)
    ]
    slices = {"first": "[:1]", "last": "[-1:]", "tail": "[1:]", "init": "[:-1]"}
    if body.operation == "literal":
        if isinstance(body.literal, int):
            return str(body.literal)
        return f"[{' '.join(body.literal)}]"
    if body.operation == "concat":
        return " + ".join(parts)
    if body.operation in slices:
        return (
            f"{parts[0]}{slices[body.operation]}"
            if not body.arguments[0].arguments
            else (f"({parts[0]}){slices[body.operation]}")
        )
    if body.operation == "iterate":
        return f"start from {parts[1]} and do {STEP} → {parts[0]} {parts[2]} times"
    if body.operation == "count":
        return f"how often {STEP} → {parts[0]} leads from {parts[1]} to 0"
    if body.operation in ("inc", "dec"):
        return f"{parts[0]} {'+' if body.operation == 'inc' else '-'} 1"
    if parts and not body.operation.isidentifier() and len(parts) == 2:
        return f"{inner[0]} {body.operation} {inner[1]}"
    return f"{body.operation}({', '.join(parts)})" if parts else body.operation


@dataclass(frozen=True)
class Example:
    """One input, its output, and how much it counts."""

    inputs: Inputs
    output: Value
    weight: float = 1.0


def match_share(function: Function, examples: Sequence[Example]) -> float:
    """The weighted share of examples that the function answers."""
    total = math.fsum(example.weight for example in examples)
    hits = math.fsum(e.weight for e in examples if function(e.inputs) == e.output)
    return hits / total if total else 0.0


@dataclass(frozen=True)
class ProgramInducer:
    """The smallest program that answers enough of the examples, by bottom-up search."""

    largest: int = 9
    """Nodes of an expression on lists."""
    largest_number: int = 6
    """Nodes of an expression on numbers: enough for a recursion whose step has three."""
    most: int = 10_000
    """Expressions tried at most; the longest of the papers' programs is found after 4,000."""
    tried: int = 16
    """Examples, the first ones, by which behaviours are told apart; the others only confirm."""
    enough: float = 0.95
    """Share of the examples with which the search ends."""
    least: float = 0.6
    """Share with which the best program found is returned where none answers enough: examples from
    wrong trees come first, and right trees only with a program.
    """

    def __call__(
        self,
        examples: Sequence[Example],
        arity: int,
        library: Mapping[str, Function] = MappingProxyType({}),
    ) -> Program | None:
        """None where nothing fits; outputs of the rarer kind (list or number) count as misses."""
        if not examples:
            return None
        if arity == 0:
            best = max(examples, key=lambda e: e.weight)
            return Program(Expression("literal", literal=best.output), 0)
        weights = Counter[bool]()
        for example in examples:
            weights[isinstance(example.output, tuple)] += example.weight  # type: ignore[assignment]
        lists = weights.most_common(1)[0][0]
        alike = [e for e in examples if isinstance(e.output, tuple) == lists]
        search = _Search(self, alike[: self.tried], arity, library, lists)
        for body in search.bodies():
            program = Program(body, arity, library)
            if match_share(program, examples) >= self.enough:
                return program
        if search.best is None:
            return None
        program = Program(search.best, arity, library)
        return program if match_share(program, examples) >= self.least else None


class _Search:
    """Expressions by size, one of each behaviour."""

    def __init__(
        self,
        inducer: ProgramInducer,
        examples: Sequence[Example],
        arity: int,
        library: Mapping[str, Function],
        lists: bool,
    ) -> None:
        self.inducer, self.examples, self.library, self.lists = inducer, examples, library, lists
        self.variables = VARIABLES[:arity]
        self.outputs = [example.output for example in examples]
        self.room = [self._limit(example) for example in examples]
        self.found: dict[tuple[Value | None, ...], Expression] = {}
        self.values: dict[Expression, tuple[Value | None, ...]] = {}
        self.by_size: dict[int, list[Expression]] = {}
        self.best: Expression | None = None
        self.most_hits = 0

    def _limit(self, example: Example) -> int:
        """Lists longer than every input and the output cannot be part of the answer."""
        sizes = [len(v) for v in (*example.inputs, example.output) if isinstance(v, tuple)]
        return max(sizes, default=0)

    def bodies(self) -> Iterator[Expression]:
        """Expressions that answer enough of the examples tried, smallest first."""
        trials = 0
        largest = self.inducer.largest if self.lists else self.inducer.largest_number
        for size in range(1, largest + 1):
            self.by_size[size] = []
            for body, values in self._of_size(size):
                trials += 1
                if trials > self.inducer.most:
                    return
                if not self._keeps(values):
                    continue
                self.found[values] = self.values[body] = values  # type: ignore[assignment]
                self.by_size[size].append(body)
                hits = sum(map(_equal, values, self.outputs))
                if hits > self.most_hits:
                    self.best, self.most_hits = body, hits
                if hits >= self.inducer.enough * len(values):
                    yield body

    def _keeps(self, values: tuple[Value | None, ...]) -> bool:
        """A new behaviour that is missing on few examples and not too long on most."""
        if values in self.found or values.count(None) > 0.2 * len(values):
            return False
        if not self.lists:
            return True
        long = sum(
            isinstance(v, tuple) and len(v) > room
            for v, room in zip(values, self.room, strict=True)
        )
        return long <= 0.2 * len(values)

    def _of_size(self, size: int) -> Iterator[tuple[Expression, tuple[Value | None, ...]]]:
        if size == 1:
            for body in self._leaves():
                yield body, self._run(body)
        for operation in LISTS if self.lists else NUMBERS:
            for argument in self.by_size.get(size - 1, ()):
                yield self._join(operation, (argument,))
        binary = ["concat"] if self.lists else list(self.library)
        for operation in binary:
            for left in range(1, size - 1):
                for first in self.by_size.get(left, ()):
                    for second in self.by_size.get(size - 1 - left, ()):
                        yield self._join(operation, (first, second))
        if not self.lists:
            yield from self._recursions(size)

    def _leaves(self) -> Iterator[Expression]:
        for name in self.variables:
            yield Expression(name)
        if not self.lists:
            yield Expression("literal", literal=0)
            return
        yield Expression("literal", literal=EMPTY)
        outputs = [set(o) for o in self.outputs if isinstance(o, tuple)]
        for token in sorted({token for output in outputs for token in output}):
            # a constant of the program is in every output, but for wrong ones
            if sum(token in output for output in outputs) >= 0.8 * len(outputs):
                yield Expression("literal", literal=(token,))

    def _join(
        self, operation: str, arguments: tuple[Expression, ...]
    ) -> tuple[Expression, tuple[Value | None, ...]]:
        columns = [self.values[argument] for argument in arguments]
        values = tuple(
            None if None in row else apply(operation, row, self.library)
            for row in zip(*columns, strict=True)
        )
        return Expression(operation, arguments), values

    def _recursions(self, size: int) -> Iterator[tuple[Expression, tuple[Value | None, ...]]]:
        simple = self.by_size.get(1, ())
        for step in self._steps(size):
            for start in simple:
                counted = Expression("count", (step, start))
                if counted.size == size:
                    yield counted, self._run(counted)
                for times in simple:
                    repeated = Expression("iterate", (step, start, times))
                    if repeated.size == size:
                        yield repeated, self._run(repeated)

    def _steps(self, size: int) -> Iterator[Expression]:
        """One operation on the value that a step starts from."""
        a = Expression(STEP)
        for operation in NUMBERS:
            yield Expression(operation, (a,))
        for operation in self.library:
            for name in self.variables:
                yield Expression(operation, (a, Expression(name)))

    def _run(self, body: Expression) -> tuple[Value | None, ...]:
        return tuple(
            evaluate(body, dict(zip(VARIABLES, example.inputs, strict=False)), self.library)
            for example in self.examples
        )


def _equal(a: Value | None, b: Value | None) -> bool:
    return type(a) is type(b) and a == b
