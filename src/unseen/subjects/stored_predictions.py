"""Predictions of a split as plain values, so that two answers that were stored apart can be
compared in pairs.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.subjects.predictions import SplitPredictions

MOST = 20_000
"""Examples times models that are stored one by one."""
DIGITS = 7
"""Significant ones: what float32 holds."""


def as_plain(found: SplitPredictions) -> dict[str, Any]:
    """Losses, scores and margins by model and example; of larger splits the reason why not."""
    if found.score.size > MOST:
        return {
            "why_not": f"it has more than {MOST:,} predictions, which are not stored one by one"
        }
    return {
        "loss": _round(found.loss),
        "score": _round(found.score),
        "margin": None if found.margin is None else _round(found.margin),
        "y": None if found.y is None else found.y.tolist(),
        "block": None if found.block is None else found.block.tolist(),
        "unit": found.unit,
        "has_probabilities": found.has_probabilities,
        "examples": digest(found),
    }


def digest(found: SplitPredictions) -> str:
    """Of the labels in order: the same examples have the same."""
    labels = b"" if found.y is None else np.ascontiguousarray(found.y).tobytes()
    return hashlib.sha256(labels).hexdigest()[:16]


def from_plain(value: Mapping[str, Any]) -> SplitPredictions:
    """The predictions of `as_plain`."""
    margin, y, block = value["margin"], value["y"], value["block"]
    return SplitPredictions(
        _matrix(value["loss"]),
        _matrix(value["score"]),
        None if y is None else np.asarray(y, dtype=np.float64),
        None if margin is None else _matrix(margin),
        value["unit"],
        bool(value["has_probabilities"]),
        None if block is None else np.asarray(block, dtype=np.int64),
    )


def why_not_paired(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Why the predictions of two answers on a split cannot be paired; empty if they can."""
    for one in (before, after):
        if "why_not" in one:
            return str(one["why_not"])
        if one["y"] is None:
            return "no labels are stored by which the examples could be recognized"
    if before["examples"] != after["examples"]:
        return "the examples are not the same, or not in the same order"
    if len(before["score"]) != len(after["score"]):
        counts = f"{len(before['score'])} and {len(after['score'])}"
        return f"they trained {counts} models, and models are paired, too"
    if before["unit"] != after["unit"]:
        return "the target is measured in other units"
    return ""


def _round(values: NDArray[np.float64]) -> list[list[float]]:
    return [[float(f"{x:.{DIGITS}g}") for x in row] for row in values]


def _matrix(rows: Any) -> NDArray[np.float64]:
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)
