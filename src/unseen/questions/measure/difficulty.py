"""How hard a task is, from its training inputs and classes alone, and which model's test error
supplies how much of it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite, log2

from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.errors import InvalidConfig, InvalidData, reason
from unseen.lab import Lab
from unseen.measures.difficulty import (
    Difficulty,
    DifficultyReading,
    EqualInputs,
    FunctionSpace,
)
from unseen.measures.intrinsic_dimension import training_batch
from unseen.questions.audit.performance import performance, references
from unseen.questions.audit.results import Score
from unseen.reading import Reading
from unseen.subjects.session import Session, open_session
from unseen.subjects.subject import Subject, validate
from unseen.wording import number

CAUTION = (
    "Bits relative to an enormous space of functions: compare tasks and models by them, and read "
    "no number by itself."
)
ACCURACY = "accuracy"


@dataclass(frozen=True, kw_only=True)
class BitsSupplied:
    """What a model contributes: the difficulty of the task at the model's own test error."""

    model: str
    split: str
    error: Reading
    bits: DifficultyReading
    is_lower_bound: bool = False
    """No error was seen: the bits are those at the upper limit of its interval."""


@dataclass(frozen=True, kw_only=True)
class DifficultyReport:
    """A task and its models."""

    name: str
    held_out: str = ""
    difficulty: DifficultyReading
    pair: str = ""
    """The closest examples of two classes, in words: `difficulty.pair` counts training examples."""
    supplied: Sequence[BitsSupplied] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    sites: Mapping[str, str] = field(default_factory=dict)
    decisions: Sequence[str] = ()
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DifficultyJob:
    """Takes a subject; without `models` nothing is trained."""

    eps: float = 1e-3
    separation: float | None = None
    models: bool = True
    seeds: int = 3

    def __post_init__(self) -> None:
        Difficulty(self.eps, self.separation)
        if self.seeds < 1:
            raise InvalidConfig(
                f"seeds={self.seeds}.",
                why="at least one model must be trained.",
                fix="use --seeds 3 or more.",
            )

    def __call__(self, subject: Subject, lab: Lab) -> DifficultyReport:
        began = time.perf_counter()
        subject = validate(subject)
        try:
            found = Difficulty(self.eps, self.separation)(subject.task, lab)
        except EqualInputs as error:
            raise equal_inputs(error.pair, subject, lab) from error
        report = DifficultyReport(
            name=subject.data_name,
            held_out=subject.held_out,
            difficulty=found,
            pair="" if found.pair is None else pair_text(found.pair, subject, lab),
            decisions=list(subject.decisions),
        )
        if self.models:
            report = self._with_models(report, subject, lab)
        return replace(report, seconds=time.perf_counter() - began)

    def _with_models(
        self, report: DifficultyReport, subject: Subject, lab: Lab
    ) -> DifficultyReport:
        left_out, supplied = dict[str, str](), list[BitsSupplied]()
        try:
            session = open_session(subject, lab, seeds=self.seeds)
            for score in errors(session):
                supplied.append(bits_supplied(report.difficulty, score))
            left_out = dict(session.skipped)
        except Exception as error:  # the subject's own code may raise anything
            left_out[f"the errors of {subject.name}"] = reason(error)
        sites = {name: str(split.at) for name, split in subject.task.unseen.items()}
        return replace(report, supplied=supplied, left_out=left_out, sites=sites)


def pair_text(pair: tuple[int, int], subject: Subject, lab: Lab) -> str:
    """The rows of the user's table with their classes; of other data examples of the training
    part.
    """
    batch = training_batch(subject.task, lab)
    labels = [int(batch["y"][k]) for k in pair]
    a, b = (str(subject.classes[y]) if subject.classes else str(y) for y in labels)
    if "index" not in batch:
        return f"examples {pair[0]} ({a}) and {pair[1]} ({b}) of the training part"
    rows = batch["index"].flatten()
    return f"rows {int(rows[pair[0]])} ({a}) and {int(rows[pair[1]])} ({b})"


