"""What a comparison reads from the scores: intervals, paired differences, and which value stands
out.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from unseen import stats
from unseen.errors import InvalidData
from unseen.questions.compare.protocols import MethodScores, Protocol
from unseen.reading import Reading

Rows = Float[ndarray, "seed n"]


def worst(gains: Mapping[str, Reading]) -> str:
    """The site with the lowest gain."""
    return min(gains, key=lambda site: gains[site].value)


def pair_by_seed(one: Mapping[int, ndarray], other: Mapping[int, ndarray]) -> tuple[Rows, Rows]:
    """Rows of the seeds that both have, in the same order: initialisation, data order and draws are
    equal there.
    """
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        raise InvalidData(
            "No seed has both values.", why="differences are paired by seed.", fix="add seeds."
        )
    return np.stack([one[seed] for seed in seeds]), np.stack([other[seed] for seed in seeds])


def scores_of_chosen(
    sheet: MethodScores, protocol: Protocol, table: Float[ndarray, "seed draw n"]
) -> dict[int, ndarray]:
    """The values of the chosen draw by seed, without seeds that have none."""
    draws = sheet.selected_draws(protocol)
    return {seed: table[seed, draw] for seed, draw in enumerate(draws) if draw >= 0}


def stands_out(
    values: Mapping[str, float], differs: Mapping[tuple[str, str], Reading]
) -> str | None:
    """The name with the highest value, if its paired difference from every other excludes zero,
    widened for the choice.

    `differs[a, b]` is the reading of a − b. A single name does not stand out, nor does one with an
    unknown difference.
    """
    if len(values) < 2:
        return None
    best = max(values, key=lambda name: values[name])
    rivals = [name for name in values if name != best]
    clear = all(
        (best, r) in differs and stats.widen(differs[best, r], len(rivals)).low > 0 for r in rivals
    )
    return best if clear else None
