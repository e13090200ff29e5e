"""Subjects made from what people have: a table, the embedded hospitals, a scikit-learn estimator."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from torch import nn

from unseen.engine.loop import Budget
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.models.estimator import Estimator
from unseen.models.mlp import mlp
from unseen.subjects.subject import Subject
from unseen.task import Batch
from unseen.tasks.hospitals import HeartDisease
from unseen.tasks.table import Table, Tabular, opened, prepared, read

PLACES = 12
"""At most so many sites are held out in turn: the largest."""


def of_hospitals(lab: Lab) -> list[Subject]:
    """The embedded UCI heart-disease data: each of the four hospitals held out in turn."""
    return _of(replace(HeartDisease().table(), groups=("sex", "age:decade")), lab, "heart disease")


def of_table(
    path: str | Path | pd.DataFrame,
    lab: Lab,
    *,
    target: str | None = None,
    site: str | None = None,
    time: str | None = None,
    entity: str | None = None,
    groups: Sequence[str] = (),
    drop: Sequence[str] = (),
) -> list[Subject]:
    """One subject per held-out site (without `site`: one subject)."""
    if target is None:
        columns = [] if isinstance(path, pd.DataFrame) else list(read(path).columns)
        raise InvalidConfig(
            "No target column was named.",
            why="the audit must know what is predicted.",
            fix="add --target COLUMN" + (f"; the columns are {', '.join(map(str, columns[:30]))}." if columns else "."),
        )
    table = Table(path, target, site, time, entity, tuple(groups), tuple(drop))
    return _of(table, lab, "table" if isinstance(path, pd.DataFrame) else Path(path).stem)


def _of(table: Table, lab: Lab, name: str) -> list[Subject]:
    sheet, said = opened(table), []
    places: list[str | None] = [*sheet.sites] or [None]
    if len(places) > PLACES:
        counts = np.bincount(sheet.site[sheet.rows], minlength=len(places))
        places = [sheet.sites[k] for k in sorted(np.argsort(-counts, kind="stable")[:PLACES])]
        said = [f"Of {len(sheet.sites)} sites the {PLACES} largest were held out in turn."]
    return [_subject(prepared(sheet, place, lab), name, said) for place in places]


def _subject(tab: Tabular, name: str, said: Sequence[str]) -> Subject:
    width, outputs = len(tab.encoder.names), tab.target.outputs
    n = len(tab.rows["train"])
    batch_size = 64 if n < 5_000 else 256
    steps = int(np.clip(15 * n / batch_size, 60, 3_000))

    def group(spec: str) -> Callable[[Batch], Any]:
        return lambda batch: batch[f"group:{spec}"]

    return Subject(
        task=replace(tab.task, name=f"{name}: {tab.held_out or 'random rows'}" if tab.sites else name),
        model=lambda: mlp([width, 64, 32, outputs]),
        budget=Budget(steps=steps, batch_size=batch_size, lr=2e-3, weight_decay=1e-2),
        groups={spec: group(spec) for spec in tab.groups},
        levels=dict(tab.groups),
        classes=tab.target.classes,
        features={column: list(range(block.start, block.stop)) for column, block in tab.encoder.blocks.items()},
        show=lambda split, index: _line(tab, split, index),
        unit=1.0 if tab.target.classes else tab.target.scale,
        centre=0.0 if tab.target.classes else tab.target.centre,
        references=_references(tab.target.classes),
        decisions=[*said, *tab.decisions, _about_network(width, outputs, steps, batch_size)],
        warnings=tab.warnings,
    )


def _line(tab: Tabular, split: str, index: int) -> str:
    row = tab.frame.iloc[int(tab.rows[split][index])]
    cells = [(column, row[column]) for column in tab.encoder.blocks]
    return " · ".join(f"{column} {'–' if pd.isna(value) else value}" for column, value in cells[:14])


def _about_network(width: int, outputs: int, steps: int, batch_size: int) -> str:
    return (
        f"The network is a multilayer perceptron {width}-64-32-{outputs} trained with AdamW for {steps} steps of "
        f"{batch_size} rows; the comparison models are scikit-learn's with default settings on the same inputs."
    )


def _references(classes: Sequence[str]) -> dict[str, Callable[[], nn.Module]]:
    if not classes:
        return {
            "ridge regression": lambda: Estimator(RidgeCV(np.logspace(-3, 3, 13))),
            "gradient boosting": lambda: Estimator(HistGradientBoostingRegressor(random_state=0)),
        }
    return {
        "logistic regression": lambda: Estimator(LogisticRegression(max_iter=2_000), len(classes)),
        "gradient boosting": lambda: Estimator(HistGradientBoostingClassifier(random_state=0), len(classes)),
    }


def of_estimator(subject: Subject, name: str) -> Subject:
    """The same subject with a scikit-learn estimator, named `package.module:Class`, as the audited model."""
    place, _, kind = name.rpartition(":")
    try:
        estimator = getattr(importlib.import_module(place), kind)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InvalidConfig(
            f"`{name}` cannot be made: {error}.",
            why="an estimator is named package.module:Class and made without arguments.",
            fix="for example --estimator sklearn.ensemble:RandomForestClassifier; others through a Python subject.",
        ) from error
    return replace(subject, name=kind, model=estimator, trained=None)
