"""cleanlab's Datalab on a table: kinds of issues with at least one row, from the out-of-fold
probabilities of a logistic regression. Runs in an environment of its own:
`cleanlab_peer.py table.csv answer.json SITE`.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import cleanlab
import numpy as np
import pandas as pd
from cleanlab import Datalab
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def encode(frame: pd.DataFrame) -> np.ndarray:
    """Numbers as they are, dates as days, words as 0/1 columns, unknown numbers as the median."""
    inputs = frame.drop(columns=["ill", "site"], errors="ignore")
    if "admitted" in inputs:
        inputs["admitted"] = (pd.to_datetime(inputs["admitted"]) - pd.Timestamp(2020, 1, 1)).dt.days
    wide = pd.get_dummies(inputs, dtype=float)
    return StandardScaler().fit_transform(wide.fillna(wide.median()))


def main(data: str, answer: str) -> None:
    warnings.simplefilter("ignore")
    began = time.process_time()
    frame = pd.read_csv(data)
    x, y = encode(frame), frame["ill"].to_numpy()
    model = make_pipeline(LogisticRegression(max_iter=1_000))
    p = cross_val_predict(model, x, y, cv=5, method="predict_proba")
    lab = Datalab(data={"x": x, "y": y}, label_name="y", task="classification", verbosity=0)
    lab.find_issues(pred_probs=p, features=x)
    summary = lab.get_issue_summary()
    alarms = [
        {
            "check": row["issue_type"],
            "text": f"{row['issue_type']}: {row['num_issues']} rows",
            "advice": "",
            "is_warning": True,
        }
        for row in summary.to_dict("records")
        if row["num_issues"]
    ]
    issues = lab.get_issues("label") if "label" in set(summary["issue_type"]) else None
    suspects = [] if issues is None else np.flatnonzero(issues["is_label_issue"]).tolist()
    said = {
        "version": cleanlab.__version__,
        "alarms": alarms,
        "suspects": suspects,
        "seconds": time.process_time() - began,
    }
    Path(answer).write_text(json.dumps(said, indent=1))


if __name__ == "__main__" and "--import" not in sys.argv:
    main(sys.argv[1], sys.argv[2])
