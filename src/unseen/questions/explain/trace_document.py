"""Where a language model's answer appears and what carries it, as a document."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from unseen.document import Block, Document, Note, Paragraph, Passage, Section, Table, Tone, Value
from unseen.figure import Curves, Grid
from unseen.questions.explain.of_text import (
    BETWEEN,
    CHANGED,
    LAST,
    PromptTrace,
    TraceReport,
    crossing,
    layer_of_answer,
    mean_reciprocal_ranks,
    mean_shares,
)
from unseen.reading import Reading
from unseen.text import join_words
from unseen.wording import number

MOST_SHOWN, OPEN = 20, 4
"""Prompts with heat maps, and those of them that are not folded."""
MOST_ROWS = 16
"""Layers in a table: of a deep model every so-many-th and the last."""
CLEAR = 0.5
"""Share from which a state carries most of the answer."""


def trace_document(found: TraceReport) -> Document:
    sections = [Section("Where the answer appears", _lens(found))]
    if found.trace:
        sections.append(Section("What carries it", _tracing(found)))
    sections += [
        Section(_title(one), _prompt(one), folded=k >= OPEN)
        for k, one in enumerate(found.prompts[:MOST_SHOWN])
    ]
    sections.append(Section("How to read it", _how_to_read(found)))
    return Document(
        kicker="tracing",
        title=f"Where {found.name} computes its answers",
        lead=_lead(found),
        sections=sections,
        facts={
            "prompts": str(len(found.prompts)),
            "layers": str(len(found.modules)),
            "seconds": f"{found.seconds:.1f}",
        },
    )


def summary_sections(found: TraceReport) -> int:
    return 2 if found.trace else 1


def _lead(found: TraceReport) -> str:
    right = [one for one in found.prompts if one.answer_rank == 1]
    layers = [layer for one in found.prompts if (layer := layer_of_answer(one)) is not None]
    text = f"{len(right)} of {len(found.prompts)} answers are the model's own most likely token"
    if layers:
        text += (
            f"; behind layer {number(median(layers))} of {len(found.modules)} (median) they come "
            "first and stay"
        )
    text += "."
    if not found.trace:
        return text
    if not found.pairs:
        return f"{text} No counterfactual prompt moves its answer, so nothing can be traced."
    at = crossing(mean_shares(found))
    if at is None:
        return f"{text} No layer passes what changed from its tokens to the last one."
    return (
        f"{text} What changed is carried by its own tokens up to layer {at - 1}; behind layer "
        f"{at} the last token carries more of it (means over {len(found.pairs)} prompts)."
        if at > 1
        else f"{text} Already behind the first layer the last token carries more of what changed "
        f"than the changed tokens (means over {len(found.pairs)} prompts)."
    )


def _lens(found: TraceReport) -> list[Block]:
    ranks = mean_reciprocal_ranks(found)
    blocks: list[Block] = [
        Paragraph(
            "The logit lens reads the state behind each layer at the last token with the model's "
            "own final norm and head: 1 over the rank of the token, 1 where it is the most likely."
        ),
        _curves("Reciprocal rank at the last token", ranks, "1 / rank"),
        _by_layer(found.modules, ranks, f"Mean of 1 / rank over {_lens_count(found)}."),
    ]
    wrong = [one for one in found.prompts if one.answer_rank != 1]
    if wrong:
        said = join_words([f"“{one.answer}” ({one.at})" for one in wrong[:5]])
        blocks.append(
            Note(
                f"{len(wrong)} of {len(found.prompts)} answers are not the model's own: {said}.",
                Tone.CAUTION,
                "Where it does not answer so, there is little to trace.",
            )
        )
    return blocks


def _tracing(found: TraceReport) -> list[Block]:
    if not found.pairs:
        return [
            Note(
                "No counterfactual prompt moves the answer towards its own.",
                Tone.BAD,
                "The model does not use what was changed, or does not know the answers.",
            ),
            *_notes(found),
        ]
    shares = mean_shares(found)
    return [
        Paragraph(
            "Behind each layer the states of some tokens are exchanged for those of the "
            "counterfactual prompt. The share says how far this alone moves the model from its "
            "answer to the counterfactual one: 0 not at all, 1 as far as the whole other prompt."
        ),
        _curves("Share of the change that is carried, by kind of token", shares, "share"),
        _by_layer(found.modules, shares, f"Means over {_count(found.pairs)}."),
        *_notes(found),
    ]


def _notes(found: TraceReport) -> list[Block]:
    return [Note(text) for text in found.decisions]


def _lens_count(found: TraceReport) -> str:
    some = sum(bool(one.intermediate) for one in found.prompts)
    more = f"; the intermediate over {some}" if some else ""
    return f"{_count(found.prompts)}{more}"


def _count(prompts: Sequence[PromptTrace]) -> str:
    n = len(prompts)
    return f"{n} prompts, with 95 % intervals" if n > 1 else "one prompt: no interval"


def _curves(title: str, readings: Mapping[str, Sequence[Reading]], label: str) -> Curves:
    values = {name: [one.value for one in line] for name, line in readings.items()}
    bands = {
        name: [(one.low, one.high) for one in line]
        for name, line in readings.items()
        if all(one.low == one.low for one in line)
    }
    layers = range(1, 1 + max(map(len, values.values())))
    return Curves(
        title=title, x=list(layers), y=values, band=bands, x_label="behind layer", y_label=label
    )


def _by_layer(
    modules: Sequence[str], readings: Mapping[str, Sequence[Reading]], caption: str
) -> Table:
    step = -(-len(modules) // MOST_ROWS)
    shown = sorted({*range(0, len(modules), step), len(modules) - 1})
    rows: list[Mapping[str, Value]] = [
        {"layer": k + 1, "module": modules[k], **{n: line[k] for n, line in readings.items()}}
        for k in shown
    ]
    return Table(rows=rows, caption=caption)


def _title(one: PromptTrace) -> str:
    text = "".join(one.pieces).replace("␣", " ").replace("⏎", " ").strip()
    return text if len(text) <= 70 else f"… {text[-67:]}"


def _prompt(one: PromptTrace) -> list[Block]:
    layer = layer_of_answer(one)
    where = (
        f"Its own answer is another one; “{one.answer}” has rank {one.answer_rank}."
        if layer is None
        else f"“{one.answer}” comes first behind layer {layer} and stays."
    )
    blocks: list[Block] = [Paragraph(f"{one.at}: {where}{_on_the_way(one)}")]
    if one.changed:
        blocks.append(
            Passage(
                title="Tokens that the counterfactual prompt changes",
                pieces=[piece.replace("␣", " ").replace("⏎", "\n") for piece in one.pieces],
                weights=[float(changed) for changed in one.changed],
            )
        )
    if one.is_traced:
        move = f"“{one.answer}” to “{one.counterfactual_answer}”, {number(one.effect)} nats"
        blocks.append(_heat_map(one, one.shares, f"Share carried by one state, of {move}", "token"))
    elif one.changed:
        blocks.append(
            Note(
                f"The counterfactual prompt moves the model by {number(one.effect)} nats towards "
                f"“{one.counterfactual_answer}”: too little to trace.",
                Tone.CAUTION,
            )
        )
    blocks.append(
        _heat_map(one, one.lens, f"Log-probability of “{one.answer}” in nats (logit lens)", "token")
    )
    if one.intermediate:
        title = f"Log-probability of “{one.intermediate}” in nats (logit lens)"
        blocks.append(_heat_map(one, one.intermediate_lens, title, "token"))
    return blocks


def _on_the_way(one: PromptTrace) -> str:
    if not one.intermediate:
        return ""
    best = min(one.intermediate_ranks)
    layer = one.intermediate_ranks.index(best) + 1
    return (
        f" “{one.intermediate}” has its best rank at the last token, {best}, behind layer {layer}."
    )


def _heat_map(one: PromptTrace, values: Sequence[Sequence[float]], title: str, label: str) -> Grid:
    rows = [f"layer {k}" for k in range(1, len(values) + 1)]
    columns = [f"{k} {piece}" for k, piece in enumerate(one.pieces, 1)]
    # rounding errors of float32 are no shares; adding 0 turns −0 into 0
    rounded = [[round(value, 2) + 0.0 for value in line] for line in values]
    return Grid(title=title, rows=rows, columns=columns, values=rounded, label=label)


def _how_to_read(found: TraceReport) -> list[Block]:
    texts = [
        "Intervals are over prompts: they say what other prompts like these would give, not "
        "whether another training of the model would compute in the same way.",
        "The lens reads states with a head that was trained for the last layer. An answer that it "
        "does not find may still be there in another form.",
    ]
    if found.trace:
        texts += [
            f"“{CHANGED}” are those in which both prompts differ, “{BETWEEN}” the others behind "
            f"them, “{LAST}” the one that the answer follows, whether it differs or not. Tokens "
            "before the first change have the same states in both prompts.",
            "An exchanged state shows that the answer depends on it, given the rest of the prompt. "
            "Shares of several states need not add up to 1, and may lie outside 0 to 1.",
        ]
    else:
        texts += found.decisions
        texts.append("Causal tracing needs counterfactual prompts and --trace.")
    left_out = len(found.prompts) - MOST_SHOWN
    if left_out > 0:
        texts.append(f"Heat maps of {left_out} more prompts are in --json.")
    return [Note(text) for text in texts]


def machine_trace(found: TraceReport) -> dict[str, Any]:
    """What the report shows, for machines."""
    return {
        "model": found.name,
        "modules": list(found.modules),
        "mean_reciprocal_rank": mean_reciprocal_ranks(found),
        "mean_share": mean_shares(found) if found.pairs else {},
        "traced": len(found.pairs),
        "decisions": list(found.decisions),
        "prompts": [
            {
                "at": one.at,
                "tokens": list(one.pieces),
                "answer": one.answer,
                "answer_rank": one.answer_rank,
                "layer_of_answer": layer_of_answer(one),
                "counterfactual_answer": one.counterfactual_answer or None,
                "effect_nats": one.effect if one.changed else None,
                "changed": list(one.changed),
                "share": one.shares if one.is_traced else [],
                "share_by_kind": one.group_shares if one.is_traced else {},
                "lens_log_probability": one.lens,
                "rank_at_last_token": list(one.ranks),
                "intermediate": one.intermediate or None,
                "intermediate_lens_log_probability": one.intermediate_lens,
                "intermediate_rank_at_last_token": list(one.intermediate_ranks),
            }
            for one in found.prompts
        ],
    }
