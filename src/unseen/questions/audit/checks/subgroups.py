"""Named subgroups in which the model is clearly worse than in the rest, over all sites."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unseen import stats
from unseen.document import Block, Note, Table, Tone, Value
from unseen.questions.audit.check import CheckResult, Code
from unseen.questions.audit.results import LOWER_IS_BETTER, gain
from unseen.reading import Reading
from unseen.subjects.predictions import SplitPredictions, group_codes
from unseen.subjects.session import Session
from unseen.text import count_noun, format_reading

WORSE_IN_GROUP = Code("U210", "clearly worse in a named subgroup", "subgroups", rank=25)
FEW, FEW_OF_CLASS = 20, 10
"""A subgroup, and the rest, are compared at a site from so many examples on; for an AUC, from so
many of the rarer class.
"""
MARGIN, RELATIVE = 0.05, 0.1
"""A smaller difference is no finding: five points, or a tenth of the error in the rest."""


@dataclass(frozen=True, kw_only=True)
class LevelScores:
    """One subgroup at one site beside the other examples there."""

    group: str
    level: str
    metric: str
    inside: Reading
    rest: Reading


class SubgroupCheck:
    """Every level of every group against the other examples of the same site."""

    part = WORSE_IN_GROUP.part
    codes = (WORSE_IN_GROUP,)
    section = "Subgroups"

    def find(self, session: Session) -> list[LevelScores]:
        """Of the site of use; subgroups with few examples are left out."""
        subject, split = session.subject, session.main_split
        predicted, found = session.predictions(split), list[LevelScores]()
        metric = "AUC" if predicted.margin is not None else predicted.score_name
        for group, function in subject.groups.items():
            code = group_codes(session.task.splits[split], function, session.lab)
            names = subject.levels.get(group, ())
            for level in np.unique(code[code >= 0]):
                inside = code == level
                readings = _inside_and_rest(predicted, metric, inside, ~inside & (code >= 0))
                if readings is not None:
                    name = str(names[level]) if level < len(names) else str(level)
                    found.append(
                        LevelScores(
                            group=group,
                            level=name,
                            metric=metric,
                            inside=readings[0],
                            rest=readings[1],
                        )
                    )
        return found

    def notes(self, found: Sequence[CheckResult[list[LevelScores]]]) -> list[Note]:
        """One per subgroup that is worse over all its sites, beyond the number of subgroups."""
        name, notes = found[0].findings.name if found else "", list[Note]()
        levels = by_level(found)
        for (group, level), scores in levels.items():
            inside = stats.average([one.inside for one in scores])
            rest = stats.average([one.rest for one in scores])
            metric = scores[0].metric
            worse = stats.widen(difference(scores), len(levels))
            if worse.low > 0 and worse.value >= _margin(metric, rest):
                column = group.partition(":")[0]
                sites = "" if len(scores) == 1 else f", mean of {count_noun(len(scores), 'site')}"
                notes.append(
                    Note(
                        f"The {name} is worse for {column} = {level}: {metric} "
                        f"{format_reading(inside)} against {format_reading(rest)} for the others"
                        f"{sites}.",
                        Tone.BAD if worse.low >= _margin(metric, rest) else Tone.CAUTION,
                        f"The difference is {format_reading(worse)}, widened for "
                        f"{count_noun(len(levels), 'subgroup')}. Do not use it there before you "
                        "know why: too few training examples, another relation to the target, or "
                        f"another way of recording. Collect labelled examples with {column} = "
                        f"{level}, and give the model what tells them apart.",
                        code=WORSE_IN_GROUP.code,
                    )
                )
        return notes

    def evidence(self, found: Sequence[CheckResult[list[LevelScores]]]) -> list[Block]:
        """The differences behind the notes."""
        levels = by_level(found)
        rows: list[dict[str, Value]] = [
            {
                "group": group,
                "level": level,
                "sites": len(scores),
                "worse by": difference(scores),
                "metric": scores[0].metric,
            }
            for (group, level), scores in levels.items()
        ]
        caption = (
            "How much worse each subgroup is than the other examples of the same site, mean over "
            f"sites (below zero: better). {count_noun(len(rows), 'interval')} of 95 %, not widened."
        )
        return [Table(rows=rows, caption=caption)] if rows else []


def by_level(
    found: Sequence[CheckResult[list[LevelScores]]],
) -> dict[tuple[str, str], list[LevelScores]]:
    """The sites' scores of every subgroup."""
    table: dict[tuple[str, str], list[LevelScores]] = {}
    for one in (one for checked in found for one in checked.result):
        table.setdefault((one.group, one.level), []).append(one)
    return table


def difference(scores: Sequence[LevelScores]) -> Reading:
    """By how much a subgroup is worse than the rest, mean over its sites."""
    return stats.average(
        [gain(one.metric, stats.independent_difference(one.rest, one.inside)) for one in scores]
    )


def _inside_and_rest(
    predicted: SplitPredictions,
    metric: str,
    inside: NDArray[np.bool_],
    rest: NDArray[np.bool_],
) -> tuple[Reading, Reading] | None:
    """The metric in a subgroup and in the rest; None where either is too small."""
    if min(inside.sum(), rest.sum()) < FEW:
        return None
    if metric == "AUC":
        assert predicted.y is not None
        counts = [predicted.y[rows] > 0 for rows in (inside, rest)]
        if min(min(y.sum(), (~y).sum()) for y in counts) < FEW_OF_CLASS:
            return None
    a, b = (predicted.metrics(rows).get(metric) for rows in (inside, rest))
    return None if a is None or b is None else (a, b)


def _margin(metric: str, rest: Reading) -> float:
    return RELATIVE * rest.value if metric in LOWER_IS_BETTER else MARGIN


check = SubgroupCheck()
