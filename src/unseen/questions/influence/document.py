"""The answers of an influence run as a document: per query the examples that help and harm, as
text, rows or images.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unseen.document import Block, Document, Note, Paragraph, Passage, Section, Table, Tone
from unseen.figure import Images
from unseen.questions.influence import surface
from unseen.questions.influence.advice import lead
from unseen.questions.influence.results import (
    Confirmation,
    Influencer,
    InfluenceReport,
    QueryInfluence,
)
from unseen.questions.influence.target_words import WORDS, value_in_words
from unseen.reading import Reading
from unseen.text import count_noun, format_interval, format_reading
from unseen.wording import number

COLOURS = (
    "Colours show what passes through each token of an example: blue helps, orange with dots "
    "harms, as parts of the strongest. A "
    "token is where the model read it, so its colour is mostly about the words that follow."
)
ESTIMATE = "linear estimate"
FULL_REPORT = (
    "The report has all examples behind each answer, and why influence functions give their order "
    "and not their sizes."
)
SUMMARY_SECTIONS = 2
"""What the numbers mean, and the answers in short; every example is in the report."""
MOST_IN_SHORT = 10
"""So many answers in short, shared out over the models."""


def document(found: Sequence[InfluenceReport]) -> Document:
    """One document over all models asked about."""
    sections = [
        Section("What the numbers mean", _meaning(found)),
        Section("The answers in short", _in_short(found)),
    ]
    for one in found:
        where = (
            f" · {one.settings['errors on']}"
            if len(found) > 1 and "errors on" in one.settings
            else ""
        )
        sections += [
            Section(f"{_headline(k, answer)}{where}", _answer(answer, one))
            for k, answer in enumerate(one.answers)
        ]
    sections.append(Section("How it was computed", _how(found)))
    names = list(dict.fromkeys(one.name.split(":")[0] for one in found))
    return Document(
        kicker="influence",
        title=f"What made {', '.join(names)} answer so",
        lead=lead(found),
        sections=sections,
        facts={f"{key}": number(value) for one in found[:1] for key, value in one.facts.items()},
    )


def _headline(k: int, answer: QueryInfluence) -> str:
    if isinstance(answer.asked, Tensor) or not answer.completion:
        return answer.title
    words = " ".join(answer.asked.split())
    return f"Query {k + 1}: {words if len(words) <= 60 else '…' + words[-59:]}"


def _meaning(found: Sequence[InfluenceReport]) -> list[Block]:
    has_text = any(
        one.pieces for each in found for answer in each.answers for one in answer.helpful
    )
    is_measured = any(_is_measured(answer) for each in found for answer in each.answers)
    words = [WORDS[kind] for kind in dict.fromkeys(one.kind for one in found)]
    meanings = [Paragraph(one.meaning if is_measured else one.order) for one in words]
    return [*meanings, *([Paragraph(COLOURS)] if has_text else [])]


def _is_measured(answer: QueryInfluence) -> bool:
    """Whether retraining gave sizes."""
    return any(one.retrained is not None for one in (*answer.helpful, *answer.harmful))


def _in_short(found: Sequence[InfluenceReport]) -> list[Block]:
    """One row per answer with the example that helped and the one that harmed most; of many
    answers the first of each model.
    """
    most = max(1, MOST_IN_SHORT // max(1, len(found)))
    rows: list[dict[str, Any]] = []
    for one in found:
        where = f" · {one.settings['errors on']}" if "errors on" in one.settings else ""
        for k, answer in enumerate(one.answers[:most]):
            rows.append(
                {
                    "answer": f"{_headline(k, answer)}{where * (len(found) > 1)}",
                    **({"recorded": answer.label} if answer.label else {}),
                    **({"predicted": answer.predicted} if answer.predicted else {}),
                    "helped most": _first(answer.helpful),
                    "harmed most": _first(answer.harmful),
                }
            )
    total = sum(len(one.answers) for one in found)
    left_out = [f"{len(rows)} of {total} answers."] if len(rows) < total else []
    is_sized = any(_is_measured(answer) for one in found for answer in one.answers)
    size = f", with its size in {WORDS[found[0].kind].unit} by retraining" if is_sized else ""
    caption = f"The first training example behind each answer{size}."
    return [Table(rows=rows, caption=caption, footnotes=[*left_out, FULL_REPORT])] if rows else []


def _first(found: Sequence[Influencer]) -> str | None:
    """Where the first of the examples is, and its size."""
    if not found:
        return None
    size = size_in_words(found[0])
    return found[0].source + (f": {size}" if size else "")


def size_in_words(one: Influencer) -> str:
    """The size by retraining with its interval; the interval alone where it leaves the size open;
    empty where nothing was retrained.
    """
    if one.retrained is None:
        return ""
    return (format_reading if one.has_size else format_interval)(one.retrained, "+")


def _answer(answer: QueryInfluence, of: InfluenceReport) -> list[Block]:
    said, unit = value_in_words(of.kind, answer.log_probability), WORDS[of.kind].unit
    blocks: list[Block] = []
    if answer.completion:
        who = "the model's own completion" if answer.is_written else "the given completion"
        blocks.append(Passage(title=f"Prompt and, after the bar, {who} ({said})",
                              pieces=(str(answer.asked), " ▏", answer.completion)))  # fmt: skip
    else:
        told = [f"recorded {answer.label}"] if answer.label else []
        told += [f"predicted {answer.predicted}"] if answer.predicted else []
        caption = ", ".join([*told, said])
        if isinstance(answer.asked, Tensor):
            blocks.append(
                Images(
                    title=f"The error: {caption}",
                    pixels=[answer.asked.tolist()],
                    captions=[answer.title],
                )
            )
        else:
            blocks.append(Note(f"{answer.asked}", Tone.NEUTRAL, caption))
    blocks.append(Note(of.caveat, Tone.CAUTION, of.sizes))
    if said := surface.sentence(answer):
        blocks.append(Note(said, Tone.NEUTRAL))
    blocks += _influencers(answer.helpful, "Helped most", unit)
    blocks += _influencers(answer.harmful, "Harmed most", unit)
    if answer.confirmations:
        blocks.append(_confirmations(answer.confirmations))
    return blocks


def _confirmations(found: Sequence[Confirmation]) -> Table:
    rows: list[dict[str, Any]] = [
        {
            "left out": f"the {count_noun(len(one.rows), f'most {one.role} example')}",
            "retrained": one.effect,
            ESTIMATE: one.estimate,
        }
        for one in found
    ]
    return Table(
        rows=rows,
        caption=f"Retrained without them: {WORDS[found[0].kind].changes.format('so much')}, with "
        f"the interval over {found[0].effect.n} seeds, beside what the straight line says.",
    )


def _influencers(found: Sequence[Influencer], title: str, unit: str) -> list[Block]:
    if not found:
        return []
    if any(one.pieces for one in found):
        return [
            Passage(
                title=(
                    f"{title if k == 0 else ''} {_size(one, k)} · {one.source}"
                    + _surface(one)
                    + (f" · the same text as {one.copy_of}" if one.copy_of else "")
                ).strip(),
                pieces=[text for text, _ in one.pieces],
                weights=_relative([weight for _, weight in one.pieces]),
                unit="of the strongest token",
            )
            for k, one in enumerate(found)
        ]
    if isinstance(found[0].shown, Tensor):
        captions = [
            " · ".join(filter(None, [_size(o, k), o.label and f"labelled {o.label}", o.source]))
            for k, o in enumerate(found)
        ]
        pictures = [one.shown.tolist() for one in found if isinstance(one.shown, Tensor)]
        per_copy = f" ({unit})" if found[0].retrained is not None else ""
        return [Images(title=f"{title}{per_copy}", pixels=pictures, captions=captions)]
    rows: list[dict[str, Any]] = [
        {
            "rank": k + 1,
            **({unit: _size_cell(one)} if one.retrained is not None else {}),
            "where": one.source,
            **({"label": one.label} if one.label else {}),
            "example": str(one.shown),
        }
        for k, one in enumerate(found)
    ]
    return [Table(rows=rows, caption=title)]


def _surface(one: Influencer) -> str:
    """Where it stands by words and by embedding."""
    if one.surface is None:
        return ""
    return f" · by words #{one.surface.words:,}, by embedding #{one.surface.embedding:,}"


def _size(one: Influencer, k: int) -> str:
    """The rank, and the measured size where there is one."""
    return f"#{k + 1} {size_in_words(one)}".strip()


def _size_cell(one: Influencer) -> Reading | str | None:
    return one.retrained if one.has_size else size_in_words(one)


def _relative(weights: Sequence[float]) -> list[float]:
    most = max(map(abs, weights), default=0.0)
    return [weight / most if most else 0.0 for weight in weights]


def _how(found: Sequence[InfluenceReport]) -> list[Block]:
    said = dict.fromkeys(text for one in found for text in one.decisions)
    rows: list[dict[str, Any]] = [
        {
            "model": one.name,
            "training examples": one.examples,
            "looked at": one.scored,
            **one.settings,
        }
        for one in found
    ]
    return [
        Paragraph(
            "Influence functions (Grosse et al., 2023): −(1/N) ∇fᵀ (G + λ)⁻¹ ∇ℓ, with the "
            "curvature G layer by layer in "
            "Kronecker-factored eigenbases: a straight line from the final weights. It gives the "
            "order; sizes come from retraining."
        ),
        Table(rows=rows, caption="Settings"),
        *(Paragraph(text) for text in said),
    ]
