"""Explained examples as a document: which method and why, then each example with its credits."""

from collections.abc import Sequence
from typing import Any

from unseen.attributions.explanation.guide import Choice, Question, percent
from unseen.document import Block, Document, Note, Paragraph, Passage, Section, Table, Tone, Value
from unseen.figure import Bars, Grid, Images
from unseen.questions.explain.results import ExampleExplanation, ExplanationReport
from unseen.text import join_words
from unseen.wording import number

MOST_FEATURES = 12
MOST_NAMED = 3
QUESTIONS = {
    Question.CHANGE: "how the output reacts when inputs change a little",
    Question.REMOVE: "what the output rests on, and what happens without it",
}
HOW = {
    "LIME": "line through outputs under random removals",
    "C-LIME": "line through outputs under Gaussian noise",
    "KernelSHAP": "Shapley values of the features' presence",
    "Occlusion": "one feature removed at a time",
    "Vanilla Gradients": "slope at the input",
    "Gradient × Input": "slope times distance to the baseline",
    "SmoothGrad": "mean slope under Gaussian noise",
    "Integrated Gradients": "slopes along the way from the baseline",
}
LITTLE = 0.5
"""Below this share explained, credits describe the model badly."""
ROUNDING = 1e-3
"""Share of the output's change below which credits sum to it."""


def document(found: ExplanationReport) -> Document:
    sections = [Section("Which explanation, and why", _choice(found))]
    sections += [Section(_title(found, told), _example(found, told)) for told in found.examples]
    sections += [Section("How to read it", _reading(found))]
    return Document(
        kicker="explanation",
        title=f"What the {found.name} looks at: {found.task}",
        lead=_lead(found),
        sections=sections,
        facts={
            "explained": found.behaviour,
            "baseline": found.removed,
            "inputs compared": str(found.choice.faithfulness.n),
            "seconds": f"{found.seconds:.1f}",
        },
    )


def _lead(found: ExplanationReport) -> str:
    choice, own = found.choice, found.choice.readings[found.used]
    text = f"{choice.why} "
    if found.used != choice.name:
        text += f"{found.used} was asked for and explains {percent(own.value)}. "
    if own.value < LITTLE:
        return (
            text
            + "That is little: no sum of single features describes this model well there, so read "
            "the credits as hints."
        )
    return text + f"Below, {found.used} says what each feature adds to the {found.behaviour}."


def _choice(found: ExplanationReport) -> list[Block]:
    choice = found.choice
    rows: list[dict[str, Value]] = []
    for name, reading in choice.readings.items():
        mark = "chosen" if name == choice.name else "as much" if name in choice.ties else ""
        mark = (
            f"{mark}, used here".strip(", ")
            if name == found.used and found.used != choice.name
            else mark
        )
        rows.append(
            {"method": name, "share explained": reading, "what it is": HOW.get(name, ""), "": mark}
        )
    tone = Tone.GOOD if choice.faithfulness.value >= LITTLE else Tone.CAUTION
    blocks: list[Block] = [
        Paragraph(f"The question is {QUESTIONS[found.question]}. {_how_compared(choice)}"),
        Note(choice.why, tone, "Any of them will do." if choice.is_tie else ""),
        Table(
            rows=rows,
            caption="Share of the output's variation that each method explains, with its 95 % "
            "interval over inputs "
            "(1: all of it, 0: no better than saying nothing, below 0: misleading).",
        ),
    ]
    blocks += [
        Note(f"{name} could not be asked.", Tone.NEUTRAL, why)
        for name, why in choice.left_out.items()
    ]
    return blocks


def _how_compared(choice: Choice) -> str:
    """What the methods were evaluated on, and what of it is chance."""
    number_of = f"{choice.perturbations:,}"
    if not choice.is_exact:
        return (
            f"All methods were evaluated on the same {choice.draws} fresh samples of {number_of} "
            "perturbations of each input; the best and those close to it were fitted anew for "
            "each sample, so that no luck of one sample decides."
        )
    text = f"All methods were evaluated on all {number_of} perturbations that there are"
    if choice.is_optimal:
        return (
            f"{text}. {choice.name} is the best fit to these very perturbations, so that it comes "
            "first by construction: read how much less the others explain."
        )
    return f"{text}."


def _title(found: ExplanationReport, told: ExampleExplanation) -> str:
    example = told.example
    if example.row is not None:
        return f"Row {example.row} ({example.split})"
    return f"Example {example.index} ({example.split})"


