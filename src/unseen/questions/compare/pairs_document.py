"""The comparison on pairs as a document."""

from collections.abc import Mapping
from typing import Any

import torch

from unseen.document import Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.questions.compare.pairs import (
    ENOUGH,
    INSIDE,
    UNSEEN,
    MethodResult,
    PairResults,
    length_bands,
)
from unseen.reading import Reading
from unseen.text import count_noun, join_words

HALF = 0.5


def rank_methods(found: PairResults) -> list[MethodResult]:
    """The best on unseen pairs first; of equals the better one inside."""
    return sorted(found.methods, key=lambda m: (-m.reading(UNSEEN).value, -m.reading(INSIDE).value))


def pairs_document(found: PairResults, source: str, by: str) -> Document:
    sections = [
        Section("Which method holds", [_scores(found), *_notes(found)]),
        Section("By length of the answer", [_lengths(found)]),
        Section("How it was compared", [Paragraph(text) for text in _method(found)]),
    ]
    return Document(
        kicker=f"pairs split by {by}",
        title=source,
        lead=_lead(found),
        sections=sections,
        facts={"pairs": source, "rule": found.split.rule},
    )


def _lead(found: PairResults) -> str:
    best = rank_methods(found)[0]
    inside, unseen = best.reading(INSIDE), best.reading(UNSEEN)
    holds = "" if unseen.value >= HALF else "No method answers half of the unseen pairs. "
    text = (
        f"Split by this rule: {found.split.rule}. {holds}"
        f"Best on unseen pairs: {best.name} with {_number(unseen)} exact match, and "
        f"{_number(inside)} on held-out pairs like training."
    )
    rest = [m for m in found.methods if m is not best and m.reading(UNSEEN).high >= unseen.low]
    if rest:
        text += (
            f" Intervals over {count_noun(found.seeds, 'seed')} do not separate it from "
            f"{count_noun(len(rest), 'other method')}."
        )
    return text


def _number(one: Reading) -> str:
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def _scores(found: PairResults) -> Table:
    rows: list[dict[str, Value]] = [
        {"method": m.name, INSIDE: m.reading(INSIDE), UNSEEN: m.reading(UNSEEN)}
        for m in rank_methods(found)
    ]
    rows.append({"method": "most frequent training answer", **found.chance})
    n = {part: len(lengths) for part, lengths in found.lengths.items()}
    return Table(
        rows=rows,
        columns=("method", INSIDE, UNSEEN),
        caption=f"Exact match of the whole answer with its end: {n[INSIDE]:,} held-out pairs like "
        f"training and {n[UNSEEN]:,} unseen ones; mean over {count_noun(found.seeds, 'seed')} with "
        "its 95 % interval.",
    )


def _lengths(found: PairResults) -> Table:
    """Methods by ranges of target lengths."""
    rows: list[dict[str, Value]] = []
    counts = torch.tensor(found.lengths[UNSEEN])
    for first, last in length_bands(found.lengths[UNSEEN]):
        chosen = (counts >= first) & (counts <= last)
        span = f"{first}" if first == last else f"{first}–{last}"
        row: dict[str, Value] = {"tokens": span, "pairs": int(chosen.sum())}
        row |= {m.name: m.reading(UNSEEN, chosen) for m in rank_methods(found)}
        rows.append(row)
    return Table(
        rows=rows,
        caption="Exact match on unseen pairs by tokens of the right answer; training-like pairs "
        "stand in the table above.",
    )


def _notes(found: PairResults) -> list[Note]:
    weak = [m.name for m in found.methods if m.reading(INSIDE).value < ENOUGH]
    notes = []
    if weak:
        notes.append(
            Note(
                f"Below {ENOUGH} on pairs like training: {join_words(weak)}.",
                Tone.CAUTION,
                "What is not learned inside says nothing about what holds outside: train longer "
                f"(--steps, now {found.steps:,}) before these are compared.",
                code="pairs-not-learned",
            )
        )
    if found.split.overlap:
        notes.append(
            Note(
                f"{count_noun(found.split.overlap, 'pair')} of the test "
                f"{'is' if found.split.overlap == 1 else 'are'} in training, too.",
                Tone.CAUTION,
                "The file holds them more than once, and this rule parts the copies: what is known "
                "by heart counts as answered. Remove repeated pairs from the file.",
                code="pairs-overlap",
            )
        )
    if found.split.unknown_words:
        notes.append(
            Note(
                "Words that no training source holds: "
                + ", ".join(found.split.unknown_words[:10])
                + ".",
                Tone.CAUTION,
                "A decoder has untrained embeddings for them, and no method here can know them.",
                code="pairs-unknown-words",
            )
        )
    return notes


def _method(found: PairResults) -> list[str]:
    if found.fine_tuned:
        kind = (
            f"Every method fine-tunes the given encoder–decoder for {found.steps:,} steps of 32 "
            "pairs in its own tokens, with the same training pairs and seeds."
        )
    else:
        kind = (
            "Every method is a decoder or encoder–decoder from scratch, trained for "
            f"{found.steps:,} steps of 64 pairs with the same training pairs and seeds. Methods "
            "are named by how the decoder knows positions: not at all, learned, learned and "
            "shifted by random offsets, rotary, ALiBi; "
            "“encoder-decoder” is a T5, which knows distances. "
            "“+ hint”: half of the minibatches are easier pairs."
        )
    return [
        kind + " “+ one length per minibatch”: every "
        "length of the answer equally often; “+ words alone repeated”: they are a tenth of what is "
        "drawn; “+ primitive copies”: these, and copies of the words that stand for one token; "
        "“+ token copies”: the pairs with all tokens renamed; “+ growing set”: pairs come in over "
        "time; “+ short answers more often”: by Zipf's law; “+ in-batch contrast”: sources are "
        "compared with the batch's targets beside; “+ CLAPS”: also with an unlikely and a distant "
        "version of the right target. Copies add pairs, not steps.",
        "Learned positions beyond the longest training pair are never trained: at such lengths "
        "that method fails for this reason alone.",
        "Intervals are over seeds: other initial weights, minibatches and held-out pairs, the same "
        "split.",
    ]


def machine_pairs(found: PairResults, by: str) -> Mapping[str, Any]:
    """What `--json` prints."""
    return {
        "by": by,
        "rule": found.split.rule,
        "counts": found.split.counts(),
        "seeds": found.seeds,
        "steps": found.steps,
        "chance": dict(found.chance),
        "methods": {
            m.name: {part: m.reading(part) for part in (INSIDE, UNSEEN)}
            for m in rank_methods(found)
        },
    }
