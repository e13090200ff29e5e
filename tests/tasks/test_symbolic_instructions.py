"""Functions are told apart by their outputs; no unseen function is in training under any name."""

from itertools import product

import pytest
import torch

from unseen.engine.token_pairs import END, PAD, TO
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks.symbolic_instructions import (
    OTHER,
    PRIMITIVES,
    VOCABULARY,
    Name,
    SymbolicInstructions,
    example,
    functions,
    names_of,
    positions,
    single_functions,
    strings,
)

SPEC = SymbolicInstructions(n_train=600, n_test=6)


def by_hand(step, letters):
    """The primitives once more, without Python's own methods for them."""
    if step == "reverse":
        return [letters[-1 - k] for k in range(len(letters))]
    if step == "sort":
        return sorted(letters, key=ord)
    if step == "keep vowels":
        return [c for c in letters if c in "aeioAEIO"]
    if step == "uppercase":
        return [chr(ord(c) - 32) if "a" <= c <= "z" else c for c in letters]
    if step == "first two":
        return [c for k, c in enumerate(letters) if k < 2]
    if step == "count":
        return list(f"{sum(1 for _ in letters):d}")
    if step == "dedupe":
        return [c for k, c in enumerate(letters) if c not in letters[:k]]
    out = []
    for c in letters:
        out += ["-", c] if out else [c]
    return out


def test_primitives_agree_with_a_second_interpreter():
    for text in strings()[::37]:
        for pair in product(PRIMITIVES, repeat=2):
            letters = list(text)
            for step in pair:
                letters = by_hand(step, letters)
            assert Name(pair)(text) == "".join(letters)


def test_64_pairs_are_43_functions_of_which_34_are_asked():
    every = strings()[::7]
    outputs = {}
    for pair in product(PRIMITIVES, repeat=2):
        outputs.setdefault(tuple(map(Name(pair), every)), set()).add(pair)
    assert len(outputs) == 43
    constant = [pairs for values, pairs in outputs.items() if len(set(values)) == 1]
    single = {tuple(map(Name((step,)), every)) for step in PRIMITIVES}
    assert len(constant) == 3
    assert sum(values in single for values in outputs) == 6
    assert len(functions()) == 34
    names = {frozenset(name.steps for name in function.names) for function in functions()}
    assert names <= {frozenset(pairs) for pairs in outputs.values()}


def read_rows(task, split):
    """Definition, string, answer and function of every row."""
    rows = []
    columns = task.split(split).data.columns
    for tokens, mask, number in zip(
        *(columns[k] for k in ("tokens", "mask", "function")), strict=True
    ):
        words = VOCABULARY.decode(tokens[tokens != PAD].tolist())
        at, colon = words.index("<to>"), words.index(":")
        assert mask.nonzero().flatten().tolist() == list(range(at + 1, len(words)))
        rows.append(
            (" ".join(words[:colon]), "".join(words[colon + 1 : at]), "".join(words[at + 1 : -1]),
             int(number))
        )  # fmt: skip
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_no_unseen_function_and_no_evaluated_string_is_in_training(seed):
    task = SPEC.build(Lab(seed))
    train = read_rows(task, "train")
    unseen = read_rows(task, "unseen functions")
    assert {row[3] for row in train}.isdisjoint({row[3] for row in unseen})
    assert len({row[3] for row in unseen}) == 10
    assert {row[3] for row in read_rows(task, "seen functions")} | set(range(8)) >= {
        row[3] for row in train
    }
    for name in task.of(Use.EVALUATE):
        assert {row[1] for row in train}.isdisjoint({row[1] for row in read_rows(task, name)})
    every = {f.title: f for f in (*single_functions(), *functions())}
    titles = names_of()
    for definition, text, answer, number in (*train, *unseen):
        function = every[titles[number]]
        assert function(text) == answer
        assert definition in {" ".join(name.definition) for name in function.names}
    # no name of an unseen function is written in training
    hidden = {" ".join(n.definition) for row in unseen for n in every[titles[row[3]]].names}
    assert hidden.isdisjoint({row[0] for row in train})


@pytest.mark.parametrize("seed", range(20))
def test_every_primitive_is_seen_at_each_position_that_it_can_have(seed):
    seen, unseen = SPEC.split_functions(Lab(seed))
    assert positions(seen) == positions(functions())
    assert len(seen) + len(unseen) == 34


def test_unseen_functions_do_not_depend_on_the_number_of_seen_ones():
    few = SymbolicInstructions(seen=2).split_functions(Lab(3))
    many = SymbolicInstructions().split_functions(Lab(3))
    assert few[1] == many[1]
    assert few[0] == many[0][:2]


def test_without_definitions_only_the_string_is_left():
    task = SymbolicInstructions(definitions=False, n_train=50, n_test=4).build(Lab(1))
    assert {row[0] for row in read_rows(task, "train")} == {""}
    assert OTHER not in task.splits
    named = SymbolicInstructions(n_train=50, n_test=4).build(Lab(1))
    assert [row[1:] for row in read_rows(task, "train")] == [
        row[1:] for row in read_rows(named, "train")
    ]


def test_another_definition_is_one_of_another_unseen_function():
    task = SPEC.build(Lab(0))
    own, other = read_rows(task, "unseen functions"), read_rows(task, OTHER)
    assert [row[1:] for row in own] == [row[1:] for row in other]
    assert all(a[0] != b[0] for a, b in zip(own, other, strict=True))
    assert {row[0] for row in own} == {row[0] for row in other}


def test_the_upper_bound_trains_on_unseen_functions_with_other_strings():
    task = SymbolicInstructions(upper_bound=True, n_train=2_000, n_test=4).build(Lab(0))
    train, unseen = read_rows(task, "train"), read_rows(task, "unseen functions")
    assert {row[3] for row in unseen} <= {row[3] for row in train}
    assert {row[1] for row in unseen}.isdisjoint({row[1] for row in train})


def test_answers_end_and_prompts_are_closed():
    columns = example().build(Lab()).split("train").data.columns
    ends = (columns["tokens"] == END) & columns["mask"]
    assert torch.equal(ends.sum(1), torch.ones(len(ends), dtype=torch.long))
    assert torch.equal((columns["tokens"] == TO).sum(1), torch.ones(len(ends), dtype=torch.long))


@pytest.mark.parametrize(
    "wrong", [{"seen": 25}, {"unseen": 1}, {"seen": -1}, {"n_train": 0}, {"n_test": 0}]
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(InvalidConfig):
        SymbolicInstructions(**wrong)
