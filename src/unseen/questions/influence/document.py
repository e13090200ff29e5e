"""The answers of an influence run as a document: per query the examples that help and harm, as
text, rows or images.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unseen.document import Block, Document, Note, Paragraph, Passage, Section, Table, Tone
from unseen.figure import Images
from unseen.questions.influence.results import Influencer, InfluenceReport, QueryInfluence
from unseen.wording import number

MEANING = (
    "A score is in nats per added copy: with one more copy of the example among the fitted ones, "
    "the model would, to first "
    "order, give the queried answer a log-probability that is higher by the score (+0.01: a "
    "probability 1 % higher); a "
    "negative score lowers it."
)
COLOURS = (
    "Colours show what passes through each token of an example, in the same unit: blue helps, "
    "orange with dots harms. A "
    "token is where the model read it, so its colour is mostly about the words that follow; they "
    "sum to the score."
)
BEYOND = (
    "A log-probability cannot rise above 0. The estimate is linear, and the curvature of a model "
    "that fits its examples "
    "closely is small; a larger --damping shrinks the scores."
)
UNIT = "nats per added copy"


def document(found: Sequence[InfluenceReport]) -> Document:
    """One document over all models asked about."""
    sections = [Section("What the numbers mean", _meaning(found))]
    for one in found:
        where = (
            f" · {one.settings['errors on']}"
            if len(found) > 1 and "errors on" in one.settings
            else ""
        )
        sections += [
            Section(f"{_headline(k, answer)}{where}", _answer(answer))
            for k, answer in enumerate(one.answers)
        ]
    sections.append(Section("How it was computed", _how(found)))
    names = list(dict.fromkeys(one.name.split(":")[0] for one in found))
    return Document(
        kicker="influence",
        title=f"What made {', '.join(names)} answer so",
        lead=_lead(found),
        sections=sections,
        facts={f"{key}": number(value) for one in found[:1] for key, value in one.facts.items()},
    )


def _headline(k: int, answer: QueryInfluence) -> str:
    if isinstance(answer.asked, Tensor) or not answer.completion:
        return answer.title
    words = " ".join(answer.asked.split())
    return f"Query {k + 1}: {words if len(words) <= 60 else '…' + words[-59:]}"


def _lead(found: Sequence[InfluenceReport]) -> str:
    answers = [answer for one in found for answer in one.answers]
    n, most = len(answers), max(one.examples for one in found)
    text = (
        f"{n} {'answer' if n == 1 else 'answers'} traced to "
        f"{'up to ' if len(found) > 1 else ''}{most:,} training examples."
    )
    if any(map(is_beyond, answers)):
        return (
            text
            + " Some scores are larger than an answer can gain: read their order, not their sizes."
        )
    shares = [answer.helpful[0].score for answer in answers if answer.helpful]
    falls = [answer.harmful[0].score for answer in answers if answer.harmful]
    if shares and max(shares) > 0:
        text += f" The most helpful one adds {number(max(shares))} nats per copy"
        text += (
            f", the most harmful takes {number(-min(falls))}." if falls and min(falls) < 0 else "."
        )
    return text


def is_beyond(answer: QueryInfluence) -> bool:
    """Whether the largest score is more than what is missing to probability 1."""
    return bool(answer.helpful) and answer.helpful[0].score > -answer.log_probability > 0


def _meaning(found: Sequence[InfluenceReport]) -> list[Block]:
    has_text = any(
        one.pieces for each in found for answer in each.answers for one in answer.helpful
    )
    return [Paragraph(MEANING), *([Paragraph(COLOURS)] if has_text else [])]


def _answer(answer: QueryInfluence) -> list[Block]:
    said = f"log-probability {number(answer.log_probability)} nats"
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
    if is_beyond(answer):
        blocks.append(
            Note(
                "Read the order, not the sizes: the largest score is more than the "
                "answer can gain.",
                Tone.CAUTION,
                BEYOND,
            )
        )
    blocks += _influencers(answer.helpful, "Helped most")
    blocks += _influencers(answer.harmful, "Harmed most")
    return blocks


def _influencers(found: Sequence[Influencer], title: str) -> list[Block]:
    if not found:
        return []
    if any(one.pieces for one in found):
        return [
            Passage(
                title=(
                    f"{title if k == 0 else ''} {_format_signed(one.score)} · {one.source}"
                ).strip(),
                pieces=[text for text, _ in one.pieces],
                weights=[weight for _, weight in one.pieces],
                unit=UNIT,
            )
            for k, one in enumerate(found)
        ]
    if isinstance(found[0].shown, Tensor):
        captions = [
            " · ".join(
                filter(None, [_format_signed(o.score), o.label and f"labelled {o.label}", o.source])
            )
            for o in found
        ]
        pictures = [one.shown.tolist() for one in found if isinstance(one.shown, Tensor)]
        return [Images(title=f"{title} ({UNIT})", pixels=pictures, captions=captions)]
    rows: list[dict[str, Any]] = [
        {
            UNIT: one.score,
            "where": one.source,
            **({"label": one.label} if one.label else {}),
            "example": str(one.shown),
        }
        for one in found
    ]
    return [Table(rows=rows, caption=title)]


def _format_signed(score: float) -> str:
    return ("+" if score > 0 else "") + number(score)


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
            "Kronecker-factored eigenbases. A first-order estimate around the final weights, not a "
            "retraining."
        ),
        Table(rows=rows, caption="Settings"),
        *(Paragraph(text) for text in said),
    ]
