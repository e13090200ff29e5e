"""The neural-symbolic recursive machine on sequences of images (Li et al., 2024, arXiv:2210.01603):
perception, trees and meanings learned from answers alone.

Deduction reads the likeliest symbols that may form a tree, parses and evaluates them. Abduction
changes what is cheapest to change: an image shows another symbol, or a symbol means something else,
or both. The symbols of trees that give the answer train perception. Given is how many children each
symbol has; which image shows which symbol is not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.models.neural_symbolic.abduction import Abducer, Fix
from unseen.models.neural_symbolic.image_abduction import ImageAbducer, duplicates
from unseen.models.neural_symbolic.machine import (
    Epoch,
    Explanation,
    Learning,
    NeuralSymbolicRecursiveMachine,
    Report,
    _Learner,
)
from unseen.models.neural_symbolic.parser import Tree
from unseen.models.neural_symbolic.perception import Clusters, Perception, likeliest_symbols
from unseen.models.neural_symbolic.programs import (
    ProgramInducer,
    Value,
)
from unseen.models.neural_symbolic.semantics import Meaning


class ImagePair(NamedTuple):
    """A sequence of images of one size, and its answer as tokens."""

    images: Float[Tensor, "n h w"]
    target: tuple[str, ...]


@dataclass(frozen=True)
class Perceiving:
    """How perception is learned."""

    clusters: int = 3
    """Groups of images per symbol at the start."""
    start_passes: int = 5
    """Over all images, on the symbols of their groups."""
    passes: int = 2
    """Over all images, per epoch."""
    batch_size: int = 256
    lr: float = 1e-3
    guess: float = 0.2
    """Weight of an image whose symbol no answer has told, but others of its group."""
    surprise: float = 3.0
    """Changes of a symbol that cost more are believed as rarely as those against a program."""

    def __post_init__(self) -> None:
        counts = (self.clusters, self.start_passes, self.passes, self.batch_size)
        if min(counts) < 1 or not self.lr > 0 or self.surprise < 0:
            raise InvalidConfig(
                f"{self} is out of range.",
                why="counts and the learning rate are positive, and a surprise is at least 0.",
                fix="correct the value.",
            )


class NeuralSymbolicImageMachine(nn.Module):
    """`fit(pairs)` of images and answers, then `read`, `predict` and `explain`.

    `arity`: how many children each symbol has; names of symbols with equally many are exchangeable.
    `numbers`: whether answers are whole numbers, written digit by digit.
    """

    def __init__(
        self,
        arity: Mapping[str, int],
        side: tuple[int, int] = (8, 8),
        *,
        numbers: bool = False,
        hidden: int = 128,
        inducer: ProgramInducer = ProgramInducer(),
    ) -> None:
        super().__init__()
        self.symbolic = NeuralSymbolicRecursiveMachine(arity, numbers=numbers, inducer=inducer)
        self.perception = Perception(tuple(arity), side, hidden)

    def fit(
        self,
        pairs: Sequence[ImagePair],
        lab: Lab = Lab(),
        learning: Learning = Learning(),
        perceiving: Perceiving = Perceiving(),
    ) -> Report:
        """Learns symbols, meanings and trees from images and answers alone."""
        self.start(pairs, lab, learning, perceiving).run()
        return self.report(pairs)

    def start(
        self,
        pairs: Sequence[ImagePair],
        lab: Lab = Lab(),
        learning: Learning = Learning(),
        perceiving: Perceiving = Perceiving(),
    ) -> "_ImageLearner":
        """Perception before any answer was seen: clusters, and what lengths say of them."""
        self.refuse(pairs)
        images = torch.cat([images for images, _ in pairs]).to(self.perception.mean)
        examples, end = list[tuple[range, Value]](), 0
        for pair in pairs:
            source = range(end, end + len(pair.images))
            examples.append((source, self.symbolic.read_answer(pair.target)))
            end = source.stop
        self.perception.standardise(images)
        return _ImageLearner(self, examples, learning, lab, images, perceiving)

    def refuse(self, pairs: Sequence[ImagePair]) -> None:
        """Raises where nothing can be learned from the pairs."""
        if not pairs:
            raise InvalidData(
                "There are no pairs.", why="nothing can be learned or asked.", fix="give some."
            )
        for k, (images, target) in enumerate(pairs, 1):
            self.refuse_images(images, f"Pair {k}")
            if target is None or (self.symbolic.numbers and not len(target)):
                raise InvalidData(
                    f"Pair {k} has no answer.",
                    why="perception, trees and meanings are learned from answers alone.",
                    fix="remove it, or write its answer as tokens.",
                )

    def refuse_images(self, images: Tensor, name: str) -> None:
        """Raises where a source is not a sequence of finite images of this machine's size."""
        high, wide = self.perception.side
        if not isinstance(images, Tensor):
            raise InvalidData(
                f"{name} has images as a {type(images).__name__}.",
                why=f"this machine reads tensors [n, {high}, {wide}].",
                fix="torch.as_tensor(images).",
            )
        if images.dim() != 3 or not len(images) or tuple(images.shape[1:]) != (high, wide):
            raise InvalidData(
                f"{name} has images of shape {tuple(images.shape)}.",
                why=f"this machine reads sequences [n, {high}, {wide}] of at least one image.",
                fix="bring all images to one size, and build the machine with side=(high, wide).",
            )
        if not torch.isfinite(images).all():
            raise InvalidData(
                f"{name} has pixels that are not finite.",
                why="neither groups of images nor probabilities can be computed from them.",
                fix="remove the pair, or replace NaN and infinite pixels.",
            )

    def read(self, sources: Sequence[Float[Tensor, "_ h w"]]) -> list[tuple[str, ...] | None]:
        """The likeliest symbols that may form a tree; None where no sequence may."""
        for k, images in enumerate(sources, 1):
            self.refuse_images(images, f"Source {k}")
        return [
            self.choose(self.perception.log_probabilities(images.to(self.perception.mean)))
            for images in sources
        ]

    def choose(self, log_probabilities: NDArray[np.float64]) -> tuple[str, ...] | None:
        """The likeliest symbols that may form a tree, by name."""
        names = self.perception.symbols
        arity = [self.symbolic.arity[name] for name in names]
        chosen = likeliest_symbols(log_probabilities, arity)
        return None if chosen is None else tuple(names[k] for k in chosen)

    def predict(self, sources: Sequence[Float[Tensor, "_ h w"]]) -> list[tuple[str, ...] | None]:
        """The answers as tokens; None where there is no tree or a value is missing."""
        symbols = self.read(sources)
        readable = {k: one for k, one in enumerate(symbols) if one is not None}
        found: list[tuple[str, ...] | None] = [None] * len(symbols)
        answers = self.symbolic.predict(list(readable.values()))
        for k, answer in zip(readable, answers, strict=True):
            found[k] = answer
        return found

    def explain(self, images: Float[Tensor, "n h w"]) -> Explanation:
        """The tree of the symbols that are seen, its values and the programs of its symbols."""
        symbols = self.read([images])[0]
        if symbols is None:
            return Explanation(None, "(no symbols that form a tree)", {})
        return self.symbolic.explain(symbols)

    def report(self, pairs: Sequence[ImagePair]) -> Report:
        """What was given and learned, and the share of these pairs that is explained."""
        answers = self.predict([images for images, _ in pairs])
        hits = sum(a == pair.target for a, pair in zip(answers, pairs, strict=True))
        seen = {symbol for one in self.read([i for i, _ in pairs]) for symbol in one or ()}
        meanings = self.symbolic.semantics.meanings
        return Report(
            "the number of children of every symbol; nothing about images, trees or meanings",
            tuple(self.symbolic.epochs),
            self.symbolic.semantics.programs(),
            hits / len(pairs),
            tuple(sorted(s for s in seen if not meanings[s].is_solved)),
        )

    def forward(self, images: Float[Tensor, "n h w"]) -> Float[Tensor, "n symbols"]:
        """Logits of the symbols of single images."""
        return self.perception(images)


