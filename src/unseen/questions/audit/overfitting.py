"""Fit without generalization."""

from collections.abc import Sequence

from unseen.document import Note, Tone
from unseen.questions.audit.results import LOWER_IS_BETTER, Findings, Gap
from unseen.stats import widen
from unseen.text import count_noun, format_reading

OVERFIT = 0.1
"""A gap from training to known sites that is worth a finding: every flexible model has a small one.
"""


def about_overfitting(findings: Sequence[Findings]) -> list[Note]:
    """Where new examples of known sites already go clearly worse than the training examples."""
    found = [
        (one, gap) for one in findings for gap in one.gaps if _is_overfit(one, gap, len(findings))
    ]
    if not found or len(found) * 2 < len(findings):
        return []
    one, worst = max(found, key=lambda pair: pair[1].worse.value)
    return [
        Note(
            f"The {one.name} fits its training examples better than new ones of the same sites: "
            f"{worst.metric} falls by {format_reading(worst.worse)}.",
            Tone.CAUTION,
            f"So with {count_noun(len(found), 'model')} of {len(findings)} held-out sites; the "
            "largest fall is given. Train fewer steps, raise weight decay, or use a smaller model; "
            "the section on remedies has what these change.",
        )
    ]


def _is_overfit(one: Findings, gap: Gap, among: int) -> bool:
    if gap.split not in one.known or gap.metric in LOWER_IS_BETTER:
        return False
    return gap.worse.value >= OVERFIT and widen(gap.worse, among).low > 0
