"""Diabetes-130 rendered as notes: which fields stand in them, which rows there are, and who may be
on two sides.
"""

import numpy as np
import pytest

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.tasks.clinical_notes import NOTE, DepartmentNotes, NotesFrame, in_words, spread
from unseen.tasks.hospitals import Part, shipped_diabetes_frame

FEW = NotesFrame(Part.SHIPPED, min_rows=200, most=40)


def test_a_note_says_what_the_fields_say():
    row = shipped_diabetes_frame().iloc[:1].copy()
    row[NOTE.columns] = None
    row["gender"], row["age"], row["number_inpatient"] = "Female", 75.0, 2.0
    row["diag_1"], row["insulin"], row["metformin"] = "circulatory", "Up", "No"
    row["number_emergency"], row["race"] = 0.0, "AfricanAmerican"
    row["discharge_disposition_id"], row["admission_source_id"] = "code 3", "code 17"
    assert NOTE.render(in_words(row)) == [
        "woman, 75 years old, 2 earlier inpatient stays, main diagnosis circulatory, "
        "discharged to a nursing facility, insulin up, African American."
    ]


def test_the_outcome_and_the_department_stand_in_no_note():
    assert not {"readmitted", "medical_specialty", "patient_nbr"} & set(NOTE.columns)
    frame = FEW()
    changed = frame.assign(readmitted="?", medical_specialty="?")
    assert NOTE.render(in_words(changed)) == frame["note"].tolist()


def test_rows_of_a_department_are_spread_over_time_and_capped():
    frame = FEW()
    assert set(frame["medical_specialty"].value_counts()) == {40}
    assert frame["patient_nbr"].is_unique
    chosen = spread(np.arange(100), 3)
    assert chosen.tolist() == [0, 50, 99]
    assert spread(np.arange(2), 3).tolist() == [0, 1]


def test_no_patient_is_on_two_sides_and_the_past_trains():
    tabular = DepartmentNotes(part=Part.SHIPPED, min_rows=200, by_time=True).table()
    prepared = tabular.prepare(Lab())
    patients = [set(prepared.frame["patient_nbr"].iloc[rows]) for rows in prepared.rows.values()]
    assert sum(map(len, patients)) == len(set().union(*patients))
    moment = prepared.frame["encounter_id"].to_numpy()
    assert moment[prepared.rows["train"]].max() < moment[prepared.rows["unseen"]].min()


def test_departments_without_enough_rows_are_refused():
    with pytest.raises(InvalidData, match="500000"):
        NotesFrame(Part.SHIPPED, min_rows=500_000)()
