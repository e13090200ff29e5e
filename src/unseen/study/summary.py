"""Several studies on one page: every system, its claims by verdict, what they cost, what the scale
cannot show, and the figure of the central claim.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone
from unseen.document import Value as Cell
from unseen.study import Judgement, Rows, Scale, Study, Verdict
from unseen.study.claim import after_holm
from unseen.study.document import block_or_note, citation, claims, lead
from unseen.text import count_noun

PROBLEMS, TABLE = "Not complete", "Systems"
"""The sections with what failed, and with a line for every study."""
MOST_NAMES = 5
"""So many studies that are not complete are named in the lead; the section has all."""


@dataclass(frozen=True, kw_only=True)
class StudyOutcome:
    """A study with what is known of its claims."""

    name: str
    system: str = ""
    study: Study[Any, Any] | None = None
    """None where it could not even be read."""
    judgements: Sequence[Judgement] = ()
    rows: Rows = ()
    seconds: float = 0.0
    """CPU seconds of its cells, whenever they were computed."""
    problem: str = ""
    """Why it is not complete; empty if it is."""

    @property
    def title(self) -> str:
        return f"{self.system} {self.name}".strip()

    @property
    def counts(self) -> Counter[Verdict]:
        return Counter(judgement.verdict for judgement in self.judgements)

    @property
    def has_verdicts(self) -> bool:
        return any(self.counts[verdict] for verdict in Verdict if verdict is not Verdict.NOT_JUDGED)


def summary(
    outcomes: Sequence[StudyOutcome], scale: Scale, facts: Mapping[str, str] = {}
) -> Document:
    """One page about all of them, in the order given."""
    n = len(outcomes)
    problems = [Note(one.title, Tone.CAUTION, one.problem) for one in outcomes if one.problem]
    sections = [
        Section(PROBLEMS, problems),
        Section(TABLE, [Table(rows=[_line(one) for one in outcomes])]),
        *(Section(one.title, _blocks(one, scale)) for one in outcomes),
    ]
    return Document(
        title=f"All studies at {scale} scale",
        kicker=f"Unseen · {n} {'study' if n == 1 else 'studies'}",
        lead=_lead(outcomes, scale),
        sections=[section for section in sections if section.blocks],
        facts=facts,
    )


def _lead(outcomes: Sequence[StudyOutcome], scale: Scale) -> str:
    counts = sum((one.counts for one in outcomes), Counter[Verdict]())
    parts = [f"{counts[verdict]:,} {verdict}" for verdict in Verdict if counts[verdict]]
    hold = sum(sum(after_holm(one.judgements)) for one in outcomes)
    judged = sum(one.has_verdicts for one in outcomes)
    text = f"Of {counts.total():,} claims of {len(outcomes)} studies: {', '.join(parts) or 'none'}."
    if judged:
        text += (
            f" After Holm's correction within each study with verdicts ({judged}), "
            f"{count_noun(hold, 'verdict')} {'holds' if hold == 1 else 'hold'}."
        )
    else:
        text += f" No claim is judged at {scale} scale: it only shows that the studies work."
    text += f" They cost {sum(one.seconds for one in outcomes):,.0f} CPU seconds."
    missing = [one.title for one in outcomes if one.problem]
    if len(missing) > MOST_NAMES:
        return f"{text} {len(missing)} studies are not complete."
    return text + (f" Not complete: {', '.join(missing)}." if missing else "")


def _line(one: StudyOutcome) -> dict[str, Cell]:
    seeds = len({row["seed"] for row in one.rows if "seed" in row})
    return {
        "study": one.title,
        **{verdict.value: one.counts[verdict] for verdict in Verdict},
        "after Holm": sum(after_holm(one.judgements)),
        "seeds": seeds or None,
        "CPU s": round(one.seconds),
        "complete": "no" if one.problem else "yes",
    }


def _blocks(one: StudyOutcome, scale: Scale) -> list[Block]:
    """Of one study: its paper, its claims by verdict, what is not shown, and its first figure,
    which is the one of its central claim.
    """
    study = one.study
    if study is None:
        return [Note(PROBLEMS, Tone.CAUTION, one.problem)]
    order = list(Verdict)
    judgements = sorted(one.judgements, key=lambda judgement: order.index(judgement.verdict))
    found: list[Block] = [Paragraph(citation(study.source))]
    if one.problem:
        found.append(Note(PROBLEMS, Tone.CAUTION, one.problem))
    if one.judgements:
        cost = f" {one.seconds:,.0f} CPU seconds." if one.seconds else ""
        found += [Paragraph(lead(judgements, scale) + cost), *claims(one.rows, judgements)]
    if study.differs:
        found.append(Paragraph(f"What this scale cannot show: {study.differs}"))
    if study.not_tested:
        found.append(Paragraph(f"Not tested: {study.not_tested}"))
    if study.figures and one.rows:
        draw: Callable[[Rows], Block] = study.figures[0]
        found.append(block_or_note("figure", lambda: draw(one.rows)))
    return found
