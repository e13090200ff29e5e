"""More primitives for the same structure: copies of words that stand for themselves, and of all
words.

After the public code of Zhou, Jiang & Bansal (2023), "Data Factors for Better Compositional
Generalization": a copy replaces a word in source and target alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from unseen.engine.token_pairs import Pair, refuse_empty
from unseen.errors import InvalidConfig, InvalidData

Primitives = Mapping[str, str]
"""Words of sources and the target token that each of them stands for."""


def find_primitives(pairs: Sequence[Pair]) -> dict[str, str]:
    """Words that stand alone as a source and have one token as target, as `jump` → `I_JUMP`."""
    alone = {s[0]: t[0] for s, t in pairs if len(s) == 1 and len(t) == 1}
    return dict(sorted(alone.items()))


def copy_primitives(
    pairs: Sequence[Pair], primitives: Primitives, copies: int, *, most: int = 0, seed: int = 0
) -> list[Pair]:
    """Every pair with its primitives replaced by their copies (`walk3`, `I_WALK3`) in all ways.

    All occurrences of a primitive in a pair change together, so that one with c of them has
    (copies + 1)^c variants; `most` of them at random (0: all), the pair itself always.
    """
    refuse_empty(pairs)
    _refuse_collisions(pairs, primitives, copies)
    rng = np.random.default_rng(seed)
    return [variant for one in pairs for variant in _variants(one, primitives, copies, most, rng)]


def count_variants(pairs: Sequence[Pair], primitives: Primitives, copies: int) -> int:
    """Σ (copies + 1)^c over the pairs, c their number of different primitives."""
    return sum((copies + 1) ** len(set(source) & set(primitives)) for source, _ in pairs)


def _variants(
    one: Pair, primitives: Primitives, copies: int, most: int, rng: np.random.Generator
) -> Iterator[Pair]:
    words = sorted(set(one.source) & set(primitives))
    if not most or (copies + 1) ** len(words) <= most:
        choices = list(product(range(copies + 1), repeat=len(words)))
    else:
        drawn = {(0,) * len(words): None}
        while len(drawn) < most:
            drawn[tuple(rng.integers(0, copies + 1, len(words)).tolist())] = None
        choices = list(drawn)
    for numbers in choices:
        yield _replace(one, primitives, dict(zip(words, numbers, strict=True)))


def _replace(one: Pair, primitives: Primitives, numbers: Mapping[str, int]) -> Pair:
    """The pair with a numbered copy of each word; 0 is the word itself."""
    new = {word: f"{word}{n}" for word, n in numbers.items() if n}
    written = {primitives[word]: f"{primitives[word]}{n}" for word, n in numbers.items() if n}
    return Pair(
        tuple(new.get(word, word) for word in one.source),
        tuple(written.get(token, token) for token in one.target),
    )


def _refuse_collisions(pairs: Sequence[Pair], primitives: Primitives, copies: int) -> None:
    if copies < 0 or not primitives:
        raise InvalidConfig(
            f"{copies} copies of {len(primitives)} primitives.",
            why="words that stand alone as a source with one token as target are copied.",
            fix="give such pairs, or the words as `primitives`; copies are at least 0.",
        )
    known = {token for one in pairs for side in one for token in side}
    names = [name for pair in primitives.items() for name in pair]
    taken = sorted({f"{name}{k}" for name in names for k in range(1, copies + 1)} & known)
    if taken:
        raise InvalidData(
            f"The copy `{taken[0]}` would have the name of a token that is there.",
            why="the two could not be told apart.",
            fix="rename that token.",
        )


def copy_tokens(pairs: Sequence[Pair], copies: int) -> list[Pair]:
    """AugZero: the pairs, and so many times again with every token renamed (`walk#2`) on both
    sides: no knowledge of the structure is used.
    """
    refuse_empty(pairs)
    if copies < 0:
        raise InvalidConfig(f"{copies} copies.", why="they are counted.", fix="0 or more.")
    found = list(pairs)
    for k in range(1, copies + 1):
        found += [Pair(*(tuple(f"{token}#{k}" for token in side) for side in one)) for one in pairs]
    return found
