"""What to do next, and what the data cannot tell: sentences that follow from the numbers by rules written here."""

from collections.abc import Mapping, Sequence

from scipy.stats import norm

from unseen.audit.findings import Findings, Outcome
from unseen.document import Note, Tone
from unseen.measure import Reading


def metric_of(one: Findings) -> str:
    """The metric that the sentences quote: AUC where it exists at every unseen place, else the score."""
    places = one.unseen or [split for split in one.sizes if one.score(split, one.score_name)]
    return "AUC" if all(one.score(split, "AUC") for split in places) else one.score_name


def shared_metric(findings: Sequence[Findings]) -> str:
    names = {metric_of(one) for one in findings}
    return "AUC" if names == {"AUC"} else findings[0].score_name


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def shown(reading: Reading) -> str:
    return f"{reading.value:.2f} [{reading.low:.2f}, {reading.high:.2f}]"


def unseen_of(one: Findings) -> list[str]:
    """The splits that stand for the places of use."""
    judged = [split for split in one.sizes if one.score(split, one.score_name)]
    return list(one.unseen) or judged[-1:]


def advice(findings: Sequence[Findings]) -> list[Note]:
    """Most urgent first."""
    metric = shared_metric(findings)
    notes = [note for one in findings for note in _about_gap(one, metric)]
    notes += _about_calibration(findings)
    notes += _about_data(findings)
    notes += _about_remedies(findings, metric)
    notes += _about_references(findings, metric)
    order = [Tone.BAD, Tone.CAUTION, Tone.GOOD, Tone.NEUTRAL]
    return sorted(notes, key=lambda note: order.index(note.tone))


def _about_gap(one: Findings, metric: str) -> list[Note]:
    notes = []
    for split in unseen_of(one):
        gap = next((r for k, r in one.gaps.items() if k.startswith(f"{metric}: ") and k.endswith(f"− {split}")), None)
        here = one.score(split, metric)
        if gap is None or here is None:
            continue
        place = one.places.get(split, split)
        if gap.low > 0:
            tone = Tone.BAD if gap.value > 0.05 else Tone.CAUTION
            notes.append(
                Note(
                    f"Expect {metric} {shown(here)} at {place}, not what the known places show.",
                    tone,
                    f"The gap is {shown(gap)}. Before use there, collect labelled examples from {place} and audit again.",
                )
            )
        elif gap.high < 0:
            notes.append(Note(f"{place} is easier than the known places: {metric} {shown(here)}.", Tone.GOOD))
        else:
            notes.append(
                Note(
                    f"No loss at {place} could be shown: {metric} {shown(here)}.",
                    Tone.NEUTRAL,
                    f"The gap lies within {shown(gap)}; with {here.n} examples a smaller one cannot be ruled out.",
                )
            )
    return notes


def _about_calibration(findings: Sequence[Findings]) -> list[Note]:
    off = [
        f"{one.places.get(split, split)} {shown(error)}"
        for one in findings
        for split in unseen_of(one)
        if (error := one.readings.get(f"calibration error: {split}")) is not None and error.low > 0.05
    ]
    if not off:
        return []
    return [
        Note(
            "Do not read the outputs as probabilities at unseen places: on average they are off by "
            + ", ".join(off)
            + ".",
            Tone.CAUTION,
            "Recalibrate with labelled examples from there (logistic regression of the outcome on the score), "
            "and choose the decision threshold anew.",
        )
    ]


def _about_data(findings: Sequence[Findings]) -> list[Note]:
    notes = []
    shared = sum(overlap.exact for one in findings for overlap in one.overlaps)
    if shared:
        notes.append(
            Note(
                f"{shared} judged example{'s' * (shared > 1)} also stand{'s' * (shared == 1)} in the training data, "
                "value for value.",
                Tone.CAUTION,
                "Remove them or keep each person or device on one side (`--entity`): their scores are too good.",
            )
        )
    suspects = {(e.row if e.row is not None else e.index) for one in findings for e in one.suspects}
    if suspects:
        notes.append(
            Note(
                f"Check {len(suspects)} label{'s' * (len(suspects) > 1)} first: what is listed looks mislabelled.",
                Tone.NEUTRAL,
                "They are ranked, not proven: models that never saw them put them, with confidence, into another class.",
            )
        )
    return notes


