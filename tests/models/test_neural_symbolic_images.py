"""Perception inside the machine: against brute force, on tiny cases, and what is refused."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from tests.oracles import neural_symbolic as oracle
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.models.neural_symbolic import Learning, Semantics, Tree
from unseen.models.neural_symbolic.image_abduction import ImageAbducer, duplicates
from unseen.models.neural_symbolic.images import (
    ImagePair,
    NeuralSymbolicImageMachine,
    Perceiving,
)
from unseen.models.neural_symbolic.perception import (
    Perception,
    arities_from_lengths,
    likeliest_symbols,
    name_groups,
)
from unseen.models.neural_symbolic.programs import Expression, Program
from unseen.tasks.hint import meaning
from unseen.tasks.hint_images import ARITY


def numeric(function):
    """Missing for anything but numbers: a closing bracket is none."""
    return lambda a, b: function(a, b) if isinstance(a, int) and isinstance(b, int) else None


MEANINGS = {
    **{str(d): (lambda d=d: d) for d in range(10)},
    "+": numeric(lambda a, b: a + b),
    "-": numeric(lambda a, b: max(0, a - b)),
    "*": numeric(lambda a, b: a * b),
    "/": numeric(lambda a, b: None if b == 0 else -(-a // b)),
    "(": lambda a, _: a,
    ")": lambda: (),
}


def expert():
    """Every symbol with its true meaning, trusted."""
    semantics = Semantics(ARITY)

    def apply(name):
        return lambda inputs: None if None in inputs else MEANINGS[name](*inputs)

    for name, one in semantics.meanings.items():
        variables = tuple(Expression(v) for v in "xy"[: one.arity])
        one.program = Program(Expression(name, variables), one.arity, {name: apply(name)})
        if one.arity == 0:
            one.program = Program(Expression("literal", literal=MEANINGS[name]()), 0)
        one.likelihood = 0.99
    return semantics


EXPRESSIONS = ["3+4*2", "(3+4)*2", "9-2-3", "8/(1+2)", "7", "6*(5-2)+1", "(9-8)/4"]


def perceived(tree, rng):
    """Log-probabilities of symbols at each node, the tree's own not always the likeliest."""
    found = []
    for _ in tree.symbols:
        weights = rng.random(len(ARITY)) + 1e-3
        logs = np.log(weights / weights.sum())
        found.append(dict(zip(ARITY, logs.tolist(), strict=True)))
    return found


def test_abduction_costs_no_more_than_the_best_single_change():
    semantics, rng, asked = expert(), np.random.default_rng(0), 0
    for text, value in product(EXPRESSIONS, (0, 1, 2, 5, 7, 12, 14)):
        tree = Tree(tuple(text), oracle.arithmetic_heads(text))
        chances = perceived(tree, rng)
        if semantics.values(tree)[tree.root] == value:
            continue
        costs = []
        for node, chance in enumerate(chances):
            for other, log_probability in chance.items():
                if ARITY[other] != ARITY[tree.symbols[node]]:
                    continue
                symbols = (*tree.symbols[:node], other, *tree.symbols[node + 1 :])
                if oracle.value(symbols, tree.heads, MEANINGS) == value:
                    costs.append(chance[tree.symbols[node]] - log_probability)
        fix = ImageAbducer(semantics)(tree, value, chances)
        if costs:
            asked += 1
            assert fix is not None
            assert fix.cost <= min(costs) + 1e-12
        if fix is not None:
            assert fix.values[tree.root] == value
    assert asked > 20


def test_a_free_symbol_takes_a_meaning_that_no_other_has():
    semantics = expert()
    semantics.meanings["8"].program, semantics.meanings["8"].likelihood = None, 0.0
    tree = Tree(("3", "+", "5"), (1, -1, 1))
    certain = [{s: 0.0 if s == symbol else -9.0 for s in ARITY} for symbol in tree.symbols]
    fix = ImageAbducer(semantics, {"8"})(tree, 11, certain)
    assert fix is not None
    assert "8" in fix.tree.symbols
    assert fix.values[1] == 11
    assert {fix.values[0], fix.values[2]} in ({8, 3}, {6, 5})
    assert fix.cost == pytest.approx(math.log(len(ARITY)))
    known = ImageAbducer(semantics, {"8"})(tree, 7, certain)
    assert known is not None
    assert "8" not in known.tree.symbols  # 2 and 4 have symbols already


def test_duplicates_give_way_to_the_symbol_seen_more_often():
    semantics = Semantics({"a": 0, "b": 0, "c": 0, "f": 1})
    for name, value, n in (("a", 4, 2), ("b", 4, 9), ("c", 5, 1)):
        semantics.meanings[name].counts[()][value] = n
        semantics.meanings[name].program = Program(Expression("literal", literal=value), 0)
        semantics.meanings[name].likelihood = 1.0
    assert duplicates(semantics) == {"a": "b"}


def test_probabilities_are_normalised_and_do_not_depend_on_the_batch():
    with Lab(1).seeded():
        perception = Perception(("a", "b", "c"), (4, 5))
        images = torch.randn(7, 4, 5)
    perception.standardise(images)
    logs = perception.log_probabilities(images)
    assert np.exp(logs).sum(1) == pytest.approx(np.ones(7))
    assert perception.log_probabilities(images[2:3]) == pytest.approx(logs[2:3], abs=1e-5)


