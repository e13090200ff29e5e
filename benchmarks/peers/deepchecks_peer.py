"""deepchecks' full suite on a table: the checks that do not pass for a logistic regression trained
at the other sites and tested at SITE (without sites: trained on the first three quarters). Runs in
an environment of its own: `deepchecks_peer.py table.csv answer.json SITE`.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import deepchecks
import pandas as pd
from deepchecks.tabular import Dataset
from deepchecks.tabular.suites import full_suite
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def main(data: str, answer: str, site: str) -> None:
    warnings.simplefilter("ignore")
    began = time.process_time()
    frame = pd.read_csv(data)
    if "admitted" in frame:
        days = pd.to_datetime(frame["admitted"]) - pd.Timestamp(2020, 1, 1)
        frame["admitted"] = days.dt.days
    if "site" in frame:
        names = sorted(frame["site"].unique())
        there = frame["site"] == (site if site in names else names[0])
    else:
        there = pd.Series(range(len(frame))) >= 0.75 * len(frame)
    inputs = frame.drop(columns="site", errors="ignore")
    words = [name for name in inputs.columns if inputs[name].dtype == object]
    train, test = (
        Dataset(part.reset_index(drop=True), label="ill", cat_features=words)
        for part in (inputs[~there], inputs[there])
    )
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), words),
        (numbers, make_column_selector(dtype_include="number")),
    )
    model = make_pipeline(encoder, LogisticRegression(max_iter=1_000))
    model.fit(train.features_columns, train.label_col)
    found = full_suite().run(train, test, model).get_not_passed_checks()
    alarms = [
        {
            "check": check.get_header(),
            "text": " ".join(
                f"{one.name}: {one.details}"
                for one in check.conditions_results
                if not one.is_pass()
            ),
            "advice": "",
            "is_warning": True,
        }
        for check in found
    ]
    said = {
        "version": deepchecks.__version__,
        "alarms": alarms,
        "suspects": [],
        "seconds": time.process_time() - began,
    }
    Path(answer).write_text(json.dumps(said, indent=1))


if __name__ == "__main__" and "--import" not in sys.argv:
    main(*sys.argv[1:4])
