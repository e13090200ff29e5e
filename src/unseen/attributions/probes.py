"""Linear probes: what can be read, linearly, from a model's inner states (Alain & Bengio, 2016,
arXiv:1610.01644), beside a control task (Hewitt & Liang, 2019, arXiv:1909.03368).

A probe that is right shows that the states hold the answer, not that the model uses it.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import Dataset

from unseen import stats
from unseen.attribution import Cause, Credits
from unseen.engine.batches import once
from unseen.engine.trace import record
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading
from unseen.task import Batch, PerExample, Use

Array = NDArray[np.float64]
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse L2 penalties of a logistic regression on standardised states."""


class Pooling(StrEnum):
    """How states at many positions, [n positions … d], become one per example."""

    LAST = "last"
    """At the last position that `mask` marks; without a mask at the last one."""
    MEAN = "mean"
    """Over the positions."""
    FLAT = "flat"
    """Side by side."""


@dataclass(frozen=True)
class ProbeResult:
    """How well a class is read from states, by probes that did not train on the example."""

    accuracy: Reading
    control: Reading
    """Of equal probes whose labels were dealt out anew: what the probe can learn by itself."""
    selectivity: Reading
    """Accuracy − control, paired over examples."""
    majority: float
    """Accuracy of always answering the most frequent class."""
    correct: Float[Tensor, " n"]
    """1 where the probe that left the example out is right."""


@torch.no_grad()
def layer_states(
    model: nn.Module,
    data: Dataset,
    modules: Sequence[str],
    lab: Lab,
    *,
    pooling: Pooling = Pooling.LAST,
    batch_size: int = 256,
) -> dict[str, Float[Tensor, "n d"]]:
    """The outputs of named modules, one row per example, on the CPU. The model runs in evaluation
    mode on the column `tokens`, or `x`.
    """
    was_training = model.training
    model.eval()
    parts: dict[str, list[Tensor]] = {name: [] for name in modules}
    try:
        with record(model, modules) as found:
            for batch in once(data, batch_size, lab):
                model(batch["tokens"] if "tokens" in batch else batch["x"])
                for name in modules:
                    parts[name].append(pool(found[name], batch, pooling).float().cpu())
    finally:
        model.train(was_training)
    return {name: torch.cat(rows) for name, rows in parts.items()}


def pool(states: Tensor, batch: Batch, pooling: Pooling) -> Float[Tensor, "n d"]:
    """One row per example."""
    if states.dim() == 2 or pooling is Pooling.FLAT:
        return states.flatten(1)
    if pooling is Pooling.MEAN:
        return states.flatten(1, -2).mean(1)
    mask = batch.get("mask")
    if mask is None:
        return states[:, -1].flatten(1)
    order = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = (mask.bool() * order).amax(1).clamp_min(1) - 1
    return states[torch.arange(len(states), device=states.device), last].flatten(1)


def probe(
    states: Float[Tensor, "n d"],
    y: Int[Tensor, " labels"],
    lab: Lab,
    *,
    folds: int = 5,
    types: Sequence[object] | None = None,
    groups: Sequence[object] | None = None,
) -> ProbeResult:
    """Cross-validated accuracy of a logistic regression, whose L2 penalty is chosen inside the
    training folds.

    `types` says which examples are one for the control task (the same word, the same key): it deals
    out one label per type from the labels that there are, so a probe that only remembers types does
    as well on both. Without types every example is its own, and the control is chance. `groups`
    (near-duplicates) stay in one fold.

    The interval of the accuracy is Wilson's over examples, as if they were independent: it held the
    mean accuracy in 93 % of 200 simulations with 20 examples and 94 % with 60. That of the
    selectivity is Student's t.
    """
    rows, labels = refuse_unfit(states, y, folds)
    group = _numbers(groups, len(labels))
    dealt = deal_labels(labels, _numbers(types, len(labels)), lab.child("control"))
    right = _correct(rows, labels, group, folds, lab.child("folds"))
    wrong = _correct(rows, dealt, group, folds, lab.child("folds"))
    return ProbeResult(
        accuracy=stats.proportion(float(right.sum()), len(right)),
        control=stats.proportion(float(wrong.sum()), len(wrong)),
        selectivity=stats.difference(right, wrong, "fraction"),
        majority=float(np.bincount(labels).max() / len(labels)),
        correct=torch.from_numpy(right),
    )


