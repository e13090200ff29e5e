"""Whether the scores at unseen sites meet a bar that was set before."""

from collections.abc import Sequence

from unseen.questions.audit.results import LOWER_IS_BETTER, Findings
from unseen.stats import widen


def meets_bar(findings: Sequence[Findings], bar: float) -> bool | None:
    """Whether the whole interval of every score is on the better side of the bar; None where one is
    across it. A site misses it where its interval does that is widened for the number of sites.
    """
    readings = [
        (one.score_name, reading)
        for one in findings
        for split in one.unseen or list(one.sizes)[-1:]
        if (reading := one.score(split, one.score_name)) is not None
    ]
    # a bar for an error is an upper one
    sides = [
        (wide.high < bar, reading.low >= bar)
        if name not in LOWER_IS_BETTER
        else (wide.low > bar, reading.high <= bar)
        for name, reading in readings
        for wide in [widen(reading, len(readings))]
    ]
    if any(is_missed for is_missed, _ in sides):
        return False
    return True if sides and all(is_met for _, is_met in sides) else None
