"""Harder splits of pairs than a random one: what training shows and what only the test asks.

Length and primitive as in SCAN (Lake & Baroni, 2018, arXiv:1711.00350), template as in Loula et al.
(2018, arXiv:1807.07545), divergence after Keysers et al. (2020, arXiv:1912.09713), words in few
contexts as in COGS (Kim & Linzen, 2020, arXiv:2010.05465).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from unseen.engine.token_pairs import Pair, refuse_empty
from unseen.errors import InvalidConfig, InvalidData, UnknownName

Key = TypeVar("Key")


@dataclass(frozen=True)
class PairSplit:
    """Training and test pairs, the rule that separates them, and pairs in neither."""

    rule: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    left_out: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        if not self.train or not self.test:
            raise InvalidData(
                f"The rule “{self.rule}” leaves {len(self.train)} training and "
                f"{len(self.test)} test pairs.",
                why="both parts need at least one.",
                fix="choose another word, template or share, or give more pairs.",
            )

    @property
    def overlap(self) -> int:
        """Distinct pairs that are in both parts."""
        return len(set(self.train) & set(self.test))

    @property
    def unknown_words(self) -> tuple[str, ...]:
        """Tokens of the test sources that no training source holds."""
        return tuple(sorted(_words(self.test) - _words(self.train)))

    def counts(self) -> dict[str, int]:
        return {
            "train": len(self.train),
            "distinct in train": len(set(self.train)),
            "test": len(self.test),
            "left out": len(self.left_out),
            "overlap": self.overlap,
            "unknown words": len(self.unknown_words),
        }


def _words(pairs: Iterable[Pair]) -> set[str]:
    return {token for source, _ in pairs for token in source}


def _cut(rule: str, pairs: Sequence[Pair], in_test: Callable[[Pair], bool]) -> PairSplit:
    train, test = list[Pair](), list[Pair]()
    for one in pairs:
        (test if in_test(one) else train).append(one)
    return PairSplit(rule, tuple(train), tuple(test))


def split_by_length(
    pairs: Sequence[Pair], share: float = 0.2, *, longest: int | None = None
) -> PairSplit:
    """Training ⇔ the target has at most `longest` tokens; None: the largest number that leaves at
    least `share` of the pairs to the test.
    """
    refuse_empty(pairs)
    if longest is None:
        lengths = sorted(len(target) for _, target in pairs)
        longest = lengths[-_test_size(pairs, share)] - 1
    limit = longest
    rule = f"training targets have at most {limit} tokens"
    return _cut(rule, pairs, lambda one: len(one.target) > limit)


def split_by_primitive(
    pairs: Sequence[Pair], share: float = 0.2, *, token: str | None = None
) -> PairSplit:
    """The test holds every source with the token, training the token alone.

    None: of the tokens that stand alone as a source, the one in the number of pairs nearest to
    `share`.
    """
    refuse_empty(pairs)
    alone = {source[0] for source, _ in pairs if len(source) == 1}
    if not alone:
        raise InvalidData(
            "No source is a single token.",
            why="a primitive is learned from its own pair and then used in others.",
            fix="add pairs of single tokens, or split by word: a few contexts are shown then.",
        )
    if token is None:
        uses = Counter(word for source, _ in pairs for word in set(source) if len(source) > 1)
        token = _nearest({word: uses[word] for word in sorted(alone)}, _test_size(pairs, share))
    if token not in alone:
        raise UnknownName.near("token that stands alone as a source", token, alone)
    rule = f"“{token}” is trained alone and tested in longer sources"
    return _cut(rule, pairs, lambda one: token in one.source and len(one.source) > 1)


def split_by_template(
    pairs: Sequence[Pair], share: float = 0.2, *, template: str | None = None
) -> PairSplit:
    """The test holds every source with these words next to each other.

    None: of the pairs of neighbouring words whose both words training also holds apart, the one in
    the number of sources nearest to `share`.
    """
    refuse_empty(pairs)
    if template is None:
        template = " ".join(_template(pairs, _test_size(pairs, share)))
    words = tuple(template.split())
    rule = f"“{template}” is tested, and its words are trained apart"
    return _cut(rule, pairs, lambda one: contains(one.source, words))


def contains(source: Sequence[str], words: Sequence[str]) -> bool:
    """Whether the words stand next to each other, in this order."""
    size = len(words)
    return any(tuple(source[k : k + size]) == tuple(words) for k in range(len(source) - size + 1))


def _template(pairs: Sequence[Pair], wanted: int) -> tuple[str, str]:
    uses = Counter(word for source, _ in pairs for word in set(source))
    found = Counter(both for source, _ in pairs for both in set(pairwise(source)))
    # each word must remain in training: it occurs in more sources than the two together
    apart = {both: n for both, n in sorted(found.items()) if n < min(uses[w] for w in both)}
    if not apart:
        raise InvalidData(
            "No two neighbouring words also occur apart.",
            why="a template is tested whose words training holds.",
            fix="split by length or by word.",
        )
    return _nearest(apart, wanted)


def split_by_word(
    pairs: Sequence[Pair], share: float = 0.2, *, contexts: int = 1, seed: int = 0
) -> PairSplit:
    """Lexical: some words are trained in `contexts` of their shortest sources only; the others are
    the test.

    Words are drawn among the rarer half of the vocabulary until the test holds `share` of the
    pairs. Test sources hold no two of them.
    """
    refuse_empty(pairs)
    if contexts < 1:
        raise InvalidConfig(
            f"contexts={contexts}.",
            why="a word that training never holds cannot be understood.",
            fix="choose at least 1.",
        )
    uses = Counter(word for source, _ in pairs for word in set(source))
    rare = sorted(uses, key=lambda word: (uses[word], word))[: max(1, len(uses) // 2)]
    wanted, total, words = _test_size(pairs, share), 0, set[str]()
    for word in np.random.default_rng(seed).permutation(np.array(rare, dtype=object)).tolist():
        if total >= wanted:
            break
        words.add(word)
        total += max(0, uses[word] - contexts)
    train, test, left_out = [], [], []
    known: Counter[str] = Counter()
    for one in sorted(pairs, key=lambda one: len(one.source)):
        inside = words & set(one.source)
        if not inside:
            train.append(one)
        elif len(inside) > 1:
            left_out.append(one)
        elif known[word := next(iter(inside))] < contexts:
            known[word] += 1
            train.append(one)
        else:
            test.append(one)
    rule = f"{', '.join(sorted(words))}: trained in {contexts} sources each, tested in the others"
    return PairSplit(rule, tuple(train), tuple(test), tuple(left_out))


def split_by_divergence(
    pairs: Sequence[Pair], share: float = 0.2, *, steps: int = 3_000, seed: int = 0
) -> PairSplit:
    """Compounds (two to four neighbouring words) differ between the parts as much as possible while
    single words stay as frequent as they were.

    From a random split, pairs are exchanged whenever that raises the divergence of compounds (α =
    0.1) without lifting that of words (α = 0.5) above 0.02, or lowers the latter where it is above;
    a local search after Keysers et al., whose compounds are subgraphs of a derivation.
    """
    refuse_empty(pairs)
    rng = np.random.default_rng(seed)
    wanted = _test_size(pairs, share)
    order = rng.permutation(len(pairs))
    test, train = order[:wanted].tolist(), order[wanted:].tolist()
    if not train:
        raise InvalidConfig(
            f"share={share} leaves no training pair.", why="both parts are needed.", fix="lower it."
        )
    words = [Counter[object](one.source) for one in pairs]
    compounds = [Counter[object](neighbours(one.source)) for one in pairs]
    sides = (_Side(words, train, test, 0.5), _Side(compounds, train, test, 0.1))
    spread, value = (side.divergence() for side in sides)
    for _ in range(steps):
        i, j = int(rng.integers(len(train))), int(rng.integers(len(test)))
        for side in sides:
            side.exchange(train[i], test[j])
        new_spread, new_value = (side.divergence() for side in sides)
        if (new_value > value and new_spread <= max(0.02, spread)) or (0.02 < new_spread < spread):
            train[i], test[j] = test[j], train[i]
            spread, value = new_spread, new_value
        else:
            for side in sides:
                side.exchange(test[j], train[i])
    rule = f"runs of two to four words diverge by {value:.2f}, single words by {spread:.2f}"
    return PairSplit(
        rule, tuple(pairs[k] for k in sorted(train)), tuple(pairs[k] for k in sorted(test))
    )


def neighbours(source: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every two, three and four words in a row."""
    for size in (2, 3, 4):
        yield from (tuple(source[k : k + size]) for k in range(len(source) - size + 1))


