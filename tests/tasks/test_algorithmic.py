"""Algorithmic problems: answers equal those of plain Python, prompts do not show them."""

import pytest
import torch
from torch import nn

from unseen.engine.batches import forever, once
from unseen.engine.token_pairs import END, PAD, TO
from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.tasks.algorithmic import (
    PROBLEMS,
    Addition,
    Algorithmic,
    Carry,
    Copy,
    Count,
    Fill,
    Increment,
    Minimum,
    Mode,
    Occurrences,
    Parity,
    Sort,
    Successor,
    length_curve,
    problem,
)
from unseen.tasks.algorithmic.problems import BLANK, FIRST, MINUS, PLUS, start_token


def read(kind, n, size=200, seed=0):
    """(source, shown, answer) of each example as lists, values as numbers and signs as texts."""
    data = kind.draw(n, size, Lab(seed).generator())
    signs = {PLUS: "+", MINUS: "-", BLANK: "_", END: "end"}
    for row, mask in zip(data.columns["tokens"].tolist(), data.columns["mask"], strict=True):
        assert row[0] == start_token(kind.name)
        words = [signs.get(token, token - FIRST) for token in row]
        at, asked = row.index(TO), mask.nonzero().flatten().tolist()
        assert asked == list(range(asked[0], asked[-1] + 1))
        assert set(row[asked[-1] + 1 :]) <= {PAD}
        yield words[1:at], words[at + 1 : asked[0]], words[asked[0] : asked[-1] + 1]


def number(digits):
    return int("".join(map(str, digits)))


@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_sequences_answer_as_python_does(n):
    for (a, b), _, answer in read(Count(30), n):
        assert answer == [*range(a, b + 1), "end"]
        assert b - a + 1 == n
    for x, _, answer in read(Mode(30), n):
        assert answer == [max(x, key=x.count), "end"]
        assert sorted(map(x.count, set(x)))[-2:].count(x.count(answer[0])) == 1
    for repeat in (False, True):
        for x, _, answer in read(Sort(30, repeat), n):
            assert answer == [*sorted(x), "end"]
            assert repeat or len(set(x)) == n
        for x, _, answer in read(Copy(30, repeat), n):
            assert answer == [*x, "end"]
        for x, (a,), (b,) in read(Successor(30, repeat), n):
            assert b == min((v for v in x if v > a), default="end")
            assert a in x
        for x, (a,), (b,) in read(Occurrences(30, repeat), n):
            assert b == x.count(a) > 0
        for x, shown, (b,) in read(Minimum(30, repeat), n):
            assert (shown, b) == ([], min(x))
        for x, y, (b,) in read(Fill(30, repeat), n):
            assert [b if v == "_" else v for v in y] == sorted(x)
            assert y.count("_") == 1


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_sums_equal_those_of_integers(n, reverse):
    for source, _, (*digits, end) in read(Addition(reverse=reverse), n):
        at = source.index("+")
        total = digits[::-1] if reverse else digits
        assert number(total) == number(source[:at]) + number(source[at + 1 :])
        assert end == "end"
        assert len(digits) == n + 1
    for source, _, (*digits, _end) in read(Addition(hints=20, reverse=reverse), n):
        at = source.index("+")
        x, y = source[:at], source[at + 1 :]
        hints = x[::2]
        assert hints == list(range(hints[0], hints[0] + n + 1)) == y[::2]
        assert hints[0] >= 10
        assert digits[::2] == (hints[::-1] if reverse else hints)
        total = digits[1::2][::-1] if reverse else digits[1::2]
        assert number(total) == number(x[1::2]) + number(y[1::2])


@pytest.mark.parametrize("n", [1, 2, 8])
def test_parity_counts_ones_and_its_scratchpad_names_them(n):
    for bits, _, answer in read(Parity(), n):
        assert answer == [sum(bits) % 2, "end"]
    for source, _, answer in read(Parity(hints=12), n):
        hints, bits = source[::2], source[1::2]
        ones = [h for h, b in zip(hints, bits, strict=True) if b]
        assert answer[-2:] == [len(ones) % 2, "end"]
        assert answer[1:-2:2] == ones
        assert answer[:-2:2] == ["+-"[k % 2] for k in range(len(ones))]


def test_increment_carries_through_every_number_of_nines():
    counts = set()
    for digits, _, (*after, _end) in read(Increment(), 5):
        assert number(after) == number(digits) + 1
    for digits, _, (nines,) in read(Carry(), 5):
        text = "".join(map(str, digits))
        assert nines == len(text) - len(text.rstrip("9"))
        counts.add(nines)
    assert counts == {0, 1, 2, 3, 4}


def test_training_has_one_length_per_batch_and_all_of_them():
    task = Algorithmic(Sort(20), longest=4, lengths=(4, 6), n=20).build(Lab())
    stream = forever(task.split("train").data, 8, Lab())
    lengths = [next(stream)["length"].unique().tolist() for _ in range(60)]
    assert sorted(map(tuple, set(map(tuple, lengths)))) == [(1,), (2,), (3,), (4,)]
    assert list(task.unseen) == ["length 6"]
    batch = next(once(task.split("train").data, 50, Lab()))
    assert not (batch["mask"] & (batch["tokens"] == PAD)).any()


class Sorter(nn.Module):
    """Reads the source and writes it sorted, whatever stands behind <to>."""

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, 40)
        for row, out in zip(tokens.tolist(), logits, strict=True):
            at = row.index(TO)
            answer = [*sorted(row[1:at]), END]
            for k, token in enumerate(answer):
                out[at + k, token] = 1
        return logits


def test_a_curve_by_length_scores_the_end_too():
    spec = Algorithmic(Sort(15), longest=3, lengths=(3,), n=30)
    task = spec.build(Lab())
    curve = length_curve(Trained(Sorter(), task), spec, [3, 5, 15], Lab())
    assert {n: reading.value for n, reading in curve.items()} == {3: 1, 5: 1, 15: 1}
    assert curve[5].n == 30


@pytest.mark.parametrize("name", PROBLEMS)
def test_prompts_end_before_the_answer_and_equal_seeds_give_equal_examples(name):
    kind = problem(name)
    one, again = (kind.draw(4, 50, Lab(3).generator()).columns for _ in range(2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert (one["mask"].long().argmax(1) >= 4).all()
    assert one["tokens"].max() < FIRST + kind.symbols
    assert 0 <= kind.chance(4) <= 1


def test_what_does_not_exist_is_refused_with_the_largest_that_does():
    with pytest.raises(InvalidConfig, match="1 to 20"):
        Algorithmic(Sort(20), longest=4, lengths=(21,))
    with pytest.raises(InvalidConfig, match="begin at 1"):
        Algorithmic(longest=0)
    with pytest.raises(InvalidConfig, match="up to 13"):
        Algorithmic(Sort(40), longest=4, context=30).at_length(20)
    with pytest.raises(UnknownName, match=r"(?s)sorting.*did you mean sort"):
        problem("sorting")
