"""Patients of several hospitals or departments: UCI heart disease and Diabetes-130 (both CC BY
4.0).

Heart disease (Janosi et al., 1988, doi:10.24432/C52P4X) comes from four hospitals. Diabetes-130
(Strack et al., 2014, doi:10.1155/2014/781670) comes from 130 hospitals but names none: the
departments (`medical_specialty`) stand in for sites, and nothing here calls them hospitals. Its
`encounter_id` rises with time only roughly: a proxy.
"""

import gzip
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unseen.data.files import data_file
from unseen.errors import CorruptFile
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.table import Table
from unseen.tasks.table.encoding import MISSING
from unseen.tasks.table.splitting import Shares

HOSPITALS = {
    "cleveland": "Cleveland",
    "hungarian": "Hungary",
    "switzerland": "Switzerland",
    "va": "VA Long Beach",
}
_HEART = [
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
]
_WORDS: Mapping[str, Mapping[float, str]] = {
    "sex": {0: "female", 1: "male"},
    "cp": {1: "typical angina", 2: "atypical angina", 3: "other pain", 4: "no pain"},
    "fbs": {0: "no", 1: "yes"},
    "restecg": {0: "normal", 1: "ST-T abnormal", 2: "hypertrophy"},
    "exang": {0: "no", 1: "yes"},
    "slope": {1: "up", 2: "flat", 3: "down"},
    "thal": {3: "normal", 6: "fixed defect", 7: "reversible defect"},
}


def heart_frame() -> pd.DataFrame:
    """920 patients of four hospitals: 13 features in words and numbers, `disease` (num > 0),
    `hospital`.

    A cholesterol or blood pressure of 0 is no measurement (all of Switzerland's cholesterol):
    missing.
    """
    return _heart().copy()


@lru_cache(maxsize=1)
def _heart() -> pd.DataFrame:
    parts = []
    for file, hospital in HOSPITALS.items():
        path = data_file(f"heart-disease/processed.{file}.data")
        parts.append(
            pd.read_csv(path, header=None, names=_HEART, na_values="?").assign(hospital=hospital)
        )
    frame = pd.concat(parts, ignore_index=True)
    frame[["chol", "trestbps"]] = frame[["chol", "trestbps"]].replace(0, np.nan)
    for column, words in _WORDS.items():
        frame[column] = frame[column].map(words)
    frame["disease"] = np.where(frame.pop("num") > 0, "yes", "no")
    return frame


def write_heart_csv(path: str | Path) -> Path:
    """The four hospitals as one CSV as a user would have it, for
    `unseen audit heart.csv --target disease …`.
    """
    heart_frame().to_csv(path, index=False)
    return Path(path)


@dataclass(frozen=True)
class HeartDisease:
    """Disease at a hospital left out (default: the last by name, VA Long Beach), from 13 clinical
    features.
    """

    held_out: str | None = None
    groups: tuple[str, ...] = ("sex", "age:decade")
    shares: Shares = Shares()

    def table(self) -> Table:
        return Table(
            heart_frame,
            target="disease",
            site="hospital",
            groups=self.groups,
            held_out=self.held_out,
            shares=self.shares,
        )

    def build(self, lab: Lab) -> Task:
        return self.table().build(lab)


LEFT_FOR_GOOD = frozenset({"11", "13", "14", "19", "20", "21"})
"""Discharge codes of death and hospice: nobody is readmitted after them."""
_ICD9 = (
    ("circulatory", 390, 459),
    ("respiratory", 460, 519),
    ("digestive", 520, 579),
    ("injury", 800, 999),
    ("musculoskeletal", 710, 739),
    ("genitourinary", 580, 629),
    ("neoplasm", 140, 239),
)
_ALONE = {785: "circulatory", 786: "respiratory", 787: "digestive", 788: "genitourinary"}
_PAYERS = {
    "MC": "Medicare",
    "MD": "Medicaid",
    "HM": "HMO",
    "BC": "Blue Cross",
    "SP": "self-pay",
    "UN": "unspecified",
    "CP": "commercial",
}
_NOT_FEATURES = ("coded_items",)
DRUGS = [
    "metformin",
    "repaglinide",
    "nateglinide",
    "chlorpropamide",
    "glimepiride",
    "acetohexamide",
    "glipizide",
    "glyburide",
    "tolbutamide",
    "pioglitazone",
    "rosiglitazone",
    "acarbose",
    "miglitol",
    "troglitazone",
    "tolazamide",
    "examide",
    "citoglipton",
    "insulin",
    "glyburide-metformin",
    "glipizide-metformin",
    "glimepiride-pioglitazone",
    "metformin-rosiglitazone",
    "metformin-pioglitazone",
]


