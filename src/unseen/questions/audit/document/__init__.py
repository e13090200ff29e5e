"""The findings of an audit as a document."""

from collections.abc import Callable, Collection, Sequence
from math import isfinite

from unseen.document import Block, Document, Note, Section, Table, Tone
from unseen.questions.answer import LIMITS
from unseen.questions.audit.advice import (
    advice,
    by_remedy,
    gap_reference,
    helpful,
    is_later,
    limits,
    mean_change,
    shared_metric,
)
from unseen.questions.audit.check import results_of
from unseen.questions.audit.checks import checks
from unseen.questions.audit.checks.leaks import GIVES_AWAY
from unseen.questions.audit.checks.new_site import headline, new_sites
from unseen.questions.audit.checks.subgroups import WORSE_IN_GROUP
from unseen.questions.audit.codes import codes, state
from unseen.questions.audit.constant import ask_for_class
from unseen.questions.audit.document import evidence, performance
from unseen.questions.audit.document.first_page import data as first_page_data
from unseen.questions.audit.document.first_page import sites as first_page_sites
from unseen.questions.audit.job import Findings
from unseen.questions.audit.results import LOWER_IS_BETTER, evaluation_sites, gain
from unseen.reading import Reading
from unseen.stats import lowest_of, widen
from unseen.subjects.table_models import Mode
from unseen.subjects.table_predictions import MODE as AS_GIVEN
from unseen.text import count_noun, decimals_of, format_interval, format_reading, format_value

CHECKED = "What was checked"
TREATMENT = "How the data were treated"
MOST_SUBGROUPS = 2
"""Of those that are clearly worse in the headline."""
MOST_ACTIONS = 5
"""More than a reader acts on hide the first; the others are one fold away."""


def document(
    findings: Sequence[Findings], margin: float | None = None, ignore: Collection[str] = ()
) -> Document:
    """One document over all held-out sites; `margin` is how much worse still counts as holding.
    Findings with a code in `ignore` are muted, and that is said.
    """
    every = advice(findings, margin)
    notes = [note for note in every if note.code not in ignore]
    first_page = [
        Section("What to do next", notes[:MOST_ACTIONS]),
        Section("Site by site", first_page_sites(findings, margin)),
        Section("How the data were read", first_page_data(findings)),
    ]
    parts: list[tuple[str, Callable[[Sequence[Findings]], list[Block]]]] = [
        ("Further findings", lambda _: list(notes[MOST_ACTIONS:])),
        ("How well it holds", lambda f: performance.holding(f, margin)),
        ("Subgroups", performance.subgroups),
        ("Calibration", performance.calibration),
        ("What the model relies on, and what shifts", evidence.features),
        ("The training data", evidence.data),
        ("The worst errors and where they come from", evidence.worst),
        ("Remedies tried", performance.remedies),
        ("The trained model", evidence.model),
        (LIMITS, lambda f: [Note(text, Tone.NEUTRAL) for text in limits(f)]),
        (CHECKED, lambda f: [_checks(every, f, ignore)]),
        (TREATMENT, evidence.treatment),
    ]
    blocks = {title: make(findings) for title, make in parts}
    for check in checks():
        found = results_of(check, findings, margin)
        blocks.setdefault(check.section, []).extend(check.evidence(found))
    last = [LIMITS, CHECKED, TREATMENT]
    titles = [*(title for title in blocks if title not in last), *last]
    evidence_sections = [Section(t, blocks[t], folded=True) for t in titles if blocks[t]]
    first = findings[0]
    seconds = sum(sum(one.seconds.values()) for one in findings)
    facts = {
        "model": f"{first.name}, {first.mode}".removesuffix(", "),
        "rows": f"{max(sum(one.sizes.values()) for one in findings):,}",
        "seeds": str(first.seeds),
        "seconds": f"{seconds:.1f}",
        "slowest parts": ", ".join(f"{k} {v:.1f} s" for k, v in _slowest(findings)),
    }
    return Document(
        kicker="audit",
        title=_title(findings),
        lead=" ".join([*_given_away(notes), *map(headline, new_sites(findings)), _lead(findings)])
        + _worse_subgroups(notes),
        sections=[*(s for s in first_page if s.blocks), *evidence_sections],
        facts=facts,
    )


def _checks(notes: Sequence[Note], findings: Sequence[Findings], ignore: Collection[str]) -> Table:
    """Every check with what came of it, so that silence can be told from not looking."""
    rows = [
        {
            "code": code.code,
            "checked": code.what,
            "result": "muted" if code.code in ignore else state(code, notes, findings),
        }
        for code in codes().values()
    ]
    return Table(rows=rows, caption="What every audit looks at (docs/findings.md explains each).")


def _title(findings: Sequence[Findings]) -> str:
    names = {one.name for one in findings}
    tasks = {one.task.split(":")[0] for one in findings}
    title = f"{', '.join(sorted(names))} on {', '.join(sorted(tasks))}"
    return title[0].upper() + title[1:]


def _slowest(findings: Sequence[Findings]) -> list[tuple[str, float]]:
    total: dict[str, float] = {}
    for one in findings:
        for name, seconds in one.seconds.items():
            total[name] = total.get(name, 0.0) + seconds
    return sorted(total.items(), key=lambda item: -item[1])[:3]


