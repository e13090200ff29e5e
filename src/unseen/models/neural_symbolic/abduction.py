"""Abduction: the cheapest change of a tree that makes its root worth the answer.

Either one symbol was perceived wrongly, at cost log p(perceived) − log p(other), or one symbol
means something else than believed, at cost log(ℓ / (1 − ℓ)) with ℓ the likelihood of its program.
Values that a node should have are found from the root down: for each child those that would make
its parent right.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from unseen.models.neural_symbolic.parser import Tree
from unseen.models.neural_symbolic.programs import EMPTY, Value
from unseen.models.neural_symbolic.semantics import Semantics


@dataclass(frozen=True)
class Fix:
    """A tree with the values that give the answer, and what it cost to believe in them."""

    tree: Tree
    values: tuple[Value | None, ...]
    cost: float
    node: int
    changes_symbol: bool


@dataclass(frozen=True)
class Abducer:
    """Looks through all single changes and takes the cheapest."""

    semantics: Semantics
    solutions: int = 6
    """Values tried for a node at most."""

    def __call__(
        self,
        tree: Tree,
        answer: Value,
        perception: Sequence[Mapping[str, float]] | None = None,
    ) -> Fix | None:
        """`perception`: log-probabilities of symbols at each node; None: symbols are certain."""
        values = self.semantics.values(tree)
        fixes = [*self._meanings(tree, values, answer)]
        if perception is not None:
            fixes += self._symbols(tree, answer, perception)
        return min(fixes, key=lambda fix: fix.cost, default=None)

    def _symbols(
        self, tree: Tree, answer: Value, perception: Sequence[Mapping[str, float]]
    ) -> Iterator[Fix]:
        """Every other symbol with as many children, at every node."""
        for node, symbol in enumerate(tree.symbols):
            arity = self.semantics.meanings[symbol].arity
            for other, chance in perception[node].items():
                if other == symbol or self.semantics.meanings[other].arity != arity:
                    continue
                symbols = (*tree.symbols[:node], other, *tree.symbols[node + 1 :])
                changed = replace(tree, symbols=symbols)
                values = self.semantics.values(changed)
                if _equal(values[tree.root], answer):
                    cost = perception[node][symbol] - chance
                    yield Fix(changed, tuple(values), cost, node, True)

    def _meanings(self, tree: Tree, values: Sequence[Value | None], answer: Value) -> Iterator[Fix]:
        """Overwritten values, from the root down."""
        children = tree.children()
        todo: list[tuple[int, Value]] = [(tree.root, answer)]
        visited = set(todo)
        while todo:
            node, target = todo.pop()
            inputs = [values[child] for child in children[node]]
            meaning = self.semantics.meanings[tree.symbols[node]]
            if all(value is not None for value in inputs):
                changed = self._overwrite(tree, values, node, target)
                if _equal(changed[tree.root], answer):
                    yield Fix(tree, changed, log_odds(meaning.likelihood), node, False)
            for k, child in enumerate(children[node]):
                for value in self.solve(tree.symbols[node], inputs, k, target):
                    if (child, value) not in visited:
                        visited.add((child, value))
                        todo.append((child, value))

    def _overwrite(
        self, tree: Tree, values: Sequence[Value | None], node: int, target: Value
    ) -> tuple[Value | None, ...]:
        """The values with one replaced, and its ancestors computed anew."""
        found, children = list(values), tree.children()
        found[node] = target
        while tree.heads[node] >= 0:
            node = tree.heads[node]
            inputs = [found[child] for child in children[node]]
            found[node] = self.semantics.meanings[tree.symbols[node]](inputs)
        return tuple(found)

    def solve(
        self, symbol: str, inputs: Sequence[Value | None], k: int, target: Value
    ) -> list[Value]:
        """Values of child `k` with which the symbol is worth the target; the others stay."""
        meaning = self.semantics.meanings[symbol]
        others = [value for j, value in enumerate(inputs) if j != k]
        if any(value is None for value in others):
            return []
        found: list[Value] = []
        for guess in self._guesses(symbol, inputs, k, target):
            trial = [*inputs[:k], guess, *inputs[k + 1 :]]
            is_new = not _equal(guess, inputs[k]) and guess not in found
            if is_new and _equal(meaning(trial), target):
                found.append(guess)
            if len(found) == self.solutions:
                break
        return found

    def _guesses(
        self, symbol: str, inputs: Sequence[Value | None], k: int, target: Value
    ) -> Iterator[Value]:
        """The empty value, inputs seen before, and parts of the target where a program can tell."""
        yield EMPTY
        meaning = self.semantics.meanings[symbol]
        for seen, outputs in meaning.counts.items():
            alike = all(_equal(a, b) for j, (a, b) in enumerate(zip(seen, inputs)) if j != k)  # noqa: B905
            if alike and target in outputs:
                yield seen[k]
        if not meaning.is_trusted:
            return
        if isinstance(target, int):
            yield from range(min(max(target, 9), 100) + 1)
            return
        for size in range(len(target) + 1):
            yield target[:size]
            yield target[len(target) - size :]


def log_odds(likelihood: float) -> float:
    """log(ℓ / (1 − ℓ)), finite: nothing is quite certain."""
    bounded = min(max(likelihood, 1e-3), 1 - 1e-3)
    return math.log(bounded / (1 - bounded))


def _equal(a: Value | None, b: Value | None) -> bool:
    return type(a) is type(b) and a == b