class _ImageLearner(_Learner):
    """The same epochs, with perception before the tree. Sources are ranges of images."""

    def __init__(
        self,
        machine: NeuralSymbolicImageMachine,
        examples: Sequence[tuple[range, Value]],
        learning: Learning,
        lab: Lab,
        images: Float[Tensor, "n h w"],
        perceiving: Perceiving,
    ) -> None:
        super().__init__(machine.symbolic, examples, learning, lab)  # type: ignore[arg-type]
        self.whole, self.images, self.perceiving = machine, images, perceiving
        self.free: set[str] = set()
        self.joint = ImageAbducer(machine.symbolic.semantics, self.free)
        self.known: dict[int, int] = {}
        """The symbol of each image that an answer has told."""
        self.clusters = Clusters(
            images,
            [source for source, _ in examples],
            machine.symbolic.arity,
            perceiving.clusters,
            int(lab.child("clusters").numpy().integers(2**31)),
        )
        self.image_optimizer = torch.optim.Adam(machine.perception.parameters(), lr=perceiving.lr)
        self.fit_perception(perceiving.start_passes)

    def count(self, tree: Tree, values: Sequence[Value | None]) -> None:
        """Observes the nodes whose value the answer depends on: any program would explain the
        others, the present one as well as the right one.
        """
        abduce, children = Abducer(self.machine.semantics), tree.children()
        for node, symbol in enumerate(tree.symbols):
            value = values[node]
            inputs = tuple(v for v in (values[child] for child in children[node]) if v is not None)
            if value is None or len(inputs) < len(children[node]):
                continue
            if isinstance(value, int) and node != tree.root:
                changed = abduce._overwrite(tree, values, node, value + 1)
                if changed[tree.root] == values[tree.root]:
                    continue
            self.machine.semantics.meanings[symbol].counts[inputs][value] += 1

    def fit_perception(self, passes: int) -> None:
        labels = torch.from_numpy(self.clusters.labels(self.known))
        weights = torch.full((len(labels),), self.perceiving.guess)
        weights[list(self.known)] = 1.0
        self.whole.perception.fit(
            self.images,
            labels,
            weights,
            self.image_optimizer,
            passes,
            self.perceiving.batch_size,
            self.generator,
        )

    def epoch(  # type: ignore[override]
        self, shown: Sequence[tuple[range, Value]], longest: int, induces: bool
    ) -> Epoch:
        names = self.whole.perception.symbols
        drawn = [shown[k] for k in self.rng.integers(len(shown), size=self.learning.sample)]
        chances = [
            self.whole.perception.log_probabilities(self.images[source.start : source.stop])
            for source, _ in drawn
        ]
        symbols = [self.whole.choose(chance) for chance in chances]
        readable = [k for k, one in enumerate(symbols) if one is not None]
        seen = [(one, drawn[k][1]) for k, one in enumerate(symbols) if one is not None]
        semantics = self.machine.semantics
        trees = self.machine.parser.parse([source for source, _ in seen], self.rng)
        covered = sum(tree is not None for tree in trees) / len(drawn)
        hits = sum(map(self.explains, trees, seen)) / len(drawn)
        trees = self.search(trees, seen)
        right: list[Tree] = []
        semantics.decay()
        observed: list[tuple[Tree, Sequence[Value | None]]] = []
        for tree, (_, answer), k in zip(trees, seen, readable, strict=True):
            if tree is None:
                continue
            values: Sequence[Value | None] = semantics.values(tree)
            if values[tree.root] == answer:
                right.append(tree)
            else:
                chance = [dict(zip(names, row, strict=True)) for row in chances[k].tolist()]
                fix = self.joint(tree, answer, chance)
                if fix is None or not self.believes(fix):
                    continue
                tree, values = fix.tree, fix.values
            observed.append((tree, values))
            for image, symbol in zip(drawn[k][0], tree.symbols, strict=True):
                self.known[image] = names.index(symbol)
        for tree, values in observed:
            self.count(tree, values)
        if induces:
            semantics.induce()
            self.tidy()
        self.machine.parser.fit(
            right, self.optimizer, self.learning.passes, self.learning.batch_size, self.generator
        )
        self.fit_perception(self.perceiving.passes)
        solved = sum(meaning.is_solved for meaning in semantics.meanings.values())
        return Epoch(longest, covered, hits, solved)

    def tidy(self) -> None:
        """Symbols without children that were not shown yet mean nothing, though a few images of
        others stand in their groups; of two that mean the same the rarer becomes free for another
        meaning.
        """
        semantics, names = self.machine.semantics, self.whole.perception.symbols
        usual = len(self.known) / len(self.images)
        for k, symbol in enumerate(names):
            if not semantics.meanings[symbol].arity and self.told_share(k) < 0.5 * usual:
                semantics.meanings[symbol] = Meaning(0)
        for symbol, first in duplicates(semantics).items():
            semantics.meanings[symbol] = Meaning(0)
            self.free.add(symbol)  # until it is trusted again
            old, new = names.index(symbol), names.index(first)
            self.clusters.symbol = [new if k == old else k for k in self.clusters.symbol]
            self.known = {image: new if k == old else k for image, k in self.known.items()}

    def told_share(self, symbol: int) -> float:
        """Share of the images in the groups of a symbol that answers have told."""
        groups = [group for group, named in enumerate(self.clusters.symbol) if named == symbol]
        inside = np.isin(self.clusters.of, groups)
        told = inside[list(self.known)].sum()
        return float(told / inside.sum()) if inside.any() else 1.0

    def believes(self, fix: Fix) -> bool:
        if fix.changes_symbol and fix.cost <= self.perceiving.surprise:
            return True
        return super().believes(fix)
