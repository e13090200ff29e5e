"""What to do next, and what the data cannot tell: sentences that follow from the numbers by rules
written here.

A statement that something is better or worse, chosen among k of its kind, rests on an interval
widened for k (Bonferroni).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from unseen.document import Note, Tone
from unseen.questions.audit.check import results_of, with_code
from unseen.questions.audit.checks import checks
from unseen.questions.audit.checks.new_site import new_sites
from unseen.questions.audit.codes import codes
from unseen.questions.audit.constant import CONSTANT, about_constant, is_useless, useless_sites
from unseen.questions.audit.equivalence import SiteAnswer, Verdict, answer, in_words
from unseen.questions.audit.overfitting import about_overfitting
from unseen.questions.audit.results import (
    LOWER_IS_BETTER,
    Findings,
    Gap,
    Outcome,
    evaluation_sites,
    gain,
)
from unseen.reading import Reading
from unseen.stats import LEVEL, average, widen
from unseen.subjects.table_models import Mode
from unseen.subjects.table_predictions import MODE as AS_GIVEN
from unseen.tasks.table.splitting import FUTURE
from unseen.text import count_noun, format_reading, join_words

NEGLIGIBLE = 0.02
"""A calibration error (beyond chance) below which probabilities are good enough whatever a test
says, and a gain by another model below which it is none: two points.
"""
NEGLIGIBLE_ERROR = 0.05
"""The same of an error in the target's own unit, as a share of it."""

TWO_SEEDS = (
    "Two training runs leave one degree of freedom for how much another run would differ, which "
    "makes intervals up to three times as wide: train with three seeds or more for one that can be "
    "read."
)


def metric_of(one: Findings) -> str:
    """The metric that the sentences quote: AUC where it exists at every unseen site, else the
    score.
    """
    sites = one.unseen or [split for split in one.sizes if one.score(split, one.score_name)]
    return "AUC" if all(one.score(split, "AUC") for split in sites) else one.score_name


def shared_metric(findings: Sequence[Findings]) -> str:
    names = {metric_of(one) for one in findings}
    return "AUC" if names == {"AUC"} else findings[0].score_name


def where(findings: Sequence[Findings]) -> str:
    """What the evaluation examples stand for."""
    return "at unseen sites" if any(one.unseen for one in findings) else "on held-out examples"


def gap_reference(one: Findings, gap: Gap) -> str:
    """What a gap is measured from: held-out examples only where it is known that they are."""
    is_fitted = one.mode.startswith(Mode.AS_IT_IS)
    if is_later(one, gap.split) and gap.reference in one.known and not is_fitted:
        return "earlier held-out examples"
    if gap.reference not in one.known:
        return "its training rows" if is_fitted else f"the examples of `{gap.reference}`"
    if is_fitted:
        return "rows of the other sites, which it may have been fitted on"
    return "rows of the other sites" if one.mode == AS_GIVEN else "held-out examples of known sites"


def is_later(one: Findings, split: str) -> bool:
    """Whether the split is what came after the training rows, and no other site."""
    return one.sites.get(split) == FUTURE and one.mode != AS_GIVEN


def advice(findings: Sequence[Findings], margin: float | None = None) -> list[Note]:
    """Most urgent first; `margin` is how much worse still counts as holding (None: 0.05)."""
    metric = shared_metric(findings)
    among = sum(len(evaluation_sites(one)) for one in findings)
    notes = [n for check in checks() for n in check.notes(results_of(check, findings, margin))]
    notes += with_code("U201", about_constant(findings, metric))
    notes += _about_gaps(findings, metric, among, margin)
    notes += with_code("U204", about_overfitting(findings))
    notes += with_code("U301", _about_calibration(findings))
    notes += with_code("U102", _about_copies(findings))
    notes += with_code("U104", _about_warnings(findings))
    notes += with_code("U401", _about_remedies(findings, metric))
    notes += with_code("U205", _about_references(findings, metric))
    ranks = codes()
    order = [Tone.BAD, Tone.CAUTION, Tone.GOOD, Tone.NEUTRAL]
    return sorted(notes, key=lambda note: (order.index(note.tone), ranks[note.code].rank))


