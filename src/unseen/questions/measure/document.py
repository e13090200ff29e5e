"""The measures of one or several models as a document: values, what they mean, what was left
out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from unseen import stats
from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.questions.measure.catalogue import family_order
from unseen.questions.measure.differences import better_model
from unseen.questions.measure.results import Measurement, MeasureReport
from unseen.reading import Direction, Reading
from unseen.text import count_noun, join_words
from unseen.wording import SILENT_UNITS

MOST_COLUMNS = 3
"""Models whose values stand beside each other: of a fourth a screen of 1,280 pixels cuts the
interval. More take further tables.
"""
SIGNS = {Direction.HIGHER: "higher", Direction.LOWER: "lower", Direction.NEITHER: "–"}
CAUTION = (
    "One number about weights or gradients does not say how a model holds elsewhere. Which "
    "measure foretells it is a question to many models of your own: unseen measure --sweep."
)


def document(reports: Sequence[MeasureReport]) -> Document:
    sections = [
        Section("Measures", values(reports)),
        Section(_against_title(reports), against(reports)),
        Section("What they say", meanings(reports) if len(reports) > 1 else []),
        Section("Over trainings", _trainings(reports), folded=True),
        Section("Left out", reasons(reports)),
        Section("How to read it", _reading(reports)),
        Section("How the data were treated", _treatment(reports), folded=True),
    ]
    first = reports[0]
    return Document(
        kicker="measures",
        title=_title(first),
        lead=_lead(reports),
        sections=[section for section in sections if section.blocks],
        facts={
            "models": str(len(reports)),
            "trainings": str(first.trainings),
            "parameters": f"{first.parameters:,}",
            "seconds": f"{sum(sum(one.seconds.values()) for one in reports):.1f}",
        },
    )


def summary_sections(reports: Sequence[MeasureReport]) -> int:
    """The values, and the differences."""
    return 1 + any(one.differences for one in reports)


def _title(first: MeasureReport) -> str:
    title = f"{first.name} on {first.dataset or first.task}"
    return title[0].upper() + title[1:]


def _lead(reports: Sequence[MeasureReport]) -> str:
    first, names = reports[0], {m.name for one in reports for m in one.measurements}
    text = f"{count_noun(len(names), 'measure')} of "
    if len(reports) > 1:
        held_out = join_words([one.held_out or one.task for one in reports][:6])
        text += f"{len(reports)} models, each trained without one site in turn ({held_out})"
    else:
        text += f"the {first.name}"
    left_out = {name for one in reports for name in one.left_out}
    text += f"; {len(left_out)} left out, with the reason below." if left_out else "."
    return f"{text} {CAUTION}"


Key = tuple[str, str]
"""Name of a measure, and where it was read."""


def split_words(report: MeasureReport, split: str, among: int) -> str:
    """The split in words: of several models what their splits have in common."""
    if split in report.unseen:
        return "held-out site" if among > 1 else report.splits.get(split, split)
    return {"train": "training data", "seen": "known sites"}.get(split, split)


def by_key(report: MeasureReport, among: int) -> dict[Key, Measurement]:
    return {(m.name, split_words(report, m.split, among)): m for m in report.measurements}


def table_rows(reports: Sequence[MeasureReport]) -> dict[Key, Measurement]:
    """Every row of the table with the first measurement of it, family by family."""
    rows: dict[Key, Measurement] = {}
    for one in reports:
        rows = {**by_key(one, len(reports)), **rows}
    return dict(sorted(rows.items(), key=lambda row: family_order(row[1].family)))


def values(reports: Sequence[MeasureReport]) -> list[Block]:
    """Every measure with its value, family by family; of several models side by side."""
    rows = table_rows(reports)
    if not rows:
        return []
    if len(reports) == 1:
        told: set[str] = set()
        return [_by_family(rows, [("value", by_key(reports[0], 1))], told)]
    caption = "By the site that the model was trained without."
    return [
        replace(
            _by_family(rows, [(_column(one), by_key(one, len(reports))) for one in part]),
            caption=caption,
        )
        for part in chunks(reports, MOST_COLUMNS)
    ]


def chunks(reports: Sequence[MeasureReport], size: int) -> list[Sequence[MeasureReport]]:
    """As few parts as there can be of at most so many, none much longer than another."""
    parts = -(-len(reports) // size)
    ends = [round(k * len(reports) / parts) for k in range(parts + 1)]
    return [reports[start:end] for start, end in pairwise(ends)]


def _by_family(
    rows: Mapping[Key, Measurement],
    columns: Sequence[tuple[str, Mapping[Key, Measurement]]],
    told: set[str] | None = None,
) -> Table:
    """A line per measure under the name of its family; with `told` also what it says, once."""
    lines: list[Mapping[str, Value]] = []
    heads: list[int] = []
    family = ""
    for key, first in rows.items():
        if first.family != family:
            family = first.family
            heads.append(len(lines))
            lines.append({"measure": family})
        unit = first.reading.unit
        found: dict[str, Value] = {"measure": _label(key, "" if unit in SILENT_UNITS else unit)}
        if told is None:
            found["better"] = SIGNS[first.direction]
        found |= {name: without_unit(of[key]) if key in of else None for name, of in columns}
        if told is not None:
            found |= _about(first, told)
        lines.append(found)
    names = list(lines[1])
    blank = dict.fromkeys(names, "")
    return Table(
        rows=[{**blank, **line} if k in heads else line for k, line in enumerate(lines)],
        columns=names,
        strong=[(k, "measure") for k in heads],
        comparable=False,
    )


def _column(report: MeasureReport) -> str:
    return report.held_out or report.task


def _label(key: Key, unit: str = "") -> str:
    name, at = key
    name = f"{name} ({unit})" if unit else name
    return f"{name}, {at}" if at else name


def without_unit(measurement: Measurement) -> Reading:
    """The reading of a cell whose row says the unit."""
    return replace(measurement.reading, unit="")


def _about(measurement: Measurement, told: set[str]) -> dict[str, Value]:
    """Direction, cost and meaning; the meaning once for all splits."""
    covered = measurement.covered
    is_known = measurement.name in told
    told.add(measurement.name)
    return {
        "better": SIGNS[measurement.direction],
        "parameters": None if covered is None else f"{covered:.0%}",
        "passes": measurement.passes,
        "meaning": "" if is_known else measurement.meaning,
    }


def meanings(reports: Sequence[MeasureReport]) -> list[Block]:
    """Every measure in a sentence, with its direction and cost."""
    about: dict[str, dict[str, Value]] = {}
    for measurement in table_rows(reports).values():
        about.setdefault(
            measurement.name, {"measure": measurement.name, **_about(measurement, set())}
        )
    return [Table(rows=list(about.values()), columns=_ABOUT)] if about else []


_ABOUT = ("measure", "meaning", "better", "parameters", "passes")


def _against_title(reports: Sequence[MeasureReport]) -> str:
    other = reports[0].against
    return f"Against {other.name}" if other is not None else ""


def against(reports: Sequence[MeasureReport]) -> list[Block]:
    """This model minus the other one; which is better beyond chance, all differences together."""
    pairs = [(one, difference) for one in reports for difference in one.differences]
    if not pairs:
        return []
    sides = better_model([difference for _, difference in pairs])
    rows: list[dict[str, Value]] = [
        {
            **({"trained without": _column(one)} if len(reports) > 1 else {}),
            "measure": _label((d.name, split_words(one, d.split, len(reports)))),
            "this − other": d.reading,
            "better is": SIGNS[d.direction],
            "clearly better": side,
            "interval over": d.how,
        }
        for (one, d), side in zip(pairs, sides, strict=True)
    ]
    caption = (
        f"{count_noun(len(rows), 'difference')}; “clearly better” holds for all of them together "
        "(Holm's correction)."
    )
    return [Table(rows=rows, caption=caption, comparable=False)]


def _trainings(reports: Sequence[MeasureReport]) -> list[Block]:
    """How far a measure depends on the seed of the training."""
    found: list[Mapping[str, Value]] = []
    keyed = [(_column(one), by_key(one, len(reports))) for one in reports]
    for key in table_rows(reports):
        row: dict[str, Value] = {"measure": _label(key)}
        for column, measurements in keyed:
            m = measurements.get(key)
            if m is not None and m.trainings:
                row[column] = stats.average_readings(m.trainings)
        if len(row) > 1:
            found.append(row)
    if not found:
        return []
    caption = (
        f"Mean of {reports[0].trainings} trainings from different seeds, with Student's t over "
        "them: what another training of the same model would give."
    )
    return [Table(rows=found, caption=caption, comparable=False)]


def reasons(reports: Sequence[MeasureReport]) -> list[Block]:
    """Every measure that is missing, those with one reason together."""
    by_reason: dict[str, dict[str, None]] = {}
    for one in reports:
        for name, why in one.left_out.items():
            by_reason.setdefault(why, {})[name] = None
    return [
        Note(f"{join_words(list(names))}.", Tone.NEUTRAL, why) for why, names in by_reason.items()
    ]


def _reading(reports: Sequence[MeasureReport]) -> list[Block]:
    over: dict[str, dict[str, None]] = {}
    for one in reports:
        for m in one.measurements:
            over.setdefault(m.interval or "", {})[m.name] = None
    lines = [
        f"Intervals over {what}: {join_words(list(names))}." for what, names in over.items() if what
    ]
    if "" in over:
        names = join_words(list(over[""]))
        lines.append(
            f"Without an interval of one model, since nothing is drawn: {names}. What another "
            "training gives stands under “Over trainings”, where there are several."
        )
    lines.append(
        "Parameters: the share that a measure reads; –: it reads outputs. Passes: how often, at "
        "most, the examples that it reads go through the model."
    )
    return [Paragraph(text) for text in lines]


def _treatment(reports: Sequence[MeasureReport]) -> list[Block]:
    said = dict.fromkeys(text for one in reports for text in one.decisions)
    beware = dict.fromkeys(text for one in reports for text in one.warnings)
    return [
        *(Note(text, Tone.CAUTION) for text in beware),
        *(Paragraph(text) for text in said),
    ]


def machine_readable(reports: Sequence[MeasureReport]) -> dict[str, object]:
    """What `--json` prints: a line per measure and split, and what was left out."""
    return {
        "measures": [
            {
                "model": one.name,
                "task": one.task,
                "held_out": one.held_out,
                "measure": m.name,
                "family": m.family,
                "split": m.split,
                "reading": m.reading,
                "trainings": [one.value for one in m.trainings],
                "better": m.direction.value,
                "meaning": m.meaning,
                "interval_over": m.interval,
                "parameters_covered": m.covered,
                "passes": m.passes,
            }
            for one in reports
            for m in one.measurements
        ],
        "differences": [
            {
                "model": one.name,
                "against": one.against.name if one.against else "",
                "held_out": one.held_out,
                "measure": d.name,
                "split": d.split,
                "difference": d.reading,
                "better": d.direction.value,
                "interval_over": d.how,
            }
            for one in reports
            for d in one.differences
        ],
        "left_out": [
            {"model": one.name, "task": one.task, "measure": name, "why": why}
            for one in reports
            for name, why in one.left_out.items()
        ],
    }
