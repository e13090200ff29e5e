"""A person's own model of a table's own columns: audited as it is, or trained again without each
site.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from unseen.engine.batches import Columns, whole
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.models.estimator import (
    Estimator,
    EstimatorLike,
    Inputs,
    TargetValues,
    class_positions,
    clone_of,
    is_numbered,
)
from unseen.subjects.estimators import calibrated_sentence
from unseen.subjects.in_sample import without_fitted_sites
from unseen.subjects.networks import NETWORK
from unseen.subjects.subject import Subject
from unseen.subjects.tables import (
    MOSTLY_EVALUATED,
    RIVALS,
    TableColumns,
    TableData,
    is_text,
    largest_sites,
    subject_of,
    table_name,
)
from unseen.task import Task
from unseen.tasks.table import ParsedTable, Tabular, parse_table, split_table
from unseen.tasks.table import target as targets
from unseen.tasks.table.raw_columns import RawArray, RawColumns, as_pandas_reads, encode_columns
from unseen.tasks.table.target import Predicts
from unseen.text import join_words


class Mode(StrEnum):
    """What is evaluated of a model that was fitted before."""

    AS_IT_IS = "as-it-is"
    """The fitted model, at every site."""
    TRAINED_AGAIN = "trained-again"
    """Copies with its settings, each trained without the site that it is evaluated at."""


def is_estimator(found: object) -> bool:
    """Whether it is fitted as scikit-learn's estimators are."""
    return (
        isinstance(found, EstimatorLike)
        and not isinstance(found, nn.Module | type)
        and (hasattr(found, "get_params") or hasattr(found, "predict_proba"))
    )


def is_fitted(model: Any) -> bool:
    """Whether the estimator has learned from data."""
    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    except (TypeError, AttributeError):  # not of scikit-learn: what it learned ends in _
        return any(name.endswith("_") and not name.startswith("_") for name in vars(model))
    return True


def predicts_class(model: Any) -> bool:
    """Whether the estimator is a classifier."""
    if hasattr(model, "predict_proba") or hasattr(model, "classes_"):
        return True
    return hasattr(model, "get_params") and bool(is_classifier(model))


@dataclass(frozen=True)
class TableModel:
    """A model of a table: what of the table it is given, and how it writes the target."""

    estimator: Any
    mode: Mode
    is_class: bool
    raw: RawColumns
    ranks: Tensor
    features: Sequence[str]
    """Those of its columns that are inputs, not the site or the time."""
    has_names: bool
    cells: Sequence[Any]
    decisions: Sequence[str]

    @property
    def name(self) -> str:
        steps = getattr(self.estimator, "steps", None)
        return type(steps[-1][1] if steps else self.estimator).__name__


def of_table_with_model(
    data: TableData,
    lab: Lab,
    columns: TableColumns,
    estimator: Any,
    mode: str | Mode | None = None,
) -> list[Subject]:
    """One subject per held-out site, with the model given the table's own columns by name."""
    chosen = _mode(estimator, mode)
    is_class = predicts_class(estimator)
    table = columns.table(data)
    table = replace(table, predicts=Predicts.CLASS if is_class else Predicts.NUMBER)
    if chosen is Mode.AS_IT_IS:
        table = replace(table, shares=MOSTLY_EVALUATED)
    sheet = parse_table(table)
    model, sheet = _fit_to_table(estimator, chosen, is_class, sheet, data)
    sites, notes = largest_sites(sheet)
    name = table_name(data)
    subjects = []
    for site in sites:
        tab = split_table(sheet, site, lab)
        subjects.append(_with_model(subject_of(tab, name, notes), tab, model))
    if chosen is Mode.TRAINED_AGAIN:
        return subjects
    return without_fitted_sites(subjects, lab, is_named=mode is not None)


def _mode(estimator: Any, mode: str | Mode | None) -> Mode:
    try:
        named = None if mode is None else Mode(mode)
    except ValueError:
        raise UnknownName.near("mode", str(mode), [str(one) for one in Mode]) from None
    fitted = is_fitted(estimator)
    if named is Mode.AS_IT_IS and not fitted:
        raise InvalidConfig(
            f"{type(estimator).__name__} is not fitted.",
            why="there is nothing yet that could be audited as it is.",
            fix=f"fit it first, or use mode={Mode.TRAINED_AGAIN}: it is trained without each site.",
        )
    return named or (Mode.AS_IT_IS if fitted else Mode.TRAINED_AGAIN)


def _fit_to_table(
    estimator: Any, mode: Mode, is_class: bool, sheet: ParsedTable, data: object
) -> tuple[TableModel, ParsedTable]:
    """The model with the columns that it reads, and the table without the others."""
    decisions = [_about_mode(estimator, mode)]
    if is_class and not hasattr(estimator, "predict_proba"):
        estimator = _with_probabilities(estimator, mode)
        decisions.append(calibrated_sentence(type(estimator.estimator).__name__))
    features = list(sheet.formats)
    read = _names_read(estimator)
    names = features if read is None else read
    _refuse_columns(names, sheet, estimator)
    unread = [name for name in features if name not in names]
    if unread:
        decisions.append(f"The model does not read {join_words([f'`{u}`' for u in unread])}.")
        formats = {name: form for name, form in sheet.formats.items() if name in names}
        sheet = replace(sheet, formats=formats)
    frame = sheet.frame[[*names, sheet.target.name]].reset_index(drop=True)
    if is_text(data):
        frame = as_pandas_reads(frame)
        decisions.append("The model is given the columns as pandas.read_csv reads them.")
    raw, ranks = encode_columns(frame[names])
    cells = _class_cells(frame[sheet.target.name], sheet)
    if mode is Mode.AS_IT_IS and is_class:
        decisions += _about_classes(estimator, cells)
    # fitted on an array, an estimator of scikit-learn knows how many columns, but no names
    was_array = read is None and mode is Mode.AS_IT_IS and hasattr(estimator, "n_features_in_")
    has_names = not was_array
    if not has_names:
        _refuse_other_count(estimator, names)
    return TableModel(
        estimator=estimator,
        mode=mode,
        is_class=is_class,
        raw=raw,
        ranks=ranks,
        features=list(sheet.formats),
        has_names=has_names,
        cells=cells,
        decisions=decisions,
    ), sheet


