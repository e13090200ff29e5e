"""A new site without labels: what to expect there, which features differ, and how many labels would
decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.special import expit, logit
from torch import Tensor

from unseen import stats
from unseen.document import Block, Note, Table, Tone
from unseen.engine.batches import once, whole
from unseen.errors import InvalidData, UnseenError
from unseen.measures.calibration import confidences, forecasts
from unseen.measures.feature_reliance import shifts
from unseen.measures.site_shift.expected_performance import (
    KnownScores,
    calibrate,
    expected_performance,
)
from unseen.measures.site_shift.recording import Kind, RecordingChange, recording_changes
from unseen.questions.audit.check import CheckResult, Code, with_code
from unseen.questions.audit.checks.recording import SiteRecording, recording_notes
from unseen.questions.audit.equivalence import MARGIN, POWER, labels_needed
from unseen.questions.audit.performance import resolution
from unseen.questions.audit.results import Findings, Gap
from unseen.reading import Reading
from unseen.subjects.predictions import SplitPredictions
from unseen.subjects.session import Session
from unseen.task import Use
from unseen.text import format_reading, join_words

EXPECTED = Code("U209", "a new site without labels: what to expect there", "new site", rank=25)
LEAST = 1e-6
"""Probabilities are kept so far from 0 and 1."""
NAMED = 6
"""Features that the first page names."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far a feature's distribution at the new site is from that of the training rows."""

    feature: str
    distance: float
    """Kolmogorov–Smirnov distance, 0 to 1."""
    is_clear: bool
    """At a false discovery rate of 5 % over all features."""


@dataclass(frozen=True, kw_only=True)
class NewSite:
    """A site that is known by its features only."""

    site: str
    n: int
    calibrated_on: int = 0
    """Held-out labelled examples of known sites."""
    expected: Mapping[str, Reading] = field(default_factory=dict)
    known: Mapping[str, Reading] = field(default_factory=dict)
    """The same metrics on held-out examples of known sites."""
    gaps: Mapping[str, Gap] = field(default_factory=dict)
    """From the known sites to what is expected, as narrow as labels from there would make it."""
    why_not: str = ""
    """Why nothing can be expected."""
    drift: Sequence[Drift] = ()
    recorded: Sequence[RecordingChange] = ()
    """Columns that stand there in another unit, with a code for "unknown", or not at all."""


def new_sites(findings: Sequence[Findings]) -> list[NewSite]:
    """Those of an audit, once each."""
    found = [site for one in findings for site in one.checked.get(EXPECTED.part, ())]
    return list({site.site: site for site in found}.values())


def headline(site: NewSite) -> str:
    """What an audit that was asked about a new site answers first."""
    if site.why_not:
        said = f"At {site.site}, without labels, nothing can be expected: "
        said += site.why_not[:1].lower() + site.why_not[1:]
    else:
        metric = _quoted_metric(site)
        known = site.known.get(metric)
        beside = "" if known is None else f"; known sites {format_reading(known)}"
        said = (
            f"At {site.site}, without labels, {metric} {format_reading(site.expected[metric])} is "
            f"to be expected if the target depends on the features there as at known sites{beside}."
        )
    if not site.recorded:
        return said
    names = join_words([f"`{name}`" for name in _recorded_columns(site)])
    return f"{said} Before, look at {names}, recorded otherwise there."


class NewSiteCheck:
    """Expected performance from calibrated confidence, drift, and the labels that would decide."""

    part = EXPECTED.part
    codes = (EXPECTED,)
    section = "How well it holds"

    def find(self, session: Session) -> list[NewSite]:
        """Of each split that has inputs and no labels."""
        return [_new_site(session, name) for name in session.task.of(Use.ADAPT)]

    def notes(self, found: Sequence[CheckResult[list[NewSite]]]) -> list[Note]:
        notes = [_note(site, _margin(one)) for one in found for site in one.result]
        recorded = [SiteRecording(at.site, at.recorded) for one in found for at in one.result]
        return with_code(EXPECTED.code, notes) + recording_notes(recorded)

    def evidence(self, found: Sequence[CheckResult[list[NewSite]]]) -> list[Block]:
        return [
            block for one in found for site in one.result for block in _tables(site, _margin(one))
        ]


def _margin(one: CheckResult[list[NewSite]]) -> float:
    return MARGIN if one.margin is None else one.margin


def labels_that_decide(site: NewSite, metric: str, margin: float) -> int | None:
    """How many labelled examples from there would show that a metric holds within the margin."""
    gap = site.gaps.get(metric)
    return None if gap is None else labels_needed(gap, 1, margin)


