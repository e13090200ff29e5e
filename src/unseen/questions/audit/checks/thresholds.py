"""Whether a decision threshold that was chosen on known sites does at a site what it did there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit
from torch import nn

from unseen import stats
from unseen.document import Block, Note, Table, Tone, Value
from unseen.engine.batches import whole
from unseen.engine.evaluate import outputs
from unseen.errors import InvalidData
from unseen.questions.audit.check import CheckResult, Code
from unseen.questions.audit.clusters import clusters
from unseen.questions.audit.equivalence import MARGIN
from unseen.questions.audit.operating_points import (
    FEWEST,
    ScoredExamples,
    benefit_of_calling_all,
    cross_fit,
    operating_point,
    rates_below,
    youden_threshold,
)
from unseen.reading import Reading
from unseen.subjects.session import Session
from unseen.text import format_reading, join_words

THRESHOLD = Code("U302", "a decision threshold that does not carry over", "decision threshold")
RATES = ("sensitivity", "specificity")
NAMES = ("prevalence", *RATES, "PPV", "net benefit")


class Origin(StrEnum):
    """Where a threshold comes from."""

    CHOSEN = "chosen on known sites"
    NAMED = "as it was named"
    HALF = "0.5, since no held-out example of known sites is there to choose one on"


@dataclass(frozen=True, kw_only=True)
class SitePoint:
    """What the threshold does at one unseen site."""

    site: str
    n: int
    points: Mapping[str, Reading]
    calling_all: float
    """Net benefit where everybody is called."""
    below: Mapping[str, Reading] = field(default_factory=dict)
    """By how much sensitivity and specificity are lower than at known sites, by thresholds of
    which the known rates are.
    """


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """One model's threshold, at known sites and at each unseen one."""

    positive: str
    threshold: float
    """A probability."""
    origin: Origin
    known: Mapping[str, Reading] = field(default_factory=dict)
    """There, by thresholds that were chosen on other examples; empty: none are known."""
    sites: Sequence[SitePoint] = ()


class ThresholdCheck:
    """Sensitivity, specificity, predictive value and net benefit at a threshold, by site."""

    part = THRESHOLD.part
    codes = (THRESHOLD,)
    section = "Decision threshold"

    def find(self, session: Session) -> Thresholds:
        """The threshold of the subject, or Youden's on held-out examples of known sites."""
        if not session.classifies:
            raise InvalidData(
                "The target is not a class.",
                why="a threshold decides between two classes.",
                fix="nothing to do.",
            )
        session.require_probabilities()
        session.require_columns(session.main_split, "x", "y")
        positive = positive_class(session)
        reference = session.reference_split
        known = None if reference is None else scored_examples(session, reference, positive)
        given = session.subject.threshold
        origin = Origin.CHOSEN if known is not None else Origin.HALF
        cut = choose(known) if known is not None and given is None else 0.0
        if given is not None:
            origin, cut = Origin.NAMED, float(logit(given))
        points, cuts = dict[str, Reading](), [cut]
        if known is not None:
            called = known.margin > cut
            if origin is Origin.CHOSEN:
                fit = cross_fit(known, session.lab.child("thresholds").numpy())
                called, cuts = fit.called, [*fit.thresholds]
            points = operating_point(called, known, cut)
        names = session.subject.classes
        return Thresholds(
            positive=str(names[positive]) if names else str(positive),
            threshold=float(expit(cut)),
            origin=origin,
            known=points,
            sites=[
                site_point(str(split.at or name), there, cut, points, cuts)
                for name, split in session.unseen.items()
                for there in [scored_examples(session, name, positive)]
            ],
        )

    def notes(self, found: Sequence[CheckResult[Thresholds]]) -> list[Note]:
        """One on all sites where sensitivity or specificity clearly falls by more than the
        margin.
        """
        fallen = falls(found)
        if not fallen:
            return []
        first = found[0].result
        said = [
            f"{one.rate} {format_reading(one.there)} at {one.site} against "
            f"{format_reading(one.known)}"
            for one in fallen
        ]
        sites = join_words(list(dict.fromkeys(one.site for one in fallen)))
        is_chosen = first.origin is Origin.CHOSEN
        how = str(first.origin) if is_chosen else f"of {first.threshold:.2g}"
        return [
            Note(
                f"The decision threshold {how} does not carry over to {sites}: {'; '.join(said)} "
                "at known sites.",
                Tone.CAUTION,
                f"An example is called {first.positive} above it. {_action(fallen, found)}",
                code=THRESHOLD.code,
            )
        ]

    def evidence(self, found: Sequence[CheckResult[Thresholds]]) -> list[Block]:
        """The operating point at every site, and at the known ones beside it."""
        if not found:
            return []
        first, rows = found[0].result, list[dict[str, Value]]()
        for one in (checked.result for checked in found):
            for at in one.sites:
                row: dict[str, Value] = {"site": at.site, "n": at.n, "threshold": one.threshold}
                row |= {name: at.points.get(name) for name in NAMES}
                rows.append(row | {"calling all": at.calling_all})
            if one.known and one.sites:
                beside = join_words([at.site for at in one.sites])
                row = {"site": f"known, without {beside}", "n": one.known["prevalence"].n}
                row |= {"threshold": one.threshold}
                rows.append(row | {name: one.known.get(name) for name in NAMES})
        if not rows:
            return []
        return [Table(rows=rows, caption=_caption(first))]


