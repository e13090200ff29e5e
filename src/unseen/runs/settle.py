"""Whether a change of code left a study's numbers as they were, judged by a part of its cells.

A ledger is stale once a definition that its rows depend on has changed. Equal smoke rows show that
the change is none of the numbers, provided the smoke scale ran every definition that changed: what
only the laptop scale reaches (a branch, an arm) it cannot speak for. One seed of every arm of the
laptop scale can: its rows equal the kept ones if what it runs has not changed what it computes, and
other seeds run the same. If these differ, the laptop scale has to run again.

On another processor than the ledger's, rows that differ are compared once more: with those that the
ledger's own code gives on this one (`baseline.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from unseen.runs import baseline, catalog, ledger, rows
from unseen.runs.code_keys import code_of
from unseen.runs.ledger import Files, Stamp
from unseen.runs.provenance import commit, processor
from unseen.runs.smoke import compute, smoke_run
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


def settle_by_smoke(study: Study[Any, Any], files: Files, text: Mapping[str, Any]) -> str:
    """Restamps a stale ledger whose smoke rows are as before; else returns why they do not settle
    it.
    """
    if reason := _lacks(files, text):
        return reason
    scale, old = Scale(text["scale"]), Stamp.read(files.code)
    today = Stamp.of(study, scale)
    if old.cells != today.cells:
        return "its cells have changed"
    changes = Changes.between(old.definitions, today.definitions)
    if not (changes.new or changes.gone):
        return "a name stands for another definition than before"
    before = ledger.read_rows(files.smoke, text["smoke"])
    run = smoke_run(study)
    what = "smoke rows"
    if difference := rows.difference(before, run.rows):
        here = _other_processor(text) and baseline.rows_here(files, text)
        if not here or rows.difference(here, run.rows):
            return f"smoke rows differ{_other_processor(text)}: {difference}"
        what = f"smoke rows of both on {processor()}"
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
    rows.write(files.smoke, run.rows)
    text = {**text, "smoke": ledger.digest_of_file(files.smoke)}
    _restamp(study, files, text, today, what)
    return ""


def settle_by_seed(study: Study[Any, Any], files: Files, text: Mapping[str, Any]) -> str:
    """Restamps a stale ledger if one seed of every arm gives the kept rows of that seed; else
    returns why not.
    """
    if reason := _lacks(files, text):
        return reason
    scale = Scale(text["scale"])
    cells = list(study.cells(study.scales[scale]))
    kept = ledger.read_rows(files.rows, text["rows"])
    if not all("seed" in row for row in kept):
        return "its rows name no seed"
    first = min(cell.seed for cell in cells)
    arms = [replace(cell, seed=first) for cell in cells]
    once = [cell for cell in cells if cell.seed == first]
    if any(arm not in once for arm in arms):
        return f"seed {first} does not have every arm"
    run = compute(study, once)
    # a cell may train several seeds as one stack
    seeds = {row.get("seed") for row in run.rows}
    seeds = seeds if first in seeds else {first}
    before = kept if once == cells else [row for row in kept if row["seed"] in seeds]
    what = f"rows of seed {first}"
    if difference := rows.difference(before, run.rows):
        here = _other_processor(text) and baseline.rows_here(files, text, one_seed=True)
        if not here or rows.difference(here, run.rows):
            return f"{what} differ{_other_processor(text)}: {difference}"
        what += f" of both on {processor()}"
    missing = {cell.seed for cell in cells} - {row["seed"] for row in kept}
    if missing:
        return f"no rows are kept of seeds {', '.join(map(str, sorted(missing)))}"
    smoke = smoke_run(study)
    rows.write(files.smoke, smoke.rows)
    text = {**text, "smoke": ledger.digest_of_file(files.smoke)}
    _restamp(study, files, text, Stamp.of(study, scale, smoke), what)
    return ""


def _lacks(files: Files, text: Mapping[str, Any]) -> str:
    """Why a ledger cannot be settled by some of its cells; empty if it can."""
    if not files.code.exists() or "smoke" not in text:
        return "it keeps no smoke rows"
    return "it is of the smoke scale itself" if Scale(text["scale"]) is Scale.SMOKE else ""


def _other_processor(text: Mapping[str, Any]) -> str:
    here = processor()
    if text.get("processor") == here:
        return ""
    return f" (computed on {text['processor']}, here on {here})"


def _restamp(
    study: Study[Any, Any], files: Files, text: Mapping[str, Any], today: Stamp, what: str
) -> None:
    cell = next(iter(study.cells(study.scales[Scale(text["scale"])])))
    at = commit(code_of(catalog.locate(study.name).module, cell))
    today.write(files.code)
    compared = what + (f" at {at}" if at else "")
    ledger.write_text(files, {**text, "code": today.code, "compared": compared})
