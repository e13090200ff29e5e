"""What follows from a comparison, and what it cannot tell: sentences made from the numbers by rules
written here.

A statement that one of k methods is better or worse than the baseline rests on an interval widened
for k (Bonferroni).
"""

from collections.abc import Mapping
from math import comb

from unseen.document import Note, Tone
from unseen.questions.compare.protocols import Protocol
from unseen.questions.compare.quantities import gain, is_lower_better
from unseen.questions.compare.results import AVERAGE, WORST, Results
from unseen.reading import Reading
from unseen.stats import independent_difference, lowest_of, widen
from unseen.text import count_noun, format_interval, format_reading, format_value, join_words

FEW = 1_000
"""Evaluation examples below which a difference of a few points is within chance (accuracy 0.8: ±
2.5 points).
"""


def metric_of(results: Results) -> str:
    """The metric that the sentences quote: AUC where it exists at every site, else the mean
    score.
    """
    everywhere = {c.column for c in results.cells if c.metric == "AUC" and c.reading is not None}
    return "AUC" if {*results.sites} <= everywhere else results.metrics[0]


def headline(results: Results) -> str:
    """The column that the sentences quote: the average, or the only site."""
    return AVERAGE if len(results.sites) > 1 else results.sites[0]


def clear(results: Results, column: str) -> tuple[list[str], list[str]]:
    """Methods that are better, best first, and methods that are worse than the baseline there."""
    metric, rivals = metric_of(results), [m for m in results.methods if m != results.baseline]
    changes = {
        m: change for m in rivals if (change := results.change(m, column, metric)) is not None
    }
    gains = {m: widen(gain(metric, r), len(rivals)) for m, r in changes.items()}
    better = [m for m, r in gains.items() if r.low > 0]
    worse = [m for m, r in gains.items() if r.high < 0]
    return sorted(better, key=lambda m: -gains[m].value), worse


def recommend(results: Results) -> str:
    """The best of the methods that are clearly better than the baseline on average, else the
    baseline.
    """
    better, _ = clear(results, headline(results))
    return better[0] if better else results.baseline


def advice(results: Results) -> list[Note]:
    """Most urgent first."""
    parts = (_about_methods, _about_places, _about_subgroups, _about_selection, _about_runs)
    notes = [note for part in parts for note in part(results)]
    order = [Tone.BAD, Tone.CAUTION, Tone.GOOD, Tone.NEUTRAL]
    return sorted(notes, key=lambda note: order.index(note.tone))


def _about_methods(results: Results) -> list[Note]:
    metric, column, base = metric_of(results), headline(results), results.baseline
    where = "on average over the sites left out" if column == AVERAGE else f"at {column}"
    rivals = [m for m in results.methods if m != base]
    changes = {m: r for m in rivals if (r := results.change(m, column, metric)) is not None}
    better, worse = clear(results, column)
    notes = []
    if better:
        best, *others = better
        also = [f"{name} ({format_reading(changes[name], '+')})" for name in others]
        notes.append(
            Note(
                f"Train with {best} instead of {base}: {metric} changes by "
                f"{format_reading(changes[best], '+')} {where}.",
                Tone.GOOD,
                (f"Also better: {join_words(also)}. " if also else "")
                + "Same data, seeds and search budget; clear also after the choice among "
                f"{count_noun(len(rivals), 'method')}.",
            )
        )
    elif {*changes} - {*worse}:
        top = max(changes, key=lambda name: gain(metric, changes[name]).value)
        none = (
            f"None of {count_noun(len(rivals), 'method')} is"
            if len(rivals) > 1
            else f"{rivals[0]} is not"
        )
        notes.append(
            Note(
                f"{none} clearly better than {base} {where}: stay with {base}.",
                Tone.NEUTRAL,
                f"The largest difference in {metric} is that of {top}: "
                f"{format_reading(changes[top], '+')}. Where methods "
                "cannot be "
                "told apart the simpler one is easier to check; labelled examples from the new "
                "site, or more training "
                "sites, may be the better investment.",
            )
        )
    if worse:
        told = join_words([f"{name} ({format_reading(changes[name], '+')})" for name in worse])
        stay = "" if {*changes} - {*worse} else f" Stay with {base}."
        notes.append(Note(f"Clearly worse than {base} {where}: {told}.{stay}", Tone.CAUTION))
    return notes


def _about_places(results: Results) -> list[Note]:
    metric, method = metric_of(results), recommend(results)
    cell = results.cell(method, WORST, metric)
    if cell.reading is None:
        return []
    word = _worst_word(metric)
    notes = [
        Note(
            f"Expect {metric} in {format_interval(cell.reading)} where it is {word} of the "
            f"{len(results.sites)} sites, at whichever of them; the {word} value here is "
            f"{format_value(cell.reading)}, at {cell.note} ({method}, "
            f"{count_noun(cell.reading.n, 'evaluation example')}).",
            Tone.CAUTION,
            "On average over the sites left out: "
            f"{format_reading(results.cell(method, AVERAGE, metric).reading or cell.reading)}.",
        )
    ]
    better, _ = clear(results, WORST)
    if better and better[0] != method:
        change = results.change(better[0], WORST, metric)
        assert change is not None
        text = (
            f"If the worst site matters most, consider {better[0]}: {metric} there changes by "
            f"{format_reading(change, '+')}."
        )
        notes.append(Note(text, Tone.GOOD))
    return notes


def _worst_word(metric: str) -> str:
    """What the worst value is."""
    return "highest" if is_lower_better(metric) else "lowest"