def answer_in_a_word(
    one: Findings, split: str, metric: str, among: int, margin: float | None, *, useless: bool
) -> str:
    """Whether the model holds at a site as well as at known ones; nothing good is said where one
    answer for everyone is as good.
    """
    gap = next((g for g in one.gaps if (g.metric, g.split) == (metric, split)), None)
    if gap is None:
        return "nothing to compare with"
    found = answer(one, gap, among, margin)
    if useless and (found.worse.high < 0 or found.verdict is Verdict.HOLDS):
        return "no better than a constant"
    if found.worse.high < 0:
        return "better there"
    if found.verdict is Verdict.HOLDS:
        return f"holds within {found.margin:.3g}"
    if found.verdict is Verdict.FAILS:
        return "does not hold"
    return "worse, size undecided" if found.worse.low > 0 else "undecided"


@dataclass(frozen=True)
class _SiteScore:
    """The answer at a site beside its score, and what it is compared with."""

    answer: SiteAnswer
    here: Reading
    than: str
    is_useless: bool
    """Whether one answer for everyone is as good there."""

    @property
    def is_undecided(self) -> bool:
        """Whether it may be worse, the same or better."""
        worse, verdict = self.answer.worse, self.answer.verdict
        return verdict is Verdict.UNDECIDED and worse.low <= 0 <= worse.high


def _about_gaps(
    findings: Sequence[Findings], metric: str, among: int, margin: float | None
) -> list[Note]:
    """A note per decided site, and one on all that are undecided; no good news where one answer
    for everyone is as good.
    """
    sites, useless = [], useless_sites(findings, metric)
    for one in findings:
        for split in evaluation_sites(one):
            gap = next((g for g in one.gaps if (g.metric, g.split) == (metric, split)), None)
            here = one.score(split, metric)
            if gap is not None and here is not None:
                found = answer(one, gap, among, margin)
                no_use = is_useless(useless, one, split)
                sites.append(_SiteScore(found, here, gap_reference(one, gap), no_use))
    judged = [(site, _decided_note(site)) for site in sites if not site.is_undecided]
    decided = [note for site, note in judged if note.tone is not Tone.GOOD or not site.is_useless]
    undecided = _undecided_note([site for site in sites if site.is_undecided], among)
    if findings[0].seeds == 2:
        undecided = [replace(note, detail=f"{note.detail} {TWO_SEEDS}") for note in undecided]
    return with_code("U202", decided) + with_code("U203", undecided)


def labels_from(site: str) -> str:
    """ "labelled examples from Bern"; of a later time those that are not there yet."""
    return "later labelled examples" if site == FUTURE else f"labelled examples from {site}"


def _decided_note(site: _SiteScore) -> Note:
    """One site: worse, easier, or holding within the margin; by the interval that decides, so that
    the words follow from the numbers beside them.
    """
    found, than = site.answer, site.than
    metric, score, worse = found.metric, format_reading(site.here), found.worse
    if worse.low > 0:
        return Note(
            f"Expect {metric} {score} at {found.site}: worse than on {than}.",
            Tone.BAD if found.verdict is Verdict.FAILS else Tone.CAUTION,
            f"It is worse by {format_reading(worse)}. {in_words(found)} Before use there, collect "
            f"{labels_from(found.site)} and audit again.",
        )
    if worse.high < 0:
        better = format_reading(gain("loss", worse))
        return Note(
            f"{found.site} is easier than {than}: {metric} {score}, better by {better}.", Tone.GOOD
        )
    return Note(
        f"{metric} holds at {found.site} within {found.margin:.3g}: {score} with "
        f"{count_noun(site.here.n, 'example')}.",
        Tone.GOOD,
        f"Compared with {than} it is not worse by more than {worse.high:.2g}.",
    )


