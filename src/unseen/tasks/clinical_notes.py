"""Diabetes-130 as short English notes in one fixed wording: rendered coded fields, departments
instead of hospitals.

Nothing here is a note that somebody wrote, and nothing about such notes follows from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.hospitals import DRUGS, DepartmentFrame, Diabetes130, Part
from unseen.tasks.table import Table
from unseen.tasks.table.splitting import Shares
from unseen.tasks.table.template import Template

NOTE = Template(
    (
        "{gender}",
        "{age} years old",
        "{number_inpatient} earlier inpatient stays",
        "{number_emergency} earlier emergency visits",
        "{number_outpatient} earlier outpatient visits",
        "main diagnosis {diag_1}",
        "also {diag_2}",
        "also {diag_3}",
        "discharged to {discharge_disposition_id}",
        "{time_in_hospital} days",
        "admitted from {admission_source_id}",
        "{number_diagnoses} diagnoses",
        "{num_medications} drugs",
        "{num_procedures} procedures",
        "{num_lab_procedures} lab tests",
        *(f"{drug} {{{drug}}}" for drug in DRUGS),
        "A1C {A1Cresult}",
        "glucose {max_glu_serum}",
        "paid by {payer_code}",
        "{race}",
    ),
    blank=("0", "no", "None"),
)
"""What tells most comes first: a model that reads 64 tokens cuts the end."""
WORDS: Mapping[str, Mapping[str, str]] = {
    "gender": {"Female": "woman", "Male": "man"},
    "race": {"AfricanAmerican": "African American", "Other": "other"},
    "admission_source_id": {
        "code 1": "a physician",
        "code 2": "a clinic",
        "code 3": "an insurer",
        "code 4": "another hospital",
        "code 5": "a nursing facility",
        "code 6": "another facility",
        "code 7": "the emergency room",
    },
    "discharge_disposition_id": {
        "code 1": "home",
        "code 2": "another hospital",
        "code 3": "a nursing facility",
        "code 4": "an intermediate facility",
        "code 5": "other inpatient care",
        "code 6": "home with a nurse",
        "code 7": "home against advice",
        "code 22": "rehabilitation",
        "code 23": "long-term care",
        "code 28": "psychiatry",
    },
}
"""Codes as the data set's own key explains them; rare ones, and codes for "not known", say nothing
in a note."""
KEPT_AS_WRITTEN = ("race",)


def in_words(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of a note with codes as words."""
    found = frame[NOTE.columns].copy()
    for column, words in WORDS.items():
        read = found[column].map(words)
        found[column] = read.fillna(found[column]) if column in KEPT_AS_WRITTEN else read
    found[DRUGS] = found[DRUGS].apply(lambda cells: cells.str.lower())
    return found


@dataclass(frozen=True)
class NotesFrame:
    """Departments with at least `min_rows` rows, of each at most `most` spread evenly over time,
    and the column `note`.
    """

    part: Part = Part.ALL
    min_rows: int = 500
    most: int = 0
    """0: all."""

    def __call__(self) -> pd.DataFrame:
        frame = DepartmentFrame(self.part, self.min_rows)().sort_values("encounter_id")
        if frame.empty:
            raise InvalidData(
                f"No department has {self.min_rows} rows.",
                why="departments stand in for sites.",
                fix="lower min_rows.",
            )
        rows = frame.groupby("medical_specialty", sort=True).indices.values()
        chosen = np.sort(np.concatenate([spread(one, self.most) for one in rows]))
        frame = frame.iloc[chosen].reset_index(drop=True)
        return frame.assign(note=NOTE.render(in_words(frame)))


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, at equal distances."""
    if not most or len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


@dataclass(frozen=True)
class DepartmentNotes:
    """Readmission within 30 days at a department left out, and with `by_time` after a moment.
    `table()` names the note as its column of texts: the task itself reads the coded fields and the
    number of words, `unseen audit` the note.
    """

    by_time: bool = False
    held_out: str | None = None
    part: Part = Part.ALL
    min_rows: int = 500
    most: int = 0
    shares: Shares = Shares()

    def table(self) -> Table:
        coded = Diabetes130(
            by_time=self.by_time, held_out=self.held_out, part=self.part, shares=self.shares
        )
        return replace(
            coded.table(), data=NotesFrame(self.part, self.min_rows, self.most), text="note"
        )

    def build(self, lab: Lab) -> Task:
        return self.table().build(lab)


def example() -> DepartmentNotes:
    return DepartmentNotes(part=Part.SHIPPED, min_rows=200)
