"""Examples that the model gets wrong more often than it says, found without naming a group."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unseen import stats
from unseen.document import Block, Note, Table, Tone, Value
from unseen.engine.batches import whole
from unseen.errors import InvalidData
from unseen.measures.calibration import forecasts
from unseen.measures.site_shift.slices import (
    FEWEST,
    LEAST_NATS,
    LEAST_RELATIVE,
    MOST_ROWS,
    Column,
    Condition,
    Slice,
    excess_of_losses,
    excess_of_probabilities,
    worst_slice,
)
from unseen.questions.audit.check import CheckResult, Code
from unseen.questions.audit.checks.subgroups import WORSE_IN_GROUP
from unseen.reading import Reading
from unseen.subjects.session import Session
from unseen.text import format_reading, join_words
from unseen.wording import number

HIDDEN = Code("U211", "surer than right in a part that no group names", "slices", rank=35)
FEW = 5
"""An AUC needs so many examples of each class."""


@dataclass(frozen=True, eq=False)
class Examples:
    """The evaluated examples of one held-out site; compared as objects, so that a search over the
    same ones is done once.
    """

    features: Mapping[str, Column]
    loss: NDArray[np.float64]
    """Mean over the seeds."""
    logit: NDArray[np.float64] | None
    """Of what the models say (mean over seeds); None where they state no probability."""
    outcome: NDArray[np.bool_] | None
    is_area: bool
    """Whether an AUC of them means anything: two classes."""


@dataclass(frozen=True, kw_only=True)
class SliceSearch:
    """What is searched; the search itself runs over all held-out sites together."""

    n: int
    detail: Examples = field(repr=False)


class SliceCheck:
    """A shallow tree on the errors of half of the evaluated examples, confirmed on the other."""

    part = HIDDEN.part
    codes = (HIDDEN,)
    section = "Subgroups"

    def find(self, session: Session) -> SliceSearch:
        """Errors and features at the sites of use."""
        split = session.main_split
        predicted, features = session.predictions(split), features_of(session, split)
        loss, logit, outcome = predicted.loss.mean(0), None, None
        if predicted.margin is not None and predicted.y is not None:
            logit, outcome = predicted.margin.mean(0), predicted.y > 0
        elif session.classifies:
            p, outcome = forecasts(session.first, split, session.lab)
            p = np.clip(p, 1e-6, 1 - 1e-6)
            logit, outcome = np.log(p / (1 - p)), outcome.astype(bool)
        examples = Examples(features, loss, logit, outcome, predicted.margin is not None)
        return SliceSearch(n=len(loss), detail=examples)

    def notes(self, found: Sequence[CheckResult[SliceSearch]]) -> list[Note]:
        """One, where a region is confirmed."""
        worst = search(tuple(one.result.detail for one in found))
        if worst is None:
            return []
        part, examples = worst
        if _is_named(part, found):
            return []
        where, name = in_words(part.conditions), found[0].findings.name
        if examples.logit is None:
            text = f"The {name} errs more where {where}"
            far = f"{number(part.excess.value)} times its mean loss more than elsewhere"
        else:
            text = f"The {name} is surer than it is right where {where}"
            far = (
                f"{format_reading(part.excess)} nats more than the model itself expects, beyond "
                "the others"
            )
        inside, outside = _inside_and_outside(part, examples)
        share = f"{100 * part.share:.0f} %"
        return [
            Note(
                f"{text} ({share} of the examples): {inside} there, {outside} elsewhere.",
                Tone.CAUTION,
                "Nobody named this group: a shallow tree found it in one half of the evaluated "
                f"examples, and the other half, whose numbers these are, confirms it; an example "
                f"there costs {far}. Look at what differs there: another relation to the target, "
                "another way of recording. Follow it as a group, collect labelled examples of it, "
                "or train a model of its own for it.",
                code=HIDDEN.code,
            )
        ]

    def evidence(self, found: Sequence[CheckResult[SliceSearch]]) -> list[Block]:
        """What was searched, and the region with its numbers where one is confirmed."""
        worst = search(tuple(one.result.detail for one in found))
        if worst is None:
            return []
        part, examples = worst
        rows: list[dict[str, Value]] = [
            {"examples": name, "n": int(rows.sum()), "loss": loss, "AUC": _area(rows, examples)}
            for name, rows, loss in (
                (in_words(part.conditions), part.detail[0], part.inside),
                ("the others", part.detail[1], part.outside),
            )
        ]
        if all(row["AUC"] is None for row in rows):
            rows = [{k: v for k, v in row.items() if k != "AUC"} for row in rows]
        n = sum(one.result.n for one in found)
        drawn = f", of which {MOST_ROWS:,} were drawn" if n > MOST_ROWS else ""
        return [
            Table(
                rows=rows,
                caption="The worst part of the data that no group names, in the half of the "
                f"{n:,} evaluated examples{drawn} where it was not looked for.",
            )
        ]


def features_of(session: Session, split: str) -> Mapping[str, Column]:
    """The columns as written where the subject knows them, else its inputs by name."""
    subject = session.subject
    if subject.cells is not None:
        return subject.cells(split)
    session.require_columns(split, "x")
    x = whole(session.task.splits[split].data, session.lab)["x"]
    if not subject.features:
        raise InvalidData(
            "The subject names no features.",
            why="a part of the data is described by their values.",
            fix='give Subject(features={"age": [0], …}): positions along the input.',
        )
    flat = x.flatten(1).double().cpu().numpy()
    return {
        name if len(positions) == 1 else f"{name}[{k}]": flat[:, position]
        for name, positions in subject.features.items()
        for k, position in enumerate(positions)
    }


@functools.lru_cache(maxsize=4)
def search(parts: tuple[Examples, ...]) -> tuple[Slice, Examples] | None:
    """The worst region over all held-out sites together, with their examples."""
    if not parts or sum(len(one.loss) for one in parts) < FEWEST:
        return None
    shared = [name for name in parts[0].features if all(name in one.features for one in parts)]
    kinds = {name: {one.features[name].dtype.kind for one in parts} for name in shared}
    features = {
        name: np.concatenate([one.features[name] for one in parts])
        for name in shared
        if len(kinds[name]) == 1
    }
    loss = np.concatenate([one.loss for one in parts])
    site = np.repeat(np.arange(len(parts)), [len(one.loss) for one in parts])
    rng = np.random.default_rng(len(loss))
    logits = [one.logit for one in parts if one.logit is not None]
    outcomes = [one.outcome for one in parts if one.outcome is not None]
    if len(logits) < len(parts):
        everything = Examples(features, loss, None, None, is_area=False)
        part = worst_slice(features, excess_of_losses(loss), loss, rng, LEAST_RELATIVE)
    else:
        logit, outcome = np.concatenate(logits), np.concatenate(outcomes)
        is_area = all(one.is_area for one in parts)
        everything = Examples(features, loss, logit, outcome, is_area)
        excess = excess_of_probabilities(logit, outcome, site)
        part = worst_slice(features, excess, loss, rng, LEAST_NATS)
    return None if part is None else (part, everything)


def in_words(conditions: Sequence[Condition]) -> str:
    """ "`age` is above 62.5 and `sex` is f"."""
    return join_words([_in_words(one) for one in conditions])


def _in_words(one: Condition) -> str:
    if isinstance(one.value, float):
        return f"`{one.feature}` is {'above' if one.is_above else 'at most'} {number(one.value)}"
    if one.value == "":
        return f"`{one.feature}` is {'missing' if one.is_above else 'known'}"
    return f"`{one.feature}` is {'' if one.is_above else 'not '}{one.value}"


def _is_named(part: Slice, found: Sequence[CheckResult[SliceSearch]]) -> bool:
    """Whether it is one of the subgroups that have a check of their own."""
    named = {
        (one.group, one.level)
        for checked in found
        for one in checked.findings.checked.get(WORSE_IN_GROUP.part, ())
    }
    return len(part.conditions) == 1 and any(
        (one.feature, one.value) in named and one.is_above for one in part.conditions
    )


def _inside_and_outside(part: Slice, examples: Examples) -> tuple[str, str]:
    """AUC inside and outside, or the loss where there is none."""
    areas = [_area(rows, examples) for rows in part.detail]
    if areas[0] is None or areas[1] is None:
        return f"loss {format_reading(part.inside)}", format_reading(part.outside)
    return f"AUC {format_reading(areas[0])}", format_reading(areas[1])


def _area(rows: NDArray[np.bool_], examples: Examples) -> Reading | None:
    if not examples.is_area or examples.logit is None or examples.outcome is None:
        return None
    y = examples.outcome[rows]
    return stats.auc(examples.logit[rows], y) if min(y.sum(), (~y).sum()) >= FEW else None


check = SliceCheck()
