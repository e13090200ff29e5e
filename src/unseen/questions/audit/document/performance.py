"""How well it holds, and what helps: scores, subgroups, calibration, comparison models,
remedies.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unseen.document import Block, Note, Paragraph, Table, Tone
from unseen.figure import Bars, Points
from unseen.questions.audit.advice import (
    by_model,
    by_remedy,
    mean_change,
    shared_metric,
    where,
)
from unseen.questions.audit.document.names import held_out_label, site_label, split_label
from unseen.questions.audit.equivalence import POWER, site_answers
from unseen.questions.audit.job import Findings
from unseen.questions.audit.results import LOWER_IS_BETTER, Outcome, evaluation_sites
from unseen.reading import Reading
from unseen.text import count_intervals, count_noun, join_words

SMALL = 20
"""Subgroups with fewer examples are to be read with care."""


def holding(findings: Sequence[Findings], margin: float | None = None) -> list[Block]:
    metric = shared_metric(findings)
    values, intervals = {}, {}
    for one in findings:
        for split in evaluation_sites(one):
            for model in dict.fromkeys(score.model for score in one.scores):
                reading = one.score(split, metric, model=model)
                if reading is not None:
                    key = f"{site_label(one, split)} · {model}"
                    values[key], intervals[key] = reading.value, (reading.low, reading.high)
    rows = [row for one in findings for row in _scores(one)]
    gaps: list[dict[str, Any]] = [
        {
            "held out": held_out_label(one),
            "metric": g.metric,
            "evaluated on": site_label(one, g.split),
            "compared with": g.reference,
        }
        | {"n": g.worse.n, "worse by": g.worse}
        for one in findings
        for g in one.gaps
    ]
    if len(findings) == 1:
        rows, gaps = (
            [{k: v for k, v in row.items() if k != "held out"} for row in table]
            for table in (rows, gaps)
        )
    return [
        Bars(
            title=_title(metric, where(findings)), values=values, intervals=intervals, label=metric
        ),
        Table(
            rows=rows,
            caption="Scores with 95 % intervals over examples and training runs (comparison "
            "models: over examples).",
            footnotes=_units(rows),
        ),
        Table(
            rows=gaps,
            caption="Generalization gaps (above zero: worse than where it is compared with). "
            f"{count_intervals(len(gaps))}",
        ),
        *_answers(findings, metric, margin),
        *_comparison_blocks(findings, metric, by_model, "Comparison models", "same examples"),
    ]


def _answers(findings: Sequence[Findings], metric: str, margin: float | None) -> list[Block]:
    """Whether each site holds within the margin."""
    found = site_answers(findings, metric, margin)
    rows: list[dict[str, Any]] = [
        {
            "site": one.site,
            "labels": one.n,
            "worse by": one.worse,
            "margin": one.margin,
            "answer": str(one.verdict),
            "labels needed": one.labels,
        }
        for one in found
    ]
    widened = f"Intervals are widened for {len(found)} sites; w" if len(found) > 1 else "W"
    caption = (
        f"Whether {metric} holds within a margin. {widened}orse by more than their upper limit is "
        "excluded. "
        f"Labels needed: so many labelled examples from there show in {POWER:.0%} of cases that a "
        "site which is no worse holds (of a site near the margin: as many as decide it); none: "
        "what it is compared with is as uncertain."
    )
    return [Table(rows=rows, caption=caption.replace("%", " %"))] if rows else []


def _title(metric: str, where: str) -> str:
    return f"{metric} {where}" + (" (lower is better)" if metric in LOWER_IS_BETTER else "")


def _units(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not any("mean absolute error" in row for row in rows):
        return []
    return [
        "The mean absolute error is in the target's own unit, lower is better. R²: share of the "
        "variance at that site that "
        "is predicted; 0 is no better than the site's mean. The loss is half the squared error in "
        "units of the fitted "
        "standard deviation."
    ]


def _scores(one: Findings) -> list[dict[str, Any]]:
    rows = []
    for split in dict.fromkeys(score.split for score in one.scores if not score.group):
        for model in dict.fromkeys(score.model for score in one.scores):
            found = {
                s.metric: s.reading
                for s in one.scores
                if (s.model, s.split, s.group) == (model, split, "")
            }
            if found:
                where = site_label(one, split) if split in one.unseen else f"{split} (known sites)"
                n = next(iter(found.values())).n
                rows.append(
                    {
                        "held out": held_out_label(one),
                        "evaluated on": where,
                        "model": model,
                        "n": n,
                        **found,
                    }
                )
    return rows


def subgroups(findings: Sequence[Findings]) -> list[Block]:
    rows: list[dict[str, Any]] = []
    for one in findings:
        for split in evaluation_sites(one):
            for score in one.scores:
                if score.split == split and score.group and score.metric == one.score_name:
                    more = one.score(split, "AUC", group=score.group, level=score.level)
                    row = {
                        "site": one.sites.get(split, split),
                        "group": score.group,
                        "level": score.level,
                    }
                    rows.append(
                        {**row, "n": score.reading.n, one.score_name: score.reading, "AUC": more}
                    )
    if not rows:
        return []
    if all(row["AUC"] is None for row in rows):
        rows = [{k: v for k, v in row.items() if k != "AUC"} for row in rows]
    count = sum(isinstance(value, Reading) for row in rows for value in row.values())
    blocks: list[Block] = [
        Table(rows=rows, caption=f"Scores by subgroup. {count_intervals(count)}")
    ]
    if any(row.get("AUC") is None and "AUC" in row for row in rows):
        blocks.append(Paragraph("AUC is missing where a subgroup holds only one class."))
    return [*blocks, *_small_subgroups(findings, [row["n"] for row in rows])]


def _small_subgroups(findings: Sequence[Findings], sizes: Sequence[int]) -> list[Block]:
    """One note for all sites: the table has their sizes."""
    notes: list[Block] = []
    if few := sum(n < SMALL for n in sizes):
        have = "has" if few == 1 else "have"
        text = f"{few} of {count_noun(len(sizes), 'subgroup')} {have} fewer than {SMALL} examples"
        notes.append(Note(f"{text}: read the interval there, not the value.", Tone.CAUTION))
    alone = dict.fromkeys(name for one in findings for name in one.small_groups)
    if alone:
        text = f"Not reported, with one example only: {join_words(list(alone))}."
        notes.append(Note(text, Tone.CAUTION))
    return notes


def calibration(findings: Sequence[Findings]) -> list[Block]:
    blocks: list[Block] = []
    groups = {}
    rows: list[dict[str, Any]] = []
    for one in findings:
        for name, curve in one.curves.items():
            if name in evaluation_sites(one):
                groups[site_label(one, name)] = list(curve)
        for name, reading in one.readings.items():
            if name.startswith("calibration "):
                what, _, split = name.partition(": ")
                rows.append(
                    {
                        "evaluated on": split_label(one, split, findings),
                        "quantity": what,
                        "value": reading,
                    }
                )
        rows += [
            {"evaluated on": split_label(one, split, findings), "quantity": "p", "value": p}
            for split, p in one.calibration_p_values.items()
        ]
    if groups:
        blocks.append(
            Points(
                title=f"Reliability {where(findings)}",
                groups=groups,
                x_label="predicted probability",
                y_label="observed share",
                diagonal=True,
            )
        )
    if rows:
        wide: dict[str, dict[str, Any]] = {}
        for row in rows:
            wide.setdefault(row["evaluated on"], {"evaluated on": row["evaluated on"]})[
                row["quantity"].removeprefix("calibration ")
            ] = row["value"]
        blocks.append(
            Table(
                rows=list(wide.values()),
                caption="Calibration of the predicted probabilities of the first trained model: "
                "log odds of the outcome = intercept + slope × predicted log odds. Slope: 1 is "
                "calibrated, below 1 overconfident. In the large, the intercept at slope 1: 0 is "
                "calibrated, above 0 the outcome is commoner than predicted. Error: mean distance "
                "between probability and frequency in 15 bins, not debiased: compare it with what "
                "calibrated probabilities show by chance (mean and central 95 %). p: how often "
                "they look as far off, in recalibration or error. With more than two classes all "
                "of this is about the most likely class.",
            )
        )
    return blocks


def remedies(findings: Sequence[Findings]) -> list[Block]:
    """Nothing where none was tried."""
    return _comparison_blocks(
        findings,
        shared_metric(findings),
        by_remedy,
        "Remedies",
        "same seeds, initialisation, data and steps",
    )


MOST_COLUMNS = 4
"""Fewer models than this stand side by side, with a row per site: a page is too narrow for a column
per site.
"""


def _sites_as_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The table with its columns as rows; the first column names what is compared."""
    name, *sites = dict.fromkeys(key for row in rows for key in row)
    return [{"site": site, **{row[name]: row.get(site) for row in rows}} for site in sites]


