"""Learners of pairs that train no weights: the answer of the nearest training source, as it is or
edited.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from unseen.engine.token_pairs import Pair, refuse_empty

Words = tuple[str, ...]


class NearestAnswer:
    """The answer to the training source with the most similar runs of two to four letters (cosine
    of their TF-IDF weights), the first of equals.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        refuse_empty(pairs)
        self.targets = [target for _, target in pairs]
        self.vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))
        self.known = self.vectorizer.fit_transform(" ".join(source) for source, _ in pairs)

    def answer(self, source: Sequence[str]) -> Words:
        asked = self.vectorizer.transform([" ".join(source)])
        return self.targets[int(np.asarray((self.known @ asked.T).todense()).argmax())]


class EditedAnswer:
    """The answer to the training source that shares most words, with what its other words stand for
    replaced by what those of the question do.

    A word stands for the target token that occurs with it most exclusively: of the largest 2 · both
    / (word + token), counted in pairs. Other words are matched in their order.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        refuse_empty(pairs)
        self.pairs = [Pair(tuple(source), tuple(target)) for source, target in pairs]
        self.bags = [Counter(source) for source, _ in pairs]
        self.meaning = associations(pairs)

    def answer(self, source: Sequence[str]) -> Words:
        near = self.pairs[self.nearest(Counter(source))]
        gone = [word for word in near.source if word not in source]
        new = [word for word in source if word not in near.source]
        swaps = {
            self.meaning[old]: self.meaning[word]
            for old, word in zip(gone, new, strict=False)
            if old in self.meaning and word in self.meaning
        }
        return tuple(swaps.get(token, token) for token in near.target)

    def nearest(self, asked: Counter[str]) -> int:
        """The first training source with the largest share of common words."""
        total = asked.total()
        shares = [(bag & asked).total() / (bag.total() + total) for bag in self.bags]
        return shares.index(max(shares))


def associations(pairs: Sequence[Pair]) -> dict[str, str]:
    """The token of the largest Dice coefficient with each word, the first by name of equals."""
    words = Counter(word for source, _ in pairs for word in set(source))
    tokens = Counter(token for _, target in pairs for token in set(target))
    both = Counter((w, t) for source, target in pairs for w in set(source) for t in set(target))
    best: dict[str, tuple[float, str]] = {}
    for (word, token), n in sorted(both.items()):
        dice = 2 * n / (words[word] + tokens[token])
        if word not in best or dice > best[word][0]:
            best[word] = dice, token
    return {word: token for word, (_, token) in best.items()}
