"""A finished study as a document: verdicts first, then the table, the figures and the source."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unseen import stats
from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone
from unseen.document import Value as Cell
from unseen.errors import UnseenError
from unseen.reading import Reading
from unseen.study import Groups, Judgement, Rows, Scale, Study, Value, Verdict
from unseen.study.claim import after_holm
from unseen.study.source import Source
from unseen.text import count_noun
from unseen.wording import words

TONES = {
    Verdict.SUPPORTED: Tone.GOOD,
    Verdict.REFUTED: Tone.BAD,
    Verdict.UNDECIDED: Tone.CAUTION,
    Verdict.NOT_JUDGED: Tone.NEUTRAL,
}


def document(
    study: Study[Any, Any],
    scale: Scale,
    rows: Rows,
    judgements: Sequence[Judgement],
    facts: Mapping[str, str],
) -> Document:
    """The report of one run. A table or figure that the rows do not allow becomes a note, not the
    end of the report.
    """
    results = block_or_note(
        "table", lambda: Table(rows=study.table(rows) if study.table else means(rows))
    )
    drawn = [block_or_note("figure", lambda make=make: make(rows)) for make in study.figures]  # type: ignore[misc]
    sections = [
        Section("Claims", claims(rows, judgements)),
        Section("Differences from the paper", differences(study)),
        Section("Results", [results] if rows else [Note("No cell has finished.", Tone.CAUTION)]),
        Section("Figures", drawn if rows else []),
        Section("Source", [Paragraph(citation(study.source))]),
    ]
    system = f" · system {study.system}" if study.system else ""
    return Document(
        title=study.name,
        kicker=f"Unseen study{system} · {scale} scale · {len(rows):,} row{'s' * (len(rows) != 1)}",
        lead=lead(judgements, scale),
        sections=[section for section in sections if section.blocks],
        facts=facts,
    )


def differences(study: Study[Any, Any]) -> list[Paragraph]:
    """How the laptop scale differs from the paper, and what of its abstract is not tested."""
    not_tested = f"Not tested: {study.not_tested}" if study.not_tested else ""
    return [Paragraph(text) for text in (study.differs, not_tested) if text]


def lead(judgements: Sequence[Judgement], scale: Scale) -> str:
    """How many claims came out how, in one sentence."""
    if not judgements:
        return "This study makes no claims."
    if all(judgement.verdict is Verdict.NOT_JUDGED for judgement in judgements):
        return f"No claim is judged at {scale} scale: this run only shows that the study works."
    counts = Counter(judgement.verdict for judgement in judgements)
    parts = [f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]]
    n = len(judgements)
    judged = n - counts[Verdict.NOT_JUDGED]
    hold = sum(after_holm(judgements))
    return (
        f"Of {n} claim{'s' * (n != 1)} at {scale} scale: {', '.join(parts)}. {judged} "
        f"{'are' if judged != 1 else 'is'} judged; after Holm's correction for so many {hold} "
        f"verdict{'s hold' if hold != 1 else ' holds'}."
    )


def claims(rows: Rows, judgements: Sequence[Judgement]) -> list[Block]:
    """What was drawn anew, and a note for every claim."""
    notes = [
        _note(judgement, holds)
        for judgement, holds in zip(judgements, after_holm(judgements), strict=True)
    ]
    return [Paragraph(units(rows, judgements)), *notes] if rows and notes else [*notes]


def units(rows: Rows, judgements: Sequence[Judgement]) -> str:
    """How many seeds there are, over what the claims are judged, and how to read groups and
    doublings.
    """
    seeds = len({row["seed"] for row in rows if "seed" in row})
    found: dict[str, set[int]] = {}
    for judgement in judgements:
        if judgement.reading is not None:
            found.setdefault(judgement.unit.value, set()).add(judgement.reading.n)
    over = [
        f"{unit}s (n = {', '.join(map(str, sorted(counts)))})" for unit, counts in found.items()
    ]
    text = f"{seeds} seed{'s' * (seeds != 1)}; claims over {' and '.join(over) or 'nothing'}."
    if any(isinstance(judgement.reading, Groups) for judgement in judgements):
        text += f" {ABOUT_GROUPS}"
    doubled = sum(judgement.doublings > 0 for judgement in judgements)
    return text + (f" {_about_doublings(doubled)}" if doubled else "")


ABOUT_GROUPS = (
    "A claim about several groups is supported if the interval of every group clears the margin, "
    "and refuted if that of one lies beyond it: the group that decides is named, with its own "
    "value and interval."
)


def _about_doublings(count: int) -> str:
    if count == 1:
        return (
            "The interval of one claim ended near the margin at first, and the rule for such "
            "claims doubled its seeds, once or twice: its n may exceed the seeds above."
        )
    return (
        f"The intervals of {count} claims ended near the margin at first, and the rule for such "
        "claims doubled their seeds, once or twice: their n may exceed the seeds above."
    )


def means(rows: Rows, repeated: str = "seed") -> list[dict[str, Cell]]:
    """One line per condition with the mean over seeds of every other number.

    A condition is a column of text or flags, or of whole numbers that takes the same several values
    under every seed.
    """
    conditions = _conditions(rows, repeated)
    groups: dict[tuple[Value | None, ...], list[Mapping[str, Value]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in conditions), []).append(row)

    def line(
        key: tuple[Value | None, ...], group: Sequence[Mapping[str, Value]]
    ) -> dict[str, Cell]:
        out: dict[str, Cell] = dict(zip(conditions, key, strict=True))
        for name in dict.fromkeys(name for row in group for name in row):
            values = [float(row[name]) for row in group if name in row and _is_number(row[name])]
            if name not in (*conditions, repeated) and values:
                out[name] = stats.mean(values)
        return out

    return [line(key, group) for key, group in groups.items()]


def _conditions(rows: Rows, repeated: str) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row if name != repeated)
    return [name for name in names if _is_condition(name, rows, repeated)]


def _is_condition(name: str, rows: Rows, repeated: str) -> bool:
    values = [row[name] for row in rows if name in row]
    if len(set(values)) < 2:
        return False
    if not any(_is_number(value) for value in values):
        return True
    if not all(isinstance(value, int) for value in values):
        return False
    per_seed: dict[Value | None, set[Value]] = {}
    for row in rows:
        if name in row:
            per_seed.setdefault(row.get(repeated), set()).add(row[name])
    return len(set(map(frozenset, per_seed.values()))) == 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _note(judgement: Judgement, holds: bool) -> Note:
    verdict, reading = judgement.verdict, judgement.reading
    seen = f"; here {_reading_words(reading)}" if verdict is Verdict.NOT_JUDGED and reading else ""
    n = ""
    if reading is not None:
        n = f" (n = {count_noun(reading.n, judgement.unit)}"
        if judgement.doublings:
            times = "twice" if judgement.doublings == 2 else "once"
            n += f"; seeds doubled {times}"
        if verdict in (Verdict.SUPPORTED, Verdict.REFUTED):
            n += "" if holds else "; not after Holm's correction"
        n += ")"
    return Note(
        judgement.says, TONES[verdict], f"{verdict}: {judgement.because}{seen}{n}", verdict.sign
    )


def _reading_words(reading: Reading) -> str:
    """Value and interval; of several groups those of the farthest one."""
    if not isinstance(reading, Groups):
        return str(words(reading))
    groups = list(reading.readings.items())
    shown = [item for item in groups if item[1].value == reading.value]
    name, one = (shown or groups)[0]  # a value that is no number equals none
    return f"{name}: {words(one)}"


def block_or_note(kind: str, make: Callable[[], Block]) -> Block:
    """A table or figure, or a note that says why there is none."""
    try:
        return make()
    except UnseenError as error:  # cells may have failed: what is left is still worth reading
        return Note(
            f"A {kind} could not be made: {error.what}",
            Tone.CAUTION,
            " ".join((error.why, error.fix)).strip(),
        )


def citation(source: Source) -> str:
    """Authors, year, title and place of the paper."""
    venue = [
        source.venue,
        f"arXiv:{source.arxiv}" * bool(source.arxiv),
        f"doi:{source.doi}" * bool(source.doi),
    ]
    authors = [" ".join(reversed(name.split(", "))) for name in source.authors]
    return (
        f"{', '.join(authors)} ({source.year}). {source.title}. {', '.join(filter(None, venue))}."
    ).replace(" .", "")