def _comparison_blocks(
    findings: Sequence[Findings],
    metric: str,
    by: Callable[[Sequence[Findings], str], dict[str, list[Outcome]]],
    what: str,
    same: str,
) -> list[Block]:
    """Paired changes against the audited model, per unseen site and on average."""
    table = by(findings, metric)
    if not table:
        return []
    means = {name: mean_change(outcomes) for name, outcomes in table.items()}
    rows = []
    for name, outcomes in table.items():
        row: dict[str, Any] = {what[:-1].lower() if what != "Remedies" else "remedy": name}
        row |= dict.fromkeys(
            site_label(one, split) for one in findings for split in evaluation_sites(one)
        )
        for one in findings:
            mine = [
                o
                for o in outcomes
                if any(o is other for other in (*one.outcomes, *one.comparisons))
            ]
            row |= {site_label(one, o.split): o.change for o in mine}
        if len(outcomes) > 1:
            row["mean"] = means[name]
        rows.append(row)
    notes = dict.fromkeys(
        f"{o.remedy}: {o.note}" for outcomes in table.values() for o in outcomes if o.note
    )
    sign = "below" if metric in LOWER_IS_BETTER else "above"
    return [
        Bars(
            title=f"{what}: change of {metric} ({sign} zero: better)",
            values={name: r.value for name, r in means.items()},
            intervals={name: (r.low, r.high) for name, r in means.items()},
            label=f"paired change of {metric}",
        ),
        Table(
            rows=_sites_as_rows(rows) if len(table) < MOST_COLUMNS else rows,
            caption=f"{what}: paired change of {metric} against the audited model ({sign} zero: "
            f"better): {same}.",
            footnotes=list(notes),
        ),
    ]
