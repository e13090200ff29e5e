"""Small tables that ship with scikit-learn, scaled to [0, 1]: where explanations are compared.

Diabetes (Efron et al., 2004): disease progression from 10 measurements, 442 patients. Breast cancer
(Wolberg & Street, 1995): malignant or benign from 30 features of cell nuclei, 569 patients. Six
waves: a made-up smooth function of six features.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import binary, regress
from unseen.task import Axis, Split, Task, Use


class SklearnDataset(StrEnum):
    """Which table."""

    DIABETES = "diabetes"
    """Regression, 10 features."""
    CANCER = "breast cancer"
    """Two classes, 30 features."""
    WAVES = "six waves"
    """Regression, 6 features, made up."""

    @property
    def classifies(self) -> bool:
        return self is SklearnDataset.CANCER


@dataclass(frozen=True)
class SklearnTable:
    """80 % of the rows to fit, a fifth of them to stop early; 20 % to evaluate. `x` in [0, 1] by
    the training rows' range.

    Numbers as targets are standardised by the training rows.
    """

    table: SklearnDataset = SklearnDataset.DIABETES
    evaluated: float = 0.2
    rows: int = 400
    """Of the made-up table."""

    def __post_init__(self) -> None:
        if not 0 < self.evaluated < 1 or self.rows < 20:
            raise InvalidConfig(
                f"Tabular got evaluated={self.evaluated}, rows={self.rows}.",
                why="both fitted and evaluation rows are needed.",
                fix="use 0 < evaluated < 1 and at least 20 rows.",
            )

    def build(self, lab: Lab) -> Task:
        x, y = _load(self.table, self.rows, lab)
        order = lab.child("rows").numpy().permutation(len(x))
        n_judged = round(self.evaluated * len(x))
        judge, known = order[:n_judged], order[n_judged:]
        select, fit = known[: len(known) // 5], known[len(known) // 5 :]
        low, high = x[known].min(0), x[known].max(0)
        x = (x - low) / np.where(high > low, high - low, 1)
        if not self.table.classifies:
            y = (y - y[fit].mean()) / y[fit].std()

        def split(rows: NDArray[np.int64], use: Use) -> Split:
            target = torch.tensor(
                y[rows], dtype=torch.int64 if self.table.classifies else torch.float32
            )
            return Split(
                Columns(x=torch.tensor(x[rows], dtype=torch.float32), y=target), use, at="table"
            )

        splits = {
            "train": split(fit, Use.TRAIN),
            "select": split(select, Use.SELECT),
            "test": split(judge, Use.EVALUATE),
        }
        objective = binary if self.table.classifies else regress
        return Task(name=str(self.table), axis=Axis.IID, splits=splits, objective=objective)


def _load(
    table: SklearnDataset, rows: int, lab: Lab
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if table is SklearnDataset.WAVES:
        x = lab.child("waves").numpy().uniform(size=(rows, 6))
        return x, np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] - np.cos(2 * x[:, 3]) * x[:, 4] + 0.5 * x[
            :, 5
        ]
    data = load_breast_cancer() if table is SklearnDataset.CANCER else load_diabetes()
    return np.asarray(data.data, dtype=np.float64), np.asarray(data.target, dtype=np.float64)


def example() -> SklearnTable:
    return SklearnTable(SklearnDataset.WAVES, rows=120)
