"""What symbols mean: counts of inputs and outputs, and a program as soon as one explains them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unseen.models.neural_symbolic.parser import Tree
from unseen.models.neural_symbolic.programs import (
    EMPTY,
    Example,
    Function,
    Inputs,
    Program,
    ProgramInducer,
    Value,
    match_share,
)

TRUSTED, SOLVED = 0.5, 0.95
"""Likelihoods from which a program answers, and from which it is not searched for again."""


@dataclass
class Meaning:
    """One symbol."""

    arity: int
    counts: dict[Inputs, Counter[Value]] = field(default_factory=lambda: defaultdict(Counter))
    program: Program | None = None
    likelihood: float = 0.0
    evidence: int = 0
    """The most distinct inputs that the program explained at once."""

    @property
    def is_trusted(self) -> bool:
        return self.program is not None and self.likelihood > TRUSTED

    @property
    def is_solved(self) -> bool:
        return self.program is not None and self.likelihood >= SOLVED

    def __call__(self, inputs: Sequence[Value | None]) -> Value | None:
        """The program's answer, else the most frequent one seen; None: missing.

        A symbol without children of which nothing is known is worth nothing, the empty list:
        else two unknown symbols that occur together only could never be told apart.
        """
        known = tuple(value for value in inputs if value is not None)
        if len(known) != len(inputs) or len(known) != self.arity:
            return None
        if self.is_trusted and self.program is not None:
            return self.program(known)
        if known in self.counts:
            return self.counts[known].most_common(1)[0][0]
        return EMPTY if self.arity == 0 else None

    def examples(self) -> list[Example]:
        """Inputs whose most frequent output was seen at least once and more often than all others
        together.
        """
        found = []
        for inputs, outputs in self.counts.items():
            output, n = outputs.most_common(1)[0]
            if n >= 1 and n > 0.5 * outputs.total():
                found.append(Example(inputs, output, n))
        return sorted(found, key=lambda e: -e.weight)


class Semantics:
    """The meanings of all symbols."""

    def __init__(
        self,
        arity: Mapping[str, int],
        inducer: ProgramInducer = ProgramInducer(),
        caution: float = 4.0,
    ) -> None:
        self.inducer, self.caution = inducer, caution
        """Caution: a program of n children is trusted in full from caution · n examples on."""
        self.meanings = {symbol: Meaning(n) for symbol, n in arity.items()}
        self.library: dict[str, Function] = {}

    def values(self, tree: Tree) -> list[Value | None]:
        """The value of every node."""
        found: list[Value | None] = [None] * len(tree.heads)
        children = tree.children()
        for node in tree.bottom_up():
            inputs = [found[child] for child in children[node]]
            found[node] = self.meanings[tree.symbols[node]](inputs)
        return found

    def decay(self, rate: float = 0.5) -> None:
        """Old counts lose half of their weight, so that early mistakes die."""
        for meaning in self.meanings.values():
            for inputs, outputs in list(meaning.counts.items()):
                left = Counter({o: n * rate for o, n in outputs.items() if n * rate >= 0.25})
                if left:
                    meaning.counts[inputs] = left
                else:
                    del meaning.counts[inputs]

    def count(self, tree: Tree, values: Sequence[Value | None]) -> None:
        """Every node's inputs and value are one more observation of its symbol."""
        for node, children in enumerate(tree.children()):
            value = values[node]
            inputs = tuple(v for v in (values[child] for child in children) if v is not None)
            if value is not None and len(inputs) == len(children):
                self.meanings[tree.symbols[node]].counts[inputs][value] += 1

    def induce(self, most: int = 200) -> None:
        """Looks for a program of every symbol whose present one does not explain what was seen."""
        for symbol, meaning in sorted(self.meanings.items(), key=lambda item: item[1].arity):
            examples = meaning.examples()[:most]
            if not examples:
                continue
            if meaning.program is not None:
                # rare symbols are seen with few inputs at a time: what supported a program before
                # still does
                meaning.evidence = max(meaning.evidence, len(examples))
                meaning.likelihood = self._likelihood(
                    meaning.program, examples, meaning.arity, meaning.evidence
                )
            misses = list_misses(examples, meaning.program)
            # inputs seen often are short and fit many programs, so that few distinct misses count
            if not meaning.is_solved or len(misses) > 0.05 * len(examples):
                ordered = spread(examples, misses, self.inducer.tried)
                # a copy: two programs that call each other's latest one would never end
                program = self.inducer(ordered, meaning.arity, dict(self.library))
                if program is not None:
                    share = self._likelihood(program, examples, meaning.arity, len(examples))
                    if share > meaning.likelihood:
                        meaning.program, meaning.likelihood = program, share
                        meaning.evidence = len(examples)
            # what was seen since a program was found may have solved it
            if meaning.is_solved and meaning.arity == 2 and meaning.program is not None:
                self.library[symbol] = meaning.program

    def _likelihood(
        self, program: Program, examples: Sequence[Example], arity: int, evidence: int
    ) -> float:
        """The share of examples answered, divided by max(1, caution · arity / evidence): few
        examples trust no program.
        """
        return match_share(program, examples) / max(1.0, self.caution * arity / evidence)

    def programs(self) -> dict[str, str]:
        """Every symbol's program as text; a table or nothing where there is none."""
        found = {}
        for symbol, meaning in self.meanings.items():
            if meaning.is_trusted:
                found[symbol] = str(meaning.program)
            elif meaning.counts:
                found[symbol] = f"(no program: {len(meaning.counts)} inputs by heart)"
            else:
                found[symbol] = "(never seen)"
        return found


def list_misses(examples: Sequence[Example], program: Program | None) -> list[Example]:
    """The examples that the program does not answer; none without a program."""
    if program is None:
        return []
    return [example for example in examples if program(example.inputs) != example.output]


def spread(examples: Sequence[Example], misses: Sequence[Example], n: int) -> list[Example]:
    """The examples with misses as half of the first `n`, if there are so many: they show what a
    program gets wrong.
    """
    hits = [example for example in examples if example not in misses]
    half = n // 2
    return [*misses[:half], *hits[: n - half], *misses[half:], *hits[n - half :]]