def _about_mode(estimator: Any, mode: Mode) -> str:
    if mode is Mode.TRAINED_AGAIN:
        return (
            f"Trained again without the site: copies of the {type(estimator).__name__} with its "
            "settings are trained on the other sites, on the table's own columns."
        )
    return (
        f"Audited as it is: the {type(estimator).__name__} was fitted before. If it was fitted on "
        "rows of the sites evaluated here, the numbers are in-sample."
    )


def _with_probabilities(estimator: Any, mode: Mode) -> Any:
    if mode is Mode.TRAINED_AGAIN:
        return CalibratedClassifierCV(clone_of(estimator))
    raise InvalidData(
        f"{type(estimator).__name__} gives no probabilities.",
        why="loss and calibration need the probability of each class.",
        fix="fit CalibratedClassifierCV(model) instead, or use "
        f"mode={Mode.TRAINED_AGAIN}, which adds them.",
    )


def _names_read(estimator: Any) -> list[str] | None:
    """The columns that the estimator was fitted on; None where it does not say."""
    for attribute in ("feature_names_in_", "feature_name_"):
        found = getattr(estimator, attribute, None)
        if found is not None and len(found):
            return [str(name) for name in found]
    return None


def _refuse_columns(names: Sequence[str], sheet: ParsedTable, estimator: Any) -> None:
    missing = [name for name in names if name not in sheet.frame]
    if missing:
        raise UnknownName.near("column", missing[0], sheet.frame.columns)
    if sheet.target.name in names:
        raise InvalidData(
            f"{type(estimator).__name__} was fitted on the target `{sheet.target.name}` itself.",
            why="a model that reads the answer is right everywhere.",
            fix=f"fit it again without the column: frame.drop(columns={sheet.target.name!r}).",
        )


def _refuse_other_count(estimator: Any, names: Sequence[str]) -> None:
    """A model that was fitted on an array must have been given as many columns."""
    expected = getattr(estimator, "n_features_in_", len(names))
    if expected != len(names):
        raise InvalidData(
            f"{type(estimator).__name__} was fitted on {expected} columns without names, and the "
            f"table has {len(names)}.",
            why="which of them it was given cannot be known.",
            fix="fit it on a DataFrame, or leave the other columns out with --drop.",
        )


def _class_cells(column: pd.Series, sheet: ParsedTable) -> list[Any]:
    """One cell of each class, as it is written in the table."""
    if not sheet.target.classes:
        return []
    codes = targets.values(sheet.target, sheet.tidied[sheet.target.name])
    rows = sheet.rows
    return [
        column.iloc[int(rows[np.flatnonzero(codes[rows] == k)[0]])]
        for k in range(len(sheet.target.classes))
    ]


def _about_classes(estimator: Any, cells: Sequence[Any]) -> list[str]:
    found = estimator.classes_
    positions = class_positions(found, cells, len(cells))
    if not is_numbered(found, cells):
        return []
    pairs = [f"{one} for `{cells[k]}`" for one, k in zip(found, positions, strict=True)]
    return [
        f"The model numbers its classes; they are read in the order of the words, as LabelEncoder "
        f"numbers them: {join_words(pairs)}."
    ]


def _with_model(subject: Subject, tab: Tabular, model: TableModel) -> Subject:
    """The subject with the model's columns behind the encoded ones."""
    start = len(tab.encoder.names)
    raw = replace(model.raw, start=start)
    inputs: Inputs = raw if model.has_names else RawArray(raw)
    classes = len(tab.target.classes) or None
    target = (
        TargetValues(tuple(model.cells))
        if classes
        else TargetValues((), tab.target.centre, tab.target.scale)
    )
    places = {name: start + k for k, name in enumerate(raw.names)}
    features = {name: [*subject.features.get(name, ()), places[name]] for name in model.features}
    estimator, settings = model.estimator, clone_of(model.estimator)
    given = Estimator(estimator, classes, inputs, target)
    return replace(
        subject,
        name=model.name,
        task=with_inputs(subject.task, model.ranks),
        model=lambda: Estimator(clone_of(settings), classes, inputs, target),
        trained=given if model.mode is Mode.AS_IT_IS else None,
        features=features,
        mode=str(model.mode),
        decisions=[
            *model.decisions,
            *(text for text in subject.decisions if not text.startswith((NETWORK, RIVALS))),
            "The model reads the table's own columns; the comparison models (scikit-learn's, with "
            "default settings) and the checks of the data read them encoded as said here.",
        ],
    )


def with_inputs(task: Task, more: Tensor) -> Task:
    """The task with more inputs behind those of each example, looked up by its row."""
    splits = {}
    for name, split in task.splits.items():
        batch = whole(split.data, Lab())
        x = torch.cat([batch["x"], more[batch["index"]]], 1)
        splits[name] = replace(split, data=Columns(**{**batch, "x": x}))
    return replace(task, splits=splits)