def _example(found: ExplanationReport, told: ExampleExplanation) -> list[Block]:
    blocks: list[Block] = [Paragraph(_sentence(found, told))]
    if told.unexplained > 1 - LITTLE:
        blocks.append(
            Note(
                f"Here the credits leave {percent(told.unexplained)} of the output's variation "
                "unexplained.",
                Tone.CAUTION,
                "Features act together around this example; their single credits say little.",
            )
        )
    if told.picture is not None:
        blocks.append(
            Images(title="The image", pixels=[told.picture.tolist()], captions=[told.example.label])
        )
    if told.heat:
        names = (
            [str(k + 1) for k in range(len(told.heat))],
            [str(k + 1) for k in range(len(told.heat[0]))],
        )
        blocks.append(
            Grid(
                title="Credits of the patches (blue adds, orange takes away)",
                rows=names[0],
                columns=names[1],
                values=told.heat,
            )
        )
    elif told.pieces:
        title = f"What each token adds ({found.unit}): blue adds, orange takes away"
        blocks.append(
            Passage(
                title=title,
                pieces=told.pieces,
                weights=list(told.credits.values()),
                unit=found.unit,
            )
        )
    else:
        blocks.append(_bars(found, told))
    return blocks


def _bars(found: ExplanationReport, told: ExampleExplanation) -> Bars:
    order = sorted(told.credits, key=lambda name: -abs(told.credits[name]))
    drawn = (
        len(order) if len(order) == MOST_FEATURES + 1 else MOST_FEATURES
    )  # one left over takes no more room itself
    values = {name: told.credits[name] for name in order[:drawn]}
    rest = [told.credits[name] for name in order[drawn:]]
    if rest:
        values[f"{len(rest)} other features"] = sum(rest)
    unit = f" ({found.unit})" if found.unit else ""
    return Bars(
        title="What each feature adds, against the baseline",
        values=values,
        label=f"change of the output{unit}",
    )


def _sentence(found: ExplanationReport, told: ExampleExplanation) -> str:
    example = told.example
    parts = [
        f"{found.behaviour[0].upper()}{found.behaviour[1:]}: {number(told.output)}; "
        f"{number(told.base)} at the baseline."
    ]
    if example.predicted:
        parts.append(
            f"Predicted {example.predicted}"
            + (f", labelled {example.label}." if example.label else ".")
        )
    if (
        isinstance(example.shown, str)
        and not told.pieces
        and example.shown != f"{example.split}[{example.index}]"
    ):
        parts.append(f"{example.shown}.")
    if told.credits and not told.pieces and not told.heat:
        parts.append(_largest(found, told))
    parts.append(
        f"The credits explain {percent(1 - told.unexplained)} of what the model does around it."
    )
    return " ".join([*parts, *_incompleteness(found, told)])


def _largest(found: ExplanationReport, told: ExampleExplanation) -> str:
    """The features with the largest credits, for readers without the figure."""
    order = sorted(told.credits, key=lambda name: -abs(told.credits[name]))[:MOST_NAMED]
    credits = {name: told.credits[name] for name in order}
    named = [f"{name} ({'+' * (value > 0)}{number(value)})" for name, value in credits.items()]
    unit = f", in {found.unit}" if found.unit else ""
    return f"The largest credits{unit}: {join_words(named)}."


def _incompleteness(found: ExplanationReport, told: ExampleExplanation) -> list[str]:
    """A sentence where the credits do not sum to the change of the output."""
    total = sum(told.credits.values())
    largest = max(abs(total), abs(told.output - told.base))
    if abs(told.gap) <= ROUNDING * largest:
        return []
    unit = f" {found.unit}" if found.unit else ""
    return [
        f"The credits sum to {number(total)}, the output changes by "
        f"{number(told.output - told.base)}: a gap of {number(abs(told.gap))}{unit}."
    ]


def _reading(found: ExplanationReport) -> list[Block]:
    told: Sequence[str] = (
        f"A credit is what a feature adds to the {found.behaviour} compared with its baseline: "
        f"{found.removed}. "
        "Another baseline asks another question and gives other credits.",
        "Credits describe the model, not the world: a feature may stand in for another one that "
        "goes with it.",
        "No method is the most faithful everywhere; this one is for the question above. The other "
        "question: "
        f"--question {'remove' if found.question is Question.CHANGE else 'change'}.",
    )
    blocks: list[Block] = [Note(text) for text in told]
    blocks += [Note(text, Tone.CAUTION) for text in found.warnings]
    return blocks


def machine_readable(found: ExplanationReport) -> dict[str, Any]:
    """What the report shows, for machines."""
    choice = found.choice
    return {
        "explained": found.behaviour,
        "unit": found.unit,
        "baseline": found.removed,
        "question": found.question,
        "method": found.used,
        "chosen": choice.name,
        "runner_up": choice.runner_up,
        "why": choice.why,
        "faithfulness": choice.readings,
        "lead": choice.lead,
        "ties": list(choice.ties),
        "draws": choice.draws,
        "perturbations": choice.perturbations,
        "is_exact": choice.is_exact,
        "is_optimal": choice.is_optimal,
        "left_out": choice.left_out,
        "examples": [
            {
                "split": told.example.split,
                "index": told.example.index,
                "row": told.example.row,
                "label": told.example.label,
                "predicted": told.example.predicted,
                "output": told.output,
                "at_baseline": told.base,
                "unexplained": told.unexplained,
                "completeness_gap": told.gap,
                "credits": told.credits,
            }
            for told in found.examples
        ],
        "warnings": found.warnings,
    }
