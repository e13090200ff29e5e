"""An arc-standard transition parser (Nivre, 2004) that builds trees of symbols with known arity.

A configuration is a stack, what is left to read, and the arcs so far. `SHIFT` reads a word;
`LEFT` makes the second word of the stack a child of the first, `RIGHT` the first a child of the
second (Chen & Manning, 2014, whose features these are). An arc is allowed only where the head still
needs a child and the child has all of its own, so that every finished tree can be evaluated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from unseen.errors import InvalidData, UnknownName

FEATURES = 18
ROOT = -1


class Action(IntEnum):
    """The transitions."""

    SHIFT = 0
    LEFT = 1
    RIGHT = 2


@dataclass(frozen=True)
class Tree:
    """Symbols in their order, and the head of each; the root's is −1."""

    symbols: tuple[str, ...]
    heads: tuple[int, ...]

    @property
    def root(self) -> int:
        return self.heads.index(ROOT)

    def children(self) -> list[list[int]]:
        """The children of every node, from left to right."""
        found: list[list[int]] = [[] for _ in self.heads]
        for node, head in enumerate(self.heads):
            if head != ROOT:
                found[head].append(node)
        return found

    def bottom_up(self) -> list[int]:
        """Every node behind its children."""
        children, order, todo = self.children(), list[int](), [self.root]
        while todo:
            node = todo.pop()
            order.append(node)
            todo.extend(children[node])
        return order[::-1]


@dataclass
class State:
    """A configuration."""

    needs: list[int]
    """Children that each word still lacks."""
    stack: list[int] = field(default_factory=list)
    read: int = 0
    """Words read so far."""
    heads: list[int] = field(default_factory=list)
    children: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.heads = [ROOT] * len(self.needs)
        self.children = [[] for _ in self.needs]

    def legal(self) -> list[Action]:
        """The transitions allowed here; none where the words cannot form a tree any more."""
        found = [Action.SHIFT] if self.read < len(self.needs) else []
        if len(self.stack) >= 2:
            second, first = self.stack[-2:]
            if self.needs[first] and not self.needs[second]:
                found.append(Action.LEFT)
            if self.needs[second] and not self.needs[first]:
                found.append(Action.RIGHT)
        return found

    @property
    def is_final(self) -> bool:
        """One tree of all words."""
        return (
            self.read == len(self.needs) and len(self.stack) == 1 and not self.needs[self.stack[0]]
        )

    def take(self, action: Action) -> None:
        if action is Action.SHIFT:
            self.stack.append(self.read)
            self.read += 1
            return
        second, first = self.stack[-2:]
        head, child = (first, second) if action is Action.LEFT else (second, first)
        self.heads[child] = head
        self.children[head] = sorted((*self.children[head], child))
        self.needs[head] -= 1
        self.stack[-2:] = [head]

    def features(self, symbols: Sequence[int], none: int) -> list[int]:
        """The 18 symbols that decide: three of the stack, three to come, and of the two topmost
        their outermost children and the children of those.
        """
        top = self.stack[-1:-4:-1]
        ahead = list(range(self.read, min(self.read + 3, len(symbols))))
        nodes = [*_fill(top, 3), *_fill(ahead, 3)]
        for node in _fill(top[:2], 2):
            below = self.children[node] if node >= 0 else []
            left, right = _at(below, 0), _at(below, -1)
            nodes += [left, right, _at(below, 1), _at(below, -2)]
            nodes += [
                _at(self.children[left], 0) if left >= 0 else -1,
                _at(self.children[right], -1) if right >= 0 else -1,
            ]
        return [symbols[node] if node >= 0 else none for node in nodes]


def _fill(nodes: Sequence[int], size: int) -> list[int]:
    return [*nodes, *[-1] * (size - len(nodes))]


def _at(nodes: Sequence[int], k: int) -> int:
    return nodes[k] if -len(nodes) <= k < len(nodes) else -1


def oracle_actions(heads: Sequence[int]) -> list[Action]:
    """The transitions that build a tree (static oracle); a tree with crossing arcs is refused."""
    n = len(heads)
    lacks = [0] * n
    for head in heads:
        if head != ROOT:
            lacks[head] += 1
    stack, read, actions = list[int](), 0, list[Action]()
    while read < n or len(stack) > 1:
        second, first = stack[-2:] if len(stack) >= 2 else (ROOT, ROOT)
        if len(stack) >= 2 and heads[second] == first and not lacks[second]:
            action = Action.LEFT
        elif len(stack) >= 2 and heads[first] == second and not lacks[first]:
            action = Action.RIGHT
        elif read < n:
            action = Action.SHIFT
        else:
            raise InvalidData(
                f"The tree with heads {list(heads)} has crossing arcs, or more roots than one.",
                why="the parser joins neighbours only, so it cannot build it.",
                fix="change the order of the words so that every subtree is one piece.",
            )
        actions.append(action)
        if action is Action.SHIFT:
            stack.append(read)
            read += 1
        else:
            head = first if action is Action.LEFT else second
            lacks[head] -= 1
            stack[-2:] = [head]
    return actions