class Part(StrEnum):
    """Which rows of Diabetes-130."""

    ALL = "all"
    """69,990 first encounters; fetched or from UNSEEN_DATA."""
    SHIPPED = "shipped"
    """4,000 patients in the package."""


@lru_cache(maxsize=2)
def _diabetes(part: Part) -> pd.DataFrame:
    if part is Part.SHIPPED:
        raw = gzip.decompress(data_file("diabetes-130-small/diabetic_data.csv.gz").read_bytes())
    else:
        raw = _zip_member(
            data_file("diabetes-130-hospitals/dataset_diabetes.zip"), "diabetic_data.csv"
        )
    frame = pd.read_csv(io.BytesIO(raw), dtype=str, keep_default_na=False)
    frame["encounter_id"] = frame.encounter_id.astype(np.int64)
    frame = frame[~frame.discharge_disposition_id.isin(LEFT_FOR_GOOD)]
    frame = frame.sort_values("encounter_id").drop_duplicates("patient_nbr").reset_index(drop=True)
    return _readable(frame)


def _zip_member(path: Path, name: str) -> bytes:
    """The member called `name`, whatever folder holds it; resource forks of __MACOSX are not the
    file.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.split("/")[-1] == name and not member.startswith("__MACOSX"):
                return archive.read(member)
    raise CorruptFile(
        f"{path} holds no {name}.",
        why="the archive is another one.",
        fix="delete it and run again.",
    )


def _readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Ages as numbers, diagnoses as the nine groups of Strack et al. (table 2), codes as words,
    items counted.
    """
    frame = frame.replace("?", None)
    frame["age"] = frame.age.str.extract(r"\[(\d+)-", expand=False).astype(float) + 5
    codes = frame[["diag_1", "diag_2", "diag_3"]].notna().sum(axis=1)
    for column in ("diag_1", "diag_2", "diag_3"):
        frame[column] = frame[column].map(diagnosis_group, na_action="ignore")
    for column in ("admission_type_id", "discharge_disposition_id", "admission_source_id"):
        frame[column] = "code " + frame[column]  # their order means nothing
    payer = frame.payer_code
    frame["payer_code"] = payer.map(_PAYERS).where(
        payer.isin(_PAYERS), payer.where(payer.isna(), "other")
    )
    drugs = (frame[DRUGS] != "No").sum(axis=1)
    tests = (frame[["max_glu_serum", "A1Cresult"]] != "None").sum(axis=1)
    frame["coded_items"] = codes + drugs + tests + frame.num_procedures.astype(int)
    counts = [name for name in frame if name.startswith(("num_", "number_", "time_"))]
    frame[counts] = frame[counts].astype(float)
    frame["readmitted"] = np.where(
        frame.readmitted == "<30", "within 30 days", "not within 30 days"
    )
    return frame.drop(columns=["weight"])  # 97 % missing


def diagnosis_group(code: str) -> str:
    """ICD-9 → circulatory, respiratory, digestive, diabetes, injury, …, other ("250.83" →
    diabetes).
    """
    if not code[0].isdigit():
        return "other"  # external causes (E) and supplementary codes (V)
    number = int(float(code))
    if number == 250:
        return "diabetes"
    return _ALONE.get(number) or next(
        (name for name, low, high in _ICD9 if low <= number <= high), "other"
    )


def diabetes_frame() -> pd.DataFrame:
    """69,990 first encounters, 8.98 % readmitted within 30 days."""
    return _diabetes(Part.ALL).copy()


