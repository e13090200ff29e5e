"""Arithmetic after HINT (Li et al., 2021, arXiv:2103.01403) as sequences of images.

Digits are images of optdigits: those of its 30 writers in training, of 13 other writers in
evaluation. Operators and brackets are drawn anew each time, as strokes with noise. The answer is
written as tokens, digit by digit; which image shows which symbol is never told.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.token_pairs import Pair, Vocabulary, encode_pairs
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import all_tokens_right, mean_token_loss
from unseen.task import Axis, Batch, Objective, PerExample, Split, Task, Use
from unseen.tasks.digit_sources import load_part
from unseen.tasks.hint import DIGITS, OPERATORS, Hint
from unseen.tasks.images import Collection

SIDE = 8
ARITY: Mapping[str, int] = {
    **dict.fromkeys(DIGITS, 0),
    **dict.fromkeys((*OPERATORS, "("), 2),
    ")": 0,
}
"""Children of each symbol: an opening bracket has what is inside and the closing one."""
STROKES: Mapping[str, tuple[tuple[float, float, float, float], ...]] = {
    "+": ((3.5, 0.8, 3.5, 6.2), (0.8, 3.5, 6.2, 3.5)),
    "-": ((0.8, 3.5, 6.2, 3.5),),
    "*": ((1.0, 1.0, 6.0, 6.0), (1.0, 6.0, 6.0, 1.0)),
    "/": ((1.0, 6.3, 6.0, 0.7),),
    "(": ((4.6, 0.3, 2.6, 2.2), (2.6, 2.2, 2.6, 4.8), (2.6, 4.8, 4.6, 6.7)),
    ")": ((2.4, 0.3, 4.4, 2.2), (4.4, 2.2, 4.4, 4.8), (4.4, 4.8, 2.4, 6.7)),
}
"""From x, y to x, y in pixels."""


@dataclass(frozen=True)
class ImageSequence:
    """An expression with its value, and the images that show it."""

    pair: Pair
    images: Float[Tensor, "n 8 8"]


@dataclass(frozen=True)
class ImageSequences:
    """Training sequences, and those for evaluation by name."""

    train: tuple[ImageSequence, ...]
    evaluate: Mapping[str, tuple[ImageSequence, ...]]


@dataclass(frozen=True)
class HintImages:
    """The expressions of `Hint`, each symbol an image of 8 × 8 pixels.

    Training has equally many sequences of every number of operators: of short expressions there are
    few, which come with different images.
    """

    expressions: Hint = field(default_factory=Hint)
    n_each: int = 600
    """Training sequences per number of operators."""
    shift: float = 0.3
    """Pixels by which a drawn symbol is moved at most; its strokes' ends as much again."""
    noise: float = 0.08
    """Standard deviation of a drawn pixel; full ink is 1."""

    def __post_init__(self) -> None:
        if self.n_each < 1 or not 0 <= self.shift <= 2 or not 0 <= self.noise <= 1:
            raise InvalidConfig(
                f"HintImages(n_each={self.n_each}, shift={self.shift}, noise={self.noise}) is out "
                "of range.",
                why="training needs sequences, and symbols stay within 8 pixels and in sight.",
                fix="for example HintImages(n_each=600, shift=0.3, noise=0.08).",
            )

    def sequences(self, lab: Lab) -> ImageSequences:
        """Expressions with their images."""
        given = self.expressions.pairs(lab)
        rng = lab.child("repeats").numpy()
        by_size: dict[int, list[Pair]] = {}
        for one in given.train:
            by_size.setdefault(count_operators(one), []).append(one)
        train = [
            pairs[k]
            for _, pairs in sorted(by_size.items())
            for k in draw_rows(len(pairs), self.n_each, rng)
        ]
        return ImageSequences(
            self.show(train, "train", lab.child("images", "train")),
            {
                name: self.show(part, "test", lab.child("images", name))
                for name, part in given.evaluate.items()
            },
        )

    def show(self, pairs: Sequence[Pair], part: str, lab: Lab) -> tuple[ImageSequence, ...]:
        """Every symbol as an image: digits from a part of optdigits, others drawn."""
        held = load_part(Collection.OPTDIGITS, part)
        labels = held.labels.numpy()
        rows = {digit: np.flatnonzero(labels == int(digit)) for digit in DIGITS}
        pixels = held.pixels(torch.arange(len(labels)))[:, 0].numpy()
        rng = lab.numpy()

        def image(symbol: str) -> NDArray[np.float32]:
            if symbol in rows:
                return pixels[rng.choice(rows[symbol])]
            return draw_symbol(symbol, self.shift, self.noise, rng)

        return tuple(
            ImageSequence(one, torch.from_numpy(np.stack([image(s) for s in one.source])))
            for one in pairs
        )

    def build(self, lab: Lab) -> Task:
        given = self.sequences(lab)
        parts = {"train": given.train, **given.evaluate}
        splits = {
            name: Split(
                columns(part),
                Use.TRAIN if name == "train" else Use.EVALUATE,
                "few" if name in ("train", "same") else name,
            )
            for name, part in parts.items()
        }
        return Task(
            name="HINT images", axis=Axis.COMPOSITION, splits=splits, objective=answer_match
        )


