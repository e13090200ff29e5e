"""Hospitals and census: published counts, exclusions, one patient on one side, notes."""

import os
import zipfile
from pathlib import Path

import pytest

from unseen.lab import Lab
from unseen.task import Axis
from unseen.tasks import census, hospitals
from unseen.tasks.hospitals import (
    Diabetes130,
    HeartDisease,
    Part,
    diagnosis_group,
    heart_frame,
    note,
)
from unseen.tasks.table import Table, leave_one_out


def local(name: str):
    """Skips unless the file lies in UNSEEN_DATA."""
    folder = os.environ.get("UNSEEN_DATA")
    here = folder is not None and (Path(folder) / name).is_file()
    return pytest.mark.skipif(not here, reason=f"{name} is not in UNSEEN_DATA")


full = local("diabetes-130-hospitals/dataset_diabetes.zip")


def test_heart_disease_has_its_published_counts():
    frame = heart_frame()
    assert frame.hospital.value_counts().to_dict() == {
        "Cleveland": 303,
        "Hungary": 294,
        "VA Long Beach": 200,
        "Switzerland": 123,
    }
    share = (
        frame.groupby("hospital").disease.apply(lambda d: (d == "yes").mean()).round(2).to_dict()
    )
    assert share == {
        "Cleveland": 0.46,
        "Hungary": 0.36,
        "Switzerland": 0.93,
        "VA Long Beach": 0.74,
    }


def test_a_cholesterol_of_zero_is_missing():
    frame = heart_frame()
    assert frame[frame.hospital == "Switzerland"].chol.isna().all()
    assert frame.chol.min() > 0
    assert frame.trestbps.min() > 0


def test_each_hospital_is_left_out_once():
    made = leave_one_out(HeartDisease().table(), Lab())
    assert [each.held_out for each in made] == [
        "Cleveland",
        "Hungary",
        "Switzerland",
        "VA Long Beach",
    ]
    assert all(each.task.axis is Axis.SITE for each in made)
    assert HeartDisease(held_out="Hungary").build(Lab()).splits["unseen"].at == "Hungary"


def test_the_written_csv_gives_the_same_task(tmp_path):
    path = hospitals.write_heart_csv(tmp_path / "heart.csv")
    ours = HeartDisease().table().prepare(Lab())
    theirs = Table(path, target="disease", site="hospital", groups=("sex", "age:decade")).prepare(
        Lab()
    )
    for split in ours.rows:
        assert (ours.as_numpy(split)[0] == theirs.as_numpy(split)[0]).all()
        assert (ours.as_numpy(split)[1] == theirs.as_numpy(split)[1]).all()


@full
def test_diabetes_counts():
    frame = hospitals.diabetes_frame()
    assert len(frame) == 69_990
    assert (frame.readmitted == "within 30 days").mean() == pytest.approx(0.0898, abs=5e-5)
    assert frame.patient_nbr.is_unique
    made = Diabetes130().table().prepare(Lab())
    assert len(made.sites) == 13
    assert {"within 30 days", "not within 30 days"} == set(made.target.classes)


def test_shipped_diabetes_rows():
    frame = hospitals.shipped_diabetes_frame()
    assert 3_800 < len(frame) <= 4_000
    assert frame.patient_nbr.is_unique
    assert 0.07 < (frame.readmitted == "within 30 days").mean() < 0.11
    assert not set(frame.discharge_disposition_id) & {f"code {k}" for k in hospitals.LEFT_FOR_GOOD}


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("by_department", [False, True])
def test_diabetes_splits(by_department, by_time):
    spec = Diabetes130(by_department, by_time, part=Part.SHIPPED, min_rows=100)
    made = spec.table().prepare(Lab())
    frame = made.frame
    people = [set(frame.patient_nbr.iloc[rows]) for rows in made.rows.values()]
    assert sum(map(len, people)) == len(set().union(*people))
    if by_time:
        fitted = frame.encounter_id.iloc[made.rows["train"]].max()
        assert fitted < frame.encounter_id.iloc[made.rows["unseen"]].min()
    leaky = {"encounter_id", "patient_nbr", "readmitted", "coded_items", "medical_specialty"}
    assert not leaky & set(made.encoder.blocks)
    assert 80 < len(made.encoder.names) < 160


def test_the_zip_is_read_without_resource_forks(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/d/diabetic_data.csv", b"fork")
        archive.writestr("d/diabetic_data.csv", b"rows")
    assert hospitals._zip_member(path, "diabetic_data.csv") == b"rows"


@pytest.mark.parametrize(
    ("code", "group"),
    [
        ("250.83", "diabetes"),
        ("250", "diabetes"),
        ("410", "circulatory"),
        ("785", "circulatory"),
        ("V45", "other"),
        ("E885", "other"),
        ("486", "respiratory"),
        ("786", "respiratory"),
        ("8", "other"),
        ("820", "injury"),
        ("715", "musculoskeletal"),
        ("599", "genitourinary"),
        ("153", "neoplasm"),
        ("251", "other"),
    ],
)
def test_diagnosis_groups(code, group):
    assert diagnosis_group(code) == group


def test_a_note_has_one_token_per_coded_item():
    row = hospitals.shipped_diabetes_frame().iloc[0].to_dict()
    row |= {
        "age": 75.0,
        "insulin": "Up",
        "metformin": "No",
        "diag_1": "circulatory",
        "diag_2": None,
        "payer_code": float("nan"),
    }
    tokens = note(row)
    assert {"age_75", "dx_circulatory", "drug_insulin_up"} <= set(tokens)
    assert not [token for token in tokens if token.startswith(("drug_metformin", "payer", "test_"))]
    assert len(note(row | {"metformin": "Steady"})) == len(tokens) + 1
    assert not [token for token in tokens if " " in token]


def test_the_census_example_builds_and_hides_the_weight():
    made = census.example().table().prepare(Lab())
    assert not {"fnlwgt", "education_num", "income"} & set(made.encoder.blocks)
    assert made.target.classes == ("<=50K", ">50K")


@local("adult/adult.test.gz")
def test_the_census_has_its_published_counts():
    frame = census.census_frame()
    assert len(frame) == 48_842
    assert (frame.income == ">50K").sum() == 11_687
