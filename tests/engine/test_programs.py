"""Programs of arithmetic: values against Python's own, states, and what is refused."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unseen.engine.programs import (
    BITS,
    Program,
    execute,
    is_correct,
    read_number,
    same_value,
)
from unseen.errors import InvalidData


def run(text, **constants):
    return execute(
        Program.parse(text), {name: Fraction(value) for name, value in constants.items()}
    )


numbers = st.integers(-50, 50).map(str) | st.decimals(-9, 9, places=2).map(str)
expressions = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//"]), inner).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
    ),
    max_leaves=6,
)


@given(expressions)
def test_values_are_those_of_exact_arithmetic(text):
    """`eval` over fractions in a test that wrote the text itself."""
    exact = re.sub(r"\d+\.?\d*", lambda match: f"Fraction('{match[0]}')", text)
    try:
        expected = Fraction(eval(exact, {"Fraction": Fraction}))
    except ZeroDivisionError:
        assert "division by zero" in run(f"answer = {text}").failure
        return
    assert run(f"answer = {text}").answer == expected


def test_statements_follow_each_other_up_to_the_answer():
    trace = run("t0 = n0 / 2; answer = n0 + t0; t1 = 1", n0=48)
    assert trace.values == (24, 72)
    assert trace.answer == 72
    assert run("t0 = 1\nt1 = t0 + 1").answer is None
    assert run("answer = 3 ** 2 ** 2").answer == 81
    assert run("answer = -2 ** 2").answer == -4
    assert run("answer = 8 ** (1/3)").answer == pytest.approx(2)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("answer = __import__('os')", "no arithmetic"),
        ("answer = (1).real", "no arithmetic"),
        ("answer = [1][0]", "no arithmetic"),
        ("answer = 1 if 1 else 2", "no arithmetic"),
        ("answer = 'a' * 9", "no arithmetic"),
        ("answer = True + 1", "no arithmetic"),
        ("answer = 1j", "no arithmetic"),
        ("answer = 9 ** 9 ** 9", "power"),
        ("answer = 9 ** -9 ** 9", "power"),
        ("answer = 2 ** 0.5 ** -99", "power"),
        ("answer = (-8) ** 0.5", "no real number"),
        ("answer = 0 ** -1", "division by zero"),
        ("answer = 1 / (2 - 2)", "division by zero"),
        ("answer = 1 // 0", "division by zero"),
        ("answer = 1e300", "bits"),
        ("answer = 1e999 - 1e999", "too large"),
        ("answer = " + "9" * 400, "bits"),
        ("answer = " + "9" * 5_000, "no expression"),
        ("answer = t7 + 1", "`t7` has no value"),
        ("answer = 1 +", "no expression"),
        ("answer = 05", "no expression"),
        ("answer = " + "(" * 300 + "1" + ")" * 300, "no expression"),
        ("answer = " + "+".join(["1"] * 999), "more than"),
        ("answer = 1 % 3", "no arithmetic"),
        ("answer = 1 << 9", "no arithmetic"),
    ],
)
def test_what_is_no_arithmetic_is_not_executable(text, why):
    trace = run(text)
    assert trace.answer is None
    assert why in trace.failure


def test_values_do_not_grow_without_end():
    squares = "t0 = 3; " + "; ".join(f"t{k + 1} = t{k} * t{k}" for k in range(40))
    trace = run(squares)
    assert "bits" in trace.failure
    assert len(trace.values) < 12
    assert all(value.numerator.bit_length() <= BITS for value in trace.values)


def test_states_forget_names_and_order():
    one, other = (
        run("a = 1 + 1; b = 4 - 1; answer = a * b"),
        run("x = 4 - 1; y = 1 + 1; answer = y * x"),
    )
    assert one.keys[1] == other.keys[1]
    assert one.keys[-1] == other.keys[-1]
    assert one.keys[0] != other.keys[0]
    assert run("a = 0.5").keys == run("b = 1 / 2").keys


def test_answers_are_compared_by_value():
    assert is_correct(run("answer = 1 / 3"), Fraction("0.33333"))
    assert not is_correct(run("t0 = 1 / 3"), Fraction(1, 3))
    assert not is_correct(run("answer = 1.001"), Fraction(1))
    assert same_value(Fraction(10**12), Fraction(10**12 + 1))
    assert read_number("1,250.50") == Fraction(2501, 2)
    assert read_number("1/2") == read_number(".50")
    assert read_number("twelve") is None
    assert read_number("1/0") is None
    assert read_number("1e999999999") is None
    assert read_number("9" * 200) is None


def test_a_line_that_assigns_nothing_is_refused():
    for text in ("3 + 4", "a b = 1", "a =", "= 3"):
        with pytest.raises(InvalidData, match="is no statement"):
            Program.parse(text)


def test_prefixes():
    whole = Program.parse("a = 1; b = 2; answer = a + b")
    assert whole.starts_with(whole.first(2))
    assert not whole.first(2).starts_with(whole)
    assert whole.starts_with(Program(()))
    assert str(whole.first(2)) == "a = 1; b = 2"
