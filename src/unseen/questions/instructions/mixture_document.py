"""What general data are worth to a target, as a report."""

from collections.abc import Mapping
from typing import Any

from unseen import stats
from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.errors import InvalidData
from unseen.figure import Curves
from unseen.lab import Lab
from unseen.measures.generalist_gain import DataRatio, GeneralistGain
from unseen.measures.text_overlap import Overlap
from unseen.questions.instructions.document import unread_notes
from unseen.questions.instructions.mixture import (
    GENERALIST,
    UNTUNED,
    MixtureResults,
    flatten,
    mixture_arm,
    specialist_arm,
)
from unseen.reading import Reading
from unseen.text import count_noun, format_reading

LAB = Lab()
"""Neither measure draws."""


def mixture_document(found: MixtureResults, target: str, general: str) -> Document:
    """The answer, scores by size, contamination, what was trained, and limits."""
    return Document(
        title="How much are general data worth to the target?",
        kicker=f"{target} with {general}",
        lead=_lead(found),
        sections=[
            Section("By size of the target data", [_sizes(found), _curves(found), *_notes(found)]),
            Section("Without target data", [_ends(found)]),
            Section("How it was compared", [Paragraph(text) for text in _method(found)]),
            Section("What these data cannot tell", [Paragraph(LIMITS)]),
        ],
    )


LIMITS = (
    "Every arm was trained once: intervals are over test items, another training run would differ. "
    "Copies were looked for by runs of 13 words; what is said in other words, or was in the "
    "model's pretraining, is not found."
)


def _gain(found: MixtureResults, n: int, overlap: Overlap = Overlap.ROUGE_L) -> Reading:
    return GeneralistGain(n)(found.curves(overlap), LAB)


def _ratio(found: MixtureResults, n: int, overlap: Overlap = Overlap.ROUGE_L) -> Reading | str:
    """The ratio, or why there is none."""
    try:
        return DataRatio(n)(found.curves(overlap), LAB)
    except InvalidData as error:
        return error.what


def _lead(found: MixtureResults) -> str:
    lines = []
    for n in found.sizes:
        gain, ratio = _gain(found, n), _ratio(found, n)
        if gain.low > 0:
            words = f"general data help, by {format_reading(gain)} ROUGE-L"
        elif gain.high < 0:
            words = f"general data hurt, by {format_reading(gain)} ROUGE-L"
        else:
            words = (
                f"no difference is seen ({format_reading(gain, '+')} ROUGE-L: helps by at most "
                f"{max(0.0, gain.high):.2f}, hurts by at most {max(0.0, -gain.low):.2f})"
            )
        worth = (
            f"; worth {ratio.value:.1f} times the target data" if isinstance(ratio, Reading) else ""
        )
        lines.append(f"With {count_noun(n, 'target example')} {words}{worth}.")
    copies = round(found.contamination.value * found.contamination.n)
    lines.append(
        f"{copies} of {count_noun(found.contamination.n, 'test item')} stand in the general data"
        + (
            f"; {count_noun(found.general_left_out, 'general example')} left out."
            if copies
            else "."
        )
    )
    return "\n".join(lines)


def _score(found: MixtureResults, arm: str, overlap: Overlap) -> Reading:
    return stats.of_scores(found.scores[arm][overlap].numpy())


def _sizes(found: MixtureResults) -> Table:
    rows: list[dict[str, Value]] = []
    for overlap in (Overlap.ROUGE_L, Overlap.EXACT):
        for n in found.sizes:
            ratio = _ratio(found, n, overlap)
            rows.append(
                {
                    "score": overlap.value,
                    "target examples": n,
                    "specialist": _score(found, specialist_arm(n), overlap),
                    "mixed": _score(found, mixture_arm(n), overlap),
                    "gain": _gain(found, n, overlap),
                    "target data replaced": round(ratio.value, 2)
                    if isinstance(ratio, Reading)
                    else "not defined",
                    "target tokens": found.target_tokens[n],
                }
            )
    return Table(
        rows=rows,
        caption=f"{found.contamination.n} test items, 95 % intervals over them, gains paired. "
        "Target tokens: answers of the target that training has read, equal in both arms. "
        "Replaced: n′/n with as good a specialist at n′",
        comparable=False,
    )


def _curves(found: MixtureResults) -> Curves:
    return Curves(
        title="ROUGE-L on the target's test",
        x=[float(n) for n in found.sizes],
        y={
            name: [_score(found, arm(n), Overlap.ROUGE_L).value for n in found.sizes]
            for name, arm in (("specialist", specialist_arm), ("mixed", mixture_arm))
        },
        x_label="target examples",
        y_label="ROUGE-L",
        log_x=True,
    )


def _ends(found: MixtureResults) -> Table:
    return Table(
        rows=[
            {
                "model": arm,
                **{o.value: _score(found, arm, o) for o in (Overlap.ROUGE_L, Overlap.EXACT)},
            }
            for arm in (UNTUNED, GENERALIST)
        ],
        caption="As it came, and tuned on the general data alone for as many steps",
    )


def _notes(found: MixtureResults) -> list[Block]:
    notes: list[Block] = []
    if found.general_left_out:
        notes.append(
            Note(
                f"{count_noun(found.general_left_out, 'general example')} had 13 words in a row, "
                "or all, in common with the test and were left out.",
                Tone.CAUTION,
                f"{format_reading(found.contamination)} of the test items stood in the general "
                "data: gains measured with them would be too large.",
                code="mixture-contamination",
            )
        )
    notes += unread_notes(
        [text for row in flatten(found.request.target) for text in row.one.outputs]
    )
    for n in found.sizes:
        ratio = _ratio(found, n)
        if isinstance(ratio, str):
            notes.append(Note(f"With {n} target examples no ratio is defined.", detail=ratio))
    return notes


def _method(found: MixtureResults) -> list[str]:
    request, budget = found.request, found.request.tuning.budget
    beside = request.general_examples(found.n_general)
    # whole examples: the share that is asked for is met as closely as they allow
    share = beside / (beside + budget.batch_size)
    broad = count_noun(beside, "general example")
    return [
        f"Every arm makes {budget.steps:,} steps of {budget.batch_size} target examples from the "
        f"same weights, in the same order; the mixture reads {broad} beside them, "
        f"{share:.0%} of a step, so target updates are equal and only the rest "
        "differs. More steps or another order would be another comparison.",
        f"General data: {count_noun(found.n_general, 'example')}. Prompts show the instruction and "
        "the input; the loss is of the answers only.",
    ]


def machine_mixture(found: MixtureResults) -> Mapping[str, Any]:
    """What `--json` prints."""
    return {
        "contamination": found.contamination,
        "general_left_out": found.general_left_out,
        "sizes": [
            {
                "n": n,
                "target_tokens": found.target_tokens[n],
                "scores": {
                    o.value: {
                        "specialist": _score(found, specialist_arm(n), o),
                        "mixed": _score(found, mixture_arm(n), o),
                        "gain": _gain(found, n, o),
                        "ratio": ratio.value
                        if isinstance(ratio := _ratio(found, n, o), Reading)
                        else None,
                    }
                    for o in Overlap
                },
            }
            for n in found.sizes
        ],
        **{arm: {o.value: _score(found, arm, o) for o in Overlap} for arm in (UNTUNED, GENERALIST)},
    }
