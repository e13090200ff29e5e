"""The comparison on problems with programs as a document."""

from typing import Any

from unseen.document import Document, Paragraph, Section, Table, Value
from unseen.questions.compare.programs import GIVEN, ProgramResults
from unseen.questions.compare.teaching import CHOICES, EXAMS, MAJORITY, ORACLE, SUM
from unseen.text import count_noun


def programs_document(found: ProgramResults, source: str) -> Document:
    kept = [_outcomes(found), *_beginnings(found)] if len(found.runs) > 1 else []
    sections = [
        Section("Who solves unseen problems", [_scores(found), _gains(found)]),
        *([Section("What a student would choose", _choices(found))] if found.is_taught else []),
        *([Section("What was kept", kept)] if kept else []),
        Section("How it was compared", [Paragraph(text) for text in _method(found)]),
    ]
    return Document(
        kicker="problems with programs", title=source, lead=_lead(found), sections=sections
    )


def _lead(found: ProgramResults) -> str:
    k = found.asked.ks[-1]
    best = max(found.runs, key=lambda name: found.pass_at(name, k).value)
    reading, given = found.pass_at(best, k), found.pass_at(GIVEN, k)
    text = (
        f"One of {count_noun(k, 'sample')} is right for {reading.value:.0%} of "
        f"{count_noun(found.unseen, 'unseen problem')} after training on "
    )
    if len(found.runs) == 1:
        return f"{text}the given programs alone."
    if best == GIVEN:
        return f"{text}the given programs alone; no other method does better."
    text += f"{best}, and for {given.value:.0%} after training on the given programs alone."
    if found.asked.seeds < 2:
        return text
    gain = found.gain(best, k)
    separate = gain.low > 0
    return text + (
        f" The gain of {gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}] "
        f"{'is' if separate else 'is not'} separate from 0 over the "
        f"{count_noun(found.asked.seeds, 'seed')}."
    )


def _scores(found: ProgramResults) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "method": name,
            **{f"pass@{k}": found.pass_at(name, k) for k in found.asked.ks},
            "different programs": found.mean(name, lambda run: run.distinct),
            "different right ones": found.mean(name, lambda run: run.right),
        }
        for name in found.runs
    ]
    return Table(
        rows=rows,
        caption=f"pass@k: the chance that one of k samples computes the answer, estimated without "
        f"bias from {found.asked.samples} samples of each problem; mean over seeds, interval over "
        f"{count_noun(found.unseen, 'problem')}. Programs are counted per problem.",
    )


def _gains(found: ProgramResults) -> Table | Paragraph:
    if len(found.runs) == 1:
        return Paragraph("No other method was compared with the given programs alone.")
    if found.asked.seeds < 2:
        return Paragraph("With one seed a gain has no interval: use --seeds 3 or more.")
    rows: list[dict[str, Value]] = [
        {"method": name, **{f"pass@{k}": found.gain(name, k) for k in found.asked.ks}}
        for name in found.runs
        if name != GIVEN
    ]
    return Table(rows=rows, caption="Gain over the given programs alone, paired by seed.")


def _choices(found: ProgramResults) -> list[Table | Paragraph]:
    rows: list[dict[str, Value]] = [
        {
            "method": name,
            **{choice: found.choice(name, choice) for choice in (*CHOICES, ORACLE)},
            f"{SUM} − {MAJORITY}": found.choice(name, SUM, MAJORITY),
        }
        for name in found.runs
    ]
    skipped = {
        name: sum(run.choices.not_examined for run in runs if run.choices is not None)
        for name, runs in found.runs.items()
    }
    total = found.unseen * found.asked.seeds
    lacking = max(skipped.values())
    text = (
        "A sample's score is how many exam questions (up to "
        f"{EXAMS} training problems with the most similar phrases) a student gets right behind the "
        "problem and this sample. The answers' scores are compared; of equals the more frequent "
        "answer counts."
    )
    if lacking:
        text += (
            f" {lacking} of {count_noun(total, 'problem')} (all seeds) had no exam question and "
            "were decided by the most frequent answer."
        )
    caption = (
        f"Share of unseen problems whose chosen answer is right: mean over seeds, interval over "
        f"{count_noun(found.unseen, 'problem')}, the last column paired. The oracle chooses the "
        "right answer wherever a sample has it."
    )
    return [Table(rows=rows, caption=caption), Paragraph(text)]


def _outcomes(found: ProgramResults) -> Table:
    kinds = sorted({kind for runs in found.runs.values() for run in runs for kind in run.outcomes})
    rows: list[dict[str, Value]] = [
        {
            "method": name,
            "further right programs": sum(run.programs for run in runs),
            **{kind: sum(run.outcomes.get(kind, 0) for run in runs) for kind in kinds},
        }
        for name, runs in found.runs.items()
        if name != GIVEN
    ]
    return Table(rows=rows, caption="What became of sampled programs, all seeds together.")


def _beginnings(found: ProgramResults) -> list[Table]:
    rows: list[dict[str, Value]] = [
        {"question": question, "beginning": program}
        for name, runs in found.runs.items()
        for question, program in runs[0].beginnings
    ]
    if not rows:
        return []
    return [Table(rows=rows, caption="Some beginnings that were kept (first seed).")]


def _method(found: ProgramResults) -> list[str]:
    asked = found.asked
    model = "An encoder–decoder from scratch, which reads the numbers of a question by name,"
    if asked.model is not None:
        model = "The language model"
    student = {
        True: " The student is a language model that was not trained.",
        False: " The student, of the same kind, learned to solve a problem behind another one from "
        "half of the training texts; the other half are its exams.",
    }
    taught = student[not isinstance(asked.student, str)] if found.is_taught else ""
    return [
        f"{model} was trained on {count_noun(found.trained_on, 'problem')} for "
        f"{asked.budget.steps:,} steps of {asked.budget.batch_size} with "
        f"{count_noun(asked.seeds, 'seed')}. No text, numbers aside, is on both sides.{taught}",
        "Programs are lines of arithmetic: they are parsed and computed with exact fractions, "
        "never passed to Python. A program is right if its answer is within 0.0001 of the given "
        "one. That it is right for the right reason is not known.",
    ]


def machine_programs(found: ProgramResults) -> dict[str, Any]:
    return {
        name: {
            "pass": {k: found.pass_at(name, k) for k in found.asked.ks},
            "distinct": found.mean(name, lambda run: run.distinct),
            "distinct_right": found.mean(name, lambda run: run.right),
            "kept": [run.programs for run in runs],
            "outcomes": [dict(run.outcomes) for run in runs],
            **(_machine_choices(found, name) if found.is_taught else {}),
        }
        for name, runs in found.runs.items()
    }


def _machine_choices(found: ProgramResults, method: str) -> dict[str, Any]:
    runs = found.runs[method]
    return {
        "chosen": {name: found.choice(method, name) for name in (*CHOICES, ORACLE)},
        "sum_over_majority": found.choice(method, SUM, MAJORITY),
        "not_examined": [run.choices.not_examined for run in runs if run.choices is not None],
    }