@dataclass(frozen=True)
class Decisions:
    """What a parser is trained on: features, allowed transitions and the right one."""

    features: list[list[int]]
    legal: list[list[Action]]
    actions: list[Action]


class TransitionParser(nn.Module):
    """Scores transitions by a network over the 18 symbols."""

    def __init__(self, arity: Mapping[str, int], width: int = 50, hidden: int = 200) -> None:
        super().__init__()
        self.arity = dict(arity)
        self.number = {symbol: k for k, symbol in enumerate(sorted(arity))}
        self.embed = nn.Embedding(len(arity) + 1, width)
        self.hidden = nn.Linear(FEATURES * width, hidden)
        self.out = nn.Linear(hidden, len(Action))

    def forward(self, features: Int[Tensor, "n 18"]) -> Float[Tensor, "n 3"]:
        return self.out(self.hidden(self.embed(features).flatten(1)).relu())

    def start(self, symbols: Sequence[str]) -> State:
        """Everything still to read."""
        if not symbols:
            raise InvalidData(
                "A sequence is empty.", why="nothing can be parsed.", fix="remove it."
            )
        for symbol in symbols:
            if symbol not in self.arity:
                raise UnknownName.near("symbol", symbol, self.arity)
        return State([self.arity[symbol] for symbol in symbols])

    def encode(self, symbols: Sequence[str]) -> list[int]:
        return [self.number[symbol] for symbol in symbols]

    @torch.no_grad()
    def parse(
        self,
        sequences: Sequence[Sequence[str]],
        rng: np.random.Generator | None = None,
        temperature: float = 1.0,
    ) -> list[Tree | None]:
        """The tree of each sequence: transitions drawn with `rng`, the more evenly the higher the
        temperature, else the likeliest; None where the words did not form one.
        """
        states = [self.start(symbols) for symbols in sequences]
        codes = [self.encode(symbols) for symbols in sequences]
        todo = list(range(len(states)))
        while todo:
            choices = {k: states[k].legal() for k in todo}
            todo = [k for k in todo if choices[k] and not states[k].is_final]
            free = [k for k in todo if len(choices[k]) > 1]
            scores = self._scores([states[k].features(codes[k], len(self.arity)) for k in free])
            scores /= temperature
            picked = dict(zip(free, _pick(scores, [choices[k] for k in free], rng), strict=True))
            for k in todo:
                states[k].take(picked.get(k, choices[k][0]))
        return [
            Tree(tuple(symbols), tuple(state.heads)) if state.is_final else None
            for symbols, state in zip(sequences, states, strict=True)
        ]

    def _scores(self, features: list[list[int]]) -> NDArray[np.float64]:
        if not features:
            return np.zeros((0, len(Action)))
        device = self.out.weight.device
        return self(torch.tensor(features, device=device)).double().cpu().numpy()

    def decisions(self, trees: Sequence[Tree]) -> Decisions:
        """The choices on the way to each tree; forced ones teach nothing."""
        found = Decisions([], [], [])
        for tree in trees:
            state, codes = self.start(tree.symbols), self.encode(tree.symbols)
            for action in oracle_actions(tree.heads):
                legal = state.legal()
                if len(legal) > 1:
                    found.features.append(state.features(codes, len(self.arity)))
                    found.legal.append(legal)
                    found.actions.append(action)
                state.take(action)
        return found

    def fit(
        self,
        trees: Sequence[Tree],
        optimizer: torch.optim.Optimizer,
        passes: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        """Maximises the likelihood of the trees' transitions."""
        seen = self.decisions(trees)
        if not seen.actions:
            return
        features, actions = torch.tensor(seen.features), torch.tensor(seen.actions)
        barred = torch.ones(len(actions), len(Action), dtype=torch.bool)
        for k, legal in enumerate(seen.legal):
            barred[k, [int(action) for action in legal]] = False
        for _ in range(passes):
            for index in torch.randperm(len(actions), generator=generator).split(batch_size):
                scores = self(features[index]).masked_fill(barred[index], -torch.inf)
                optimizer.zero_grad()
                nn.functional.cross_entropy(scores, actions[index]).backward()
                optimizer.step()


def _pick(
    scores: NDArray[np.float64], legal: Sequence[Sequence[Action]], rng: np.random.Generator | None
) -> list[Action]:
    """One allowed transition per row: the likeliest, or drawn (argmax under Gumbel noise)."""
    noise = 0.0 if rng is None else rng.gumbel(size=scores.shape)
    total = scores + noise
    return [
        max(allowed, key=lambda action, row=row: row[action])  # type: ignore[misc]
        for row, allowed in zip(total, legal, strict=True)
    ]
