"""Arithmetic with truncated minus and ceiling division, against Python's own evaluation."""

import math

import numpy as np
import pytest

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.tasks.hint import Hint, UndefinedValue, draw_expression, meaning


class Truncated:
    """A number whose operators are those of HINT, for `eval`."""

    def __init__(self, value):
        self.value = value

    def __add__(self, other):
        return Truncated(self.value + other.value)

    def __sub__(self, other):
        return Truncated(max(0, self.value - other.value))

    def __mul__(self, other):
        return Truncated(self.value * other.value)

    def __truediv__(self, other):
        return Truncated(math.ceil(self.value / other.value))


def by_python(expression):
    text = "".join(f"Truncated({s})" if s.isdigit() else s for s in expression)
    return eval(text, {"Truncated": Truncated}).value


def test_values_are_those_of_python():
    rng = np.random.default_rng(0)
    undefined = 0
    for _ in range(1_000):
        expression = draw_expression(int(rng.integers(7)), rng)
        try:
            expected = by_python(expression)
        except ZeroDivisionError:
            undefined += 1
            with pytest.raises(UndefinedValue):
                meaning(expression)
        else:
            assert meaning(expression).value == expected
    assert 0 < undefined < 300


def test_splits_differ_as_they_say():
    spec = Hint(n_train=300, n_test=50).pairs(Lab(1))

    def operators(one):
        return sum(symbol in "+-*/" for symbol in one.source)

    def largest(one):
        return meaning(one.source).largest

    same, unseen = spec.train, spec.evaluate
    assert max(map(operators, same)) == 3
    assert max(map(largest, same)) <= 20
    assert {operators(one) for one in unseen["longer"]} == {4, 5, 6}
    assert all(21 <= largest(one) <= 200 for one in unseen["larger"])
    assert all(operators(one) > 3 and largest(one) > 20 for one in unseen["longer and larger"])
    assert all(len(part) == 50 for part in unseen.values())
    assert len({one.source for one in same}) == len(same)


@pytest.mark.parametrize("text", ["1 +", "( 1", "1 )", "1 1", "1 x 2", ""])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(InvalidData, match="no expression"):
        meaning(text.split())


def test_sizes_that_do_not_grow_are_refused():
    with pytest.raises(InvalidConfig):
        Hint(operators=4, unseen_operators=4)