def _undecided_note(sites: Sequence[_SiteScore], among: int) -> list[Note]:
    """One note on all undecided sites; what their examples exclude, and what would decide."""
    if not sites:
        return []
    metric, than = sites[0].answer.metric, sites[0].than
    chosen = f" Intervals allow for {among} sites." if among > 1 else ""
    compared = f"Compared with {than}, below zero being better: "
    if len(sites) == 1:
        (site,) = sites
        found, n = site.answer, count_noun(site.here.n, "example")
        text = f"{found.site}: {format_reading(site.here)} with {n}"
        detail = f"{compared}worse by {format_reading(found.worse)}. {in_words(found)}"
    else:
        text = join_words([site.answer.site for site in sites])
        each = [
            f"{site.answer.site} {format_reading(site.here)} with "
            f"{count_noun(site.here.n, 'example')}, worse by {format_reading(site.answer.worse)}"
            f"{_labels_in_words(site.answer)}"
            for site in sites
        ]
        detail = f"{compared}{'; '.join(each)}."
    text = f"The data do not show whether {metric} is worse at {text}."
    return [Note(text, Tone.NEUTRAL, f"{detail}{chosen}")]


def _labels_in_words(found: SiteAnswer) -> str:
    """How many labels from the site would decide, where a number would."""
    if found.labels is None or found.labels <= found.n:
        return ""
    return f" (about {found.labels:,} labels would decide)"


def calibration_failures(findings: Sequence[Findings]) -> list[tuple[Findings, str]]:
    """The sites whose outcomes contradict the probabilities, beyond chance and beyond the number of
    sites (Bonferroni), by an error that matters.
    """
    evaluated = [(one, split) for one in findings for split in evaluation_sites(one)]
    known = [(one, s) for one, s in evaluated if s in one.calibration_p_values]
    return [
        (one, split)
        for one, split in known
        if one.calibration_p_values[split] * len(known) < 1 - LEVEL
        and _excess_error(one, split) >= NEGLIGIBLE
    ]


def _excess_error(one: Findings, split: str) -> float:
    """The calibration error beyond what calibrated probabilities show by chance: the error itself
    is never zero.
    """
    error, chance = (
        one.readings[f"calibration error{what}: {split}"].value for what in ("", " by chance")
    )
    return error - chance


def _about_calibration(findings: Sequence[Findings]) -> list[Note]:
    if not (off := calibration_failures(findings)):
        return []
    sites = [one.sites.get(split, split) for one, split in off]
    found = [f"{site}: {_recalibration(*pair)}" for site, pair in zip(sites, off, strict=True)]
    return [
        Note(
            f"Do not read the outputs as probabilities at {join_words(sites)}.",
            Tone.CAUTION,
            f"{'; '.join(found)}. Calibrated probabilities look as far off in fewer than 5 % of "
            "audits with as many sites. With slope and intercept, σ(slope × log odds + intercept) "
            "is calibrated there; estimate them anew on labelled examples from there, and choose "
            "the decision threshold anew.",
        )
    ]


def _recalibration(one: Findings, split: str) -> str:
    """What is wrong at a site: slope and intercept where they exist, else the error."""
    slope, intercept = (
        one.readings.get(f"calibration {what}: {split}") for what in ("slope", "intercept")
    )
    if slope is None or intercept is None:
        error, chance = (
            one.readings[f"calibration error{what}: {split}"] for what in ("", " by chance")
        )
        return f"error {format_reading(error)}, by chance {format_reading(chance)}"
    meaning = ""
    if slope.high < 1:
        meaning = ", too confident"
    elif slope.low > 1:
        meaning = ", too cautious"
    return f"slope {format_reading(slope)}{meaning}, intercept {format_reading(intercept, '+')}"


