"""Columns that a site records otherwise: another unit, a code for "unknown", or nothing at all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats as scipy_stats

from unseen import stats
from unseen.errors import InvalidData
from unseen.reading import Reading

FACTORS: Mapping[float, str] = {
    **{10.0**k: "" for k in (1, 2, 3, 4, 5, 6, 9)},
    2.20462: "pounds for kilograms",
    2.54: "centimetres for inches",
    3.28084: "feet for metres",
    7.50062: "mmHg for kPa",
    18.0156: "mg/dl for mmol/l (glucose)",
    38.67: "mg/dl for mmol/l (cholesterol)",
    88.42: "µmol/l for mg/dl (creatinine)",
    12.0: "months for years",
    365.25: "days for years",
}
"""What a value is multiplied by, and what that is; also the other way round. Few: of many factors
one fits whatever two sites differ by.
"""
FAR = 4.0
"""Standard deviations by which the quartiles lie apart before a conversion."""
MOST_SPREAD, MOST_KS = 1.25, 0.2
"""Ratio of the spreads, and Kolmogorov–Smirnov distance, that sites have of one unit; beyond their
own errors.
"""
POWER_WITHIN, PAIR_WITHIN, SURE_WITHIN = 1.25, 1.05, 1.03
"""How far the ratio of the values may be from a power of ten, from another factor, and from one
that is sure, beyond its error.
"""
WIDEST = 1.25
"""Half the interval of a factor that is no power of ten, for it to be sure."""
FEWEST_ROWS = 20
MANY_VALUES = 20
"""Of a column with fewer different values elsewhere, a repeated one is no sentinel."""
LEAST_SHARE, MOST_ELSEWHERE = 0.03, 0.005
"""A sentinel is so common at the site and so rare elsewhere."""
LEAST_MISSING = 0.2
"""Difference of the shares of empty cells that is worth a finding."""
LEVEL = 0.01
"""Chance of a finding in an audit where nothing is recorded otherwise."""


class Kind(StrEnum):
    UNIT = "unit"
    REPEATED = "repeated value"
    MISSING = "missing"


@dataclass(frozen=True)
class RecordingChange:
    """One column that is recorded otherwise at a site."""

    feature: str
    kind: Kind
    size: Reading
    """Factor to the values elsewhere, or the share of rows with the value (without one) there."""
    elsewhere: float
    """1 for a factor; the share elsewhere."""
    value: float
    """The factor of a known conversion, or the repeated value; NaN for missing ones."""
    meaning: str
    """The conversion in words, where it has some."""
    alternatives: tuple[float, ...]
    """Other factors of known conversions within the interval of `size`."""
    p: float
    """After Bonferroni over columns and sites (and over repeated values); 0 for units, which are
    told by distances that no sample of one distribution has.
    """
    is_sure: bool = True
    """Of a unit: whether one known conversion alone fits the ratio of the values. Otherwise these
    may also be others of the same shape.
    """


def recording_changes(
    columns: Mapping[str, Float[np.ndarray, " row"]],
    site: Int[np.ndarray, " row"],
    there: int,
) -> list[RecordingChange]:
    """Columns in the units of the table, NaN where a cell is empty; one site against the others.

    Units and empty cells are compared with every other site by itself and must differ from most of
    them: else the sites beside an odd one would look odd, too.
    """
    here = site == there
    if any(column.shape != site.shape for column in columns.values()):
        raise InvalidData(
            "A column has another number of rows than there are sites of rows.",
            why="every row is at a site.",
            fix="give columns and sites of the same rows.",
        )
    if not 0 < here.sum() < len(here):
        raise InvalidData(
            f"{int(here.sum())} of {len(here)} rows are at the site.",
            why="it is compared with the others.",
            fix="give rows of both.",
        )
    found, among = [], len(columns) * len(np.unique(site))
    elsewhere = [site == code for code in np.unique(site[~here])]
    for name, column in columns.items():
        known = np.isfinite(column)
        a, b = column[here & known], column[~here & known]
        others = [column[known & at] for at in elsewhere]
        change = (
            _unit(name, a, others)
            or _repeated_value(name, a, b, among)
            or _missing(name, known, site, there, among)
        )
        found += [] if change is None else [change]
    return sorted(found, key=lambda change: change.p)


def convert(
    values: Float[np.ndarray, " row"], change: RecordingChange
) -> Float[np.ndarray, " row"]:
    """Values of the site in the unit of the others."""
    return _CONVERSIONS[change.value, change.meaning](values)


FAHRENHEIT, CELSIUS = "°F for °C", "°C for °F"
TEMPERATURES = (FAHRENHEIT, CELSIUS)


def _inverse(words: str) -> str:
    if not words:
        return ""
    units, _, of = words.partition(" (")
    first, second = units.split(" for ")
    return f"{second} for {first}" + (f" ({of}" if of else "")


def _scale(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x / factor


def _all_conversions() -> dict[tuple[float, str], Callable[[np.ndarray], np.ndarray]]:
    scales = dict(FACTORS) | {1 / factor: _inverse(words) for factor, words in FACTORS.items()}
    return {
        **{(factor, words): _scale(factor) for factor, words in scales.items()},
        (1.8, FAHRENHEIT): lambda x: (x - 32) / 1.8,
        (1 / 1.8, CELSIUS): lambda x: x * 1.8 + 32,
    }


_CONVERSIONS = _all_conversions()


def _unit(name: str, a: np.ndarray, others: Sequence[np.ndarray]) -> RecordingChange | None:
    """The conversion after which the quartiles agree best with most other sites, where they lay far
    apart before; the shape must be the same, and the factor that of the values.
    """
    large = [b for b in others if len(b) >= FEWEST_ROWS]
    if len(a) < FEWEST_ROWS or not large:
        return None
    if any(_has_few_values(sample) for sample in (a, *large)):
        return _unit_of_levels(name, a, np.concatenate(large))
    mine = _quartiles(a)
    odd = [b for b in large if _distance(mine, _quartiles(b)) >= FAR]
    if 2 * len(odd) <= len(large):
        return None
    size = _ratio(a, np.concatenate(odd))
    after = {
        key: float(np.median([_distance(_quartiles(back(a)), _quartiles(b)) for b in odd]))
        for key, back in _CONVERSIONS.items()
        if _is_near(key, size) and _is_plausible(key[1], a, odd[0])
    }
    fitting = [
        key
        for key in sorted(after, key=lambda key: after[key])
        if _keeps_shape(_CONVERSIONS[key](a), odd)
    ]
    if not fitting:
        return None
    factor, meaning = fitting[0]
    if meaning in TEMPERATURES:
        exact = Reading(factor, factor, factor, len(a), "×")
        return RecordingChange(name, Kind.UNIT, exact, 1.0, factor, meaning, (), 0.0)
    low, high = size.low / SURE_WITHIN, size.high * SURE_WITHIN
    others_near = sorted({f for f, _ in _CONVERSIONS if low <= f <= high} - {factor})
    is_narrow = not meaning or size.high <= WIDEST * size.value
    is_sure = bool(low <= factor <= high and is_narrow and not others_near)
    return RecordingChange(
        name, Kind.UNIT, size, 1.0, factor, meaning, tuple(others_near), 0.0, is_sure
    )


def _has_few_values(x: np.ndarray) -> bool:
    """Whether it is the levels of a scale; most columns show many values in their first rows."""
    first = x[: 50 * MANY_VALUES]
    return len(np.unique(first)) < MANY_VALUES and len(np.unique(x)) < MANY_VALUES


def _is_near(key: tuple[float, str], size: Reading) -> bool:
    """Whether a conversion is by the ratio of the values, within its error and what sites of one
    unit differ by.
    """
    factor, meaning = key
    if meaning in TEMPERATURES:
        return True
    within = PAIR_WITHIN if meaning else POWER_WITHIN
    return bool(size.low / within <= factor <= size.high * within)


def _keeps_shape(converted: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Whether values are distributed as those of most other sites once they are converted: a change
    of unit moves the logarithms and leaves their spread.
    """
    return 2 * sum(_is_alike(converted, b) for b in others) > len(others)