def _new_site(session: Session, split: str) -> NewSite:
    at = session.task.splits[split]
    inputs = whole(at.data, session.lab)["x"].flatten(1)
    found = NewSite(
        site=str(at.at or split),
        n=len(inputs),
        drift=_drift(session, inputs),
        recorded=_recording_changes(session, split),
    )
    try:
        return _with_expectation(session, split, found)
    except UnseenError as error:
        return replace(found, why_not=error.what)


def _recording_changes(session: Session, split: str) -> list[RecordingChange]:
    """Columns of the table that the new site records otherwise than all labelled rows."""
    columns = session.subject.columns
    if columns is None:
        return []
    unlabelled = session.task.of(Use.ADAPT)
    known = [columns(name) for name in session.task.splits if name not in unlabelled]
    parts = [*known, columns(split)]
    if not (names := list(parts[-1])):
        return []
    is_new = np.repeat(np.arange(len(parts)) == len(known), [len(one[names[0]]) for one in parts])
    joined = {name: np.concatenate([one[name] for one in parts]) for name in names}
    return recording_changes(joined, is_new.astype(np.int64), 1)


def _drift(session: Session, inputs: Tensor) -> list[Drift]:
    """Features whose distribution is farthest first."""
    fitted = whole(session.task.splits[session.training_split].data, session.lab)["x"].flatten(1)
    moved = list(shifts(fitted, inputs).values())
    found = [
        Drift(
            feature=name,
            distance=max(moved[k].ks for k in positions),
            is_clear=any(moved[k].q < 1 - stats.LEVEL for k in positions),
        )
        for name, positions in session.subject.features.items()
        if positions
    ]
    return sorted(found, key=lambda one: -one.distance)


def _with_expectation(session: Session, split: str, found: NewSite) -> NewSite:
    """The site with what the model's calibrated confidence says of it."""
    reference = session.reference_split
    if not session.classifies or reference is None:
        raise InvalidData(
            "An expectation needs probabilities of classes and held-out labelled examples.",
            why="it is an average of probabilities.",
            fix="label some rows of the new site.",
        )
    session.require_probabilities()
    p, outcome = forecasts(session.first, reference, session.lab)
    known = KnownScores(_log_odds(p), outcome)
    logits = _logits(session, split)
    is_ranking = logits.shape[1] <= 2
    there = _log_odds(confidences(logits, torch.zeros(len(logits), dtype=torch.long))[0])
    if is_ranking and np.ptp(there) < LEAST:
        raise InvalidData(
            "All probabilities there are equal.",
            why="they put no example before another: their AUC is 0.5 whatever the labels are.",
            fix="look at the columns of the new site, and at what the model answers there.",
        )
    rng = session.lab.child("new site", split).numpy()
    expected = expected_performance(known, there, rng, is_ranking=is_ranking)
    metrics = session.predictions(reference).metrics()
    drawn = _drawn_labels(known, there, rng, is_ranking)
    gaps = {
        metric: gap
        for metric in expected
        if metric in metrics
        and (gap := _gap(metrics[metric], drawn, metric, reference, split)) is not None
    }
    return replace(
        found,
        calibrated_on=len(outcome),
        expected=expected,
        known={name: metrics[name] for name in expected if name in metrics},
        gaps=gaps,
    )


@torch.no_grad()
def _logits(session: Session, split: str) -> Tensor:
    """[row, output] of the first model at the new site."""
    model = session.first.model.eval()
    data = session.task.splits[split].data
    z = torch.cat([model(batch["x"]).double().cpu() for batch in once(data, 1024, session.lab)])
    return z.reshape(len(z), -1)


def _log_odds(p: np.ndarray) -> np.ndarray:
    return logit(p.clip(LEAST, 1 - LEAST))


def _drawn_labels(
    known: KnownScores, there: np.ndarray, rng: np.random.Generator, is_ranking: bool
) -> SplitPredictions:
    """The new site as it would look with labels, drawn from the calibrated probabilities."""
    p = calibrate(known, there, np.ones((1, len(known.y))))[0]
    y = (rng.random(len(p)) < p).astype(np.float64)
    score = ((there > 0) == (y > 0)).astype(np.float64) if is_ranking else y
    loss = -np.log(np.where(y > 0, expit(there), expit(-there)))
    margin = there[None] if is_ranking else None
    return SplitPredictions(loss[None], score[None], y, margin)


def _gap(
    here: Reading, drawn: SplitPredictions, metric: str, reference: str, split: str
) -> Gap | None:
    reading = drawn.metrics().get(metric)
    if reading is None:
        return None
    worse = stats.independent_difference(here, reading)
    return Gap(
        metric=metric,
        reference=reference,
        split=split,
        worse=worse,
        resolution=resolution(here, drawn, metric),
    )