def _lead(findings: Sequence[Findings]) -> str:
    metric = shared_metric(findings)
    rows = [
        (one.sites.get(s, s), r)
        for one in findings
        for s in evaluation_sites(one)
        if (r := one.score(s, metric))
    ]
    if not rows:
        return "No evaluation split could be scored; see the skipped parts below."
    asked = ask_for_class(findings)
    text = f"{asked} The {findings[0].name} reaches {metric} ".lstrip()
    text += format_reading(rows[0][1]) if len(rows) == 1 else _over(rows)
    text += _site_clause(findings[0])
    pairs = [
        (one, g, score)
        for one in findings
        for g in one.gaps
        if g.metric == metric
        and g.split in evaluation_sites(one)
        and (score := one.score(g.split, metric))
    ]
    if pairs:
        worse = [gap.worse for _, gap, _ in pairs]
        text += _comparison(worse, [score for _, _, score in pairs], gap_reference(*pairs[0][:2]))
    text += _lowest(rows, metric)
    if asked:  # what helps can be told once the classes are right
        return text
    table = {name: mean_change(o) for name, o in by_remedy(findings, metric).items()}
    if helped := helpful(table, metric):
        text += (
            f" Of the remedies, {helped[0]} helps most: {format_reading(table[helped[0]], '+')}."
        )
    elif table:
        one, several = (
            "The one remedy tried does not improve",
            f"None of the {len(table)} remedies tried improves",
        )
        tried = one if len(table) == 1 else several
        text += f" {tried} it beyond chance."
    return text


def _comparison(worse: Sequence[Reading], scores: Sequence[Reading], than: str) -> str:
    """How the score compares with what is known, and how sure that is."""
    mean = _mean_over_examples(worse, scores)
    size = f"{abs(mean):.{_digits(worse)}f}"
    side = "worse" if mean > 0 else "better"
    if len(worse) > 1:
        lost = sum(widen(one, len(worse)).low > 0 for one in worse)
        change = f"{size} {side} than" if float(size) else "as good as"
        return (
            f" That is {change} on {than} on average; "
            f"it is clearly worse at {lost or 'none'} of {len(worse)} sites."
        )
    (gap,) = worse
    if not float(size):
        return f" That is as good as on {than}: worse by {format_reading(gap)}."
    shown = format_reading(gap if mean > 0 else gain("loss", gap))
    chance = "" if gap.low > 0 or gap.high < 0 else ", which may be chance"
    return f" That is {shown} {side} than on {than}{chance}."


def _site_clause(one: Findings) -> str:
    if one.mode == Mode.AS_IT_IS:
        return ", audited as it is: what it was fitted on is not known here."
    if one.mode == AS_GIVEN:
        return ", as they were given: whether their model saw these rows is not known here."
    if one.unseen and all(is_later(one, split) for split in one.unseen):
        return " on the rows after those it was trained on."
    if one.unseen:
        return " at sites it was not trained on."
    return " on held-out examples of the same sites."


def _given_away(notes: Sequence[Note]) -> list[str]:
    """What must be read before a score that a leak has made."""
    found = [note.text for note in notes if note.code == GIVES_AWAY.code and note.tone is Tone.BAD]
    if not found:
        return []
    others = len(found) - 1
    like = f" {count_noun(others, 'more finding')} of this kind below." if others else ""
    return [f"{found[0]}{like} No score here can be believed before that is explained."]


def _worse_subgroups(notes: Sequence[Note]) -> str:
    """The subgroups that the headline must not average away."""
    worse = [note.text for note in notes if note.code == WORSE_IN_GROUP.code]
    return "".join(f" {text}" for text in worse[:MOST_SUBGROUPS])


def _over(rows: Sequence[tuple[str, Reading]]) -> str:
    """The mean over several sites."""
    readings = [reading for _, reading in rows]
    mean = _mean_over_examples(readings, readings)
    digits = min(decimals_of(reading) for reading in readings)
    return f"{mean:.{digits}f} (mean of {len(rows)} sites, weighted by their examples)"


def _lowest(rows: Sequence[tuple[str, Reading]], metric: str) -> str:
    """The lowest score of several sites, and an interval for the lowest in truth. It allows for the
    choice, so it is another one than that of the site where the lowest was seen, which stands in
    the table: the value seen there is given without one.
    """
    if len(rows) < 2:
        return ""
    gains = [(site, gain(metric, reading)) for site, reading in rows]
    site, _ = min(gains, key=lambda row: row[1].value)
    true = gain(metric, lowest_of([reading for _, reading in gains]))
    word = "highest" if metric in LOWER_IS_BETTER else "lowest"
    text = f" The {word} {metric} is {format_value(true)}, at {site}"
    if not (isfinite(true.low) and isfinite(true.high)):
        return f"{text}."
    return (
        f"{text}; where it is {word} in truth, at whichever of the {len(rows)} sites, it lies in "
        f"{format_interval(true)}."
    )


def _mean_over_examples(values: Sequence[Reading], scores: Sequence[Reading]) -> float:
    """The mean of values over sites, in which a site counts as often as it has evaluated examples:
    a site of five rows must not weigh as much as one of 300.
    """
    weights = [score.n for score in scores]
    total = sum(value.value * weight for value, weight in zip(values, weights, strict=True))
    return total / sum(weights)


def _digits(readings: Sequence[Reading]) -> int:
    return max(decimals_of(reading) for reading in readings)
