"""Predictions that stand in a table, without their model: evaluated as they were given."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.models.estimator import LEAST
from unseen.models.recorded import RecordedModel
from unseen.subjects.networks import NETWORK
from unseen.subjects.subject import Subject
from unseen.subjects.table_models import with_inputs
from unseen.subjects.tables import (
    MOSTLY_EVALUATED,
    RIVALS,
    TableColumns,
    TableData,
    largest_sites,
    subject_of,
    table_name,
)
from unseen.tasks.table import ParsedTable, Tabular, parse_table, split_table
from unseen.tasks.table.cells import format_of, numbers, words_of
from unseen.tasks.table.encoding import as_words
from unseen.tasks.table.target import Target
from unseen.text import count_noun, join_words

MODE = "predictions as given"
SUM_TOLERANCE = 0.01
"""Probabilities are often written with two digits."""


@dataclass(frozen=True)
class Predictions:
    """What was predicted for each row of a table."""

    values: NDArray[np.float64]
    """[row, class] probabilities, or [row, 1] numbers in the target's unit; NaN: none."""
    is_probability: bool
    says: str


def of_table_with_predictions(
    data: TableData,
    lab: Lab,
    columns: TableColumns,
    predictions: Sequence[str],
) -> list[Subject]:
    """One subject per site, evaluated by the predictions that the named columns hold."""
    columns = replace(columns, drop=(*columns.drop, *predictions))
    sheet = parse_table(replace(columns.table(data), shares=MOSTLY_EVALUATED))
    _refuse_roles(predictions, columns)
    found = read_predictions(sheet, predictions)
    _refuse_gaps(found, sheet, predictions)
    has_all = ~np.isnan(found.values[sheet.rows]).any(1)
    said = [found.says]
    if not has_all.all():
        missing = int((~has_all).sum())
        said.append(f"{count_noun(missing, 'row')} without a prediction: left out.")
        if has_all.sum() < 2:
            raise InvalidData(
                f"{join_words([f'`{name}`' for name in predictions])} "
                f"hold{'s' * (len(predictions) == 1)} a prediction in {int(has_all.sum())} rows.",
                why="nothing can be evaluated.",
                fix="name the column of the predictions.",
            )
        sheet = replace(sheet, rows=sheet.rows[has_all])
    sites, notes = largest_sites(sheet)
    name = table_name(data)
    tabs = [split_table(sheet, site, lab) for site in sites]
    return [_with_predictions(subject_of(tab, name, [*said, *notes]), tab, found) for tab in tabs]


def _refuse_gaps(found: Predictions, sheet: ParsedTable, names: Sequence[str]) -> None:
    """A new site is judged by what was predicted there; a gap is no prediction."""
    gaps = sheet.new_rows[np.isnan(found.values[sheet.new_rows]).any(1)]
    if gaps.size:
        raise InvalidData(
            f"{join_words([f'`{name}`' for name in names])} lacks a prediction in "
            f"{count_noun(gaps.size, 'row')} of the new site.",
            why="what to expect there follows from the predictions of all its rows.",
            fix="fill them in, or leave these rows out of the file.",
        )


def _refuse_roles(predictions: Sequence[str], columns: TableColumns) -> None:
    if columns.target in predictions:
        raise InvalidData(
            f"`{columns.target}` is both the target and the predictions.",
            why="an answer compared with itself is always right.",
            fix="name the column that holds what the model said.",
        )


def read_predictions(sheet: ParsedTable, names: Sequence[str]) -> Predictions:
    """Classes, probabilities or numbers, by the target and by what the columns hold."""
    for name in names:
        if name not in sheet.tidied:
            raise UnknownName.near("column", name, sheet.tidied.columns)
    if not sheet.target.classes:
        return _of_number(sheet, names)
    if len(names) == 1:
        return _of_one_column(sheet, names[0])
    return _of_class_columns(sheet, names)


def _of_number(sheet: ParsedTable, names: Sequence[str]) -> Predictions:
    if len(names) > 1:
        raise InvalidData(
            f"{len(names)} columns of predictions were named for a target that is a number.",
            why="one number is predicted for each row.",
            fix="name one of them.",
        )
    (name,) = names
    says = f"Predictions of `{sheet.target.name}` stand in `{name}`; their model was not given."
    return Predictions(_numbers(sheet, name)[:, None], True, says)


def _of_one_column(sheet: ParsedTable, name: str) -> Predictions:
    """The predicted class, or of two classes the probability of the second."""
    target, column = sheet.target, sheet.tidied[name]
    words = as_words(column)
    known = words_of(words)
    if set(known) <= set(target.classes):
        return _of_classes(words, target, name)
    p = _numbers(sheet, name)
    if len(target.classes) != 2:
        unknown = next(word for word in known if word not in target.classes)
        raise InvalidData(
            f"`{name}` holds “{unknown}”, which is no class of `{target.name}`.",
            why=f"of {len(target.classes)} classes one column holds the predicted class: "
            f"{', '.join(target.classes[:6])}.",
            fix="name that column, or one column of probabilities per class.",
        )
    _refuse_no_probability(p[:, None], [name], sheet)
    second = target.classes[1]
    if np.isin(p[~np.isnan(p)], (0, 1)).all():
        says = (
            f"`{name}` holds 0 and 1 only: read as the predicted class, 1 for `{second}`, without "
            "a probability: AUC, loss and calibration do not exist. Its model was not given."
        )
        return Predictions(np.stack([1 - p, p], 1), False, says)
    says = (
        f"`{name}` is read as the probability of `{second}`, the second class; its model was not "
        "given."
    )
    return Predictions(np.stack([1 - p, p], 1), True, says)