def _about_copies(findings: Sequence[Findings]) -> list[Note]:
    notes = []
    unseen = [one for one in findings if "copied rows" not in one.checked]
    shared = sum(overlap.exact for one in unseen for overlap in one.overlaps)
    if shared:
        notes.append(
            Note(
                f"{count_noun(shared, 'evaluation example')} {'has' if shared == 1 else 'have'} "
                "exactly the inputs of a training "
                "example.",
                Tone.CAUTION,
                "Find out whether these are copies or coincidences of few coarse columns. Copies "
                "make the scores too good: "
                "remove them, or keep each person or device on one side (with a table: --entity).",
            )
        )
    return notes


def _about_warnings(findings: Sequence[Findings]) -> list[Note]:
    """What reading the data found, once each."""
    said = dict.fromkeys(text for one in findings for text in one.warnings)
    parts = [text.partition(". ") for text in said]
    return [Note(f"{first.rstrip('.')}.", Tone.CAUTION, rest) for first, _, rest in parts]


def mean_change(outcomes: Sequence[Outcome]) -> Reading:
    """Mean change over the sites."""
    return average([outcome.change for outcome in outcomes])


def by_remedy(findings: Sequence[Findings], metric: str) -> dict[str, list[Outcome]]:
    """The outcomes at unseen sites, by remedy."""
    return _by_name([(one, o) for one in findings for o in one.outcomes], metric)


def by_model(findings: Sequence[Findings], metric: str) -> dict[str, list[Outcome]]:
    """The paired differences of comparison models at unseen sites, by model; the constant answer
    is none of them.
    """
    found = [(one, o) for one in findings for o in one.comparisons if o.remedy != CONSTANT]
    return _by_name(found, metric)


def _by_name(outcomes: Sequence[tuple[Findings, Outcome]], metric: str) -> dict[str, list[Outcome]]:
    table: dict[str, list[Outcome]] = {}
    for one, outcome in outcomes:
        if outcome.metric == metric and outcome.split in evaluation_sites(one):
            table.setdefault(outcome.remedy, []).append(outcome)
    return table


def helpful(change: Mapping[str, Reading], metric: str) -> list[str]:
    """Remedies that help beyond chance and beyond the choice among them, best first."""
    better = {name: gain(metric, r) for name, r in change.items()}
    clear = [name for name, r in better.items() if widen(r, len(change)).low > 0]
    return sorted(clear, key=lambda name: -better[name].value)


def harmful(change: Mapping[str, Reading], metric: str) -> list[str]:
    """Remedies that do harm beyond chance and beyond the choice among them."""
    return [name for name, r in change.items() if widen(gain(metric, r), len(change)).high < 0]


def _about_remedies(findings: Sequence[Findings], metric: str) -> list[Note]:
    change = {name: mean_change(outcomes) for name, outcomes in by_remedy(findings, metric).items()}
    if not change:
        return []
    helped, harmed, notes = helpful(change, metric), harmful(change, metric), []
    if helped:
        best, *others = helped
        rest = (
            "Also better: "
            f"{join_words([f'{name} ' + format_reading(change[name], '+') for name in others])}. "
            if others
            else ""
        )
        notes.append(
            Note(
                f"Try {best}: {metric} changes by {format_reading(change[best], '+')} "
                f"{where(findings)}, same budget and "
                "seeds.",
                Tone.GOOD,
                f"{rest}Clear also after the choice among "
                f"{count_noun(len(change), 'remedy').replace('remedys', 'remedies')}; "
                "confirm it on new data before relying on it.",
            )
        )
    else:
        count = (
            "The one remedy tried did not improve"
            if len(change) == 1
            else f"None of {len(change)} remedies improved"
        )
        notes.append(
            Note(
                f"{count} {metric} {where(findings)} beyond chance.",
                Tone.NEUTRAL,
                "`unseen compare` with the same table or file tries further methods and searches "
                "their settings; more training "
                "sites, or labelled examples from the new one, may be the better investment.",
            )
        )
    if harmed:
        text = f"{join_words(harmed)} made {metric} worse {where(findings)}: "
        values = join_words([format_reading(change[name], "+") for name in harmed])
        notes.append(Note(text[0].upper() + text[1:] + values + ".", Tone.CAUTION))
    return notes