def refuse_unfit(
    states: Float[Tensor, "n d"], y: Int[Tensor, " labels"], folds: int
) -> tuple[Array, NDArray[np.int64]]:
    """States and labels as arrays, with classes numbered from 0."""
    if folds < 2:
        raise InvalidConfig(
            f"A probe was asked for {folds} folds.",
            why="a probe is evaluated on examples that it did not train on.",
            fix="use 5.",
        )
    if len(states) != len(y):
        raise InvalidData(
            f"There are {len(states)} states and {len(y)} labels.",
            why="row k of one belongs to row k of the other.",
            fix="take both from the same examples in the same order.",
        )
    if not torch.isfinite(states).all():
        raise InvalidData(
            "A state is not finite.", why="nothing can be read from it.", fix="check the model."
        )
    classes, labels, counts = np.unique(y.cpu().numpy(), return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < folds:
        many = ", ".join(f"{n} of {k}" for k, n in zip(classes[:5], counts[:5], strict=True))
        raise InvalidData(
            f"A probe with {folds} folds got the classes: {many or 'none'}.",
            why="each fold needs an example of each of at least two classes.",
            fix="give more examples, leave the rare class out, or use fewer folds.",
        )
    return states.double().cpu().numpy(), labels.astype(np.int64)


def deal_labels(labels: NDArray[np.int64], types: NDArray[np.int64], lab: Lab) -> NDArray[np.int64]:
    """One label per type, dealt out so that they are as frequent over types as they were."""
    first = np.unique(types, return_index=True)[1]
    return lab.numpy().permutation(labels[first])[types]


def _numbers(names: Sequence[object] | None, n: int) -> NDArray[np.int64]:
    if names is None:
        return np.arange(n)
    if len(names) != n:
        raise InvalidData(
            f"There are {len(names)} types or groups for {n} examples.",
            why="each example has one.",
            fix="give one per example.",
        )
    number = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names])


def _correct(
    rows: Array, labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, lab: Lab
) -> Array:
    """1 where the probe of the other folds is right."""
    right = np.zeros(len(labels))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=lab.entropy % 2**32)
    for train, test in splitter.split(rows, labels, groups):
        fitted = fit_probe(rows[train], labels[train], lab)
        right[test] = fitted.predict(rows[test]) == labels[test]
    return right


def fit_probe(rows: Array, labels: NDArray[np.int64], lab: Lab) -> Pipeline:
    """A logistic regression on standardised states, its penalty chosen on a quarter of the rows."""
    chosen = choose_strength(rows, labels, lab)
    return _fit(rows, labels, chosen)


def choose_strength(rows: Array, labels: NDArray[np.int64], lab: Lab) -> float:
    """The strength with the lowest log loss on a quarter that it was not fitted to."""
    counts = np.bincount(labels)
    if counts[counts > 0].min() < 4:
        return STRENGTHS[1]  # too few to set some aside
    splitter = StratifiedShuffleSplit(1, test_size=0.25, random_state=lab.entropy % 2**32)
    train, dev = next(splitter.split(rows, labels))

    def log_loss(strength: float) -> float:
        fitted = _fit(rows[train], labels[train], strength)
        column = np.searchsorted(fitted.classes_, labels[dev])
        return -float(fitted.predict_log_proba(rows[dev])[np.arange(len(dev)), column].mean())

    return min(STRENGTHS, key=log_loss)


def _fit(rows: Array, labels: NDArray[np.int64], strength: float) -> Pipeline:
    # liblinear and friends aside: lbfgs has one answer, whatever the order of the rows
    line = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return line.fit(rows, labels)


@dataclass(frozen=True)
class LinearProbes:
    """A probe per named module, trained on the TRAIN splits' column `y`.

    The credit of a module for a behaviour f is f(query) · p(y | state behind the module): how much
    of it lies where the answer can be read.
    """

    modules: tuple[str, ...]
    pooling: Pooling = Pooling.LAST

    def prepare(self, trained: Trained, lab: Lab) -> "ModuleProbes":
        splits = trained.task.of(Use.TRAIN).values()
        y = torch.cat([batch["y"] for s in splits for batch in once(s.data, 256, lab)])
        states: dict[str, list[Tensor]] = {name: [] for name in self.modules}
        for split in splits:
            found = layer_states(trained.model, split.data, self.modules, lab, pooling=self.pooling)
            for name, rows in found.items():
                states[name].append(rows)
        probes = {}
        for name, parts in states.items():
            matrix, labels = refuse_unfit(torch.cat(parts), y, 2)
            probes[name] = fit_probe(matrix, labels, lab.child(name))
        return ModuleProbes(self, trained.model, probes, tuple(sorted(set(y.tolist()))))


@dataclass(frozen=True)
class ModuleProbes:
    """The attributor."""

    config: LinearProbes
    model: nn.Module
    probes: Mapping[str, Pipeline]
    classes: tuple[int, ...]

    def __call__(self, queries: Batch, behaviour: PerExample) -> Credits:
        with torch.no_grad():
            values = behaviour(self.model, queries)
            shares = torch.stack([self._shares(name, queries) for name in self.probes], 1)
        return Credits(values[:, None] * shares.to(values), Cause.COMPONENT, list(self.probes))

    def _shares(self, name: str, queries: Batch) -> Float[Tensor, " query"]:
        """p(y | state) of each query; 0 for a class that training did not have."""
        with record(self.model, [name]) as found:
            self.model(queries["tokens"] if "tokens" in queries else queries["x"])
        rows = pool(found[name], queries, self.config.pooling).double().cpu().numpy()
        p = torch.from_numpy(self.probes[name].predict_proba(rows))
        column = {y: k for k, y in enumerate(self.classes)}
        return torch.tensor(
            [
                float(p[k, column[y]]) if y in column else 0.0
                for k, y in enumerate(queries["y"].tolist())
            ]
        )


def example() -> LinearProbes:
    return LinearProbes(modules=("0",))