def _about_subgroups(results: Results) -> list[Note]:
    """The worst subgroup of each grouping, where it is worse than the best one also after the
    choice among all pairs of all groupings; both at the same sites.
    """
    method, notes = recommend(results), []
    tables = [_subgroups_at_the_same_sites(results, spec, method) for spec in results.subgroups]
    pairs = sum(comb(len(known), 2) for known in tables)
    for known in tables:
        if len(known) < 2:
            continue
        gains = {m: gain(m, reading) for m, reading in known.items()}
        low, high = (pick(gains, key=lambda m: gains[m].value) for pick in (min, max))
        if widen(independent_difference(gains[high], gains[low]), pairs).low > 0:
            name, best = (m.partition(": ")[2] for m in (low, high))
            metric = results.metrics[0]
            lowest = gain(metric, lowest_of(list(gains.values())))
            text = (
                f"With {method} {name} has the {_worst_word(metric)} {metric}: "
                f"{format_value(lowest)} (in truth the {_worst_word(metric)} of the {len(known)} "
                f"lies in {format_interval(lowest)})"
            )
            notes.append(
                Note(
                    f"{text}; {best} has {format_reading(known[high])}.",
                    Tone.CAUTION,
                    f"Clear also after the choice among {count_noun(pairs, 'pair')} of subgroups.",
                )
            )
    return notes


def _subgroups_at_the_same_sites(results: Results, spec: str, method: str) -> dict[str, Reading]:
    """The readings of a grouping's subgroups that exist at as many sites as any of them."""
    metrics = results.subgroups[spec]
    cells = [
        c
        for c in results.cells
        if c.metric in metrics and c.method == method and c.reading is not None
    ]
    at = {m: [c.column for c in cells if c.metric == m] for m in metrics}
    most = max(at.values(), key=len)
    column = AVERAGE if AVERAGE in most else next(iter(most), "")
    found = {m: results.cell(method, column, m).reading for m in metrics if at[m] == most}
    return {m: reading for m, reading in found.items() if reading is not None}


def _about_selection(results: Results) -> list[Note]:
    metric, column, method = metric_of(results), headline(results), recommend(results)
    if Protocol.ORACLE not in results.protocols or results.protocols[0] is Protocol.ORACLE:
        return []
    here, best = (
        results.cell(method, column, metric, p).reading
        for p in (results.protocols[0], Protocol.ORACLE)
    )
    if here is None or best is None:
        return []
    if gain(metric, best).value <= gain(metric, here).value:
        return []
    if format_reading(best) == format_reading(here):  # nothing that a reader could see
        return []
    return [
        Note(
            f"With hyperparameters selected on labels of the new site itself {method} reaches "
            f"{metric} "
            f"{format_reading(best)}, with "
            f"{results.protocols[0]} {format_reading(here)}.",
            Tone.NEUTRAL,
            "The first number is nothing to expect: those labels are not there before the model is "
            "used. It says what a "
            "better choice among the same draws could give.",
        )
    ]


def _about_runs(results: Results) -> list[Note]:
    bad = {name: counts for name, counts in results.diverged.items() if counts[0]}
    notes = [
        Note(
            f"{name}: {lost} of {count_noun(total, 'run')} diverged.",
            Tone.CAUTION,
            "Their loss or weights stopped being finite. No seed reports such a draw; lower the "
            "upper end of the "
            "learning rates to search, or standardise the inputs.",
        )
        for name, (lost, total) in bad.items()
    ]
    quiet = {*map(str, Protocol), "selection"}
    undone = {what: why for what, why in results.missing.items() if what not in quiet}
    notes += [Note(f"{what}: {why}", Tone.CAUTION) for what, why in group_by_reason(undone).items()]
    return notes + [
        Note(f"No {what}: {results.missing[what]}") for what in results.missing if what in quiet
    ]


def group_by_reason(missing: Mapping[str, str]) -> dict[str, str]:
    """Reasons that several parts share, told once."""
    parts: dict[str, list[str]] = {}
    for what, why in missing.items():
        parts.setdefault(why, []).append(what)
    return {
        (
            join_words(what) if len(what) < 4 else f"{', '.join(what[:2])} and {len(what) - 2} more"
        ): why
        for why, what in parts.items()
    }


def limits(results: Results) -> list[str]:
    """What these runs cannot tell."""
    smallest = min(results.sizes, key=lambda site: results.sizes[site])
    readings: list[Reading] = [c.reading for c in results.cells if c.reading is not None]
    text = []
    if 1 < len(results.sites) < 10:
        text.append(
            f"{len(results.sites)} sites ({join_words(list(results.sites))}) say little about the "
            "next one: the intervals "
            "cover new examples of these sites and new training runs, not the choice of sites."
        )
    elif len(results.sites) == 1:
        text.append("One site was evaluated: nothing here says how the methods differ elsewhere.")
    if results.sizes[smallest] < FEW:
        text.append(
            f"{smallest} has only {count_noun(results.sizes[smallest], 'evaluation example')}: "
            "read intervals, not values."
        )
    if results.seeds == 1:
        text.append(
            "One run per method: how much another run would differ is not in the intervals."
        )
    elif results.seeds < 5 and readings:
        text.append(
            f"{results.seeds} runs per method: intervals are wide where runs differ; --seeds 5 "
            "narrows them."
        )
    if len(results.sites) > 1:
        text.append(
            f"The worst site is the one with the {_worst_word(metric_of(results))} value here; its "
            f"interval allows for the choice among {len(results.sites)}: another one may be the "
            "worst in truth."
        )
    return [
        *text,
        "Methods are compared at this size of network and budget; larger ones may rank otherwise.",
    ]