def count_operators(one: Pair) -> int:
    return sum(symbol in OPERATORS for symbol in one.source)


def draw_rows(available: int, n: int, rng: np.random.Generator) -> list[int]:
    """n rows, each as often as any other up to one."""
    whole = np.concatenate([rng.permutation(available) for _ in range(-(-n // available))])
    return whole[:n].tolist()


def draw_symbol(
    symbol: str, shift: float, noise: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Strokes of random width, moved and bent a little, with noise; ink between 0 and 1."""
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).astype(float)
    moved, width = rng.uniform(-shift, shift, 2), rng.uniform(0.6, 1.0)
    distance = np.full((SIDE, SIDE), np.inf)
    for stroke in STROKES[symbol]:
        start, end = np.array(stroke).reshape(2, 2) + moved + rng.uniform(-shift, shift, (2, 2))
        along = end - start
        at = np.clip((grid - start) @ along / (along @ along), 0, 1)
        gap = np.linalg.norm(grid - start - at[..., None] * along, axis=-1)
        distance = np.minimum(distance, gap)
    ink = np.clip(width + 0.5 - distance, 0, 1) + rng.normal(0, noise, distance.shape)
    return np.clip(ink, 0, 1).astype(np.float32)


WORDS = Vocabulary(DIGITS)
"""Of the answers."""
WIDTH = SIDE * SIDE + len(WORDS)
"""Numbers per position of `x`: the pixels of an image, or a one-hot token behind them."""


def columns(part: Sequence[ImageSequence]) -> Columns:
    """Columns `x` (vectors that a `Decoder(inputs=WIDTH)` reads), `tokens`, `mask` (the answer) and
    `length`.
    """
    # a source of as many tokens holds the images' places
    rows = [Pair((DIGITS[0],) * len(one.images), one.pair.target) for one in part]
    table = encode_pairs(rows, WORDS).columns
    x = torch.zeros(*table["tokens"].shape, WIDTH)
    x[..., SIDE * SIDE :] = F.one_hot(table["tokens"], len(WORDS)).float()
    for k, one in enumerate(part):
        n = len(one.images)
        x[k, :n] = 0.0
        x[k, :n, : SIDE * SIDE] = one.images.flatten(1)
    return Columns(x=x, **table)


class _Vectors(nn.Module):
    """A model of tokens that reads vectors in their place."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.model, self.x = model, x

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(self.x)


def read_vectors(f: PerExample) -> Callable[[nn.Module, Batch], Float[Tensor, " batch"]]:
    """The loss or score of tokens, for a model of the column `x`."""

    def read(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
        return f(_Vectors(model, batch["x"]), batch)

    return read


answer_match = Objective(read_vectors(mean_token_loss), read_vectors(all_tokens_right))


def easy_model(_: Task) -> nn.Module:
    with Lab().seeded():
        return Transformer(
            Decoder(vocabulary=len(WORDS), width=16, layers=1, heads=2, inputs=WIDTH, tied=False)
        )


def example() -> tuple[HintImages, Callable[[Task], nn.Module]]:
    return HintImages(Hint(n_train=100, n_test=20), n_each=20), easy_model