def positive_class(session: Session) -> int:
    """The number of the class that is called; of two classes the second where none is named."""
    subject = session.subject
    if subject.positive:
        names = list(map(str, subject.classes))
        return names.index(subject.positive) if names else int(subject.positive)
    if session.predictions(session.main_split).margin is None and len(subject.classes) != 2:
        raise InvalidData(
            "There are more than two classes, and none was named.",
            why="a threshold decides between one class and the others.",
            fix="name it: --positive CLASS.",
        )
    return 1


def scored_examples(session: Session, split: str, positive: int) -> ScoredExamples:
    """Log odds of the positive class against all others, by every model."""
    batch = whole(session.task.splits[split].data, session.lab)
    margin = session.predictions(split).margin
    if margin is None:
        models = [trained.model for trained in session.models]
        margin = np.stack([_one_against_rest(session, m, split, positive) for m in models])
    elif positive == 0:
        margin = -margin
    return ScoredExamples(
        margin=margin,
        is_positive=(batch["y"].flatten() == positive).cpu().numpy(),
        cluster=clusters(batch),
    )


def _one_against_rest(
    session: Session, model: nn.Module, split: str, positive: int
) -> Float[np.ndarray, " example"]:
    z = outputs(model, session.task.splits[split].data, session.lab)
    if z.dim() < 2 or z.shape[1] < 2:  # the log odds of two classes, of which one is here
        log_odds = z.double().flatten().cpu().numpy()
        return log_odds if positive == 1 else -log_odds
    logits = z.double().cpu().numpy()
    others = np.delete(logits, positive, axis=1)
    return logits[:, positive] - np.logaddexp.reduce(others, axis=1)


def choose(known: ScoredExamples) -> float:
    """Youden's threshold, as log odds."""
    count = int(known.is_positive.sum())
    fewest = min(count, len(known.is_positive) - count)
    if fewest < FEWEST:
        raise InvalidData(
            f"Held-out examples of known sites have {fewest} of the rarer class.",
            why=f"a threshold is chosen on at least {FEWEST} of either.",
            fix="name it: --threshold 0.5.",
        )
    return youden_threshold(known.margin, known.is_positive)


def site_point(
    site: str,
    there: ScoredExamples,
    cut: float,
    known: Mapping[str, Reading],
    cuts: Sequence[float],
) -> SitePoint:
    """What the threshold does at a site, beside the known rates, which are of `cuts`."""
    points = operating_point(there.margin > cut, there, cut)
    return SitePoint(
        site=site,
        n=len(there.is_positive),
        points=points,
        calling_all=benefit_of_calling_all(points, cut),
        below=rates_below(known, there, cuts),
    )


@dataclass(frozen=True)
class Fall:
    """A rate that is clearly lower at a site than at known ones."""

    site: str
    rate: str
    there: Reading
    known: Reading
    below: Reading
    """Widened for the number of sites and rates."""
    gained: float
    """By how much the other rate is higher there."""


def falls(found: Sequence[CheckResult[Thresholds]]) -> list[Fall]:
    """Where a rate is lower than at known sites by the margin or more, beyond chance and beyond
    the number of sites and rates.
    """
    pairs = [(one, at) for one in found for at in one.result.sites]
    fallen = []
    for one, at in pairs:
        margin = MARGIN if one.margin is None else one.margin
        for rate, other in (RATES, RATES[::-1]):
            if rate not in at.below:
                continue
            below = stats.widen(at.below[rate], len(RATES) * len(pairs))
            if below.low > 0 and below.value >= margin:
                gained = -at.below[other].value if other in at.below else 0.0
                known = one.result.known[rate]
                fallen.append(Fall(at.site, rate, at.points[rate], known, below, gained))
    return fallen


def _action(fallen: Sequence[Fall], found: Sequence[CheckResult[Thresholds]]) -> str:
    """Another threshold where the other rate rises; where neither does, none restores both."""
    shifted = list(dict.fromkeys(one.site for one in fallen if one.gained >= MARGIN))
    lost = list(dict.fromkeys(one.site for one in fallen if one.gained < MARGIN))
    sizes = [f"{one.rate} at {one.site} by {format_reading(one.below)}" for one in fallen]
    said = [f"Lower is {'; '.join(sizes)}."]
    if shifted:
        said.append(
            f"At {join_words(shifted)} the other rate is higher: choose the threshold anew with "
            "labelled examples from there (the section on remedies says how many help)."
        )
    if lost:
        said.append(
            f"At {join_words(lost)} the other rate does not make up for it: another threshold "
            "trades one for the other, and the model itself must become better there."
        )
    pairs = sum(len(one.result.sites) for one in found)
    return f"{' '.join(said)} Intervals allow for {len(RATES) * pairs} comparisons."


def _caption(first: Thresholds) -> str:
    chosen = (
        "chosen by Youden's index (sensitivity + specificity − 1) on held-out examples of known "
        "sites; their own rates are of thresholds chosen on four fifths of them"
        if first.origin is Origin.CHOSEN
        else str(first.origin)
    )
    return (
        f"Examples are called {first.positive} (another class: --positive) where its probability "
        f"is above the threshold, {chosen}. PPV: how many of the called are {first.positive}. Net "
        "benefit: true positives less false ones, these weighed by the odds of the threshold, per "
        "example; beside it that of calling everybody; calling nobody has 0. The threshold counts "
        "as fixed in the intervals."
    )


check = ThresholdCheck()
