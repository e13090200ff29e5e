"""scikit-learn estimators as models, so that they are evaluated like any network."""

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.errors import InvalidData, UnsupportedLayer


class Estimator(nn.Module):
    """A classifier's log-probabilities, or a regressor's predictions, of flattened inputs. It has
    no gradients.

    Columns follow the class indices 0 … `classes` − 1; a class that the estimator never saw gets
    probability 1e-7.
    """

    def __init__(self, estimator: Any, classes: int | None = None) -> None:
        super().__init__()
        self.estimator, self.classes = copy.deepcopy(estimator), classes

    def learn(self, x: Tensor, y: Tensor) -> None:
        """Fits the estimator on the examples."""
        try:
            self.estimator.fit(self._rows(x), y.detach().cpu().numpy())
        except (ValueError, TypeError) as error:
            raise InvalidData(
                f"{type(self.estimator).__name__} cannot be fitted: {_first_line(error)}",
                why="an estimator is given the inputs as numbers [example, feature], without "
                "names; those of a table are imputed, scaled and one-hot encoded.",
                fix="leave out what reads columns by name or fills gaps, for example --estimator "
                "sklearn.linear_model:LogisticRegression.",
            ) from error

    def forward(self, x: Tensor) -> Float[Tensor, "batch output"]:
        if torch.is_grad_enabled() and x.requires_grad:
            raise UnsupportedLayer(
                f"{type(self.estimator).__name__} has no gradients.",
                why="it is not a differentiable model.",
                fix="leave out the parts that need gradients, or audit a network.",
            )
        rows = self._rows(x)
        if self.classes is None:
            return x.new_tensor(np.asarray(self.estimator.predict(rows))).reshape(len(x), -1)
        p = np.full((len(rows), self.classes), 1e-7)
        p[:, np.asarray(self.estimator.classes_, dtype=int)] = self.estimator.predict_proba(rows)
        p = p.clip(1e-7, 1.0)
        return x.new_tensor(np.log(p / p.sum(1, keepdims=True)))

    @staticmethod
    def _rows(x: Tensor) -> np.ndarray:
        x = x.detach().flatten(1).cpu()
        return (x.float() if x.dtype is torch.bfloat16 else x).numpy()  # numpy has no bfloat16


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