def equal_inputs(pair: tuple[int, int], subject: Subject, lab: Lab) -> InvalidData:
    text = pair_text(pair, subject, lab)
    return InvalidData(
        f"{text[0].upper()}{text[1:]} have equal inputs and different classes.",
        why="no function of the inputs is right on both, so no amount of bias is enough.",
        fix="correct or drop such rows, add the column that tells them apart, or give the distance "
        "below which answers may differ: --separation 0.1 (from Python separation=0.1).",
    )


def errors(session: Session) -> list[Score]:
    """The test error of the model, of comparison models and of one answer for everyone, on every
    evaluated split.
    """
    if not session.classifies:
        raise InvalidData(
            "The target is not a class.",
            why="the bits that a model supplies are those at its share of wrong answers.",
            fix="read the difficulty alone.",
        )
    found = [*performance(session).scores, *references(session).scores]
    return [
        replace(score, metric="error", reading=error_of(score.reading))
        for score in found
        if score.metric == ACCURACY and not score.group and score.split in session.evaluation_splits
    ]


def error_of(accuracy: Reading) -> Reading:
    return replace(
        accuracy,
        value=1 - accuracy.value,
        low=1 - accuracy.high,
        high=1 - accuracy.low,
        detail=None,
    )


def bits_supplied(difficulty: DifficultyReading, score: Score) -> BitsSupplied:
    error = score.reading
    is_bound = not error.value > 0
    bits = difficulty.at(error.high) if is_bound else difficulty.bits_supplied(error)
    return BitsSupplied(
        model=score.model, split=score.split, error=error, bits=bits, is_lower_bound=is_bound
    )


def difficulty_document(reports: Sequence[DifficultyReport]) -> Document:
    first = reports[0]
    sections = [
        Section("How hard the task is", _tasks(reports)),
        Section("What each model supplies", _models(reports)),
        Section("What it was computed from", _spaces(reports)),
        Section("How to read it", _reading(reports)),
        Section("How the data were treated", _treatment(reports), folded=True),
    ]
    bits = first.difficulty
    lead = (
        f"To reach an error of {bits.eps:g} on {first.name} takes about {bits_text(bits)} bits, "
        "whatever the model"
    )
    if len(reports) > 1:
        lead += f" (trained without {first.held_out}; the other sites are below)"
    return Document(
        kicker="difficulty",
        title=f"Difficulty of {first.name}",
        lead=f"{lead}. {CAUTION}",
        sections=[section for section in sections if section.blocks],
        facts={"seconds": f"{sum(one.seconds for one in reports):.1f}"},
    )


def bits_text(found: DifficultyReading) -> str:
    """Three digits of numbers that are astronomic; powers of ten for all of them or for none."""
    values = [found.value]
    if isfinite(found.low) and isfinite(found.high):
        values += [found.low, found.high]
    texts = [number(x) for x in values]
    if any("e" in text for text in texts):
        texts = [f"{x:.2e}" if isfinite(x) and x else number(x) for x in values]
    text = texts[0] + (f" [{', '.join(texts[1:])}]" if texts[1:] else "")
    return text if found.unit == "bits" else f"{text} {found.unit}"


def log2_reading(found: DifficultyReading) -> Reading:
    low, high = (log2(one) if one > 0 else -inf for one in (found.low, found.high))
    if found.unit != "bits":
        low, high = found.low, found.high
    return Reading(found.log2_bits, low, high, found.n)


def share_of_bits(supplied: DifficultyReading, difficulty: DifficultyReading) -> str:
    """Of the bits to the error to reach."""
    if not isfinite(difficulty.log2_bits):
        return ""
    return f"{2 ** (supplied.log2_bits - difficulty.log2_bits):.0%}"


def _about(one: DifficultyReport, among: int) -> dict[str, Value]:
    return {"trained without": one.held_out or one.name} if among > 1 else {}


