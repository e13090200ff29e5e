"""Coded fields of real hospitals (NEISS, injuries of infants): their size, and the years."""

from collections.abc import Iterator, Sequence
from math import log10

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from unseen import stats
from unseen.figure import Points
from unseen.reading import Reading
from unseen.study import Row, Rows, column


def infants(frame: pd.DataFrame, years: int, least: int) -> Iterator[Row]:
    """Coded fields of real hospitals: AUC at a hospital left out beside its size, and AUC in the
    years after training.
    """
    y, hospital = (frame["stays"] == "yes").to_numpy(), frame["hospital"].to_numpy()
    x = frame[["age", "sex", "race", "location", "fire", "stratum"]].astype(str)
    unseen = cross_val_predict(
        fields_model(), x, y, groups=hospital, cv=GroupKFold(7), method="decision_function"
    )
    for name in np.unique(hospital):
        here = hospital == name
        rarer = min(int(y[here].sum()), int((~y[here]).sum()))
        if rarer >= least:
            yield {
                "hospital": name,
                "n": int(here.sum()),
                "auc": stats.auc(unseen[here], y[here]).value,
            }
    year = frame["date"].str[:4].astype(int).to_numpy()
    first = np.unique(year)[:years]
    model = fields_model().fit(x[np.isin(year, first)], y[np.isin(year, first)])
    scores = model.decision_function(x)
    for later in np.unique(year)[years:]:
        here = year == later
        found = stats.auc(scores[here], y[here])
        yield {
            "year": int(later),
            "auc": found.value,
            "low": found.low,
            "high": found.high,
            "n": int(here.sum()),
            "rate": float(y[here].mean()),
            "predicted": float((1 / (1 + np.exp(-scores[here]))).mean()),
        }


def fields_model() -> Pipeline:
    return make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression(max_iter=500))


def hospital_slope(rows: Rows) -> Reading:
    found = [row for row in rows if "hospital" in row]
    size, auc = (np.array(column(found, name)) for name in ("n", "auc"))
    return stats.slope(np.log10(size), auc, unit="AUC per decade")


def yearly_slope(rows: Rows) -> Reading:
    found = [row for row in rows if "year" in row]
    return stats.slope(column(found, "year"), column(found, "auc"), unit="AUC per year")


def infants_table(rows: Rows) -> Sequence[Row]:
    """Every year after training; hospitals are drawn, and not named."""
    return [
        {
            "coded fields of infants, 98 hospitals": int(row["year"]),
            **{name: row[name] for name in ("auc", "low", "high", "n", "rate", "predicted")},
        }
        for row in rows
        if "year" in row
    ]


def hospitals_figure(rows: Rows) -> Points:
    found = [row for row in rows if "hospital" in row]
    pairs = [(log10(float(row["n"])), float(row["auc"])) for row in found]
    return Points(
        title="Infants' injuries (coded fields): AUC at hospitals left out",
        groups={"hospitals": pairs},
        x_label="log10 of the hospital's rows",
        y_label="AUC",
    )
