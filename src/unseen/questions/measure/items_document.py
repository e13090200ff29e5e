"""A language model's items as a document: accuracy beside chance, accuracy by hardness, and the
items it gets wrong.
"""

from collections.abc import Mapping
from typing import Any

from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.engine.choice_likelihood import Precision
from unseen.figure import Dots
from unseen.questions.measure.of_items import ItemScore, ItemsReport, Score
from unseen.reading import Reading
from unseen.text import count_noun
from unseen.wording import number

MOST_SHOWN = 12
LONGEST = 90
OWN_HARDNESS = (
    "Hardness is the tested model's own likelihood: hard means “what it gets wrong”, and accuracy "
    "falls with it whatever the items are."
)


def items_document(report: ItemsReport) -> Document:
    sections = [
        Section("Accuracy", [_accuracy_table(report)]),
        Section("Accuracy by hardness", _by_hardness(report)),
        Section("The worst items", _worst(report)),
        Section("How to read it", [Paragraph(text) for text in _reading(report)]),
    ]
    return Document(
        kicker="items",
        title=f"{report.model} on {count_noun(len(report.scores), 'item')} of {report.source}",
        lead=_lead(report),
        sections=[section for section in sections if section.blocks],
        facts={
            "items": str(len(report.scores)),
            "hardness": report.hardness,
            "precision": str(report.precision),
            "seconds": f"{report.seconds:.1f}",
        },
    )


def _lead(report: ItemsReport) -> str:
    """Whether it is above chance, and whether hard items are harder."""
    found = report.accuracy[Score.TOTAL]
    text = (
        f"{report.model} gives the right choice the highest likelihood in "
        f"{_with_interval(found)} of the items; chance is {number(report.chance)}. "
    )
    if found.low > report.chance:
        text += "That is above chance. "
    elif found.high < report.chance:
        text += "That is below chance. "
    else:
        text += "These items do not show that it is above chance. "
    if Score.TOTAL in report.fall:
        fall = report.fall[Score.TOTAL]
        text += f"Easy − hard: {_with_interval(fall)}"
        across = fall.low <= 0 <= fall.high
        text += ", so whether hard items are harder for it is open." if across else "."
    return text


def _with_interval(reading: Reading) -> str:
    return f"{number(reading.value)} [{number(reading.low)}, {number(reading.high)}]"


def _accuracy_table(report: ItemsReport) -> Table:
    rows: list[Mapping[str, Value]] = [
        {
            "choice by": score,
            "accuracy": report.accuracy[score],
            "chance": report.chance,
            "log-likelihood of the right choice (nats)": report.likelihood[score],
        }
        for score in Score
    ]
    return Table(
        rows=rows,
        caption="Choices compete by the log-likelihood of their tokens after the question: its "
        "sum, its mean per token, or per byte of text, which does not favour short choices. "
        "Intervals are over items (Wilson; Student's t for likelihoods).",
        comparable=False,
    )


def _by_hardness(report: ItemsReport) -> list[Block]:
    blocks: list[Block] = [Note(warning, Tone.CAUTION) for warning in report.warnings]
    if report.is_own_hardness:
        blocks.append(Note(OWN_HARDNESS, Tone.CAUTION, "Take another model: --hardness-model."))
    if report.without_hardness:
        text = f"{count_noun(report.without_hardness, 'item')} without this hardness stood aside."
        blocks.append(Note(text, Tone.NEUTRAL))
    if not report.strata:
        return blocks
    rows: list[Mapping[str, Value]] = [
        {
            "items": one.stratum,
            "hardness": f"{number(one.low)} to {number(one.high)}",
            "n": one.n,
            "chance": one.chance,
            **{f"accuracy, {score}": one.accuracy[score] for score in Score},
        }
        for one in report.strata
    ]
    if report.fall:
        rows.append(
            {"items": "easy − hard", **{f"accuracy, {s}": report.fall[s] for s in report.fall}}
        )
    trend = report.trend
    said = (
        f" Rank correlation of hardness and margin of the right choice: {_with_interval(trend)}."
        if trend
        else ""
    )
    blocks.append(Table(rows=rows, caption=f"Hardness: {report.hardness}.{said}", comparable=False))
    blocks.append(
        Dots(
            title="Accuracy by hardness",
            rows=[str(one.stratum) for one in report.strata],
            values={str(s): [one.accuracy[s] for one in report.strata] for s in Score},
            label="accuracy",
        )
    )
    return blocks


def _worst(report: ItemsReport) -> list[Block]:
    wrong = sorted((one for one in report.scores if one.margin < 0), key=lambda one: one.margin)
    rows: list[Mapping[str, Value]] = [
        {
            "item": one.name or _short(one.question),
            "question": _short(one.question),
            "chosen": _short(one.choices[one.choice(Score.TOTAL)]),
            "right": _short(one.choices[one.answer]),
            "margin (nats)": one.margin,
            "hardness": one.hardness,
        }
        for one in wrong[:MOST_SHOWN]
    ]
    if not rows:
        return []
    columns = list(rows[0])
    if not any(one.name for one in wrong[:MOST_SHOWN]):
        columns.remove("item")
    return [
        Table(
            rows=rows,
            columns=columns,
            caption=f"{count_noun(len(wrong), 'item')} wrong by the sum; the surest errors first.",
            comparable=False,
        )
    ]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _reading(report: ItemsReport) -> list[str]:
    lines = [
        "The model is read as it is, without a chat template and without examples; whether it was "
        "trained on these items is not known.",
        "Prompt and choice are tokenised jointly; a token across the join belongs to the choice.",
    ]
    if report.precision is Precision.BFLOAT16:
        lines.append(
            f"bfloat16: on the first {report.compared} items sums moved by at most "
            f"{number(report.shift)} nats against float32, and the choice changed in "
            f"{report.turned}."
        )
    return lines


def machine_items(report: ItemsReport) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "model": report.model,
        "source": report.source,
        "chance": report.chance,
        "accuracy": dict(report.accuracy),
        "log_likelihood_of_the_right_choice": dict(report.likelihood),
        "hardness": report.hardness,
        "hardness_is_the_tested_models_own": report.is_own_hardness,
        "items_without_hardness": report.without_hardness,
        "strata": [
            {
                "stratum": one.stratum,
                "hardness": [one.low, one.high],
                "n": one.n,
                "chance": one.chance,
                "accuracy": dict(one.accuracy),
            }
            for one in report.strata
        ],
        "easy_minus_hard": dict(report.fall),
        "rank_correlation_of_hardness_and_margin": report.trend,
        "precision": report.precision,
        **(
            {"bfloat16": {"items": report.compared, "shift": report.shift, "turned": report.turned}}
            if report.compared
            else {}
        ),
        "items": [_machine_item(one) for one in report.scores],
        "warnings": list(report.warnings),
    }


def _machine_item(one: ItemScore) -> dict[str, Any]:
    return {
        "name": one.name,
        "answer": one.answer,
        "chosen": {score: one.choice(score) for score in Score},
        "log_likelihood": dict(one.likelihoods),
        "margin": one.margin,
        "hardness": one.hardness,
    }
