"""Features that give the target away."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from unseen.document import Block, Note, Tone
from unseen.engine.batches import whole
from unseen.errors import InvalidData
from unseen.measures.leaks import EVERYWHERE, MOST_ROWS, identifier_order, leaks
from unseen.questions.audit.check import CheckResult, Code
from unseen.questions.audit.leave_out import ways_to_leave_out
from unseen.reading import Reading
from unseen.subjects.session import Session
from unseen.text import format_reading, join_words

GIVES_AWAY = Code("U101", "a feature gives the target away", "leaks", rank=10)


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Features that predict the target of the training examples nearly without error."""

    features: Sequence[str]
    strength: Reading
    """Out-of-fold AUC of one feature alone, or R²."""
    site: str = ""
    """The only training site where it shows; empty: everywhere."""
    settled: Reading | None = None
    """Where it is certain for a part only: the share of one class that it settles."""
    exceptions: float = 0.0
    """Fewer of the other class have these values."""
    is_identifier: bool = False
    """Whether it numbers the rows, and the numbers sort with the target."""


class LeakCheck:
    """Each feature alone, its missingness, and sums of features, against the target."""

    part = GIVES_AWAY.part
    codes = (GIVES_AWAY,)
    section = "The training data"

    def find(self, session: Session) -> list[Leak]:
        """In the training examples."""
        fit, named = session.training_split, session.subject.features
        if not named:
            raise InvalidData(
                "The subject names no features.",
                why="each is tried alone.",
                fix='give Subject(features={"age": [0], …}): positions along the input.',
            )
        session.require_columns(fit, "x", "y")
        batch = whole(session.task.splits[fit].data, session.lab)
        site = batch["site"].cpu().numpy() if "site" in batch else None
        names = session.subject.site_names
        if (n := len(batch["y"])) > MOST_ROWS:
            session.note_cap(
                f"Features that give the target away are looked for among {MOST_ROWS:,} of the "
                f"{n:,} examples of `{fit}`, drawn at random."
            )
        found = leaks(
            batch["x"].flatten(1).float().cpu().numpy(),
            batch["y"].flatten().cpu().numpy(),
            named,
            site,
            session.lab.child("leaks").numpy(),
        )
        return [
            Leak(
                features=leak.features,
                strength=leak.strength,
                site=""
                if leak.site == EVERYWHERE
                else str(names[leak.site] if names else leak.site),
                settled=leak.settled,
                exceptions=leak.exceptions,
            )
            for leak in found
        ] + _identifiers(session, batch["y"].flatten().cpu().numpy())

    def notes(self, found: Sequence[CheckResult[list[Leak]]]) -> list[Note]:
        """One per feature, however many held-out sites show it."""
        strongest: dict[tuple[tuple[str, ...], str], Leak] = {}
        for leak in (leak for one in found for leak in one.result):
            key = (tuple(leak.features), leak.site)
            if key not in strongest or leak.strength.value > strongest[key].strength.value:
                strongest[key] = leak
        everywhere = {features for features, site in strongest if not site}
        return [
            _about_leak(leak)
            for (features, site), leak in strongest.items()
            if not (site and features in everywhere)
        ]

    def evidence(self, found: Sequence[CheckResult[list[Leak]]]) -> list[Block]:
        """The note says all there is."""
        return []


def _identifiers(session: Session, y: NDArray[Any]) -> list[Leak]:
    """Columns that number the rows, also those that are no input, and sort with the target."""
    if session.subject.cells is None:
        return []
    cells = session.subject.cells(session.training_split)
    orders = {name: identifier_order(column, y) for name, column in cells.items()}
    return [
        Leak(features=[name], strength=order, is_identifier=True)
        for name, order in orders.items()
        if order is not None
    ]


def _about_identifier(leak: Leak) -> Note:
    (name,) = leak.features
    return Note(
        f"`{name}` numbers the rows, and its numbers sort with the target: AUC "
        f"{format_reading(leak.strength)}.",
        Tone.CAUTION,
        "The rows were collected, or numbered, by outcome: what else goes with that order (dates, "
        f"devices, batches) gives the target away, too. Leave it out ({ways_to_leave_out([name])}) "
        "and compare columns between early and late numbers.",
        code=GIVES_AWAY.code,
    )


def _about_leak(leak: Leak) -> Note:
    if leak.is_identifier:
        return _about_identifier(leak)
    names = join_words([f"`{name}`" for name in leak.features])
    where = f" at {leak.site}" if leak.site else ""
    if len(leak.features) > 1:
        text = f"{names} together are the target in other words{where}."
        detail = "A linear combination of them reproduces it exactly."
    else:
        text = f"{names} alone nearly gives the target away{where}."
        detail = (
            f"It reaches {leak.strength.unit or 'R²'} {format_reading(leak.strength)} by itself."
        )
    if leak.settled is not None:
        text = f"{names} alone settles the target for half of one class and more{where}."
        detail = (
            f"{format_reading(leak.settled)} of the rows of one class have values that no row of "
            f"the other has (fewer than {1_000 * leak.exceptions:g} in 1,000), which a consequence "
            "of the outcome does; "
            f"AUC {format_reading(leak.strength)} by itself."
        )
    if leak.site:
        detail += " It does not elsewhere, so a model that relies on it fails there."
    ways = ways_to_leave_out(leak.features)
    return Note(
        text,
        Tone.BAD,
        f"{detail} Ask when it is written down: if after the outcome is known, no score here can "
        f"be believed; audit again without ({ways}).",
        code=GIVES_AWAY.code,
    )


check = LeakCheck()
