"""RASP-L: programs that a causal transformer can run (Zhou et al., 2023, arXiv:2310.16028).

A program maps the integers read so far to the next one, at every position: every operation looks at
positions up to its own only. Operations are element-wise, or select positions by comparing keys
with queries and aggregate the values there. All take arrays [… position] and treat leading axes as
batches. `program_length` counts the operations that a program calls.

In the authors' package `argmax`, `argmin` and `mode` raise `TypeError`; here they work.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from unseen.errors import InvalidData

Ints = NDArray[np.int64]
"""[… position]."""
Selection = NDArray[np.bool_]
"""[… query key]: which earlier positions each position looks at."""
Predicate = Callable[[Ints, Ints], Selection]
"""Compares keys with queries, element by element."""
Program = Callable[[Ints], Ints]

START, SEPARATOR, STOP = -1, -2, -3
"""Tokens of the programs below."""
BELOW = -1_000
"""Smaller than every token."""
NOWHERE = -1_000_000
"""No position and no token."""


class Reduction(StrEnum):
    """How selected values become one."""

    MEAN = "mean"
    """Cut towards zero to an integer."""
    MIN = "min"
    MAX = "max"


def equals(key: Ints, query: Ints) -> Selection:
    return key == query


def larger(key: Ints, query: Ints) -> Selection:
    return key > query


def always(key: Ints, query: Ints) -> Selection:
    return np.broadcast_to(True, np.broadcast_shapes(key.shape, query.shape))


# operations of a transformer ------------------------------------------------------------------


def indices(x: Ints) -> Ints:
    """0, 1, 2, …"""
    return np.broadcast_to(np.arange(x.shape[-1]), x.shape).copy()


def full(x: Ints, value: int) -> Ints:
    return np.full_like(x, value)


def select(keys: Ints, queries: Ints, predicate: Predicate) -> Selection:
    """A[i, j] = predicate(key_j, query_i) for j ≤ i, else false."""
    if keys.shape != queries.shape or not keys.shape[-1:]:
        raise InvalidData(
            f"Keys of shape {keys.shape} and queries of shape {queries.shape}.",
            why="every position has one key and one query.",
            fix="give both for the same tokens.",
        )
    order = np.arange(keys.shape[-1])
    return predicate(keys[..., None, :], queries[..., :, None]) & (order[None] <= order[:, None])


def sel_width(selection: Selection) -> Ints:
    """How many positions are selected."""
    return selection.sum(-1, dtype=np.int64)


def aggr(
    selection: Selection, values: Ints, reduction: Reduction = Reduction.MEAN, default: int = 0
) -> Ints:
    """The selected values as one; `default` where none is."""
    spread = np.broadcast_to(values[..., None, :], selection.shape)
    n = sel_width(selection)
    if reduction is Reduction.MEAN:
        total = np.where(selection, spread, 0).sum(-1)
        mean = np.trunc(total / np.maximum(n, 1)).astype(np.int64)
        return np.where(n > 0, mean, default)
    if reduction is Reduction.MAX:
        found = np.where(selection, spread, np.iinfo(np.int64).min).max(-1)
    else:
        found = np.where(selection, spread, np.iinfo(np.int64).max).min(-1)
    return np.where(n > 0, found, default)


def kqv(
    keys: Ints,
    queries: Ints,
    values: Ints,
    predicate: Predicate,
    reduction: Reduction = Reduction.MEAN,
    default: int = 0,
) -> Ints:
    """`aggr` of `select`: one attention head."""
    return aggr(select(keys, queries, predicate), values, reduction, default)


# the library ----------------------------------------------------------------------------------


def shift_right(x: Ints, n: int, default: int = 0) -> Ints:
    """x n positions earlier."""
    return kqv(indices(x) + n, indices(x), x, equals, default=default)


def cumsum(x: Ints | Selection) -> Ints:
    """How many are true up to here."""
    bits = (x != 0).astype(np.int64)
    return num_prev(bits, full(bits, 1))


def where(condition: Ints | Selection, x: Ints, otherwise: Ints) -> Ints:
    return np.where(condition, x, otherwise)


def mask(x: Ints, condition: Ints | Selection, value: int = 0) -> Ints:
    """x where the condition holds, else the value."""
    return where(condition, x, full(x, value))


def maximum(x: Ints) -> Ints:
    """The largest up to here."""
    return kqv(x, x, x, always, Reduction.MAX)


def minimum(x: Ints) -> Ints:
    return kqv(x, x, x, always, Reduction.MIN)


def argmax(x: Ints) -> Ints:
    """The last position of the largest up to here."""
    return kqv(x, maximum(x), indices(x), equals, Reduction.MAX)


def argmin(x: Ints) -> Ints:
    return argmax(-x)


def num_prev(x: Ints, queries: Ints) -> Ints:
    """How often each query occurs up to here."""
    return sel_width(select(x, queries, equals))


def has_seen(x: Ints, queries: Ints) -> Ints:
    """1 where the query occurs up to here."""
    return kqv(x, queries, full(x, 1), equals, default=0)


def firsts(x: Ints, queries: Ints, default: int = -1) -> Ints:
    """The first position of each query up to here."""
    return kqv(x, queries, indices(x), equals, Reduction.MIN, default)


def lasts(x: Ints, queries: Ints, default: int = -1) -> Ints:
    """The last position of each query up to here."""
    return kqv(x, queries, indices(x), equals, Reduction.MAX, default)


def index_select(x: Ints, index: Ints, default: int = 0) -> Ints:
    """x at these positions, which must not lie ahead."""
    return kqv(indices(x), index, x, equals, default=default)


def induct(keys: Ints, queries: Ints, offset: int = 1, default: int = 0) -> Ints:
    """What stands `offset` behind the first occurrence of each query."""
    at = firsts(shift_right(keys, offset, NOWHERE), queries, NOWHERE)
    return index_select(keys, at, default)


def mode(x: Ints) -> Ints:
    """The most frequent up to here; of equally frequent ones the last to get so often."""
    return index_select(x, argmax(num_prev(x, x)))


OPERATIONS = frozenset(
    operation.__name__
    for operation in (
        indices, full, select, sel_width, aggr, kqv, shift_right, cumsum, where, mask, maximum,
        minimum, argmax, argmin, num_prev, has_seen, firsts, lasts, index_select, induct, mode,
    )
)  # fmt: skip


def program_length(program: Program) -> int:
    """Operations that the program calls, those of the functions that it is built of included."""
    return _calls(program, set())


def _calls(function: Callable[..., Ints], open_calls: set[str]) -> int:
    if function.__name__ in open_calls:
        raise InvalidData(
            f"`{function.__name__}` calls itself.",
            why="a transformer has a fixed number of steps.",
            fix="write the program without recursion.",
        )
    function = inspect.unwrap(function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    known = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    total = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.While | ast.ListComp | ast.GeneratorExp):
            raise InvalidData(
                f"`{function.__name__}` holds a loop.",
                why="a transformer has a fixed number of steps.",
                fix="write the program without loops.",
            )
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else _name(node.func)
        if name in OPERATIONS:
            total += 1
        elif inspect.isfunction(known.get(name)):
            total += _calls(known[name], open_calls | {function.__name__})
    return total


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def generate(program: Program, prompt: Sequence[int], limit: int = 1_000) -> list[int]:
    """What the program writes behind the prompt until STOP, which is left out."""
    if not prompt:
        raise InvalidData(
            "The prompt is empty.", why="a program reads tokens.", fix="begin with START."
        )
    tokens = list(prompt)
    while len(tokens) < len(prompt) + limit:
        following = int(program(np.array(tokens, dtype=np.int64))[-1])
        if following == STOP:
            return tokens[len(prompt) :]
        tokens.append(following)
    raise InvalidData(
        f"The program wrote {limit} tokens without an end.",
        why="an answer ends with STOP.",
        fix="raise `limit`, or check the program.",
    )


# programs -------------------------------------------------------------------------------------


def count(x: Ints) -> Ints:
    """START a b → a a+1 … b."""
    first = induct(x, full(x, START), 1)
    last = induct(x, full(x, START), 2)
    begins = indices(x) == lasts(x, full(x, START)) + 2
    following = where(begins, first, x + 1)
    return where((x == last) & ~begins, full(x, STOP), following)


def find_mode(x: Ints) -> Ints:
    """tokens SEPARATOR → the most frequent one."""
    most = shift_right(mode(x), 1)
    return where(x == SEPARATOR, most, full(x, STOP))


def copy_distinct(x: Ints) -> Ints:
    """START tokens SEPARATOR → the tokens, all different."""
    behind = where(x == SEPARATOR, full(x, START), x)
    following = induct(x, behind, 1)
    return where(following == SEPARATOR, full(x, STOP), following)


def prompt_keys(x: Ints) -> Ints:
    """The tokens before SEPARATOR, BELOW elsewhere."""
    return mask(x, has_seen(x, full(x, SEPARATOR)) == 0, BELOW)


def successor(x: Ints) -> Ints:
    """The smallest token of the prompt above the one at hand; STOP where there is none."""
    return kqv(prompt_keys(x), x, x, larger, Reduction.MIN, STOP)


def sort_distinct(x: Ints) -> Ints:
    """tokens SEPARATOR → the tokens, ascending, all different and not negative."""
    return successor(x)


def sort_repeats(x: Ints) -> Ints:
    """The same with repetitions, by identity and successor: the token at hand again while it was
    written less often than it occurs in the prompt, else its successor.
    """
    occurs = num_prev(prompt_keys(x), x)
    again = (num_prev(x, x) < 2 * occurs) & (x != SEPARATOR)
    return where(again, x, successor(x))


HINT = 100
"""Hints of addition are the numbers from here on."""


def digit_sums(x: Ints) -> Ints:
    """At a digit, the sum with the digit of the same hint in the first number, which it is itself
    there.
    """
    hint = shift_right(x, 1)
    return induct(x, hint, 1) + x


def add_reversed(x: Ints) -> Ints:
    """START h d … SEPARATOR h d … SEPARATOR → h d … from the last digit on; hints ascend to the
    last digit.

    A carry came out of a digit if what was written is smaller than the sum of the two digits.
    """
    hint, digit = where(x >= HINT, x, shift_right(x, 1)), shift_right(x, 1)
    both = addends(x, hint)
    carry = (digit < addends(x, hint + 1)) & (hint < last_hint(x))
    answer = (both + carry) % 10
    previous = where(x == SEPARATOR, last_hint(x), hint - 1)
    done = (hint == induct(x, full(x, START), 1)) & (x < HINT) & (x != SEPARATOR)
    return where(x >= HINT, answer, where(done, full(x, STOP), previous))


def add_forward(x: Ints) -> Ints:
    """The same from the first digit on.

    The carry into a digit is that of the next digit behind it whose sum is not 9.
    """
    hint = where(x >= HINT, x, shift_right(x, 1))
    carry = carry_behind(x, hint)
    answer = (addends(x, hint) + carry) % 10
    following = where(x == SEPARATOR, induct(x, full(x, START), 1), hint + 1)
    done = (hint == last_hint(x)) & (x < HINT) & (x != SEPARATOR)
    return where(x >= HINT, answer, where(done, full(x, STOP), following))


def in_second(x: Ints) -> Selection:
    """True at the digits of the second number."""
    return (num_prev(x, full(x, SEPARATOR)) == 1) & (x < HINT) & (x != SEPARATOR)


def addends(x: Ints, hint: Ints) -> Ints:
    """The sum of the two digits with a hint."""
    keys = mask(shift_right(x, 1), in_second(x), NOWHERE)
    return kqv(keys, hint, digit_sums(x), equals, default=0)


def carry_behind(x: Ints, hint: Ints) -> Ints:
    """1 where the nearest sum behind the hint that is not 9 is larger than that."""
    total = digit_sums(x)
    keys = mask(shift_right(x, 1), in_second(x) & (total != 9), BELOW)
    # hint and carry as one number: the smallest is that of the nearest digit
    return kqv(keys, hint, 2 * keys + (total > 9), larger, Reduction.MIN, 0) % 2


def last_hint(x: Ints) -> Ints:
    """The hint of the last digits."""
    return maximum(x)


PROGRAMS: dict[str, Program] = {
    "count": count,
    "mode": find_mode,
    "copy": copy_distinct,
    "sort": sort_distinct,
    "sort with repetitions": sort_repeats,
    "addition with hints, reversed": add_reversed,
    "addition with hints": add_forward,
}
"""Problems that have a program; for parity, copying with repetitions and addition without hints
none is known.
"""


def example() -> list[int]:
    return generate(count, [START, 3, 6])
