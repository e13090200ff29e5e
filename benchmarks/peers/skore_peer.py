"""skore (Probabl) on a table: the issues and tips of its checks for a logistic regression, with
every site held out in turn. Runs in an environment of its own:
`skore_peer.py table.csv answer.json SITE`.
"""

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import skore
from sklearn.linear_model import LogisticRegression
from skrub import tabular_pipeline


def splits(frame: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each site apart, or the last quarter of rows that are in the order of time."""
    rows = np.arange(len(frame))
    if "site" not in frame:
        later = rows >= 0.75 * len(frame)
        return [(rows[~later], rows[later])]
    inside = [np.asarray(frame["site"] == site) for site in sorted(frame["site"].unique())]
    return [(rows[~here], rows[here]) for here in inside]


def main(data: str, answer: str) -> None:
    warnings.simplefilter("ignore")
    began = time.process_time()
    frame = pd.read_csv(data)
    if "admitted" in frame:
        frame["admitted"] = pd.to_datetime(frame["admitted"])
    inputs = frame.drop(columns=["ill", "site"], errors="ignore")
    model = tabular_pipeline(LogisticRegression(max_iter=1_000))
    report = skore.evaluate(model, inputs, frame["ill"], splitter=iter(splits(frame)), pos_label=1)
    found = report.checks.summarize().frame()
    alarms = [
        {
            "check": row["code"],
            "text": f"{row['title']}: {row['explanation']}",
            "advice": row["documentation_url"] or "",
            "is_warning": row["section"] == "issue",
        }
        for row in found[found["section"].isin(["issue", "tip"])].to_dict("records")
    ]
    said = {
        "version": version("skore"),
        "alarms": alarms,
        "suspects": [],
        "seconds": time.process_time() - began,
    }
    Path(answer).write_text(json.dumps(said, indent=1))


if __name__ == "__main__" and "--import" not in sys.argv:
    main(sys.argv[1], sys.argv[2])
