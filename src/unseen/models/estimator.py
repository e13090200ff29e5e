"""Estimators with scikit-learn's `fit` and `predict` as models, so that they are evaluated like any
network.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import clone
from torch import Tensor, nn

from unseen.errors import InvalidData, UnsupportedLayer

LEAST = 1e-7
"""The probability of a class that the estimator never saw."""


@runtime_checkable
class EstimatorLike(Protocol):
    """What is fitted as scikit-learn's estimators are: also those of xgboost and lightgbm."""

    def fit(self, X: Any, y: Any) -> Any: ...

    def predict(self, X: Any) -> Any: ...


Inputs: TypeAlias = Callable[[Tensor], Any]
"""The rows that an estimator is given for a batch of inputs."""


def flat_rows(x: Tensor) -> np.ndarray:
    """The inputs as numbers [example, feature]."""
    x = x.detach().flatten(1).cpu()
    return (x.float() if x.dtype is torch.bfloat16 else x).numpy()  # numpy has no bfloat16


@dataclass(frozen=True)
class FirstColumns:
    """The first `n` inputs as numbers: what follows them is not meant for this estimator."""

    n: int

    def __call__(self, x: Tensor) -> np.ndarray:
        return flat_rows(x)[:, : self.n]


@dataclass(frozen=True)
class TargetValues:
    """How an estimator's own target is written: class k as `cells[k]`, a number as centre + scale ·
    y.
    """

    cells: Sequence[Any] = ()
    """Empty: classes are their indices."""
    centre: float = 0.0
    scale: float = 1.0

    def encode(self, y: np.ndarray, is_class: bool) -> np.ndarray:
        """Targets as the estimator is fitted to them."""
        if not is_class:
            return self.centre + self.scale * y.astype(np.float64)
        return np.asarray(self.cells)[y] if len(self.cells) else y


