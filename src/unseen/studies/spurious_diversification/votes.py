"""Two models as voters, exactly: why in averages of two each spurious feature weighs less.

Lin et al. (2024, arXiv:2309.17230, section 3). A model has n_v invariant features, which vote for
the true class, and n_s spurious ones: each is drawn anew with probability p and then votes for any
of K classes alike. The largest sum of votes wins, of equals one by lot.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, product
from math import sqrt

from unseen.study import Row


class Voting(StrEnum):
    """Who votes."""

    SINGLE = "single"
    """One model."""
    OUTPUTS = "outputs"
    """Both, by the mean of their outputs: a shared feature weighs twice."""
    WEIGHTS = "weights"
    """Both, by the mean of their heads and of their feature masks, ¼ (w + w')(Φ + Φ'): a shared
    feature weighs four times."""


@dataclass(frozen=True)
class Voters:
    """Two models with equally many features, of which some are shared."""

    invariant: int
    spurious: int
    shared_invariant: int = 0
    shared_spurious: int = 0

    def weights(self, voting: Voting) -> tuple[int, tuple[int, ...]]:
        """The weight of all invariant features together, and that of each spurious one."""
        if voting is Voting.SINGLE:
            return self.invariant, (1,) * self.spurious
        shared = {Voting.OUTPUTS: 2, Voting.WEIGHTS: 4}[voting]
        invariant = 2 * (self.invariant - self.shared_invariant) + shared * self.shared_invariant
        alone = 2 * (self.spurious - self.shared_spurious)
        return invariant, (1,) * alone + (shared,) * self.shared_spurious

    def accuracy(self, voting: Voting, p: float, classes: int = 3) -> float:
        return exact_accuracy(*self.weights(voting), p, classes)

    def signal(self, voting: Voting, p: float) -> float:
        """Mean lead of the true class over its standard deviation, up to a factor of p and K alone.

        (n_v + (1 − p) n_s)/√n_s for one model; in the normal approximation the accuracy increases
        in it.
        """
        invariant, spurious = self.weights(voting)
        return (invariant + (1 - p) * sum(spurious)) / sqrt(sum(w * w for w in spurious))


def exact_accuracy(invariant: int, spurious: Sequence[int], p: float, classes: int) -> float:
    """By enumeration of all votes; class 0 is the true one."""
    outcomes: dict[tuple[int, ...], float] = {(invariant, *[0] * (classes - 1)): 1.0}
    chances = [1 - p + p / classes, *[p / classes] * (classes - 1)]
    for weight in spurious:
        after: defaultdict[tuple[int, ...], float] = defaultdict(float)
        for votes, probability in outcomes.items():
            for k, chance in enumerate(chances):
                counted = (*votes[:k], votes[k] + weight, *votes[k + 1 :])
                after[counted] += probability * chance
        outcomes = after
    won = {votes: chance for votes, chance in outcomes.items() if votes[0] == max(votes)}
    return sum(chance / votes.count(max(votes)) for votes, chance in won.items())


def closed_form(voting: Voting, p: float) -> float:
    """Accuracy for K = 3, n_v = 2, n_s = 3, nothing shared.

    1 − 5p³/27 of one model, 1 − 2p⁵/81 − 17p⁶/729 of both together.
    """
    if voting is Voting.SINGLE:
        return 1 - 5 * p**3 / 27
    return 1 - 2 * p**5 / 81 - 17 * p**6 / 729


def formulas() -> Iterator[Row]:
    """Enumeration − closed form for two invariant and three spurious features."""
    for voting, k in product(Voting, range(21)):
        p = k / 20
        accuracy = Voters(2, 3).accuracy(voting, p)
        error = abs(accuracy - closed_form(voting, p))
        yield {"check": "closed form", "voting": voting, "p": p, "exact": accuracy, "error": error}


def rankings(chances: Sequence[float]) -> Iterator[Row]:
    """Which pairs of votings the normal approximation ranks as enumeration does."""
    for p, invariant, spurious in product(chances, (1, 2, 3), (2, 3, 4, 5, 6)):
        for shared in product(range(invariant + 1), range(spurious + 1)):
            voters = Voters(invariant, spurious, *shared)
            exact = {str(voting): voters.accuracy(voting, p) for voting in Voting}
            signal = {str(voting): voters.signal(voting, p) for voting in Voting}
            pairs = combinations(exact, 2)
            leads = [(exact[a] - exact[b], signal[a] - signal[b]) for a, b in pairs]
            apart = [lead for lead in leads if abs(lead[0]) > 1e-12]
            yield {
                "check": "ranking",
                "p": p,
                "invariant": invariant,
                "spurious": spurious,
                "shared_invariant": voters.shared_invariant,
                "shared_spurious": voters.shared_spurious,
                **exact,
                "pairs": len(apart),
                "ranked": sum(a * b > 0 for a, b in apart),
            }
