"""Why: features, training data, worst errors, and the trained model; and how the data were
treated.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unseen.document import Block, Note, Paragraph, Table, Tone
from unseen.figure import Bars, Grid, Images, Points
from unseen.questions.audit.document.first_page import first_conversions
from unseen.questions.audit.document.names import held_out_label, site_label, split_label
from unseen.questions.audit.job import Findings
from unseen.questions.audit.results import ErrorExplanation, WorstError
from unseen.questions.influence.advice import confirmation
from unseen.questions.measure.document import meanings, reasons, values
from unseen.questions.measure.results import MeasureReport
from unseen.stats import widen
from unseen.subjects.examples import Example
from unseen.text import format_reading, join_words


def features(findings: Sequence[Findings]) -> list[Block]:
    rows: list[dict[str, Any]] = []
    points: dict[str, list[tuple[float, float]]] = {"stable": [], "shifted": []}
    for one in findings:
        for feature in sorted(one.features, key=lambda f: -f.reliance.value):
            where = site_label(one, feature.split)
            sign = "shifted" if feature.moved else "stable"
            rows.append(
                {
                    "site": where,
                    "feature": feature.name,
                    "reliance": feature.reliance,
                    "shift": feature.shift,
                    "": sign,
                }
            )
            points[sign].append((feature.shift, feature.reliance.value))
    if not rows:
        return []
    risky = [r for r in rows if r[""] == "shifted" and widen(r["reliance"], len(rows)).low > 0]
    risky = sorted(risky, key=lambda r: -r["reliance"].value)[:5]
    blocks: list[Block] = [
        Note(
            f"{row['feature']} matters ({format_reading(row['reliance'])}) and differs at "
            f"{row['site']} (distance "
            f"{row['shift']:.2f}).",
            Tone.CAUTION,
        )
        for row in risky
    ]
    blocks.append(
        Points(
            title="Reliance against shift (upper right: risky)",
            groups={name: p for name, p in points.items() if p},
            x_label="distance between fitted and evaluated distribution",
            y_label="worse when shuffled",
        )
    )
    blocks.append(
        Table(
            rows=rows,
            caption="Reliance: how much worse the score gets when the feature is shuffled among "
            "the evaluation examples. "
            "Shift: Kolmogorov–Smirnov or total-variation distance to the training data; "
            "marked where significant at a false discovery rate of 5 %.",
        )
    )
    return blocks


def _examples(examples: Sequence[Example], caption: str, value: str = "") -> list[Block]:
    """The examples with the named value, or in their order only."""
    if pictures := [e for e in examples if isinstance(e.shown, Tensor)]:
        captions = [
            " · ".join(
                [
                    f"row {_row(e)}",
                    *([f"labelled {e.label}"] if e.label else []),
                    *([f"{e.value:.2f}".replace("-", "−")] if value else []),
                ]
            )
            for e in pictures
        ]
        return [
            Images(
                title=f"{caption} ({value})" if value else caption,
                pixels=[e.shown.tolist() for e in pictures],  # type: ignore[union-attr]
                captions=captions,
            )
        ]
    rows: list[dict[str, Any]] = [
        {
            "row": _row(e),
            "label": e.label,
            **({value: e.value} if value else {}),
            "example": str(e.shown),
        }
        for e in examples
    ]
    return [Table(rows=rows, caption=caption)] if rows else []


def data(findings: Sequence[Findings]) -> list[Block]:
    blocks: list[Block] = []
    rows: list[dict[str, Any]] = []
    for one in findings:
        row: dict[str, Any] = {
            "trained without": held_out_label(one),
            "n": one.sizes.get("train", 0),
        }
        row |= {k: v for k, v in one.readings.items() if k.startswith("coherence")}
        rows.append(row)
    if any(len(row) > 2 for row in rows):
        blocks.append(
            Table(
                rows=rows,
                caption="Coherence of per-example gradients, α = ‖mean gradient‖² / mean "
                "‖gradient‖² (1: all agree). "
                "Low: the examples ask for different changes.",
            )
        )
    one = findings[0]
    without = f" (trained without {held_out_label(one)})" if len(findings) > 1 else ""
    blocks += _examples(
        one.conflicting,
        f"Examples in conflict with the rest of the training data{without}",
        "agreement of gradients",
    )
    blocks += _examples(
        one.self_influential,
        f"Largest influence on their own loss{without}, largest first: unusual or mislabelled, and "
        "remembered rather than inferred",
    )
    shared: list[dict[str, Any]] = [
        {
            "fitted": o.fitted,
            "evaluated": split_label(one, o.evaluated, findings),
            "exact": o.exact,
            "near": o.near if o.searched in (None, o.n) else f"{o.near} of {o.searched}",
            "of": o.n,
        }
        for one in findings
        for o in one.overlaps
    ]
    if shared:
        blocks.append(
            Table(
                rows=shared,
                caption="Evaluation examples that also stand, exactly or nearly, in the training "
                "data.",
            )
        )
    return blocks


def _error_block(title: str, error: WorstError) -> Block:
    """The error with the training examples that helped and harmed it, as pictures or as lines."""
    marked = [
        (error.query, "error"),
        *((e, "helped") for e in error.helpful),
        *((e, "harmed") for e in error.harmful),
    ]
    if isinstance(error.query.shown, Tensor):
        pictures = [
            (e.shown.tolist(), _caption(e, role))
            for e, role in marked
            if isinstance(e.shown, Tensor)
        ]
        return Images(
            title=title, pixels=[p for p, _ in pictures], captions=[text for _, text in pictures]
        )
    lines: list[dict[str, Any]] = [
        {
            "role": role,
            "row": _row(e),
            "recorded": e.label,
            "loss": e.value if role == "error" else None,
            "example": str(e.shown),
        }
        for e, role in marked
    ]
    return Table(rows=lines, caption=title)


def _row(example: Example) -> int:
    return example.index if example.row is None else example.row


def _caption(example: Example, role: str) -> str:
    said = f"{example.label}, predicted {example.predicted}" if example.predicted else example.label
    loss = f"loss {example.value:.2f}" if role == "error" else ""
    return " · ".join(part for part in (role, str(_row(example)), said, loss) if part)


def worst(findings: Sequence[Findings]) -> list[Block]:
    blocks: list[Block] = []
    for one in findings[:4]:
        where = site_label(one, one.worst[0].query.split) if one.worst else ""
        explanation = one.error_explanation
        if explanation is not None and one.worst:
            blocks.append(
                Note(
                    f"{where}: inputs are explained by {explanation.method}.",
                    Tone.NEUTRAL,
                    explanation.why,
                )
            )
        for k, error in enumerate(one.worst[: 5 if len(findings) == 1 else 2]):
            said = f", predicted {error.query.predicted}" if error.query.predicted else ""
            title = (
                f"{where}, error {k + 1}: recorded {error.query.label or '–'}{said}, loss "
                f"{error.query.value:.2f}"
            )
            blocks.append(_error_block(title, error))
            blocks += [Paragraph(f"{confirmation(each)}.") for each in error.confirmations]
            if explanation is not None and error.query.index in explanation.errors:
                blocks.append(_credit_block(explanation, error))
    if blocks:
        blocks.insert(0, Paragraph(f"{_influences(findings)}{CREDITED}"))
    return blocks


CREDITED = (
    "Inputs are credited by the explanation, of eight, that is most faithful to the model around "
    "such examples."
)


def _influences(findings: Sequence[Findings]) -> str:
    """What the order of the training examples means, where there are any."""
    errors = [error for one in findings for error in one.worst]
    if not any(error.helpful or error.harmful for error in errors):
        return ""
    return (
        "Training examples stand in the order of influence functions: one more copy of the "
        "first would make the recorded answer likelier, or the error of a number smaller, "
        f"(helped) or the reverse (harmed) most. {_sizes(findings)} "
    )


def _sizes(findings: Sequence[Findings]) -> str:
    """Where sizes stand, or how to get them."""
    if any(error.confirmations for one in findings for error in one.worst):
        return (
            "They give no sizes, since training stops before the optimum that they assume; "
            "retraining without those that harmed does, with and without on the same minibatches."
        )
    return (
        "They give no sizes, since training stops before the optimum that they assume; "
        "`unseen influence --confirm 3` with the same table or file measures them by retraining."
    )


def _credit_block(explanation: ErrorExplanation, error: WorstError) -> Block:
    """The inputs that carry an error, as bars or as a picture."""
    title = f"What the {explanation.behaviour} of this error rests on"
    if heat := explanation.heat.get(error.query.index):
        rows, columns = (
            [str(k + 1) for k in range(len(heat))],
            [str(k + 1) for k in range(len(heat[0]))],
        )
        return Grid(
            title=f"{title} (blue adds, orange takes away)", rows=rows, columns=columns, values=heat
        )
    credits = explanation.errors[error.query.index]
    largest = sorted(credits, key=lambda name: -abs(credits[name]))[:8]
    return Bars(
        title=title,
        values={name: credits[name] for name in largest},
        label="change against the baseline",
    )


def model(findings: Sequence[Findings]) -> list[Block]:
    """The measures of `unseen measure`, site by site."""
    reports = [
        MeasureReport(
            name=one.name,
            task=one.task,
            held_out=held_out_label(one),
            splits=one.sites,
            unseen=one.unseen,
            measurements=one.measured,
            left_out=one.unmeasured,
        )
        for one in findings
    ]
    found = values(reports)
    # of one report the values stand beside what they mean
    told_apart = meanings(reports) if found and len(reports) > 1 else []
    return [*found, *told_apart, *reasons(reports)]


def treatment(findings: Sequence[Findings]) -> list[Block]:
    said = dict.fromkeys(text for one in findings for text in one.decisions)
    skipped: dict[str, list[str]] = {}
    for one in findings:
        for name, why in one.skipped.items():
            skipped.setdefault(why, []).append(name)
    notes = [
        Note(f"Skipped: {join_words(list(dict.fromkeys(names)))}.", Tone.CAUTION, why)
        for why, names in skipped.items()
    ]
    # what stands on the first page is not said twice
    above = first_conversions(findings)
    return [*(Paragraph(text) for text in said if text not in above), *notes]