def _tasks(reports: Sequence[DifficultyReport]) -> list[Block]:
    rows = [
        _about(one, len(reports))
        | {
            "error to reach": one.difficulty.eps,
            "bits": bits_text(one.difficulty),
            "log₂ of the bits": log2_reading(one.difficulty),
            "training examples": one.difficulty.n,
        }
        for one in reports
    ]
    notes = dict.fromkeys(text for one in reports for text in one.difficulty.notes)
    return [
        Table(rows=rows, caption="Intervals are those of the estimated dimension."),
        *(Note(f"{text[0].upper()}{text[1:]}.") for text in notes),
    ]


def _models(reports: Sequence[DifficultyReport]) -> list[Block]:
    rows = [
        _about(one, len(reports))
        | {"model": told.model}
        | {"site": one.sites.get(told.split, {"seen": "known sites"}.get(told.split, told.split))}
        | {"test error": told.error, "bits supplied": bits_text(told.bits)}
        | {"of those to reach": share_of_bits(told.bits, one.difficulty)}
        | {"": "at least: no error was seen" if told.is_lower_bound else ""}
        for one in reports
        for told in one.supplied
    ]
    failed = dict.fromkeys((name, why) for one in reports for name, why in one.left_out.items())
    caption = (
        "The difficulty at the model's own error: what its architecture and training supply. A "
        "smaller error takes more bits."
    )
    tables = [Table(rows=rows, caption=caption)] if rows else []
    return [*tables, *(Note(f"Not computed: {name}.", Tone.CAUTION, why) for name, why in failed)]


def _spaces(reports: Sequence[DifficultyReport]) -> list[Block]:
    rows: list[dict[str, Value]] = []
    for one in reports:
        space = one.difficulty.space
        if not isinstance(space, FunctionSpace):
            continue
        rows.append(
            _about(one, len(reports))
            | {
                "intrinsic dimension m": one.difficulty.dimension,
                "radius R": space.radius,
                "closest pair of two classes δ": space.separation,
                "that pair": one.pair,
                "largest degree K": space.degree,
                "classes": int(space.combinations),
            }
        )
    return [Table(rows=rows)] if rows else []


def _reading(reports: Sequence[DifficultyReport]) -> list[Block]:
    return [
        Paragraph(
            "The task is seen as functions on a sphere of the inputs' dimension that can change "
            "within the distance between the closest inputs of different classes; the bits single "
            "out those that err at most so often among all that fit the training examples "
            "(Boopathy et al., 2023)."
        ),
        Paragraph(
            "More training examples, fewer dimensions, classes that lie further apart, or a larger "
            "error make a task easier. Scaling all inputs changes nothing; scaling one does."
        ),
    ]


def _treatment(reports: Sequence[DifficultyReport]) -> list[Block]:
    return [Paragraph(text) for text in dict.fromkeys(t for one in reports for t in one.decisions)]


def machine_difficulty(reports: Sequence[DifficultyReport]) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "difficulty": [
            {
                "task": one.name,
                "held_out": one.held_out,
                "eps": one.difficulty.eps,
                "bits": Reading(
                    one.difficulty.value,
                    one.difficulty.low,
                    one.difficulty.high,
                    one.difficulty.n,
                    one.difficulty.unit,
                ),
                "log2_bits": one.difficulty.log2_bits,
                "dimension": one.difficulty.dimension,
                "pair": one.difficulty.pair,
                "pair_in_words": one.pair,
                "notes": one.difficulty.notes,
            }
            for one in reports
        ],
        "supplied": [
            {
                "held_out": one.held_out,
                "model": told.model,
                "split": told.split,
                "error": told.error,
                "log2_bits": told.bits.log2_bits,
                "is_lower_bound": told.is_lower_bound,
            }
            for one in reports
            for told in one.supplied
        ],
        "left_out": [
            {"task": one.name, "part": name, "why": why}
            for one in reports
            for name, why in one.left_out.items()
        ],
    }
