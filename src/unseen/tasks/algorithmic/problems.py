"""Problems for sequences from scratch: a rule, drawn at any length, written as tokens.

A sequence is `<name> source <to> answer <end>`; every problem starts with a token of its own, so
that a model trained on several knows which one is asked. Formats are those of Zhou et al. (2023,
arXiv:2310.16028) for counting, mode, copying, addition and parity, and of task hinting (Awasthi and
Gupta, 2023, arXiv:2310.00726) for sorting and its hints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.engine.token_pairs import END, PAD, SPECIAL, TO
from unseen.errors import InvalidConfig, UnknownName

NAMES = (
    "count", "mode", "sort", "successor", "occurrences", "minimum", "fill",
    "copy", "addition", "parity", "increment", "carry",
)  # fmt: skip
PLUS, MINUS, BLANK = (len(SPECIAL) + len(NAMES) + k for k in range(3))
FIRST = BLANK + 1
"""The token of value 0; value v is token FIRST + v."""


@runtime_checkable
class Problem(Protocol):
    """A frozen dataclass that draws examples of any length up to `longest`."""

    name: ClassVar[str]

    @property
    def symbols(self) -> int:
        """Values that have a token."""

    @property
    def longest(self) -> int:
        """The largest length for which there are enough values."""

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        """So many examples of length n."""

    def chance(self, n: int) -> float:
        """Exact match of an answer drawn from those of the same form, at length n."""


def start_token(name: str) -> int:
    """The token with which sequences of a problem begin."""
    return len(SPECIAL) + NAMES.index(name)


def sequences(
    problem: Problem,
    n: int,
    source: Int[Tensor, "b s"],
    answer: Int[Tensor, "b t"],
    shown: Int[Tensor, "b g"] | None = None,
    stop: bool = True,
) -> Columns:
    """Columns `tokens`, `mask` (the answer, its end included) and `length` (n).

    `shown` stands between <to> and the answer and is not asked. Short answers are filled up with
    <pad>. Without `stop` the end is not asked either.
    """
    size = len(source)
    head = source.new_tensor([[start_token(problem.name)]]).expand(size, 1)
    to = source.new_tensor([[TO]]).expand(size, 1)
    prompt = torch.cat([head, source, to, *([] if shown is None else [shown])], 1)
    ends = answer.new_full((size, 1), PAD)
    tail = torch.cat([answer, ends], 1) if stop else answer
    lengths = (answer != PAD).sum(1)
    asked: Bool[Tensor, "b t1"] = torch.arange(tail.shape[1]) < (lengths + stop)[:, None]
    if stop:
        tail = tail.scatter(1, lengths[:, None], END)
    tokens = torch.cat([prompt, tail], 1)
    mask = torch.cat([torch.zeros_like(prompt, dtype=torch.bool), asked], 1)
    return Columns(tokens=tokens, mask=mask, length=torch.full((size,), n))


def integers(
    high: int | Int[Tensor, " b"], shape: Sequence[int], generator: torch.Generator
) -> Int[Tensor, "..."]:
    """Uniform in 0 … high − 1; `high` may differ by row."""
    if isinstance(high, int):
        return torch.randint(high, tuple(shape), generator=generator)
    u = torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
    return (u * high[:, None]).long()


def distinct(values: int, n: int, size: int, generator: torch.Generator) -> Int[Tensor, "b n"]:
    """n different values of 0 … values − 1 in random order."""
    return torch.rand(size, values, generator=generator).argsort(1)[:, :n]


def draw_values(
    problem: "Sort | Successor | Occurrences | Minimum | Fill",
    n: int,
    size: int,
    generator: torch.Generator,
) -> Int[Tensor, "b n"]:
    """The unsorted sequence of sorting and its hints: different values, or with repetitions."""
    if problem.repeat:
        return integers(problem.values, (size, n), generator)
    return distinct(problem.values, n, size, generator)


@dataclass(frozen=True)
class Count:
    """`a b > a a+1 … b`, n numbers long."""

    name: ClassVar[str] = "count"
    values: int = 100

    @property
    def symbols(self) -> int:
        return self.values

    @property
    def longest(self) -> int:
        return self.values

    def chance(self, n: int) -> float:
        return 0.0

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        first = integers(self.values - n + 1, (size, 1), generator)
        answer = first + torch.arange(n)
        return sequences(self, n, FIRST + answer[:, [0, -1]], FIRST + answer)


@dataclass(frozen=True)
class Mode:
    """`tokens > the most frequent one`; there is exactly one."""

    name: ClassVar[str] = "mode"
    values: int = 50
    kinds: int = 5
    """Different values from which the tokens of an example are drawn."""

    @property
    def symbols(self) -> int:
        return self.values

    @property
    def longest(self) -> int:
        return 10_000

    def chance(self, n: int) -> float:
        return 1 / min(n, self.kinds)

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        kind = integers(self.kinds, (size, n), generator)
        while True:
            counts = torch.nn.functional.one_hot(kind, self.kinds).sum(1)
            most = counts.max(1).values[:, None]
            tie = (counts == most).sum(1) > 1
            if not tie.any():
                break
            kind[tie] = integers(self.kinds, (int(tie.sum()), n), generator)
        names = distinct(self.values, self.kinds, size, generator)
        source, answer = names.gather(1, kind), names.gather(1, counts.argmax(1, keepdim=True))
        return sequences(self, n, FIRST + source, FIRST + answer)


@dataclass(frozen=True)
class ListOfValues:
    """Fields of the problems on a sequence of values."""

    values: int = 100
    repeat: bool = False
    """Whether values are drawn with replacement."""

    @property
    def symbols(self) -> int:
        return self.values

    @property
    def longest(self) -> int:
        return 10_000 if self.repeat else self.values


@dataclass(frozen=True)
class Sort(ListOfValues):
    """`x_1 … x_n > the same, ascending`."""

    name: ClassVar[str] = "sort"

    def chance(self, n: int) -> float:
        return 0.0

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        x = draw_values(self, n, size, generator)
        return sequences(self, n, FIRST + x, FIRST + x.sort(1).values)


@dataclass(frozen=True)
class Successor(ListOfValues):
    """`x_1 … x_n > a` asks for the smallest x above a, or the end where a is the largest."""

    name: ClassVar[str] = "successor"

    def chance(self, n: int) -> float:
        return 1 / n

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        x = draw_values(self, n, size, generator)
        a = x.gather(1, integers(n, (size, 1), generator))
        above = torch.where(x > a, x, self.values)
        b = above.min(1, keepdim=True).values
        answer = torch.where(b == self.values, END, FIRST + b)
        return sequences(self, n, FIRST + x, answer, shown=FIRST + a, stop=False)


@dataclass(frozen=True)
class Occurrences(ListOfValues):
    """`x_1 … x_n > a` asks how often a occurs."""

    name: ClassVar[str] = "occurrences"

    @property
    def longest(self) -> int:
        return self.values - 1  # the count needs a token

    def chance(self, n: int) -> float:
        return 1 / n if self.repeat else 1.0

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        x = draw_values(self, n, size, generator)
        a = x.gather(1, integers(n, (size, 1), generator))
        answer = (x == a).sum(1, keepdim=True)
        return sequences(self, n, FIRST + x, FIRST + answer, shown=FIRST + a, stop=False)


@dataclass(frozen=True)
class Minimum(ListOfValues):
    """`x_1 … x_n > the smallest`."""

    name: ClassVar[str] = "minimum"

    def chance(self, n: int) -> float:
        return 1 / n

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        x = draw_values(self, n, size, generator)
        answer = x.min(1, keepdim=True).values
        return sequences(self, n, FIRST + x, FIRST + answer, stop=False)


@dataclass(frozen=True)
class Fill(ListOfValues):
    """`x_1 … x_n > the sorted sequence with one blank` asks for what stands there."""

    name: ClassVar[str] = "fill"

    def chance(self, n: int) -> float:
        return 1 / n

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        x = draw_values(self, n, size, generator)
        y = FIRST + x.sort(1).values
        at = integers(n, (size, 1), generator)
        return sequences(
            self, n, FIRST + x, y.gather(1, at), shown=y.scatter(1, at, BLANK), stop=False
        )


@dataclass(frozen=True)
class Copy(ListOfValues):
    """`x_1 … x_n > the same`: different values, or with repetitions from a small alphabet: with
    `repeat`, `values` is best small, as 2.
    """

    name: ClassVar[str] = "copy"

    def chance(self, n: int) -> float:
        return self.values**-n if self.repeat else 0.0

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        if self.repeat:
            x = integers(self.values, (size, n), generator)
        else:
            x = distinct(self.values, n, size, generator)
        return sequences(self, n, FIRST + x, FIRST + x)


def hint_tokens(
    hints: int, width: int, size: int, base: int, generator: torch.Generator
) -> Int[Tensor, "b w"]:
    """`width` successive ones of `hints` ordered tokens, from a random one on."""
    start = integers(hints - width + 1, (size, 1), generator)
    return FIRST + base + start + torch.arange(width)


def interleave(hints: Int[Tensor, "b w"], values: Int[Tensor, "b w"]) -> Int[Tensor, "b w2"]:
    """`h_1 v_1 h_2 v_2 …`."""
    return torch.stack([hints, values], 2).flatten(1)


@dataclass(frozen=True)
class Addition:
    """`x + y > sum`, numbers of n digits behind one leading 0.

    With `hints` every digit follows a token that says which digit it is: successive ones of so many
    ordered tokens from a random one on, the same in x, y and the sum. `reverse` writes the sum with
    the least significant digit first.
    """

    name: ClassVar[str] = "addition"
    hints: int = 0
    reverse: bool = False

    @property
    def symbols(self) -> int:
        return 10 + self.hints

    @property
    def longest(self) -> int:
        return self.hints - 1 if self.hints else 10_000

    def chance(self, n: int) -> float:
        return 0.0

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        x, y = (digits_behind_zero(n, size, generator) for _ in range(2))
        total = add_digits(x, y)
        parts = [FIRST + x, FIRST + y, FIRST + total]
        if self.hints:
            hint = hint_tokens(self.hints, n + 1, size, 10, generator)
            parts = [interleave(hint, part) for part in parts]
        answer = parts[2]
        if self.reverse:
            width = 2 if self.hints else 1  # a hint stays before its digit
            answer = answer.unflatten(1, (-1, width)).flip(1).flatten(1)
        plus = torch.full((size, 1), PLUS)
        return sequences(self, n, torch.cat([parts[0], plus, parts[1]], 1), answer)


def digits_behind_zero(n: int, size: int, generator: torch.Generator) -> Int[Tensor, "b n1"]:
    """n uniform digits behind one 0."""
    return torch.cat(
        [torch.zeros(size, 1, dtype=torch.long), integers(10, (size, n), generator)], 1
    )


def add_digits(x: Int[Tensor, "b n"], y: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """The digits of the sum, the most significant first; a carry out of the first is dropped."""
    total, carry = torch.empty_like(x), x.new_zeros(len(x))
    for k in reversed(range(x.shape[1])):
        at = x[:, k] + y[:, k] + carry
        total[:, k], carry = at % 10, at // 10
    return total


@dataclass(frozen=True)
class Parity:
    """`bits > their number of ones mod 2`.

    With `hints`, a scratchpad: every bit follows a token that says which bit it is, and the answer
    lists those of the ones, each behind the sign of the running parity (+ odd, − even), and ends
    with the parity.
    """

    name: ClassVar[str] = "parity"
    hints: int = 0

    @property
    def symbols(self) -> int:
        return 2 + self.hints

    @property
    def longest(self) -> int:
        return self.hints or 10_000

    def chance(self, n: int) -> float:
        # the scratchpad has to name the ones: 2^n answers
        return 2.0**-n if self.hints else 0.5

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        bits = integers(2, (size, n), generator)
        parity = FIRST + bits.sum(1, keepdim=True) % 2
        if not self.hints:
            return sequences(self, n, FIRST + bits, parity)
        hint = hint_tokens(self.hints, n, size, 2, generator)
        sign = torch.where(bits.cumsum(1) % 2 == 1, PLUS, MINUS)
        # ones first, in their order; what is behind them is cut off
        order = (1 - bits).sort(dim=1, stable=True).indices
        listed = interleave(sign.gather(1, order), hint.gather(1, order))
        ones = bits.sum(1, keepdim=True)
        behind = torch.arange(2 * n) >= 2 * ones
        answer = torch.cat([listed.masked_fill(behind, PAD), torch.full((size, 1), PAD)], 1)
        answer = answer.scatter(1, 2 * ones, parity)
        return sequences(self, n, interleave(hint, FIRST + bits), answer)


def ending_in_nines(
    n: int, size: int, generator: torch.Generator
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b 1"]]:
    """Numbers of n digits with k < n nines at the end, k uniform, and k."""
    nines = integers(n, (size, 1), generator)
    digits = integers(10, (size, n), generator)
    turning = integers(9, (size, n), generator)  # the digit before the nines is none itself
    behind = torch.arange(n) - (n - 1 - nines)
    digits = torch.where(behind > 0, 9, torch.where(behind == 0, turning, digits))
    return digits, nines


@dataclass(frozen=True)
class Increment:
    """`d_1 … d_n > the number plus one`; every number of nines at its end is equally likely."""

    name: ClassVar[str] = "increment"
    values: int = 100
    """Numbers with tokens: digits, and lengths of carries for the hint."""

    @property
    def symbols(self) -> int:
        return max(10, self.values)

    @property
    def longest(self) -> int:
        return self.symbols

    def chance(self, n: int) -> float:
        return 0.0

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        digits, _ = ending_in_nines(n, size, generator)
        one = torch.zeros_like(digits)
        one[:, -1] = 1
        return sequences(self, n, FIRST + digits, FIRST + add_digits(digits, one))


@dataclass(frozen=True)
class Carry:
    """`d_1 … d_n > how many nines are at the end`: the hint of `Increment`."""

    name: ClassVar[str] = "carry"
    values: int = 100

    @property
    def symbols(self) -> int:
        return max(10, self.values)

    @property
    def longest(self) -> int:
        return self.symbols

    def chance(self, n: int) -> float:
        return 1 / n

    def draw(self, n: int, size: int, generator: torch.Generator) -> Columns:
        digits, nines = ending_in_nines(n, size, generator)
        return sequences(self, n, FIRST + digits, FIRST + nines, stop=False)


PROBLEMS: dict[str, type[Problem]] = {
    kind.name: kind
    for kind in (
        Count, Mode, Sort, Successor, Occurrences, Minimum, Fill, Copy, Addition, Parity,
        Increment, Carry,
    )
}  # fmt: skip


def problem(name: str) -> Problem:
    """The problem of that name with its default settings."""
    if name not in PROBLEMS:
        raise UnknownName.near("problem", name, PROBLEMS)
    return PROBLEMS[name]()


def refuse_length(problem: Problem, n: int) -> None:
    """Raises where the problem has no examples of length n."""
    if not 1 <= n <= problem.longest:
        raise InvalidConfig(
            f"`{problem.name}` at length {n}.",
            why=f"{problem} has lengths 1 to {problem.longest}.",
            fix="choose one of them, or raise the number of values or hints.",
        )