def _quoted_metric(site: NewSite) -> str:
    return "AUC" if "AUC" in site.expected else "accuracy"


def _note(site: NewSite, margin: float) -> Note:
    drift = f"{_recorded_sentence(site)}{_drift_sentence(site)}"
    if site.why_not:
        return Note(
            f"Nothing can be expected at {site.site} without labels.",
            Tone.CAUTION if site.recorded else Tone.NEUTRAL,
            f"{site.why_not} {drift}",
        )
    metric = _quoted_metric(site)
    here, known = site.expected[metric], site.known.get(metric)
    beside = "" if known is None else f" (known sites {format_reading(known)})"
    is_lower = known is not None and here.high < known.value - margin
    return Note(
        f"Without labels at {site.site}, expect {metric} {format_reading(here)} there{beside}: if "
        "there is no concept shift and the scores are calibrated.",
        Tone.CAUTION if is_lower or site.recorded else Tone.NEUTRAL,
        f"It is the average that probabilities calibrated on {site.calibrated_on:,} held-out "
        f"examples of known sites give over {site.n:,} rows from there. It holds if the target "
        f"depends on the features there as it does at known sites, which no unlabelled row can "
        f"show. {_labels_sentence(site, metric, margin)} {drift}",
    )


def _labels_sentence(site: NewSite, metric: str, margin: float) -> str:
    labels = labels_that_decide(site, metric, margin)
    if labels is None:
        return (
            f"Labels from there alone cannot show whether {metric} holds within {margin:g}: what "
            "is known of the known sites is as uncertain."
        )
    return (
        f"About {labels:,} labelled examples from there would show in {POWER:.0%} of cases that "
        f"{metric} holds within {margin:g}, if it does.".replace("%", " %")
    )


def _recorded_columns(site: NewSite) -> list[str]:
    return list(dict.fromkeys(change.feature for change in site.recorded))


def _recorded_sentence(site: NewSite) -> str:
    if not site.recorded:
        return ""
    said = "; ".join(_in_words(change) for change in site.recorded[:NAMED])
    return (
        f"Recorded otherwise than in the labelled rows: {said}. What is expected means nothing "
        "before that is mended. "
    )


def _in_words(change: RecordingChange) -> str:
    """A column that the new site records otherwise, with the factor or the shares."""
    if change.kind is Kind.UNIT:
        meaning = f" ({change.meaning})" if change.meaning else ""
        if "°" in change.meaning:
            return f"`{change.feature}` is in another unit{meaning}"
        return f"`{change.feature}` is {format_reading(change.size)} × theirs{meaning}"
    what = "empty" if change.kind is Kind.MISSING else f"{change.value:g}"
    share = f"{change.size.value:.0%} of rows, of theirs in {change.elsewhere:.1%}"
    return f"`{change.feature}` is {what} in {share}".replace("%", " %").replace("-", "−")


def _drift_sentence(site: NewSite) -> str:
    clear = [one for one in site.drift if one.is_clear]
    if not clear:
        return "No feature is clearly distributed otherwise than in the training rows."
    named = [f"`{one.feature}` ({one.distance:.2f})" for one in clear[:NAMED]]
    more = f" and {len(clear) - NAMED} more" if len(clear) > NAMED else ""
    return (
        f"Distributed otherwise than in the training rows (Kolmogorov–Smirnov distance): "
        f"{join_words(named)}{more}."
    )


def _tables(site: NewSite, margin: float) -> list[Block]:
    rows: list[dict[str, Any]] = [
        {
            "metric": metric,
            "expected there": reading,
            "known sites": site.known.get(metric),
            "labels that would decide": labels_that_decide(site, metric, margin),
        }
        for metric, reading in site.expected.items()
    ]
    drift: list[dict[str, Any]] = [
        {"feature": one.feature, "distance": one.distance, "clear": "yes" if one.is_clear else "–"}
        for one in site.drift
    ]
    blocks: list[Block] = []
    if rows:
        caption = (
            f"Expected at {site.site} without labels, from calibrated confidence: no concept shift "
            f"is assumed. Labels: within a margin of {margin:g}."
        )
        blocks.append(Table(rows=rows, caption=caption))
    if drift:
        caption = (
            f"Features at {site.site} beside the training rows: Kolmogorov–Smirnov distance; clear "
            "at a false discovery rate of 5 %."
        )
        blocks.append(Table(rows=drift, caption=caption))
    return blocks


check = NewSiteCheck()
