"""The neural-symbolic recursive machine (Li et al., 2024, arXiv:2210.01603), learned from pairs.

A parser turns symbols into a tree, every symbol computes its value from those of its children, and
the value of the root is the answer. What each symbol means, and which tree is right, is learned
from sources and answers by deduction (draw a tree, evaluate it) and abduction (change what is
cheapest to change so that the answer comes out). Given is how many children each symbol has, and
nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.engine.token_pairs import END, PAD, TO, Pair, Vocabulary, refuse_empty
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.models.neural_symbolic.abduction import Abducer, Fix
from unseen.models.neural_symbolic.parser import TransitionParser, Tree
from unseen.models.neural_symbolic.programs import ProgramInducer, Value
from unseen.models.neural_symbolic.semantics import Semantics


@dataclass(frozen=True)
class Learning:
    """How the machine learns from pairs."""

    epochs: int = 60
    sample: int = 600
    """Pairs drawn per epoch."""
    enough: float = 0.9
    """Share of drawn trees that give the answer from which longer sources are shown."""
    patience: int = 15
    """Epochs after which they are shown anyway."""
    passes: int = 5
    """Of the parser over the trees of an epoch."""
    batch_size: int = 256
    lr: float = 1e-3
    stride: int = 1
    """By how many lengths the sources grow at once."""
    induce_every: int = 2
    temperatures: tuple[float, ...] = (3.0, 10.0)
    """A source whose tree does not give the answer is parsed again, more evenly: a parser that is
    sure of short sources would never try what longer ones need.
    """
    doubt: float = 0.2
    """Share of the changes against a trusted program that are believed nevertheless."""
    finish: int = 3
    """Epochs in a row, of sources of every length, in which nearly all trees give the answer, after
    which learning ends.
    """

    def __post_init__(self) -> None:
        counts = (
            self.epochs,
            self.sample,
            self.patience,
            self.passes,
            self.induce_every,
            self.stride,
        )
        if min(*counts, self.batch_size, self.finish) < 1 or not 0 < self.enough <= 1:
            raise InvalidConfig(
                f"{self} is out of range.",
                why="counts are positive and a share lies between 0 and 1.",
                fix="correct the value.",
            )


@dataclass(frozen=True)
class Epoch:
    """What happened in one epoch."""

    longest: int
    """Symbols of the longest source shown."""
    covered: float
    """Share of the drawn sources whose transitions ended in a tree."""
    right: float
    """Share whose tree gave the answer without a change."""
    solved: int
    """Symbols with a program that explains what was seen of them."""


@dataclass(frozen=True)
class Explanation:
    """Why the machine answers what it answers."""

    answer: tuple[str, ...] | None
    """None: no tree, or a missing value."""
    tree: str
    """A line per symbol, children indented below their head, each with its value."""
    programs: Mapping[str, str]
    """Of the symbols in the tree."""

    def __str__(self) -> str:
        lines = [f"  {symbol}: {program}" for symbol, program in self.programs.items()]
        return "\n".join([self.tree, "where", *lines])


@dataclass(frozen=True)
class Report:
    """What was given, and what was learned."""

    given: str
    epochs: tuple[Epoch, ...]
    programs: Mapping[str, str]
    coverage: float
    """Share of training pairs whose likeliest tree gives the answer."""
    unsolved: tuple[str, ...]

    @property
    def doubts(self) -> list[str]:
        """Why the programs should not be believed; empty where nothing speaks against them."""
        found = []
        if self.coverage < 0.99:
            found.append(
                f"only {self.coverage:.0%} of the training pairs are explained by a tree: the order"
                " of the symbols may not allow one, or their numbers of children are wrong"
            )
        if self.unsolved:
            found.append(f"no program was found for {', '.join(self.unsolved)}")
        return found


class NeuralSymbolicRecursiveMachine(nn.Module):
    """`fit(pairs)`, then `predict` and `explain`.

    `arity`: how many children each symbol of the sources has. `numbers`: whether answers are whole
    numbers, written digit by digit, instead of lists of tokens.
    """

    def __init__(
        self,
        arity: Mapping[str, int],
        *,
        numbers: bool = False,
        inducer: ProgramInducer = ProgramInducer(),
        vocabulary: Vocabulary | None = None,
    ) -> None:
        super().__init__()
        if not arity or min(arity.values()) < 0 or max(arity.values()) > 3:
            raise InvalidConfig(
                f"The symbols have {sorted(set(arity.values()))} children.",
                why="a program has no, one, two or three variables, and a tree needs a symbol.",
                fix='for example {"walk": 0, "twice": 1, "and": 2}.',
            )
        self.arity, self.numbers = dict(arity), numbers
        self.parser = TransitionParser(arity)
        self.semantics = Semantics(arity, inducer)
        self.vocabulary = vocabulary
        self.epochs: list[Epoch] = []

    def fit(
        self, pairs: Sequence[Pair], lab: Lab = Lab(), learning: Learning = Learning()
    ) -> Report:
        """Learns meanings and trees from the pairs alone."""
        refuse_empty(pairs)
        # each pair once: a pair that training repeats (`jump` in SCAN, 1,467 times) would fill the
        # epochs of short sources, and longer ones would come before the other words are known
        examples = [(pair.source, self.read_answer(pair.target)) for pair in dict.fromkeys(pairs)]
        for source, _ in examples:
            self.parser.start(source)  # refuses unknown symbols before anything is learned
        _Learner(self, examples, learning, lab).run()
        return self.report(pairs)

    def read_answer(self, target: Sequence[str]) -> Value:
        """A target as a value."""
        if not self.numbers:
            return tuple(target)
        text = "".join(target)
        if not text.isdecimal():
            raise InvalidData(
                f"The answer `{' '.join(target)}` is no whole number.",
                why="this machine computes with numbers.",
                fix="NeuralSymbolicRecursiveMachine(arity, numbers=False) writes lists of tokens.",
            )
        return int(text)

    def answer(self, tree: Tree | None) -> Value | None:
        return None if tree is None else self.semantics.values(tree)[tree.root]

    def predict(self, sources: Sequence[Sequence[str]]) -> list[tuple[str, ...] | None]:
        """The answers as tokens; None where there is no tree or a value is missing."""
        return [self.write_answer(self.answer(tree)) for tree in self.parser.parse(sources)]

    def write_answer(self, value: Value | None) -> tuple[str, ...] | None:
        """A value as target tokens; the wrong kind of value is none."""
        if isinstance(value, int):
            return tuple(str(value)) if self.numbers else None
        return None if self.numbers else value

    def explain(self, source: Sequence[str]) -> Explanation:
        """The tree of one source, its values and the programs of its symbols."""
        tree = self.parser.parse([source])[0]
        programs = {s: p for s, p in self.semantics.programs().items() if s in source}
        if tree is None:
            return Explanation(None, "(no tree)", programs)
        values = self.semantics.values(tree)
        lines = _lines(tree, values, tree.root, 0)
        return Explanation(self.write_answer(values[tree.root]), "\n".join(lines), programs)

    def report(self, pairs: Sequence[Pair]) -> Report:
        """What was given and learned, and the share of these pairs that is explained."""
        answers = self.predict([pair.source for pair in pairs])
        hits = sum(a == pair.target for a, pair in zip(answers, pairs, strict=True))
        used = {symbol for pair in pairs for symbol in pair.source}
        meanings = self.semantics.meanings
        return Report(
            "the number of children of every symbol; nothing about trees or meanings",
            tuple(self.epochs),
            self.semantics.programs(),
            hits / len(pairs),
            tuple(sorted(s for s in used if not meanings[s].is_solved)),
        )

    def forward(self, tokens: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        """Logits that put the answer behind each prompt, so that the machine can be scored like a
        language model.
        """
        if self.vocabulary is None:
            raise InvalidConfig(
                "The machine has no vocabulary.",
                why="numbers of tokens mean nothing to it.",
                fix="NeuralSymbolicRecursiveMachine(arity, vocabulary=spec.vocabulary).",
            )
        rows = [read_row(row, self.vocabulary) for row in tokens.tolist()]
        answers = self.predict([source for source, _ in rows])
        scale = self.parser.out.weight.new_zeros(*tokens.shape, len(self.vocabulary))
        for k, ((_, start), answer) in enumerate(zip(rows, answers, strict=True)):
            written = [PAD] if answer is None else _numbers(answer, self.vocabulary)
            for place, token in enumerate(written[: tokens.shape[1] - start]):
                scale[k, start + place, token] = 20.0
        return scale


def read_row(row: Sequence[int], vocabulary: Vocabulary) -> tuple[tuple[str, ...], int]:
    """The source of an encoded pair, and the position of the token that ends it."""
    if TO not in row:
        raise InvalidData(
            "A row has no <to>.",
            why="it separates source and target.",
            fix="encode pairs by engine.token_pairs.encode_pairs.",
        )
    start = list(row).index(TO)
    return vocabulary.decode(row[:start]), start


def _numbers(answer: Sequence[str], vocabulary: Vocabulary) -> list[int]:
    """The answer with its end; a token that the vocabulary lacks ends it too early."""
    known = [vocabulary.number.get(token, PAD) for token in answer]
    return [*known, END]


def _lines(tree: Tree, values: Sequence[Value | None], node: int, depth: int) -> list[str]:
    value = values[node]
    shown = (
        "missing"
        if value is None
        else str(value)
        if isinstance(value, int)
        else (f"[{' '.join(value)}]")
    )
    lines = [f"{'  ' * depth}{tree.symbols[node]} = {shown}"]
    for child in tree.children()[node]:
        lines += _lines(tree, values, child, depth + 1)
    return lines


@dataclass
class _Learner:
    """Deduction and abduction, epoch by epoch."""

    machine: NeuralSymbolicRecursiveMachine
    examples: Sequence[tuple[tuple[str, ...], Value]]
    learning: Learning
    lab: Lab
    lengths: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.lengths = sorted({len(source) for source, _ in self.examples})
        self.rng = self.lab.child("epochs").numpy()
        self.generator = self.lab.child("parser").generator()
        self.optimizer = torch.optim.Adam(
            self.machine.parser.parameters(), lr=self.learning.lr, amsgrad=True
        )
        self.abduce = Abducer(self.machine.semantics)

    def run(self) -> None:
        level = waited = finished = 0
        for epoch in range(self.learning.epochs):
            longest = self.lengths[level]
            shown = [example for example in self.examples if len(example[0]) <= longest]
            record = self.epoch(shown, longest, (epoch + 1) % self.learning.induce_every == 0)
            self.machine.epochs.append(record)
            waited += 1
            if level + 1 < len(self.lengths):
                if record.right >= self.learning.enough or waited >= self.learning.patience:
                    level = min(level + self.learning.stride, len(self.lengths) - 1)
                    waited = 0
                continue
            finished = finished + 1 if record.right >= 0.98 else 0
            if finished >= self.learning.finish:
                return

    def epoch(
        self, shown: Sequence[tuple[tuple[str, ...], Value]], longest: int, induces: bool
    ) -> Epoch:
        drawn = [shown[k] for k in self.rng.integers(len(shown), size=self.learning.sample)]
        semantics = self.machine.semantics
        trees = self.machine.parser.parse([source for source, _ in drawn], self.rng)
        covered = sum(tree is not None for tree in trees) / len(drawn)
        hits = sum(map(self.explains, trees, drawn)) / len(drawn)
        trees = self.search(trees, drawn)
        right: list[Tree] = []
        semantics.decay()
        # what an epoch observes counts from the next one on: order within it must not matter
        observed: list[tuple[Tree, Sequence[Value | None]]] = []
        for tree, (_, answer) in zip(trees, drawn, strict=True):
            if tree is None:
                continue
            values = semantics.values(tree)
            if values[tree.root] == answer:
                right.append(tree)
                observed.append((tree, values))
            elif (fix := self.abduce(tree, answer)) is not None and self.believes(fix):
                observed.append((fix.tree, fix.values))
        for tree, values in observed:  # type: ignore[assignment]
            semantics.count(tree, values)
        if induces:
            semantics.induce()
        self.machine.parser.fit(
            right, self.optimizer, self.learning.passes, self.learning.batch_size, self.generator
        )
        solved = sum(meaning.is_solved for meaning in semantics.meanings.values())
        return Epoch(longest, covered, hits, solved)

    def believes(self, fix: Fix) -> bool:
        """Against a trusted program a wrong tree is the better explanation, but not for ever: a
        program learned from short inputs may be wrong of long ones.
        """
        return fix.cost <= 0 or float(self.rng.random()) < self.learning.doubt

    def explains(self, tree: Tree | None, example: tuple[tuple[str, ...], Value]) -> bool:
        return self.machine.answer(tree) == example[1]

    def search(
        self, trees: Sequence[Tree | None], drawn: Sequence[tuple[tuple[str, ...], Value]]
    ) -> list[Tree | None]:
        """The trees, with other ones where those give the answer and the first ones do not."""
        found = list(trees)
        for temperature in self.learning.temperatures:
            wrong = [k for k, tree in enumerate(found) if not self.explains(tree, drawn[k])]
            others = self.machine.parser.parse([drawn[k][0] for k in wrong], self.rng, temperature)
            for k, other in zip(wrong, others, strict=True):
                if found[k] is None or self.explains(other, drawn[k]):
                    found[k] = other
        return found