class Estimator(nn.Module):
    """A classifier's log-probabilities, or a regressor's predictions. It has no gradients.

    Columns follow the class indices 0 … `classes` − 1; a class that the estimator never saw gets
    probability 1e-7.
    """

    def __init__(
        self,
        estimator: Any,
        classes: int | None = None,
        inputs: Inputs = flat_rows,
        target: TargetValues = TargetValues(),
    ) -> None:
        super().__init__()
        self.estimator, self.classes = copy.deepcopy(estimator), classes
        self.inputs, self.target = inputs, target

    def learn(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> None:
        """Fits the estimator on the examples, which may count differently."""
        options = {} if weight is None else weight_option(self.estimator, weight)
        try:
            self._fit(self.inputs(x), y.detach().cpu().numpy(), options)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidData(
                f"{type(self.estimator).__name__} cannot be fitted: {_first_line(error)}",
                why=self._why(),
                fix=self._fix(),
            ) from error

    def _fit(self, rows: Any, y: np.ndarray, options: dict[str, np.ndarray]) -> None:
        try:
            self.estimator.fit(rows, self.target.encode(y, self.classes is not None), **options)
        except (ValueError, TypeError) as error:
            if not len(self.target.cells):
                raise
            # xgboost takes no classes but the numbers from 0 on
            self.estimator = clone_of(self.estimator)
            try:
                self.estimator.fit(rows, y, **options)
            except (ValueError, TypeError):
                raise error from None
            self.target = replace(self.target, cells=())

    def forward(self, x: Tensor) -> Float[Tensor, "batch output"]:
        if torch.is_grad_enabled() and x.requires_grad:
            raise UnsupportedLayer(
                f"{type(self.estimator).__name__} has no gradients.",
                why="it is not a differentiable model.",
                fix="leave out the parts that need gradients, or audit a network.",
            )
        rows = self.inputs(x)
        if self.classes is None:
            predicted = np.asarray(self._ask("predict", rows), dtype=np.float64)
            scaled = (predicted - self.target.centre) / self.target.scale
            return x.new_tensor(scaled).reshape(len(x), -1)
        p = np.full((len(x), self.classes), LEAST)
        p[:, self._positions()] = self._ask("predict_proba", rows)
        p = p.clip(LEAST, 1.0)
        return x.new_tensor(np.log(p / p.sum(1, keepdims=True)))

    def _ask(self, method: str, rows: Any) -> Any:
        try:
            return getattr(self.estimator, method)(rows)
        except Exception as error:  # a person's own model may raise anything
            raise InvalidData(
                f"{type(self.estimator).__name__}.{method} failed: {_first_line(error)}",
                why="it is asked for the rows of every site, also of those it was not fitted on.",
                fix="let it accept unknown categories and gaps, for example "
                "OneHotEncoder(handle_unknown='ignore').",
            ) from error

    def _positions(self) -> np.ndarray:
        """The class index of each column of `predict_proba`."""
        assert self.classes is not None
        return class_positions(self.estimator.classes_, self.target.cells, self.classes)

    def _why(self) -> str:
        if self.inputs is flat_rows:
            return (
                "an estimator is given the inputs as numbers [example, feature], without names; "
                "those of a table are imputed, scaled and one-hot encoded."
            )
        return "it was given the columns of the table as they are, by name."

    def _fix(self) -> str:
        if self.inputs is flat_rows:
            return (
                "leave out what reads columns by name or fills gaps, for example --estimator "
                "sklearn.linear_model:LogisticRegression; a pipeline for a table's own columns "
                "is given with --model file.py:name, or unseen.audit(pipeline, frame, …)."
            )
        return (
            "put a ColumnTransformer before it that encodes words and fills gaps; or let Unseen "
            "encode the columns: unseen.audit(frame, estimator=…), --estimator."
        )


class TokenEstimator(Estimator):
    """The same where inputs may be token numbers: it answers in floating point."""

    def forward(self, x: Tensor) -> Float[Tensor, "batch output"]:
        return super().forward(x if x.is_floating_point() else x.float())


def class_positions(found: Iterable[Any], cells: Sequence[Any], classes: int) -> np.ndarray:
    """The class index of each of an estimator's own classes, written as in the table or numbered
    in the order of the words (as LabelEncoder does).
    """
    found = list(found)
    if not len(cells):
        return np.asarray(found, dtype=int)
    places = [
        next((k for k, cell in enumerate(cells) if names_same_class(one, cell)), -1)
        for one in found
    ]
    if -1 not in places:
        return np.array(places)
    if is_numbered(found, cells):
        return in_order(cells)[np.asarray(found, dtype=int)]
    unknown = [str(one) for one, place in zip(found, places, strict=True) if place < 0]
    raise InvalidData(
        f"The model knows the class {unknown[0]}, which the target column does not have.",
        why=f"its classes are {', '.join(map(str, found))}, those of the table "
        f"{', '.join(map(str, cells))}.",
        fix="write the target column as it was when the model was fitted.",
    )


def in_order(cells: Sequence[Any]) -> np.ndarray:
    """The places of the classes as LabelEncoder numbers them: numbers by size, words by letter."""
    try:
        return np.array(sorted(range(len(cells)), key=lambda k: cells[k]))
    except TypeError:  # numbers and words
        return np.argsort([str(cell) for cell in cells])


def is_numbered(found: Iterable[Any], cells: Sequence[Any]) -> bool:
    """Whether an estimator numbers classes from 0 (or says no and yes) that the table writes
    otherwise.
    """
    numbers = {str(k) for k in range(len(cells))}
    named = {str(int(one)) if isinstance(one, bool | np.bool_) else str(one) for one in found}
    return named <= numbers and not {str(cell) for cell in cells} & numbers


def names_same_class(one: Any, other: Any) -> bool:
    """Whether two cells name one class: 1, 1.0 and "1" do."""
    if str(one) == str(other):
        return True
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return False


def weight_option(estimator: Any, weight: Tensor) -> dict[str, np.ndarray]:
    """The weights of examples as an argument of `fit`: of a pipeline that of its last step."""
    values = weight.detach().cpu().double().numpy()
    steps = getattr(estimator, "steps", None)
    return {f"{steps[-1][0]}__sample_weight" if steps else "sample_weight": values}


def clone_of(estimator: Any) -> Any:
    """The estimator with its settings, and nothing of what it has learned."""
    return clone(estimator) if hasattr(estimator, "get_params") else copy.deepcopy(estimator)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
