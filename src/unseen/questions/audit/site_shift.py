"""How a held-out site differs from the others, and what each kind of shift makes of the gap."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from unseen.engine.stratified_sample import stratified_sample
from unseen.errors import UnseenError
from unseen.measures.site_shift.classifier import SiteClassifier, site_classifier
from unseen.measures.site_shift.covariates import FeatureShift, feature_shifts
from unseen.measures.site_shift.decomposition import (
    Decomposition,
    Statistic,
    area_of,
    decompose,
    mean_of,
)
from unseen.measures.site_shift.permutations import MOST_ROWS
from unseen.measures.site_shift.prevalence import PrevalenceShift, prevalence_shift
from unseen.measures.site_shift.recording import recording_changes
from unseen.measures.site_shift.relations import RelationChange, relation_changes
from unseen.subjects.session import Session

MOST_DECOMPOSED = 10_000
"""Examples of either side that a gap is decomposed with, in each of many resamples."""


@dataclass(frozen=True, kw_only=True)
class SiteShift:
    """How one held-out site differs from the others."""

    site: str
    relations: Sequence[RelationChange]
    shifts: Sequence[FeatureShift]
    prevalence: PrevalenceShift
    level: str
    """The class whose share is compared, where there are more than two."""
    classifier: SiteClassifier | None
    gaps: Mapping[str, Decomposition]
    """By metric, in its own unit: score there − score at known sites."""
    obstacle: str
    """Why a gap is not decomposed."""
    left_out: Sequence[str]
    """Features that the site records otherwise: all else would follow from that."""


def is_misleading(change: RelationChange) -> bool:
    """Whether a model that learned the relation elsewhere expects too much of it there, or the
    opposite of what holds.
    """
    there, elsewhere = (abs(r.value - 0.5) for r in (change.there, change.elsewhere))
    return change.is_reversed or there < elsewhere


def site_shift(session: Session, name: str) -> SiteShift:
    rows, lab = session.site_rows, session.lab.child("site shift", name)
    there = rows.unseen[name]
    changes = recording_changes(rows.columns, rows.site, there)
    left_out = {change.feature for change in changes if change.is_sure}
    features = {k: at for k, at in session.subject.features.items() if k not in left_out}
    here = rows.site == there
    gaps, obstacle = _decompositions(session, name, features)
    classifier = None
    with suppress(UnseenError):  # few rows: the other tests can do with less
        classifier = site_classifier(rows.x, here, features, lab.child("classifier").numpy())
    used = sorted({k for at in features.values() for k in at})
    if len(here) > MOST_ROWS:
        session.note_cap(
            f"`{name}` is compared with the other sites, feature by feature and by a classifier, "
            f"on {MOST_ROWS:,} of the {len(here):,} examples, drawn at random in equal shares."
        )
    prevalence = prevalence_shift(rows.x[:, used], _in_units(session, rows.y), here)
    return SiteShift(
        site=str(session.task.splits[name].at or name),
        relations=relation_changes(rows.x, rows.y, here, features, lab.child("relations").numpy()),
        shifts=feature_shifts(rows.x, rows.y, here, features, lab.child("shifts").numpy()),
        prevalence=prevalence,
        level=_level_name(session, prevalence.level),
        classifier=classifier,
        gaps=gaps,
        obstacle=obstacle,
        left_out=sorted(left_out),
    )


def _level_name(session: Session, level: float) -> str:
    """The class of several whose share differs most; with two the share of one says all."""
    names = session.subject.classes
    if not session.classifies or np.isnan(level) or len(names) <= 2:
        return ""
    return str(names[int(level)]) if 0 <= level < len(names) else f"{level:g}"


def _in_units(session: Session, y: np.ndarray) -> np.ndarray:
    """A number as the user knows it."""
    if session.classifies:
        return y
    return session.subject.centre + session.subject.unit * y.astype(float)


def _decompositions(
    session: Session, name: str, features: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Decomposition], str]:
    """Of the score, and of the AUC where there is one; or why there is none."""
    rows = session.site_rows
    known = [split for split in session.evaluation_splits if split not in rows.unseen]
    if not known:
        return {}, "no held-out examples of known sites"
    parts = [(split, np.flatnonzero(rows.split == split)) for split in (*known, name)]
    order = np.concatenate([index for _, index in parts])
    drawn = _draw_sides(session, name, order)
    here = rows.split[order[drawn]] == name
    used = sorted({k for at in features.values() for k in at})
    x, y = rows.x[order[drawn]][:, used], rows.y[order].astype(float)
    is_number = not session.classifies
    target = y[drawn] if is_number or len(np.unique(y)) == 2 else None
    found = {}
    statistics = _statistics(session, [split for split, _ in parts], y, drawn)
    try:
        for metric, statistic in statistics.items():
            rng = session.lab.child("gap", name, metric).numpy()
            found[metric] = decompose(statistic, x, target, here, rng)
    except UnseenError as error:
        return {}, error.what
    return found, ""


def _draw_sides(session: Session, name: str, order: np.ndarray) -> np.ndarray:
    """Places in the order of rows: of many those that are drawn at random on either side."""
    rows, rng = session.site_rows, session.lab.child("gap rows", name).numpy()
    here = rows.split[order] == name
    classes = np.unique(rows.y[order], return_inverse=True)[1] if session.classifies else 0
    site = rows.site[order]
    strata = (site - site.min()) * (1 + np.max(classes, initial=0)) + classes
    found = []
    for side, at in ((~here, "known sites"), (here, f"`{name}`")):
        places = np.flatnonzero(side)
        if len(places) > MOST_DECOMPOSED:
            session.note_cap(
                f"The gap is decomposed with {MOST_DECOMPOSED:,} of the {len(places):,} evaluated "
                f"examples of {at}, drawn at random within site and class."
            )
        found.append(places[stratified_sample(strata[places], MOST_DECOMPOSED, rng)])
    return np.sort(np.concatenate(found))


def _statistics(
    session: Session, splits: Sequence[str], y: np.ndarray, drawn: np.ndarray
) -> dict[str, Statistic]:
    """Of the drawn rows of these splits."""
    predictions = [session.predictions(split) for split in splits]
    values = np.concatenate([one.values.mean(0) for one in predictions])[drawn]
    found = {predictions[0].score_name: mean_of(values)}
    margins = [one.margin for one in predictions]
    if all(margin is not None for margin in margins):
        score = np.concatenate([margin.mean(0) for margin in margins if margin is not None])
        found["AUC"] = area_of(score[drawn], y[drawn] > 0)
    return found
