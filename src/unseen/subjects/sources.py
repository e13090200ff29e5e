"""What may be asked about, in any form that a person has it, as subjects."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pandas as pd
from sklearn.base import BaseEstimator

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.subjects.estimators import with_estimator
from unseen.subjects.networks import describe_other_steps
from unseen.subjects.python_files import from_file
from unseen.subjects.subject import Subject
from unseen.subjects.tables import TABLES, TableColumns, is_table, of_hospitals, of_table

Source: TypeAlias = str | Path | pd.DataFrame | Subject | Sequence[Subject] | None
"""A table (DataFrame or file), `file.py:name`, a subject or several; None: the embedded
heart-disease data.
"""


def read_subjects(
    source: Source,
    lab: Lab,
    columns: TableColumns = TableColumns(),
    *,
    estimator: str | BaseEstimator | None = None,
    steps: int | None = None,
) -> list[Subject]:
    """The subjects of a source: one per held-out site of a table, with another model or another
    length of training.
    """
    subjects = _read(source, lab, columns)
    if estimator is not None:
        subjects = [with_estimator(one, estimator) for one in subjects]
    if steps is not None:
        subjects = [with_steps(one, steps) for one in subjects]
    return subjects


def with_steps(subject: Subject, steps: int) -> Subject:
    """The same subject trained for so many steps, and saying so."""
    return replace(
        subject,
        budget=replace(subject.budget, steps=steps),
        decisions=describe_other_steps(subject.decisions, subject.budget, steps),
    )


def _read(source: Source, lab: Lab, columns: TableColumns) -> list[Subject]:
    match source:
        case pd.DataFrame():
            return of_table(source, lab, columns)
        case str() | Path() if is_table(source):
            return of_table(source, lab, columns)
    refuse_columns(columns, source)
    match source:
        case None:
            return of_hospitals(lab)
        case str() | Path():
            return [from_file(str(source))]
        case Subject():
            return [source]
        case Sequence() if source and all(isinstance(one, Subject) for one in source):
            return list(source)
    raise InvalidData(
        f"A {type(source).__name__} was given.",
        why="what is asked about is a table, a Python file or a Subject.",
        fix="give a DataFrame, a path, `file.py:name`, an unseen.Subject or a list of these.",
    )


def refuse_columns(columns: TableColumns, source: object) -> None:
    """Refuses options of a table where there is none, instead of ignoring them."""
    if columns.option_names:
        name = source if isinstance(source, str | Path) else f"A {type(source).__name__}"
        said = "The embedded data are" if source is None else f"`{name}` is"
        raise InvalidConfig(
            f"{said} no table, but {', '.join(columns.option_names)} was given.",
            why=f"columns are named for a DataFrame or a file that ends in {', '.join(TABLES)}.",
            fix="leave these options out, or give a table.",
        )