def _about_references(findings: Sequence[Findings], metric: str) -> list[Note]:
    change = {name: mean_change(outcomes) for name, outcomes in by_model(findings, metric).items()}
    notes, own = [], findings[0].name
    for name, difference in change.items():
        clear = widen(gain(metric, difference), len(change))
        if "".join(name.split()).lower() == own.lower():
            continue  # the same kind of model
        size = format_reading(gain(metric, clear), "+")
        by = f"its {metric} differs by {size} {where(findings)}, same examples for both models"
        if clear.low > 0:
            matters = clear.value >= _negligible_gain(findings, metric)
            notes.append(
                Note(
                    f"{name[0].upper()}{name[1:]} is better than the {own}: {by}.",
                    Tone.CAUTION if matters else Tone.NEUTRAL,
                    "Use it instead." if matters else "By less than matters for most uses.",
                )
            )
        elif clear.high >= 0:
            notes.append(
                Note(
                    f"{name[0].upper()}{name[1:]} cannot be told from the {own}: {by}.",
                    Tone.NEUTRAL,
                    f"{_allowing_for(len(change))}Where two models cannot be told apart, the one "
                    "that is easier to check and to keep up is the better choice.",
                )
            )
    return notes


def _negligible_gain(findings: Sequence[Findings], metric: str) -> float:
    if metric not in LOWER_IS_BETTER:
        return NEGLIGIBLE
    errors = [one.score(s, metric) for one in findings for s in evaluation_sites(one)]
    return NEGLIGIBLE_ERROR * min((error.value for error in errors if error), default=0.0)


def _allowing_for(models: int) -> str:
    return f"The interval allows for {models} models. " if models > 1 else ""


def limits(findings: Sequence[Findings]) -> list[str]:
    """What these data cannot tell."""
    sites = sorted(
        {one.sites.get(split, split) for one in findings for split in evaluation_sites(one)}
    )
    text, new = [], [site.site for site in new_sites(findings)]
    if new:
        text.append(
            f"{join_words(new)} {'is' if len(new) == 1 else 'are'} known by features only: what is "
            "expected there rests on known sites. Only labels from there show whether the target "
            "depends on the features as it does at these (--against a file with the target)."
        )
    elif not any(one.unseen for one in findings):
        text.append(
            "Every evaluation example comes from where the training examples come from: nothing "
            "here speaks about a new site "
            "or a later time. Evaluate on data from where the model will be used (with a table: "
            "--site or --time)."
        )
    if any(one.unseen for one in findings) and len(sites) < 10:
        text.append(
            f"{count_noun(len(sites), 'unseen site')} ({join_words(sites)}) "
            f"say{'s' * (len(sites) == 1)} little about the "
            "next "
            "one: the intervals cover new examples of these sites and new training runs, not the "
            "choice of sites."
        )
    counts = [
        r.n
        for one in findings
        for s in evaluation_sites(one)
        if (r := one.score(s, one.score_name))
    ]
    if counts:
        smallest = "The smallest evaluated site has" if len(counts) > 1 else "It is evaluated on"
        text.append(
            f"{smallest} {count_noun(min(counts), 'example')}; differences within its interval may "
            "be chance."
        )
    if findings[0].seeds == 1:
        text.append(
            "One trained model was evaluated: how much another training run would differ is not in "
            "the intervals."
        )
    if findings[0].seeds == 2:
        text.append(TWO_SEEDS)
    return [
        *text,
        "Shifts that none of the recorded features shows (a new device, another definition of the "
        "outcome) are invisible "
        "here.",
        "Reliance and similarity are associations within these data, not effects of changing a "
        "feature or an example.",
    ]
