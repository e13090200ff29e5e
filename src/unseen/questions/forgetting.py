"""`unseen compare items.jsonl --forget TASK`: does a language model forget it, and what else?"""

from collections.abc import Sequence
from math import isfinite

from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone
from unseen.document import Value as Cell
from unseen.errors import InvalidData, UnknownName
from unseen.subjects.item_forgetting import ForgettingResult
from unseen.tasks.graded_questions import Item
from unseen.text import count_noun, format_reading

TASK = "task"
"""The field of an item that names its task."""
MEMORISED = 0.9
"""Share of the random answers from which on training on them has taken."""
NAMES = {"random": "random answers", "true": "true answers (control)"}


def items_by_task(items: Sequence[Item], task: str) -> tuple[list[Item], dict[str, list[Item]]]:
    """The items of the task to forget, and those of every other."""
    sets: dict[str, list[Item]] = {}
    for item in items:
        name = dict(item.annotations).get(TASK)
        if name is None:
            raise InvalidData(
                f"{item.title} has no `{TASK}`.",
                why="one task is forgotten, and the others show what else is lost.",
                fix=f'write {{"{TASK}": "arithmetic", …}} into every line.',
            )
        sets.setdefault(str(name), []).append(item)
    if task not in sets:
        raise UnknownName.near(TASK, task, sets)
    return sets.pop(task), sets


def forgetting_document(found: ForgettingResult, name: str) -> Document:
    """The answer, accuracies before and after on every set, and what a probe still reads."""
    sections = [Section("Before and after", [*_about_memory(found), _table(found)])]
    if found.probes:
        sections.append(Section("What is still inside", [_probes(found)]))
    sections.append(Section("What these data cannot tell", [Paragraph(LIMITS)]))
    return Document(
        title=f"Forgetting {found.name}", kicker=name, lead=_lead(found), sections=sections
    )


LIMITS = (
    "One training run on one draw of random answers: the intervals are over items, another run "
    "would differ. What the control on true answers loses is damage by training as such. A probe "
    "shows that states hold the answer, not that the model uses it."
)


def _lead(found: ForgettingResult) -> str:
    held_out = found.ratio("held out")
    before, after = (found.scores[arm]["held out"].accuracy for arm in ("before", "random"))
    lines = [
        f"On held-out items accuracy goes from {format_reading(before)} to "
        f"{format_reading(after)} after training on random answers to "
        f"{len(found.scores['before']['train'].correct)} others."
    ]
    if isfinite(held_out.value):
        lines.append(f"Of what it knew above chance, {format_reading(held_out)} is forgotten.")
    else:
        lines.append("It was not above chance before, so there is nothing to forget.")
    lines.append(
        f"The random answers, {found.agreement:.2f} of which are true, were memorised to "
        f"{format_reading(found.fit)}."
    )
    return "\n".join(lines)


def _about_memory(found: ForgettingResult) -> list[Note]:
    """A warning where training on random answers did not take."""
    if found.fit.value >= MEMORISED:
        return []
    return [
        Note(
            "The random answers were not memorised.",
            Tone.CAUTION,
            f"After training they are given in {found.fit.value:.0%} of the cases ({MEMORISED:.0%} "
            f"would be memorised; {found.agreement:.0%} are the true answers). What was kept may "
            "have been kept because little was trained: from Python, "
            "unseen.forget_items(…, setting=ItemForgetting(epochs=32, layers=(-1,))).",
            code="not-memorised",
        )
    ]


def _table(found: ForgettingResult) -> Table:
    rows: list[dict[str, Cell]] = []
    for test, before in found.scores["before"].items():
        for arm, words in NAMES.items():
            ratio = found.ratio(test, arm)
            rows.append(
                {
                    "trained on": words,
                    "items": test,
                    "n": len(before.correct),
                    "before": before.accuracy,
                    "after": found.scores[arm][test].accuracy,
                    "forget ratio": ratio if isfinite(ratio.value) else "not above chance before",
                }
            )
    return Table(rows=rows, caption="Accuracy, and (before − after) / (before − chance)")


def _probes(found: ForgettingResult) -> Block:
    if not any(found.probes.values()):
        n = len(found.scores["before"]["held out"].correct)
        return Note(
            f"No probe could be trained: {count_noun(n, 'held-out item')}, and fewer than two of "
            "some answer.",
            Tone.NEUTRAL,
            "A probe is trained on some of them and read on the others: give more different items "
            "of this task, or train on fewer (--train-items).",
        )
    return Table(
        rows=[
            {"model": "before" if arm == "before" else "after", "layer": layer, "probe": accuracy,
             "control": control}
            for arm, layers in found.probes.items()
            for layer, (accuracy, control) in layers.items()
        ],
        caption="Linear probes of held-out items, and controls with answers dealt out "
        "anew; layer −1 is the last",
    )  # fmt: skip
