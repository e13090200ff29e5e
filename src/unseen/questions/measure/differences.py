"""Two models by the same measures: paired differences where pairs exist."""

from collections.abc import Sequence
from math import isfinite, nan

import numpy as np
import torch
from numpy.typing import NDArray

from unseen import stats
from unseen.engine.batches import once
from unseen.questions.measure.performance import FAMILY
from unseen.questions.measure.results import Difference, Measurement
from unseen.reading import Direction, Reading
from unseen.stats import t_quantile, two_sided_p
from unseen.subjects.session import Session

LABELS = ("y", "tokens")
"""Columns that tell whether two splits hold the same examples: inputs may be encoded otherwise."""
EXAMPLES = "examples, paired"
BOTH = "examples and trainings, paired"
TRAININGS = "trainings, paired by seed"
NO_PAIRS = "no interval: neither examples nor trainings of both to pair"


def differences(
    session: Session,
    other: Session,
    measured: Sequence[Measurement],
    against: Sequence[Measurement],
) -> list[Difference]:
    """This model minus the other one, for every measure that both have on the same split."""
    theirs = {(m.name, m.split): m for m in against if m.is_of_model}
    pairs = [(m, theirs[m.name, m.split]) for m in measured if (m.name, m.split) in theirs]
    same = {split: have_same_examples(session, other, split) for split in session.task.splits}
    found = []
    for mine, yours in pairs:
        split = mine.split or session.training_split
        reading, how = _difference(session, other, mine, yours, same.get(split, False))
        found.append(
            Difference(
                name=mine.name,
                split=mine.split,
                direction=mine.direction,
                reading=reading,
                how=how,
            )
        )
    return found


def _difference(
    session: Session, other: Session, mine: Measurement, yours: Measurement, is_same: bool
) -> tuple[Reading, str]:
    a, b = mine.reading, yours.reading
    if is_same and mine.family == FAMILY and mine.split:
        change = _score_change(session, other, mine)
        if change is not None:
            return change, EXAMPLES if len(session.models) == 1 else BOTH
    values = _paired_values(mine, yours) if is_same else None
    if values is not None:
        return stats.crossed_mean(values, a.unit), EXAMPLES if len(values) == 1 else BOTH
    if len(mine.trainings) == len(yours.trainings) > 1:
        here, there = ([one.value for one in m.trainings] for m in (mine, yours))
        return stats.difference(here, there, a.unit), TRAININGS
    return Reading(a.value - b.value, n=min(a.n, b.n), unit=a.unit), NO_PAIRS


def _score_change(session: Session, other: Session, mine: Measurement) -> Reading | None:
    """The change of a score, of as many trainings of both; None of a gap."""
    here, there = (one.predictions(mine.split) for one in (session, other))
    if len(here.score) != len(there.score):
        return None
    return here.changes(there).get(mine.name)


def _paired_values(mine: Measurement, yours: Measurement) -> NDArray[np.float64] | None:
    """Differences [training, example], where both are means over as many."""
    a, b = values_per_example(mine), values_per_example(yours)
    return a - b if a is not None and b is not None and a.shape == b.shape else None


def values_per_example(measurement: Measurement) -> NDArray[np.float64] | None:
    """[training, example] whose mean is the measure; None where it is no mean over examples."""
    readings = measurement.trainings or [measurement.reading]
    rows = [one.detail.double().cpu().numpy() for one in readings if is_mean_of_detail(one)]  # type: ignore[union-attr]
    return np.stack(rows) if len(rows) == len(readings) else None


def is_mean_of_detail(reading: Reading) -> bool:
    """Whether the value is the mean of one value per example."""
    detail = reading.detail
    if detail is None or detail.shape != (reading.n,) or reading.n < 2:
        return False
    mean = float(detail.double().mean())
    return bool(np.isclose(mean, reading.value, rtol=1e-5, atol=1e-9))


def have_same_examples(one: Session, other: Session, split: str) -> bool:
    """Whether both have the split with the same labels, or tokens, in the same order."""
    if split not in other.task.splits:
        return False
    a, b = _labels(one, split), _labels(other, split)
    return a is not None and b is not None and torch.equal(a, b)


def _labels(session: Session, split: str) -> torch.Tensor | None:
    batches = list(once(session.task.splits[split].data, 4096, session.lab))
    known = [name for name in LABELS if batches and all(name in batch for batch in batches)]
    return torch.cat([batch[known[0]].cpu().double() for batch in batches]) if known else None


def p_value(reading: Reading) -> float:
    """Of no difference, from the interval; NaN where there is none."""
    half = (reading.high - reading.low) / 2
    if not isfinite(half) or half <= 0:
        return nan
    return two_sided_p(reading.value / (half / t_quantile(reading.freedom)), reading.freedom)


def better_model(found: Sequence[Difference]) -> list[str]:
    """ "this", "other" or "" for each: which is better beyond chance, all together (Holm)."""
    directed = [one for one in found if one.direction is not Direction.NEITHER]
    held = stats.holm([p_value(one.reading) for one in directed])
    clear = {id(one) for one, is_clear in zip(directed, held, strict=True) if is_clear}
    return [_side(one) if id(one) in clear else "" for one in found]


def _side(one: Difference) -> str:
    is_higher = one.reading.value > 0
    return "this" if is_higher == (one.direction is Direction.HIGHER) else "other"