def combined(outcomes: Sequence[Outcome]) -> Reading:
    """Mean change over places, these places being fixed; their intervals add in square."""
    k = len(outcomes)
    value = sum(o.change.value for o in outcomes) / k
    low = sum((o.change.value - o.change.low) ** 2 for o in outcomes) ** 0.5 / k
    high = sum((o.change.high - o.change.value) ** 2 for o in outcomes) ** 0.5 / k
    return Reading(value, value - low, value + high, k)


def by_remedy(findings: Sequence[Findings], metric: str) -> dict[str, list[Outcome]]:
    """The outcomes at unseen places, by remedy."""
    table: dict[str, list[Outcome]] = {}
    for one in findings:
        for outcome in one.outcomes:
            if outcome.metric == metric and outcome.split in unseen_of(one):
                table.setdefault(outcome.remedy, []).append(outcome)
    return table


def helpful(change: Mapping[str, Reading]) -> list[str]:
    """Remedies that help beyond chance, best first: the interval is widened for the choice among them (Bonferroni)."""
    wider = norm.ppf(1 - 0.025 / max(1, len(change))) / norm.ppf(0.975)
    clear = [name for name, r in change.items() if r.value - (r.value - r.low) * wider > 0]
    return sorted(clear, key=lambda name: -change[name].value)


def _about_remedies(findings: Sequence[Findings], metric: str) -> list[Note]:
    table = by_remedy(findings, metric)
    if not table:
        return []
    change = {name: combined(outcomes) for name, outcomes in table.items()}
    helped = helpful(change)
    harmed = [name for name in change if change[name].high < 0]
    notes = []
    if helped:
        best = helped[0]
        text = f"Use {best}: {metric} changes by {change[best].value:+.3f} " + (
            f"[{change[best].low:+.3f}, {change[best].high:+.3f}] at unseen places, same budget and seeds."
        )
        rest = ", ".join(f"{name} {change[name].value:+.3f}" for name in helped[1:])
        few = f"Corrected for the choice among {len(change)} remedies; confirm it on new data before relying on it."
        notes.append(Note(text, Tone.GOOD, f"Also above zero: {rest}. {few}" if rest else few))
    else:
        notes.append(
            Note(
                f"None of the {len(table)} remedies raised {metric} at unseen places beyond its interval.",
                Tone.NEUTRAL,
                "More training places, or labelled examples from the new one, are the better investment.",
            )
        )
    if harmed:
        notes.append(Note(f"Lowered {metric} at unseen places: {', '.join(harmed)}.", Tone.CAUTION))
    return notes


def _about_references(findings: Sequence[Findings], metric: str) -> list[Note]:
    names = {score.model for one in findings for score in one.scores} - {findings[0].name}
    notes = []
    for name in sorted(names):
        pairs = [
            (own, other)
            for one in findings
            for split in unseen_of(one)
            if (own := one.score(split, metric)) and (other := one.score(split, metric, model=name))
        ]
        if pairs and sum(other.value - own.value for own, other in pairs) / len(pairs) > 0:
            mean = sum(other.value - own.value for own, other in pairs) / len(pairs)
            notes.append(
                Note(
                    f"{name.capitalize()} does at least as well ({mean:+.3f} {metric} on average over "
                    f"{len(pairs)} unseen place{'s' * (len(pairs) > 1)}) and is simpler to check.",
                    Tone.NEUTRAL,
                )
            )
    return notes


def limits(findings: Sequence[Findings]) -> list[str]:
    """What these data cannot tell."""
    places = {one.places.get(split, split) for one in findings for split in unseen_of(one)}
    text = []
    if len(places) == 1 and not findings[0].unseen:
        text.append(
            "Every judged example comes from where the training examples come from: nothing here speaks about a new place "
            "or a later time. Give --site or --time, or judge on data from where the model will be used."
        )
    elif len(places) < 10:
        text.append(
            f"{len(places)} unseen place{'s' * (len(places) > 1)} "
            f"({', '.join(sorted(places))}) say little about the next one: the intervals cover new "
            "examples of these places and new training runs, not the choice of places."
        )
    few = min((r.n for one in findings for s in unseen_of(one) if (r := one.score(s, one.score_name))), default=0)
    text.append(f"The smallest unseen place has {few} examples; differences within its interval are noise.")
    text.append(
        "Shifts that none of the recorded features shows (a new device, another definition of the outcome) are invisible here."
    )
    text.append(
        "Reliance and similarity are associations within these data, not effects of changing a feature or an example."
    )
    return text