def _of_classes(words: pd.Series, target: Target, name: str) -> Predictions:
    place = {one: k for k, one in enumerate(target.classes)}
    codes = np.array([place.get(str(word), -1) for word in words.astype(object)])
    values = np.where(codes[:, None] == np.arange(len(target.classes)), 1.0, 0.0)
    values[codes < 0] = np.nan
    says = (
        f"`{name}` holds the predicted class, without a probability: AUC, loss and calibration do "
        "not exist. Its model was not given."
    )
    return Predictions(values, False, says)


def _of_class_columns(sheet: ParsedTable, names: Sequence[str]) -> Predictions:
    """One column per class, matched by the class in its name, else in the order of the classes."""
    classes = sheet.target.classes
    if len(names) != len(classes):
        raise InvalidData(
            f"{len(names)} columns of predictions were named for {len(classes)} classes.",
            why=f"each class of `{sheet.target.name}` needs one: {', '.join(classes[:8])}.",
            fix="name a column per class, or the one that holds the predicted class.",
        )
    by_class = match_classes(names, classes)
    p = np.stack([_numbers(sheet, name) for name in by_class], 1)
    _refuse_no_probability(p, by_class, sheet)
    sums = p[sheet.rows].sum(1)
    off = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if off.size:
        raise InvalidData(
            f"The predictions of row {sheet.rows[off[0]]} sum to {sums[off[0]]:.3g} "
            f"({count_noun(off.size, 'such row')}).",
            why="the probabilities of all classes sum to 1.",
            fix="name the columns of probabilities, after the softmax.",
        )
    pairs = [f"`{name}` for `{one}`" for name, one in zip(by_class, classes, strict=True)]
    says = f"Probabilities stand in {join_words(pairs)}; their model was not given."
    return Predictions(p / p.sum(1, keepdims=True), True, says)


def match_classes(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The columns in the order of the classes: by the longest class that each name ends with, or as
    they were named if none ends with one.
    """
    ends = [max((c for c in classes if name.endswith(c)), key=len, default="") for name in names]
    if not any(ends):
        return list(names)
    if set(ends) == set(classes):
        return [names[ends.index(one)] for one in classes]
    raise InvalidData(
        f"Which of {join_words([f'`{name}`' for name in names])} is of which class cannot be told.",
        why=f"the classes are {join_words(list(classes))}, and each name must end with one.",
        fix="rename the columns, for example "
        f"{', '.join(f'p_{one}' for one in list(classes)[:3])}.",
    )


def _numbers(sheet: ParsedTable, name: str) -> NDArray[np.float64]:
    column = sheet.tidied[name]
    form = format_of(column)
    if not form.is_numeric:
        raise InvalidData(
            f"`{name}` holds {', '.join(map(str, column.dropna().unique()[:3]))}.",
            why="predictions are numbers"
            + (f", or classes of `{sheet.target.name}`." if sheet.target.classes else "."),
            fix="name the column of the predictions.",
        )
    return numbers(column, form)


def _refuse_no_probability(
    p: NDArray[np.float64], names: Sequence[str], sheet: ParsedTable
) -> None:
    outside = (p < 0) | (p > 1)
    counted = np.concatenate([sheet.rows, sheet.new_rows])
    outside[np.setdiff1d(np.arange(len(p)), counted)] = False
    if not outside.any():
        return
    row, k = (int(places[0]) for places in np.nonzero(outside))
    raise InvalidData(
        f"`{names[k]}` holds {p[row, k]:g} in row {row} "
        f"({count_noun(int(outside.sum()), 'such cell')}).",
        why="it is neither a class of the target nor a probability between 0 and 1.",
        fix="give probabilities: of log odds 1/(1 + exp(−x)), of percents x/100; or the predicted "
        "class.",
    )


def _with_predictions(subject: Subject, tab: Tabular, found: Predictions) -> Subject:
    """The subject with the predictions behind its encoded columns, and nothing to train."""
    start = len(tab.encoder.names)
    if tab.target.classes:
        p = np.nan_to_num(found.values, nan=1.0).clip(LEAST, 1.0)
        outputs = np.log(p / p.sum(1, keepdims=True))
    else:
        outputs = (np.nan_to_num(found.values) - tab.target.centre) / tab.target.scale
    model = RecordedModel(start, found.is_probability)
    return replace(
        subject,
        name="recorded model",
        task=with_inputs(subject.task, torch.from_numpy(outputs.astype(np.float32))),
        model=lambda: RecordedModel(start, found.is_probability),
        trained=model,
        mode=MODE,
        decisions=[
            *(text for text in subject.decisions if not text.startswith((NETWORK, RIVALS))),
            "The predictions are evaluated as they were given: if their model was fitted on these "
            "rows, the numbers are in-sample. The comparison models (scikit-learn's, with default "
            "settings) are trained without the site, on the table's columns.",
        ],
    )