class _Side:
    """Counts of words or compounds in both parts, kept up to date."""

    def __init__(
        self,
        counts: Sequence[Mapping[object, int]],
        train: Iterable[int],
        test: Iterable[int],
        alpha: float,
    ) -> None:
        self.counts, self.alpha = counts, alpha
        self.train, self.test = Counter[object](), Counter[object]()
        for k in train:
            self.train.update(counts[k])
        for k in test:
            self.test.update(counts[k])

    def exchange(self, leaving: int, entering: int) -> None:
        """Pair `leaving` goes from training to test, `entering` the other way."""
        for part, plus, minus in (
            (self.train, entering, leaving),
            (self.test, leaving, entering),
        ):
            part.update(self.counts[plus])
            part.subtract(self.counts[minus])

    def divergence(self) -> float:
        return divergence(self.train, self.test, self.alpha)


def divergence(train: Mapping[object, int], test: Mapping[object, int], alpha: float) -> float:
    """1 − Σ p^α q^(1−α) of the two distributions: 0 where they are equal, 1 where they share
    nothing.
    """
    a, b = sum(train.values()), sum(test.values())
    if not a or not b:
        raise InvalidData(
            "One part holds no words or compounds.",
            why="it has no distribution.",
            fix="give longer sources, or split by length.",
        )
    shared = (key for key, n in train.items() if n and test.get(key))
    return 1 - math.fsum((train[k] / a) ** alpha * (test[k] / b) ** (1 - alpha) for k in shared)


