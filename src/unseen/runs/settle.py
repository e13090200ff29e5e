"""Whether a change of code left a study's numbers as they were, judged by its smoke scale.

A ledger is stale once a definition that its rows depend on has changed. Equal smoke rows show that
the change is none of the numbers, provided the smoke scale ran every definition that changed: what
only the laptop scale reaches (a branch, an arm) it cannot speak for. Then the laptop scale has to
run again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unseen.runs import catalog, ledger, rows
from unseen.runs.code_keys import code_of
from unseen.runs.ledger import Files, Stamp
from unseen.runs.provenance import commit, processor
from unseen.runs.smoke import smoke_run
from unseen.study import Scale, Study

MOST_NAMES = 8
"""Definitions that a reason names; more are counted."""


@dataclass(frozen=True)
class Changes:
    """Definitions that differ between two stamps, by their labels today (or, if they are gone, by
    the old ones).
    """

    new: tuple[str, ...]
    gone: tuple[str, ...]

    @staticmethod
    def between(old: Mapping[str, str], today: Mapping[str, str]) -> "Changes":
        """A definition that only moved to another module has not changed."""

        def bare(definitions: Mapping[str, str]) -> set[tuple[str, str]]:
            return {(label.rpartition(":")[2], value) for label, value in definitions.items()}

        known, wanted = bare(old), bare(today)
        return Changes(
            tuple(
                label
                for label, value in today.items()
                if (label.rpartition(":")[2], value) not in known
            ),
            tuple(
                label
                for label, value in old.items()
                if (label.rpartition(":")[2], value) not in wanted
            ),
        )

    def __str__(self) -> str:
        labels = list(dict.fromkeys((*self.new, *self.gone)))
        return names(labels)


def names(labels: list[str]) -> str:
    """Some labels in words, without the package's name."""
    shown = ", ".join(label.removeprefix("unseen.") for label in labels[:MOST_NAMES])
    return shown + (f" and {len(labels) - MOST_NAMES} more" if len(labels) > MOST_NAMES else "")


def settle(study: Study[Any, Any], files: Files, text: Mapping[str, Any]) -> str:
    """Restamps a stale ledger whose smoke rows are as before; else returns why they do not settle
    it.
    """
    if not files.code.exists() or "smoke" not in text:
        return "it keeps no smoke rows"
    scale, old = Scale(text["scale"]), Stamp.read(files.code)
    if scale is Scale.SMOKE:
        return "it is of the smoke scale itself"
    today = Stamp.of(study, scale)
    if old.cells != today.cells:
        return "its cells have changed"
    changes = Changes.between(old.definitions, today.definitions)
    if not (changes.new or changes.gone):
        return "a name stands for another definition than before"
    before = ledger.read_rows(files.smoke, text["smoke"])
    run = smoke_run(study)
    if difference := rows.difference(before, run.rows):
        here = processor()
        elsewhere = (
            f" (computed on {text['processor']}, here on {here})"
            if text.get("processor") != here
            else ""
        )
        return f"smoke rows differ{elsewhere}: {difference}"
    today = Stamp.of(study, scale, run)
    silent = [label for label in changes.new if label not in today.executed]
    replaced = {label.rpartition(":")[2] for label in changes.new}
    silent += [
        label
        for label in changes.gone
        if label.rpartition(":")[2] not in replaced and label not in old.executed
    ]
    if silent:
        return (
            f"smoke rows are equal, but the smoke scale does not run what changed: {names(silent)}"
        )
    at = commit(
        code_of(catalog.locate(study.name).module, next(iter(study.cells(study.scales[scale]))))
    )
    today.write(files.code)
    ledger.write_text(
        files, {**text, "code": today.code, "compared": "smoke rows" + (f" at {at}" if at else "")}
    )
    return ""
