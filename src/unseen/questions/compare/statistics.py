"""What a comparison reads from the scores: intervals, paired differences, and which value stands out."""

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import norm

from unseen import stats
from unseen.errors import InvalidData
from unseen.questions.compare.protocols import MethodScores, Protocol
from unseen.reading import Reading

Rows = Float[ndarray, "seed n"]


def reading(rows: Rows) -> Reading:
    """Mean of a [seed, example] table, seeds and examples both being samples; n counts examples.

    Of zeros and ones: never narrower than Wilson's interval for as many examples, which holds near 0 and 1, too.
    """
    if rows.shape[1] < 2:
        raise InvalidData(
            f"{rows.shape[1]} example is judged.", why="one example has no spread.", fix="judge on more examples."
        )
    if len(rows) == 1:
        return stats.of_scores(rows[0])
    found = stats.crossed(rows)
    if not np.isin(rows, (0.0, 1.0)).all():
        return found
    wilson = stats.proportion(float(rows.mean(0).sum().round()), rows.shape[1])
    low, high = min(found.low, wilson.low), max(found.high, wilson.high)
    return Reading(found.value, max(0.0, low), min(1.0, high), found.n, "fraction")


def average(readings: Sequence[Reading]) -> Reading:
    """Mean over places, these places being fixed: their intervals add in square. n counts examples."""
    k, value = len(readings), sum(r.value for r in readings) / len(readings)
    low = sqrt(sum((r.value - r.low) ** 2 for r in readings)) / k
    high = sqrt(sum((r.high - r.value) ** 2 for r in readings)) / k
    return Reading(value, value - low, value + high, sum(r.n for r in readings), readings[0].unit)


def worst(readings: Mapping[str, Reading]) -> str:
    """The place with the lowest value."""
    return min(readings, key=lambda place: readings[place].value)


def shared(one: Mapping[int, ndarray], other: Mapping[int, ndarray]) -> tuple[Rows, Rows]:
    """Rows of the seeds that both have, in the same order: initialisation, data order and draws are equal there."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        raise InvalidData("No seed has both values.", why="differences are paired by seed.", fix="add seeds.")
    return np.stack([one[seed] for seed in seeds]), np.stack([other[seed] for seed in seeds])


def widened(change: Reading, among: int) -> Reading:
    """The interval at the level that lets one of `among` such differences be picked (Bonferroni)."""
    k = float(norm.ppf(1 - (1 - stats.LEVEL) / 2 / max(1, among)) / norm.ppf(0.5 + stats.LEVEL / 2))
    low, high = change.value - k * (change.value - change.low), change.value + k * (change.high - change.value)
    return Reading(change.value, low, high, change.n, change.unit)


def scores_of_chosen(
    sheet: MethodScores, protocol: Protocol, table: Float[ndarray, "seed draw n"]
) -> dict[int, ndarray]:
    """The values of the chosen draw by seed, without seeds that have none."""
    draws = sheet.chosen(protocol)
    return {seed: table[seed, draw] for seed, draw in enumerate(draws) if draw >= 0}


def stands_out(values: Mapping[str, float], differs: Mapping[tuple[str, str], Reading]) -> str | None:
    """The name with the highest value, if its paired difference from every other excludes zero, widened for the choice.

    `differs[a, b]` is the reading of a − b. A single name does not stand out, nor does one with an unknown difference.
    """
    if len(values) < 2:
        return None
    best = max(values, key=lambda name: values[name])
    rivals = [name for name in values if name != best]
    clear = all((best, r) in differs and widened(differs[best, r], len(rivals)).low > 0 for r in rivals)
    return best if clear else None
