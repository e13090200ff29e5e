"""What instructions are worth on unseen tasks, as a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from unseen import stats
from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.measures.text_overlap import Overlap, is_read
from unseen.questions.instructions.job import (
    AFTER,
    BEFORE,
    Condition,
    InstructionResults,
    TaskAnswers,
)
from unseen.reading import Reading
from unseen.tasks.instructions import By
from unseen.text import count_noun, format_reading, join_words

SHOWN = 120
"""Characters of a text in a table."""


def instructions_document(found: InstructionResults, name: str) -> Document:
    """The answer, scores by condition, the benefit per task, answers to look at, and limits."""
    return Document(
        title="Do instructions carry over to unseen tasks?",
        kicker=f"{name}, split by {found.split.by}",
        lead=_lead(found),
        sections=[
            Section("What the prompt shows", [_conditions(found), *_notes(found)]),
            Section("Benefit of the instruction by task", [_tasks(found)]),
            Section("Answers", [_texts(found)], folded=True),
            Section("What was trained", [Paragraph(text) for text in _training(found)]),
            Section("What these data cannot tell", [Paragraph(LIMITS)]),
        ],
    )


LIMITS = (
    "The model was fine-tuned once on one draw of tasks: intervals are over the unseen tasks (of a "
    "single task: over its instances), another training run or draw would differ. A model that "
    "saw these public tasks before, in pretraining or instruction tuning, is not tested on unseen "
    "ones. ROUGE-L counts words in order: a right answer in other words scores low, and of one "
    "word it is exact match."
)


def _lead(found: InstructionResults) -> str:
    n = len(found.answers)
    benefit = found.benefit(Overlap.ROUGE_L)
    own, none = (
        found.score(AFTER, c, Overlap.ROUGE_L).value
        for c in (Condition.INSTRUCTION, Condition.NONE)
    )
    other = found.difference(Overlap.ROUGE_L, (AFTER, Condition.OTHER), (AFTER, Condition.NONE))
    lines = [
        f"On {n} unseen tasks ROUGE-L is {own:.2f} with the instruction and {none:.2f} without: "
        f"{_difference(benefit)}",
        f"With another task's instruction it changes by {format_reading(other, '+')}"
        + (": the model reads what the instruction says." if _is_read(benefit, other) else "."),
    ]
    if BEFORE in found.moments:
        gain = found.difference(
            Overlap.ROUGE_L, (AFTER, Condition.INSTRUCTION), (BEFORE, Condition.INSTRUCTION)
        )
        lines.append(
            f"Fine-tuning on {count_noun(len(found.split.seen), 'seen task')} changes the score "
            f"with the instruction by {format_reading(gain, '+')}."
        )
    return "\n".join(lines)


def _difference(benefit: Reading) -> str:
    if benefit.low > 0:
        return f"it helps, by {format_reading(benefit)}."
    if benefit.high < 0:
        return f"it hurts, by {format_reading(benefit)}."
    return (
        f"no difference is seen ({format_reading(benefit, '+')}: helps by at most "
        f"{max(0.0, benefit.high):.2f}, hurts by at most {max(0.0, -benefit.low):.2f})."
    )


def _is_read(benefit: Reading, other: Reading) -> bool:
    return benefit.low > 0 and other.high < benefit.value


def _conditions(found: InstructionResults) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "when": when,
            "prompt": condition.value,
            **{
                overlap.value: found.score(when, condition, overlap)
                for overlap in (Overlap.ROUGE_L, Overlap.EXACT)
            },
            "ROUGE-L − no instruction": ""
            if condition is Condition.NONE
            else found.difference(Overlap.ROUGE_L, (when, condition), (when, Condition.NONE)),
        }
        for when in found.moments
        for condition in found.conditions(when)
    ]
    return Table(
        rows=rows,
        caption=f"Mean over {count_noun(len(found.answers), 'unseen task')}, each counting once; "
        "95 % intervals over tasks, differences paired",
        comparable=False,
    )


def _tasks(found: InstructionResults) -> Table:
    rows: list[dict[str, Value]] = []
    for one in found.answers:
        own, none, other = (
            one.scores(AFTER, c, Overlap.ROUGE_L)
            for c in (Condition.INSTRUCTION, Condition.NONE, Condition.OTHER)
        )
        rows.append(
            {
                "unseen task": one.task.name,
                "answers": "one word" if one.is_short else "texts",
                "n": len(one.instances),
                "no instruction": float(none.mean()),
                "instruction": float(own.mean()),
                "benefit": stats.difference(own, none),
                "another's": float(other.mean()),
                "exact match": float(
                    one.scores(AFTER, Condition.INSTRUCTION, Overlap.EXACT).mean()
                ),
            }
        )
    return Table(
        rows=rows,
        caption="ROUGE-L after tuning; benefit: instruction − none, paired over instances",
    )


def _texts(found: InstructionResults) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "unseen task": one.task.name,
            "input": _short(one.instances[0].input),
            "right": _short(one.instances[0].outputs[0]),
            **{
                condition.value: _short(one.texts[AFTER, condition][0])
                for condition in found.conditions(AFTER)
            },
        }
        for one in found.answers
    ]
    return Table(rows=rows, caption="The first instance of every unseen task")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _notes(found: InstructionResults) -> list[Block]:
    notes: list[Block] = []
    shared = found.split.overlap(By.DATASET)
    if shared and found.split.by is not By.DATASET:
        notes.append(
            Note(
                f"{count_noun(len(shared), 'data set')} behind both seen and unseen tasks: "
                f"{join_words(shared[:5])}.",
                Tone.CAUTION,
                "Such tasks share their texts; what is unseen is the instruction only. Split by "
                "data set (--by dataset) to keep them apart.",
                code="instructions-shared-datasets",
            )
        )
    if found.examples_cut or found.inputs_shortened:
        notes.append(
            Note(
                f"{count_noun(found.examples_cut, 'example')} and the start of "
                f"{count_noun(found.inputs_shortened, 'input')} did not fit into prompts.",
                Tone.CAUTION,
                "Examples are left out first, instructions never.",
                code="instructions-cut",
            )
        )
    seen = {task.fields for task in found.split.seen}
    if known := [task.name for task in found.split.unseen if task.fields in seen]:
        notes.append(
            Note(
                f"{count_noun(len(known), 'unseen task')} with the instruction of a seen one: "
                f"{join_words(known[:5])}.",
                Tone.CAUTION,
                "What is measured there is the use of a known instruction: give such tasks one "
                "name, or split by category or data set.",
                code="instructions-known",
            )
        )
    asked = [one for task in found.answers for one in task.instances]
    notes += unread_notes([text for one in asked for text in one.outputs])
    before, after = found.loss
    if after >= before:
        notes.append(
            Note(
                f"The loss on training examples went from {before:.2f} to {after:.2f}.",
                Tone.BAD,
                "Nothing was learned from the seen tasks: train longer (--steps) or with another "
                "learning rate.",
                code="instructions-not-learned",
            )
        )
    return notes


def unread_notes(outputs: Sequence[str]) -> list[Block]:
    """Right outputs that ROUGE-L cannot read."""
    unread = sum(not is_read(text) for text in outputs)
    if not unread:
        return []
    return [
        Note(
            f"{unread} of {count_noun(len(outputs), 'right output')} have other letters than a–z, "
            "or none and no digit.",
            Tone.CAUTION,
            "ROUGE-L, by the library rouge-score, reads a–z and digits alone: a right answer may "
            "have 0. Read exact match.",
            code="rouge-unread",
        )
    ]


def _training(found: InstructionResults) -> list[str]:
    request = found.request
    budget = request.tuning.budget
    before, after = found.loss
    return [
        f"{found.train_examples:,} examples of {count_noun(len(found.split.seen), 'seen task')}: "
        f"{found.train_tokens:,} tokens, {found.target_tokens:,} of them in answers. Their prompts "
        "show no instruction, the instruction, or instruction and examples in turn, so that no "
        "prompt of the test has a new form. The loss is of the answers only.",
        f"{budget.steps:,} steps of {budget.batch_size} examples at learning rate {budget.lr:g}; "
        f"loss per token of training answers {before:.2f} before and {after:.2f} after.",
        "Seen: " + join_words([task.name for task in found.split.seen]) + ".",
        "Unseen: " + join_words([task.name for task in found.split.unseen]) + ".",
    ]


def machine_instructions(found: InstructionResults) -> Mapping[str, Any]:
    """What `--json` prints."""
    return {
        "by": found.split.by.value,
        "seen": [task.name for task in found.split.seen],
        "unseen": [task.name for task in found.split.unseen],
        "benefit": {overlap.value: found.benefit(overlap) for overlap in Overlap},
        "scores": [
            {
                "when": when,
                "prompt": condition.value,
                **{overlap.value: found.score(when, condition, overlap) for overlap in Overlap},
            }
            for when in found.moments
            for condition in found.conditions(when)
        ],
        "tasks": [_machine_task(one) for one in found.answers],
        "train_examples": found.train_examples,
        "train_tokens": found.train_tokens,
        "target_tokens": found.target_tokens,
        "examples_cut": found.examples_cut,
        "inputs_shortened": found.inputs_shortened,
    }


def _machine_task(one: TaskAnswers) -> dict[str, Any]:
    return {
        "task": one.task.name,
        "answers": [
            {
                "when": when,
                "prompt": condition.value,
                **{
                    overlap.value: float(one.scores(when, condition, overlap).mean())
                    for overlap in Overlap
                },
                "texts": list(texts),
            }
            for (when, condition), texts in one.texts.items()
        ],
    }
