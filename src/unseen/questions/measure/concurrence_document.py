"""Concurrence as a document: which splits order the models alike."""

from math import isfinite

from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.figure import Grid
from unseen.questions.measure.concurrence import ConcurrenceReport
from unseen.stats.concurrence import Pair
from unseen.text import count_noun, join_words

LEVEL = 0.05
MOST_NAMED = 3


def concurrence_document(report: ConcurrenceReport) -> Document:
    splits, models = len(report.scores.splits), len(report.scores.models)
    sections = [
        Section("Which splits order the models alike", [_pairs(report), *_matrix(report)]),
        Section("What each split can tell apart", [_splits(report)]),
        Section("Same data or same way of splitting", _labels(report)),
        Section("Not computed", _reasons(report)),
        Section("How to read it", [Paragraph(text) for text in _reading(report)]),
    ]
    return Document(
        kicker="concurrence of splits",
        title=f"{count_noun(splits, 'split')}, {count_noun(models, 'model')}",
        lead=_lead(report),
        sections=[section for section in sections if section.blocks],
        facts={"source": report.source, "exchanges behind the p of all": str(report.draws)},
    )


def _lead(report: ConcurrenceReport) -> str:
    clear = [one for one in report.pairs if isfinite(one.p_family) and one.p_family <= LEVEL]
    known = [one for one in report.pairs if isfinite(one.p)]
    alike = [one for one in clear if one.tau.value > 0]
    reverse = [one for one in clear if one.tau.value < 0]
    text = (
        f"{len(alike)} of {count_noun(len(report.pairs), 'pair')} of splits order the models alike "
        f"beyond chance (p of all pairs at most {LEVEL}){_strongest(alike)}. "
    )
    if reverse:
        text += f"{len(reverse)} order them the other way round{_strongest(reverse)}. "
    if not known:
        text += "No pair has a p value: see what was not computed. "
    return text + "That holds for these models: others may be ordered differently."


def _strongest(pairs: list[Pair]) -> str:
    """The first of them by τ."""
    if not pairs:
        return ""
    named = sorted(pairs, key=lambda one: -abs(one.tau.value))[:MOST_NAMED]
    first = "" if len(named) == len(pairs) else "first "
    return f": {first}" + join_words([f"{_name(one)} (τ {one.tau.value:.2f})" for one in named])


def _name(pair: Pair) -> str:
    return f"{pair.first} with {pair.second}"


def _pairs(report: ConcurrenceReport) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "splits": _name(one),
            "τ": one.tau if isfinite(one.tau.value) else None,
            "p": _number(one.p),
            "p of all": _number(one.p_family),
            "τ without noise of seeds": _number(one.corrected),
            "τ of means": _number(one.tau_of_means),
            "models": one.models,
        }
        for one in sorted(report.pairs, key=lambda one: -_order(one.tau.value))
    ]
    return Table(
        rows=rows,
        caption="τ: 1 is the same order of models, 0 none in common, −1 the reverse; over all "
        "pairs of seeds, with the interval of other seeds of these models. τ without noise of "
        "seeds: τ over the root of both reliabilities, 1 where only seeds differ.",
    )


def _order(value: float) -> float:
    return value if isfinite(value) else -2.0


def _number(value: float) -> Value:
    return float(value) if isfinite(value) else None


def _matrix(report: ConcurrenceReport) -> list[Block]:
    names = report.scores.splits
    if len(names) < 3:
        return []
    return [
        Grid(
            title="Concurrence τ; on the diagonal that of a split with itself, over seeds",
            rows=names,
            columns=names,
            values=report.taus,
            label="τ",
        )
    ]


def _splits(report: ConcurrenceReport) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "split": one.split,
            "mean score": _number(one.mean),
            "reliability": _number(one.reliability),
            "pairs of models told apart": _number(one.separated),
            "models": one.models,
        }
        for one in report.splits
    ]
    return Table(
        rows=rows,
        caption="Reliability: τ of the split with itself over different seeds; a split whose seeds "
        "disagree cannot agree with another. Told apart: share of pairs of models whose scores "
        "differ beyond the noise of seeds (Welch, 95 %, each pair alone).",
    )


def _labels(report: ConcurrenceReport) -> list[Block]:
    found = report.labels
    if found is None:
        if not report.labels_reason:
            return []
        return [Note("Not compared.", Tone.NEUTRAL, report.labels_reason)]
    more = "source" if found.difference > 0 else "strategy"
    beyond = "" if found.p <= LEVEL or found.p >= 1 - LEVEL else ", within chance"
    return [
        Paragraph(
            f"Mean τ of pairs with the same source {found.same_source:.2f}, with the same strategy "
            f"{found.same_strategy:.2f}"
            + (f", with neither {found.neither:.2f}" if isfinite(found.neither) else "")
            + f": sharing the {more} goes with more concurrence by {abs(found.difference):.2f}"
            f"{beyond} (one-sided p that the source counts more {found.p:.3g}, of "
            f"{found.relabelings} different assignments of the labels)."
        )
    ]


def _reasons(report: ConcurrenceReport) -> list[Block]:
    by_reason: dict[str, list[str]] = {}
    for pair in report.pairs:
        if pair.reason:
            what = "τ" if not isfinite(pair.tau.value) else "p"
            by_reason.setdefault(pair.reason, []).append(f"{what} of {_name(pair)}")
    for split in report.splits:
        if split.reason:
            by_reason.setdefault(split.reason, []).append(f"the reliability of {split.split}")
    notes: list[Block] = [
        Note(f"{join_words(_first(names))}.", Tone.NEUTRAL, f"{why[0].upper()}{why[1:]}.")
        for why, names in by_reason.items()
    ]
    if report.missing:
        notes.append(
            Note(
                f"Without a score: {join_words(_first(list(report.missing)))}. Pairs of splits "
                "leave such models out; the column `models` counts the others.",
                Tone.CAUTION,
            )
        )
    if report.left_out:
        notes.append(Note(f"{count_noun(report.left_out, 'row')} without a score stood aside."))
    return notes


def _first(names: list[str], most: int = 6) -> list[str]:
    more = len(names) - most
    return [*names[:most], f"{more} more"] if more > 0 else names


def _reading(report: ConcurrenceReport) -> list[str]:
    return [
        "p: how often models that are exchanged on one of the two splits, seeds staying with their "
        "model, give so large a |τ|; exact for up to seven models. Points of one model over seeds "
        "are no independent points: a p value that counts them so is far too small. “p of all” is "
        f"that of the largest |τ| of all pairs ({report.draws} exchanges).",
        "Splits at their floor or ceiling order models by noise: see reliability and the pairs "
        "told apart before reading τ.",
    ]


def machine_concurrence(report: ConcurrenceReport) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "source": report.source,
        "splits": report.splits,
        "pairs": report.pairs,
        "tau": report.taus,
        "missing": list(report.missing),
        "rows_left_out": report.left_out,
        "source_against_strategy": report.labels,
    }
