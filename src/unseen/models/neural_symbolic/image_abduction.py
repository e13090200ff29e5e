"""Abduction where symbols are images: what is cheapest to change may be what an image shows.

Beside the changes of `abduction.py` a symbol that no image has shown yet may be read, together with
a meaning for it.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from unseen.models.neural_symbolic.abduction import Abducer, Fix
from unseen.models.neural_symbolic.parser import Tree
from unseen.models.neural_symbolic.programs import Value
from unseen.models.neural_symbolic.semantics import Semantics


@dataclass(frozen=True)
class ImageAbducer:
    """The cheapest single change, or the cheapest of a symbol together with its meaning.

    A symbol without a program may be given one at the image that shows it: at the cost of the
    symbol, its meaning being as likely as not.
    """

    semantics: Semantics
    free: Set[str] = frozenset()
    """Symbols that no image shows and of which nothing is known."""

    def __call__(
        self, tree: Tree, answer: Value, perception: Sequence[Mapping[str, float]]
    ) -> Fix | None:
        abduce = Abducer(self.semantics)
        # a table of few inputs gives many answers by chance: it is no reason to see another symbol
        trusted = {s for s, meaning in self.semantics.meanings.items() if meaning.is_trusted}
        likely = [
            {s: chance for s, chance in row.items() if s in trusted or s == symbol}
            for symbol, row in zip(tree.symbols, perception, strict=True)
        ]
        found = abduce(tree, answer, likely)
        values, children = self.semantics.values(tree), tree.children()
        for node, symbol in enumerate(tree.symbols):
            other = self.free_symbol(symbol)
            # of a symbol that no image showed nothing is known: it is as likely as any
            cost = perception[node][symbol] + math.log(len(perception[node]))
            if other is None or children[node] or (found is not None and found.cost <= cost):
                continue
            for value in self.solutions(abduce, tree, values, node, answer):
                if value in self.leaf_values():
                    continue
                symbols = (*tree.symbols[:node], other, *tree.symbols[node + 1 :])
                changed = abduce._overwrite(tree, values, node, value)
                found = Fix(replace(tree, symbols=symbols), changed, cost, node, True)
                break
        return found

    def free_symbol(self, symbol: str) -> str | None:
        """A free symbol with as many children."""
        meanings = self.semantics.meanings
        arity = meanings[symbol].arity
        free = [s for s in self.free if meanings[s].arity == arity and not meanings[s].is_trusted]
        return min(free, default=None)

    def leaf_values(self) -> set[Value | None]:
        """What symbols without children mean."""
        meanings = self.semantics.meanings.values()
        return {meaning(()) for meaning in meanings if not meaning.arity and meaning.is_trusted}

    def solutions(
        self,
        abduce: Abducer,
        tree: Tree,
        values: Sequence[Value | None],
        node: int,
        answer: Value,
    ) -> list[Value]:
        """Values of a node with which its ancestors give the answer."""
        path, children = [node], tree.children()
        while tree.heads[path[-1]] >= 0:
            path.append(tree.heads[path[-1]])
        targets = [answer]
        for head, child in zip(path[:0:-1], path[-2::-1], strict=True):
            inputs = [values[k] for k in children[head]]
            at = children[head].index(child)
            targets = [
                value
                for target in targets
                for value in abduce.solve(tree.symbols[head], inputs, at, target)
            ]
        return targets


def duplicates(semantics: Semantics) -> dict[str, str]:
    """Symbols without children that mean the same as one that is seen more often."""
    found: dict[str, str] = {}
    kept: dict[str, str] = {}
    trusted = [s for s, m in semantics.meanings.items() if not m.arity and m.is_trusted]
    for symbol in sorted(trusted, key=lambda s: -semantics.meanings[s].counts[()].total()):
        first = kept.setdefault(str(semantics.meanings[symbol].program), symbol)
        if first != symbol:
            found[symbol] = first
    return found