def test_the_likeliest_symbols_are_those_of_brute_force():
    rng, arity = np.random.default_rng(3), [0, 0, 1, 2]
    for n in range(1, 6):
        for _ in range(10):
            logs = np.log(rng.dirichlet(np.ones(4), n))
            allowed = [s for s in product(range(4), repeat=n) if sum(arity[k] for k in s) == n - 1]
            best = max(sum(logs[i, k] for i, k in enumerate(s)) for s in allowed)
            found = likeliest_symbols(logs, arity)
            assert sum(arity[k] for k in found) == n - 1
            assert sum(logs[i, k] for i, k in enumerate(found)) == pytest.approx(best)
    assert likeliest_symbols(np.zeros((1, 1)), [2]) is None


def test_lengths_tell_how_many_children_a_group_has():
    rng = np.random.default_rng(4)
    digits, operators = ["0", "1", "2"], ["+", "*"]
    names = [*digits, *operators]
    counts = np.zeros((60, 5))
    for row in counts:
        for k in range(int(rng.integers(1, 5))):
            row[names.index(rng.choice(digits))] += 1
            if k:
                row[names.index(rng.choice(operators))] += 1
    assert arities_from_lengths(counts, [0, 2]).tolist() == [0, 0, 0, 2, 2]


def test_groups_alike_share_a_name():
    centres = np.array([[0.0], [0.1], [5.0], [9.0]])
    named = name_groups(centres, np.array([0, 0, 0, 2]), {"a": 0, "b": 0, "+": 2})
    assert named[0] == named[1] != named[2]
    assert named[3] == 2
    assert {named[0], named[2]} == {0, 1}


SMALL = {"zero": 0, "one": 0, "two": 0, "three": 0, "plus": 2}
SHAPES = torch.eye(25)[:5].reshape(5, 5, 5) + torch.eye(25)[10:15].reshape(5, 5, 5)


def write(symbols, rng):
    """Images of symbols by number, 4 being plus."""
    noise = torch.from_numpy(rng.normal(0, 0.1, (len(symbols), 5, 5))).float()
    return SHAPES[list(symbols)] + noise


def sums(n, rng, terms=(1, 2, 3)):
    found = []
    for _ in range(n):
        numbers = rng.integers(4, size=int(rng.choice(terms))).tolist()
        symbols = [symbol for number in numbers for symbol in (4, number)][1:]
        found.append(ImagePair(write(symbols, rng), tuple(str(sum(numbers)))))
    return found


def learn():
    with Lab(2).seeded():
        machine = NeuralSymbolicImageMachine(SMALL, (5, 5), numbers=True)
    report = machine.fit(
        sums(120, np.random.default_rng(5)), Lab(2), Learning(epochs=14, sample=60, finish=2)
    )
    return machine, report


@pytest.fixture(scope="module")
def learned():
    return learn()


def test_symbols_and_their_meanings_are_learned_from_answers_alone(learned):
    machine, report = learned
    assert report.doubts == []
    assert "nothing about images" in report.given
    new = sums(40, np.random.default_rng(6), terms=(2, 4, 5))
    assert machine.predict([one.images for one in new]) == [one.target for one in new]
    names = {machine.read([write([k], np.random.default_rng(7))])[0] for k in range(4)}
    assert len(names) == 4
    assert report.programs["plus"].startswith("start from")
    assert sorted(report.programs[name] for (name,) in names) == ["0", "1", "2", "3"]


def test_an_explanation_shows_the_symbols_that_were_seen(learned):
    machine, _ = learned
    found = machine.explain(write([3, 4, 2], np.random.default_rng(8)))
    assert found.answer == ("5",)
    assert found.tree.splitlines()[0] == "plus = 5"
    logits = machine(write([3, 4], np.random.default_rng(8)))
    assert logits.shape == (2, 5)


def test_the_same_seed_gives_the_same_machine(learned):
    machine, report = learned
    again, other = learn()
    assert other == report
    for name, tensor in machine.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_bad_input_is_refused(learned):
    machine, _ = learned
    rng = np.random.default_rng(9)
    good = sums(3, rng)
    with pytest.raises(InvalidData, match="no pairs"):
        machine.fit([])
    with pytest.raises(InvalidData, match=r"Pair 4 has images of shape \(2, 5, 6\)"):
        machine.fit([*good, ImagePair(torch.zeros(2, 5, 6), ("1",))])
    with pytest.raises(InvalidData, match=r"Pair 4 has images of shape \(0, 5, 5\)"):
        machine.fit([*good, ImagePair(torch.zeros(0, 5, 5), ("1",))])
    with pytest.raises(InvalidData, match="Pair 4 has no answer"):
        machine.fit([*good, ImagePair(torch.zeros(1, 5, 5), ())])
    with pytest.raises(InvalidData, match="Pair 4 has no answer"):
        machine.fit([*good, ImagePair(torch.zeros(1, 5, 5), None)])
    with pytest.raises(InvalidData, match="Pair 4 has images as a ndarray"):
        machine.fit([*good, ImagePair(np.zeros((1, 5, 5)), ("1",))])
    with pytest.raises(InvalidData, match="no whole number"):
        machine.fit([*good, ImagePair(torch.zeros(1, 5, 5), ("one",))])
    with pytest.raises(InvalidData, match="not finite"):
        machine.fit([*good, ImagePair(torch.full((1, 5, 5), math.nan), ("1",))])
    with pytest.raises(InvalidData, match="different pictures"):
        machine.fit([ImagePair(torch.zeros(1, 5, 5), ("1",))])
    with pytest.raises(InvalidData, match="Source 1 has images"):
        machine.predict([torch.zeros(2, 4, 4)])
    with pytest.raises(InvalidConfig, match="out of range"):
        Perceiving(clusters=0)


def test_the_oracle_of_arithmetic_agrees_with_the_task():
    for text in EXPRESSIONS:
        heads = oracle.arithmetic_heads(text)
        assert oracle.value(tuple(text), heads, MEANINGS) == meaning(tuple(text)).value