def _is_alike(a: np.ndarray, b: np.ndarray) -> bool:
    if min(a.min(), b.min()) > 0:
        a, b = np.log(a), np.log(b)
    error = 1.36 * np.sqrt(1 / len(a) + 1 / len(b))  # of the distance, at 5 %
    if scipy_stats.ks_2samp(a, b, method="asymp").statistic > MOST_KS + error:
        return False
    (spread_a, error_a), (spread_b, error_b) = _log_spread(a), _log_spread(b)
    return bool(abs(spread_a - spread_b) <= np.log(MOST_SPREAD) + 2 * np.hypot(error_a, error_b))


def _log_spread(x: np.ndarray) -> tuple[float, float]:
    """The logarithm of the standard deviation, cut at extreme quantiles, and its error: the
    variance of ln s is (kurtosis − 1) / 4n.
    """
    x = np.clip(x, *np.quantile(x, [0.025, 0.975]))
    z = x - x.mean()
    variance = max(float((z**2).mean()), 1e-300)
    kurtosis = float((z**4).mean()) / variance**2
    return float(np.log(variance)) / 2, float(np.sqrt(max(kurtosis - 1, 0.0) / 4 / len(x)))


def _is_plausible(meaning: str, a: np.ndarray, b: np.ndarray) -> bool:
    """A temperature in °C lies where weather and patients do; other units may lie anywhere."""
    if meaning not in TEMPERATURES:
        return True
    low, high = np.quantile(b if meaning == FAHRENHEIT else a, [0.25, 0.75])
    return bool(low > -40 and high < 45)