def rename_tokens(pairs: Sequence[Pair], tokens: Iterable[str], seed: int = 0) -> list[Pair]:
    """The pairs with each of the tokens replaced by a pseudo-word (consonant, vowel, consonant,
    vowel), the same on both sides and unlike every token there is.
    """
    known = _words(pairs) | {token for _, target in pairs for token in target}
    chosen = sorted(set(tokens))
    for token in chosen:
        if token not in known:
            raise UnknownName.near("token", token, known)
    rng = np.random.default_rng(seed)
    names: dict[str, str] = {}
    while len(names) < len(chosen):
        word = "".join(rng.choice(list(letters)) for letters in ("bdfgklmnprstvz", "aeiou") * 2)
        if word not in known and word not in names.values():
            names[chosen[len(names)]] = word
    return [Pair(*(tuple(names.get(t, t) for t in side) for side in one)) for one in pairs]


def _test_size(pairs: Sequence[Pair], share: float) -> int:
    """So many pairs make the share."""
    if not 0 < share < 1:
        raise InvalidConfig(
            f"share={share}.", why="a part of the pairs is for the test.", fix="between 0 and 1."
        )
    return max(1, round(share * len(pairs)))


def _nearest(counts: Mapping[Key, int], wanted: int) -> Key:
    """The key whose count is nearest to the wanted one, the first of equals."""
    return min(counts, key=lambda key: abs(counts[key] - wanted))


RULES: Mapping[str, Callable[..., PairSplit]] = MappingProxyType(
    {
        "length": split_by_length,
        "primitive": split_by_primitive,
        "template": split_by_template,
        "divergence": split_by_divergence,
        "lexical": split_by_word,
    }
)
"""Split rules by the names of the command line; each takes pairs and the share for the test."""
