"""Findings about causes: features that give the target away, and fit without generalization."""

from collections.abc import Sequence

from unseen.document import Note, Tone
from unseen.questions.audit.results import LOWER_IS_BETTER, Findings, Gap, Leak
from unseen.stats import widen
from unseen.text import count_noun, format_reading, join_words

OVERFIT = 0.1
"""A gap from training to known sites that is worth a finding: every flexible model has a small one.
"""


def about_leaks(findings: Sequence[Findings]) -> list[Note]:
    """One note per feature, however many held-out sites show it."""
    strongest: dict[tuple[tuple[str, ...], str], Leak] = {}
    for leak in (leak for one in findings for leak in one.leaks):
        key = (tuple(leak.features), leak.site)
        if key not in strongest or leak.strength.value > strongest[key].strength.value:
            strongest[key] = leak
    everywhere = {features for features, site in strongest if not site}
    return [
        _about_leak(leak)
        for (features, site), leak in strongest.items()
        if not (site and features in everywhere)
    ]


def _about_leak(leak: Leak) -> Note:
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
    if leak.site:
        detail += " It does not elsewhere, so a model that relies on it fails there."
    fix = " ".join(f"--drop {name}" for name in leak.features)
    return Note(
        text,
        Tone.BAD,
        f"{detail} Ask when it is written down: if after the outcome is known, no score here can "
        f"be believed; audit again without ({fix}).",
    )


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
