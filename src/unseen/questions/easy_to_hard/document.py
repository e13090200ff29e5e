"""What easy training items are worth on hard ones, as a report."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.measures.supervision_gap import SupervisionGap
from unseen.questions.easy_to_hard.job import LIKELIHOOD, PROBE, ItemMethod, ItemResults
from unseen.reading import Reading
from unseen.tasks.graded_questions import Stratum
from unseen.text import count_noun, format_reading

WORDS = {
    ItemMethod.ZERO_SHOT: "zero-shot",
    ItemMethod.IN_CONTEXT: "in context",
    ItemMethod.LINEAR_HEAD: "linear head",
    ItemMethod.FINE_TUNE: "fine-tuning",
}


def easy_to_hard_document(found: ItemResults) -> Document:
    """The answer, the gap per method, accuracies by stratum, and what was decided."""
    request = found.request
    return Document(
        title=f"{request.train.capitalize()} training items, {request.evaluate} questions",
        kicker=f"{request.name}, hardness by {request.hardness}",
        lead=_lead(found),
        sections=[
            Section("What training is worth", _worth(found)),
            Section("Accuracy by hardness", [_accuracies(found)]),
            Section("The items", _items(found)),
            Section("What these data cannot tell", _limits(found)),
        ],
    )


def _lead(found: ItemResults) -> str:
    request = found.request
    test = len(found.draw.test[request.evaluate])
    lines = []
    for method, gap in found.gaps.items():
        lines.append(
            f"{WORDS[ItemMethod(method)].capitalize()}: on {test} {request.evaluate} items "
            f"{count_noun(_training_size(found, method), f'{request.train} item')} give accuracy "
            f"{format_reading(gap.easy)}, as many {request.evaluate} ones "
            f"{format_reading(gap.hard)}. {_difference(found, gap)}"
        )
        if gap.hard_gain.low <= 0 and gap.easy_gain.low <= 0:
            lines[-1] += f" Neither is clearly better than {found.baseline[method]} without them."
    if not lines:
        lines.append(f"Nothing was trained; guessing has {found.chance:.2f}.")
    return "\n".join(lines)


def _training_size(found: ItemResults, method: str) -> int:
    few = ItemMethod(method) is ItemMethod.IN_CONTEXT
    return min(found.request.shots, found.request.n_train) if few else found.request.n_train


def _difference(found: ItemResults, gap: SupervisionGap) -> str:
    train, evaluate = found.request.train, found.request.evaluate
    low, high = gap.difference.low, gap.difference.high
    if high < 0:
        return f"Training on {train} items is worse, by {-high:.2f} to {-low:.2f}."
    if low > 0:
        return f"Training on {train} items is better, by {low:.2f} to {high:.2f}."
    if high - low < 1e-9:
        return "Every answer is the same after either, so nothing is known of a difference."
    return (
        f"No difference is seen: {train} items are worse by at most {-low:.2f} and better by at "
        f"most {high:.2f} than {evaluate} ones."
    )


def _worth(found: ItemResults) -> list[Block]:
    train, evaluate = found.request.train, found.request.evaluate
    rows: list[dict[str, Value]] = [
        {
            "method": WORDS[ItemMethod(method)],
            f"trained on {train}": gap.easy,
            f"trained on {evaluate}": gap.hard,
            "difference": gap.difference,
            "not trained": _constant_or_reading(gap.unsupervised),
            "which is": found.baseline[method],
            "gap recovered": gap.recovered or "not defined",
        }
        for method, gap in found.gaps.items()
    ]
    notes: list[Block] = [
        Note(
            f"The gap recovered by {WORDS[ItemMethod(method)]} is not defined.",
            Tone.NEUTRAL,
            f"It is (trained on {train} − not trained) / (trained on {evaluate} − not trained), "
            f"and {gap.why.replace('hard items', f'{evaluate} items')}: a ratio to noise.",
        )
        for method, gap in found.gaps.items()
        if gap.recovered is None
    ]
    table = Table(
        rows=rows,
        caption=f"Accuracy on {evaluate} items. Gap recovered: 1 where {train} items are as "
        f"good as {evaluate} ones, 0 where they are as good as none.",
        footnotes=[
            "Intervals of 95 % by resampling items and runs together; rather too wide, and over "
            "items alone where there is one run."
        ],
    )
    return [*([table] if rows else []), *notes]


def _constant_or_reading(reading: Reading) -> Value:
    """Guessing among equally many choices has no interval."""
    return f"{reading.value:.2f}" if reading.high - reading.low < 1e-9 else reading


def _accuracies(found: ItemResults) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "method": WORDS[ItemMethod(one.method)],
            "trained on": one.source,
            **{f"on {name} items": reading for name, reading in one.accuracies.items()},
        }
        for one in found.methods
    ]
    runs = count_noun(found.draw.runs, "run")
    return Table(
        rows=rows,
        caption=f"Each trained with {found.request.n_train} items in {runs}; guessing has "
        f"{found.chance:.2f}.",
    )


def _items(found: ItemResults) -> list[Block]:
    strata, draw, request = found.strata, found.draw, found.request
    rule = f"easy: {request.hardness} ≤ {strata.low:.4g}; hard: ≥ {strata.high:.4g}"
    rows: list[dict[str, Value]] = [
        {
            "stratum": stratum.value,
            "items": len(strata.of(stratum)),
            "evaluated": len(draw.test.get(stratum, ())),
            "trained per run": request.n_train if stratum in draw.train else 0,
        }
        for stratum in Stratum
    ]
    notes = [f"Of {count_noun(len(request.items), 'item')}, {rule}."]
    if found.repeats:
        notes.append(f"{count_noun(found.repeats, 'item')} repeated another and was left out.")
    if strata.without:
        notes.append(f"{count_noun(len(strata.without), 'item')} had no {request.hardness}.")
    return [Table(rows=rows, footnotes=notes), *(Paragraph(text) for text in found.decisions)]


def _limits(found: ItemResults) -> list[Block]:
    train, evaluate = found.request.train, found.request.evaluate
    notes: list[Block] = []
    if found.harder is not None:
        reading = format_reading(found.harder, sign="+")
        if found.harder.low > 0:
            notes.append(
                Note(
                    f"{evaluate.capitalize()} items are harder by {found.harder_by}.",
                    Tone.GOOD,
                    f"Accuracy on {train} items is {reading} above that on {evaluate} ones.",
                )
            )
        else:
            notes.append(
                Note(
                    f"That {evaluate} items are harder is not shown.",
                    Tone.CAUTION,
                    f"By {found.harder_by} accuracy on {train} items differs by {reading}: "
                    f"{found.request.hardness} may not be what makes an item hard here.",
                )
            )
    pools = [len(found.strata.of(s)) - len(found.draw.test[s]) for s in found.draw.train]
    notes.append(
        Paragraph(
            f"Runs draw their training items from the same {min(pools)} to {max(pools)} items, and "
            "all are evaluated on the same ones. Whether items of another source behave alike, or "
            "a larger model, is not known."
        )
    )
    if found.request.hardness not in ("length", LIKELIHOOD, PROBE):
        notes.append(
            Paragraph(f"Whether {found.request.hardness} was given rightly is not checked.")
        )
    return notes


def machine_easy_to_hard(found: ItemResults) -> Mapping[str, Any]:
    """What `--json` prints."""
    request = found.request
    return {
        "items": request.name,
        "hardness": request.hardness,
        "cuts": [found.strata.low, found.strata.high],
        "counts": {stratum.value: len(found.strata.of(stratum)) for stratum in Stratum},
        "chance": found.chance,
        "runs": found.draw.runs,
        "n_train": request.n_train,
        "accuracies": [
            {
                "method": one.method,
                "trained_on": one.source,
                **{name.value: _numbers(reading) for name, reading in one.accuracies.items()},
            }
            for one in found.methods
        ],
        "gaps": {
            method: {
                "baseline": found.baseline[method],
                **{
                    f.name: _numbers(value)
                    for f in fields(gap)
                    if isinstance(value := getattr(gap, f.name), Reading)
                },
                "why": gap.why,
            }
            for method, gap in found.gaps.items()
        },
    }


def _numbers(reading: Reading) -> dict[str, float]:
    return {"value": reading.value, "low": reading.low, "high": reading.high}