def _unit_of_levels(name: str, a: np.ndarray, b: np.ndarray) -> RecordingChange | None:
    """Of a few levels all but 0 are a power of ten times those elsewhere, and none is there."""
    levels, known = (np.unique(sample[sample != 0]) for sample in (a, b))
    if not levels.size or np.isin(levels, known).any() or np.isin(a, (0.0,)).mean() > 0.9:
        return None
    for factor, words in _CONVERSIONS:
        if not words and np.isclose(levels[:, None] / factor, known, rtol=1e-6).any(1).all():
            size = Reading(factor, factor, factor, len(a), "×")
            return RecordingChange(name, Kind.UNIT, size, 1.0, factor, "", (), 0.0)
    return None


@dataclass(frozen=True)
class _Quartiles:
    levels: Float[np.ndarray, "3"]
    spread: float
    """The standard deviation: of the quartiles where they differ, else of the values."""


def _quartiles(sample: np.ndarray) -> _Quartiles:
    q = np.quantile(sample, [0.25, 0.5, 0.75])
    return _Quartiles(q, float((q[2] - q[0]) / 1.349 if q[2] > q[0] else sample.std()))


def _distance(a: _Quartiles, b: _Quartiles) -> float:
    """Largest distance of the quartiles in the smaller standard deviation."""
    least = min(a.spread, b.spread)
    return 0.0 if least == 0 else float(np.abs(a.levels - b.levels).max() / least)


def _ratio(a: np.ndarray, b: np.ndarray) -> Reading:
    """Ratio of the medians, or of the interquartile ranges where the median is near 0; the interval
    by normal limits of the logarithms from 200 resamples of both.
    """
    rng = np.random.default_rng(0)  # the same interval whenever the same columns are looked at
    quartiles = [np.quantile(sample, [0.25, 0.5, 0.75]) for sample in (a, b)]
    by_median = all(abs(q[1]) > q[2] - q[0] for q in quartiles)

    def sizes(sample: np.ndarray) -> np.ndarray:
        drawn = sample[rng.integers(len(sample), size=(200, len(sample)))]
        low, middle, high = np.quantile(drawn, [0.25, 0.5, 0.75], axis=1)
        return np.abs(middle) if by_median else high - low

    def size(q: np.ndarray) -> float:
        return abs(float(q[1])) if by_median else float(q[2] - q[0])

    value = size(quartiles[0]) / size(quartiles[1])
    a, b = (s if len(s) <= 2_000 else rng.choice(s, 2_000, False) for s in (a, b))
    drawn = [np.maximum(sizes(sample), 1e-300) for sample in (a, b)]
    error = float(np.hypot(*(np.log(one).std() for one in drawn)))
    half = stats.t_quantile(min(len(a), len(b)) - 1) * error
    return Reading(value, value * np.exp(-half), value * np.exp(half), len(a), "×")


def _repeated_value(name: str, a: np.ndarray, b: np.ndarray, among: int) -> RecordingChange | None:
    """A value that many rows of the site share and hardly one elsewhere, in a column of many."""
    if len(a) < FEWEST_ROWS or len(np.unique(b)) < MANY_VALUES:
        return None
    values, counts = np.unique(a, return_counts=True)
    value, count = float(values[counts.argmax()]), int(counts.max())
    repeated = int((counts > 1).sum())
    elsewhere = int((b == value).sum())
    if count / len(a) < LEAST_SHARE or elsewhere / len(b) > MOST_ELSEWHERE or count < 5:
        return None
    table = [[count, len(a) - count], [elsewhere, len(b) - elsewhere]]
    p = float(scipy_stats.fisher_exact(table, alternative="greater")[1])
    p = min(1.0, p * among * max(1, repeated))
    if p > LEVEL or _is_common(value, b):
        return None
    share = stats.proportion(count, len(a))
    return RecordingChange(name, Kind.REPEATED, share, elsewhere / len(b), value, "", (), p)


def _is_common(value: float, b: np.ndarray) -> bool:
    """Whether repeated values are usual elsewhere: then one more is no sign of a code."""
    _, counts = np.unique(b, return_counts=True)
    low, high = np.quantile(b, [0.01, 0.99])
    return bool(low <= value <= high and counts.max() / len(b) > LEAST_SHARE)


def _missing(
    name: str,
    known: Bool[np.ndarray, " row"],
    site: Int[np.ndarray, " row"],
    there: int,
    among: int,
) -> RecordingChange | None:
    """Cells that are far more often empty, or far less often, than at most of the other sites."""
    here = site == there
    shares = [float((~known)[site == code].mean()) for code in np.unique(site[~here])]
    gone, rest = int((~known & here).sum()), int((~known & ~here).sum())
    n, m = int(here.sum()), int((~here).sum())
    more = np.array(gone / n - np.array(shares))
    if 2 * max((more >= LEAST_MISSING).sum(), (more <= -LEAST_MISSING).sum()) <= len(more):
        return None
    p = float(scipy_stats.fisher_exact([[gone, n - gone], [rest, m - rest]])[1])
    p = min(1.0, p * among)
    if p > LEVEL:
        return None
    share = stats.proportion(gone, n)
    return RecordingChange(name, Kind.MISSING, share, rest / m, float("nan"), "", (), p)
