"""Rows that stand twice: at several sites, or several times at one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unseen.document import Block, Note, Table, Tone, Value
from unseen.measures.site_shift.copies import copies_across_sites
from unseen.questions.audit.check import CheckResult, Code
from unseen.questions.audit.training_data import without_outputs
from unseen.subjects.session import Session
from unseen.text import count_noun

COPIES = Code(
    "U102", "rows that stand twice, so that evaluation repeats training", "copied rows", rank=60
)


@dataclass(frozen=True, kw_only=True)
class CopiedRows:
    """Rows of the whole data with the inputs of another row."""

    across: int
    within: int
    by_sites: Mapping[tuple[str, str], int]
    """Distinct inputs that two sites share."""
    same_target: float
    """Of the rows with a copy at another site, the share with the same target there."""
    are_coincidences: bool


class CopyCheck:
    """Every row against every other: the data are the same whatever site is held out."""

    part = COPIES.part
    codes = (COPIES,)
    section = "The training data"

    def find(self, session: Session) -> CopiedRows:
        """Counted as rows, over all sites at once."""
        rows, subject = session.site_rows, session.subject
        x, rng = without_outputs(session, rows.x), session.lab.child("copies").numpy()
        found = copies_across_sites(x, rows.y, rows.site, rng)
        names = {code: str(name) for code, name in enumerate(subject.site_names)}
        names |= {
            code: str(session.task.splits[name].at or name) for name, code in rows.unseen.items()
        }
        return CopiedRows(
            across=len(found.rows),
            within=found.within,
            by_sites={
                (names.get(a, str(a)), names.get(b, str(b))): count
                for (a, b), count in found.by_sites.items()
            },
            same_target=found.same_target,
            are_coincidences=found.are_coincidences,
        )

    def notes(self, found: Sequence[CheckResult[CopiedRows]]) -> list[Note]:
        """One: every held-out site has seen the same rows."""
        most = _most(found)
        if most is None:
            return []
        shared = sorted(most.by_sites.items(), key=lambda item: -item[1])[:3]
        where = "; ".join(f"{a} and {b} share {count}" for (a, b), count in shared)
        count = most.across + most.within
        text = f"{count_noun(count, 'row')} {'has' if count == 1 else 'have'} a copy"
        text += f", {most.across} of them at another site." if most.across else " at the same site."
        if most.are_coincidences:
            detail = "So many are expected by chance where columns are coarse."
        else:
            detail = (
                "Copies make the scores too good: remove them, or keep each person or device on "
                "one side (--entity)."
            )
        if where:
            detail = f"{where}; the target agrees in {most.same_target:.0%}. {detail}"
        tone = Tone.NEUTRAL if most.are_coincidences else Tone.CAUTION
        return [Note(text, tone, detail, code=COPIES.code)]

    def evidence(self, found: Sequence[CheckResult[CopiedRows]]) -> list[Block]:
        """Which sites share how many rows."""
        most = _most(found)
        if most is None or not most.by_sites:
            return []
        rows: list[dict[str, Value]] = [
            {"site": a, "other site": b, "rows in common": count}
            for (a, b), count in sorted(most.by_sites.items(), key=lambda item: -item[1])
        ]
        return [Table(rows=rows, caption="Distinct inputs that two sites share.")]


def _most(found: Sequence[CheckResult[CopiedRows]]) -> CopiedRows | None:
    """The result with most copies: held-out sites differ in how levels of a column are merged."""
    results = [one.result for one in found if one.result.across + one.result.within]
    return max(results, key=lambda one: one.across + one.within, default=None)


check = CopyCheck()