def shipped_diabetes_frame() -> pd.DataFrame:
    """Every 17th patient of them, shipped with the package."""
    return _diabetes(Part.SHIPPED).copy()


@dataclass(frozen=True)
class DepartmentFrame:
    """The rows of departments with at least `min_rows` rows, as a source for `Table`."""

    part: Part = Part.ALL
    min_rows: int = 500

    def __call__(self) -> pd.DataFrame:
        frame = _diabetes(self.part)
        counts = frame.medical_specialty.value_counts()
        return frame[
            frame.medical_specialty.isin(counts.index[counts >= self.min_rows])
        ].reset_index(drop=True)


@dataclass(frozen=True)
class Diabetes130:
    """Readmission within 30 days, at a department left out, after a moment, or for random patients.

    The first encounter of each patient, without deaths and hospice discharges, so no patient is on
    two sides.
    """

    by_department: bool = True
    """Departments with `min_rows` rows as sites (not hospitals); else all rows, also those of no
    department.
    """
    by_time: bool = False
    """Fit on early and evaluate on late encounters (by number, a proxy of time)."""
    held_out: str | None = None
    groups: tuple[str, ...] = (
        "age:40,60,70,80",
        "payer_code",
        "number_diagnoses:5,7,9",
        "number_inpatient:1",
    )
    part: Part = Part.ALL
    min_rows: int = 500
    shares: Shares = Shares()

    def table(self) -> Table:
        whole = shipped_diabetes_frame if self.part is Part.SHIPPED else diabetes_frame
        table = Table(
            DepartmentFrame(self.part, self.min_rows) if self.by_department else whole,
            target="readmitted",
            time="encounter_id" if self.by_time else None,
            groups=self.groups,
            drop=(*_NOT_FEATURES, "patient_nbr", *(() if self.by_time else ("encounter_id",))),
            shares=self.shares,
        )
        if not self.by_department:
            return replace(table, drop=(*table.drop, "medical_specialty"))
        return replace(table, site="medical_specialty", held_out=self.held_out)

    def build(self, lab: Lab) -> Task:
        return self.table().build(lab)


def note(row: Mapping[str, Any]) -> list[str]:
    """One token per coded item of a Diabetes-130 row, for models of text.

    "age_75 sex_female payer_medicare dx_circulatory dx_diabetes drug_insulin_up lab_44 stay_3 …";
    what is missing or not given has no token, so the number of tokens is the length of the note.
    """

    def has_value(name: str, nothing: str = "") -> bool:
        value = row.get(name)
        return value is not None and value == value and str(value) not in MISSING | {nothing}

    tokens = []
    for name, short in (
        ("age", "age"),
        ("gender", "sex"),
        ("race", "race"),
        ("payer_code", "payer"),
    ):
        tokens += [_token(short, row[name])] if has_value(name) else []
    for name, short in (
        ("admission_type_id", "admitted"),
        ("discharge_disposition_id", "to"),
        ("admission_source_id", "from"),
    ):
        tokens += [_token(short, row[name])] if has_value(name) else []
    tokens += [
        _token("dx", row[name]) for name in ("diag_1", "diag_2", "diag_3") if has_value(name)
    ]
    tokens += [_token("drug", drug, row[drug]) for drug in DRUGS if has_value(drug, "No")]
    tokens += [
        _token("test", name, row[name])
        for name in ("max_glu_serum", "A1Cresult")
        if has_value(name, "None")
    ]
    for name, short in (
        ("num_lab_procedures", "lab"),
        ("num_procedures", "procedures"),
        ("num_medications", "drugs"),
        ("number_inpatient", "inpatient"),
        ("number_emergency", "emergency"),
        ("number_outpatient", "outpatient"),
        ("time_in_hospital", "stay"),
        ("number_diagnoses", "diagnoses"),
    ):
        tokens += [_token(short, row[name])] if has_value(name) and float(row[name]) > 0 else []
    return tokens


def _token(*parts: object) -> str:
    texts = [f"{part:g}" if isinstance(part, float | int) else str(part) for part in parts]
    return "_".join(text.strip().lower().replace(" ", "-") for text in texts)


def example() -> HeartDisease:
    return HeartDisease()
