"""RASP-L: operations equal plain loops, programs are causal and answer at every length."""

import numpy as np
import pytest

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.models import rasp
from unseen.models.rasp import HINT, PROGRAMS, SEPARATOR, START, Reduction, generate


def draw(seed, size=12, high=5):
    return Lab(seed).numpy().integers(0, high, size)


def loop_aggr(selected, values, reduce, default):
    return [
        reduce([v for v, s in zip(values, row, strict=True) if s]) if any(row) else default
        for row in selected
    ]


@pytest.mark.parametrize("seed", range(50))
def test_operations_equal_loops(seed):
    x, q, v = draw(seed), draw(seed + 1000), draw(seed + 2000) - 2
    n = range(len(x))
    chosen = [[j <= i and x[j] == q[i] for j in n] for i in n]
    np.testing.assert_array_equal(rasp.select(x, q, rasp.equals), chosen)
    means = loop_aggr(chosen, v, lambda a: int(sum(a) / len(a)), 7)
    np.testing.assert_array_equal(rasp.kqv(x, q, v, rasp.equals, default=7), means)
    for reduction, reduce in ((Reduction.MIN, min), (Reduction.MAX, max)):
        found = rasp.kqv(x, q, v, rasp.equals, reduction, 7)
        np.testing.assert_array_equal(found, loop_aggr(chosen, v, reduce, 7))
    past = [x[: i + 1].tolist() for i in n]
    expected = {
        rasp.num_prev: [past[i].count(q[i]) for i in n],
        rasp.has_seen: [int(q[i] in past[i]) for i in n],
        rasp.firsts: [past[i].index(q[i]) if q[i] in past[i] else -1 for i in n],
        rasp.lasts: [max((j for j in n if j <= i and x[j] == q[i]), default=-1) for i in n],
        rasp.index_select: [x[q[i]] if q[i] <= i else 0 for i in n],
        rasp.induct: [
            next((past[i][j + 1] for j in range(i) if x[j] == q[i]), 0) for i in n
        ],
    }  # fmt: skip
    for operation, values in expected.items():
        np.testing.assert_array_equal(operation(x, q), values, operation.__name__)
    np.testing.assert_array_equal(rasp.shift_right(x, 2, 9), [9, 9, *x[:-2]])
    np.testing.assert_array_equal(rasp.cumsum(x > 2), np.cumsum(x > 2))
    np.testing.assert_array_equal(rasp.maximum(x), np.maximum.accumulate(x))
    np.testing.assert_array_equal(rasp.minimum(x), np.minimum.accumulate(x))
    np.testing.assert_array_equal(
        rasp.argmax(x), [max(j for j in n if j <= i and x[j] == max(past[i])) for i in n]
    )
    np.testing.assert_array_equal(
        rasp.argmin(x), [max(j for j in n if j <= i and x[j] == min(past[i])) for i in n]
    )
    most = [max(map(p.count, p)) for p in past]
    modes = rasp.mode(x)
    assert all(past[i].count(modes[i]) == most[i] for i in n)


def test_values_of_the_published_package():
    """Recorded outputs: means are cut towards zero, mode of 1 2 2 3 is 2."""
    x = np.array([1, 2, 2, 3])
    assert rasp.mode(x).tolist()[-1] == 2
    assert rasp.kqv(x, x, np.array([-1, -2, -1, -4]), rasp.always).tolist() == [-1, -1, -1, -2]
    assert generate(rasp.count, [START, 0, 5]) == [0, 1, 2, 3, 4, 5]
    assert generate(rasp.count, [START, 4, 4]) == [4]


@pytest.mark.parametrize("seed", range(10))
def test_programs_answer_as_python_does(seed):
    rng = Lab(seed).numpy()
    n = int(rng.integers(1, 30))
    x, repeats = rng.permutation(60)[:n].tolist(), rng.integers(0, 9, n).tolist()
    assert generate(rasp.copy_distinct, [START, *x, SEPARATOR]) == x
    assert generate(rasp.sort_distinct, [*x, SEPARATOR]) == sorted(x)
    assert generate(rasp.sort_repeats, [*repeats, SEPARATOR]) == sorted(repeats)
    (found,) = generate(rasp.find_mode, [*repeats, SEPARATOR])
    assert repeats.count(found) == max(map(repeats.count, repeats))


def addition_prompt(a, b, n, first):
    def number(value):
        digits = map(int, f"{value:0{n}d}")
        return [token for k, digit in enumerate(digits) for token in (first + k, digit)]

    return [START, *number(a), SEPARATOR, *number(b), SEPARATOR]


@pytest.mark.parametrize("seed", range(100))
def test_addition_programs_carry(seed):
    rng = Lab(seed).numpy()
    a, b = (int(v) for v in rng.integers(0, 10**5, 2))
    if seed < 5:
        a, b = 10**5 - 1 - 10**seed + 1, 10**seed  # 9 … 9 0 … 0 + 1 0 … 0
    n, first = 6, HINT + int(rng.integers(0, 40))
    hints = list(range(first, first + n))
    prompt = addition_prompt(a, b, n, first)
    backward = generate(rasp.add_reversed, prompt)
    assert backward[::2] == hints[::-1]
    assert int("".join(map(str, backward[1::2][::-1]))) == a + b
    forward = generate(rasp.add_forward, prompt)
    assert forward[::2] == hints
    assert int("".join(map(str, forward[1::2]))) == a + b


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_causal_and_have_a_length(name):
    program, rng = PROGRAMS[name], Lab(1).numpy()
    x = rng.integers(-2, 130, 16)
    before = program(x)
    for at in range(16):
        other = x.copy()
        other[at] = rng.integers(-2, 130)
        np.testing.assert_array_equal(program(other)[:at], before[:at])
    batch = np.stack([x, x[::-1]])
    np.testing.assert_array_equal(program(batch)[0], before)
    assert 1 <= rasp.program_length(program) < 100


def test_identity_and_successor_sort_ten_thousand_sequences_of_length_100():
    rng = Lab(0).numpy()
    for _ in range(200):
        x = rng.integers(0, 100, (50, 100))
        y = np.sort(x, -1)
        tokens = np.concatenate([x, np.full((50, 1), SEPARATOR), y], -1)
        answer = rasp.sort_repeats(tokens)[:, 100:]
        np.testing.assert_array_equal(answer[:, :-1], y)
        assert (answer[:, -1] == rasp.STOP).all()


def test_what_no_transformer_runs_is_refused():
    def looped(x):
        for _ in range(3):
            x = rasp.shift_right(x, 1)
        return x

    with pytest.raises(InvalidData, match="loop"):
        rasp.program_length(looped)
    with pytest.raises(InvalidData, match="shape"):
        rasp.select(np.arange(3), np.arange(4), rasp.equals)
    with pytest.raises(InvalidData, match="empty"):
        generate(rasp.count, [])
    with pytest.raises(InvalidData, match="without an end"):
        generate(lambda x: x + 1, [START, 1], limit=5)
