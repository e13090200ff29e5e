"""The study of concepts: effects on rows with known answers, and claims read them."""

import numpy as np
import pytest

from unseen.errors import InvalidData
from unseen.studies.bayesian_generalization import (
    curvature,
    image_interaction,
    level_slope,
    order_ratio,
    study,
    table_interaction,
    upper_slope,
)
from unseen.study import Scale, Verdict
from unseen.tasks.concepts import Table


def rows(seed: int, sign: float = 1.0) -> list[dict]:
    """Twelve natural concepts on an inverted U, ten shapes on a rising line, and tables in which
    rules gain with K.
    """
    found = []
    for k, bits in enumerate(np.linspace(2, 9, 12)):
        needed = 20 - sign * (bits - 5) ** 2 + 0.01 * seed
        found += [
            {"part": "description", "natural": True, "level": "cifar10", "depth": -1, "concept": k,
             "K": needed, "random": 2 * needed, "bits": bits, "seed": seed},
            {"part": "generalization", "natural": True, "concept": k, "seed": seed,
             "rule": 0.5 + 0.02 * sign * needed, "similarity": 0.7},
        ]  # fmt: skip
        for table in Table:
            found.append({"part": str(table), "concept": k, "K": k, "similarity": 0.6, "seed": seed,
                          "rule": 0.5 + 0.02 * sign * k + 0.001 * (seed + k % 3)})  # fmt: skip
    for k in range(10):
        needed = 2 + 3.0 * (k // 2) + 0.01 * seed
        found.append({"part": "description", "natural": False, "level": "pose", "depth": k // 2,
                      "concept": 100 + k, "K": needed, "random": 2 * needed, "bits": k,
                      "seed": seed})  # fmt: skip
    return found


def test_effects_are_those_of_their_curves():
    one = rows(0)
    assert order_ratio(one) == pytest.approx(0.5)
    assert level_slope(one) == pytest.approx(3)
    assert curvature(one) < -0.5
    assert upper_slope(one) < 0
    assert image_interaction(one) > 0
    assert table_interaction(Table.ZOO)(one).low > 0
    assert curvature(rows(0, sign=-1)) > 0
    with pytest.raises(InvalidData, match="0 concepts have `bits`"):
        curvature([])


def test_claims_read_their_rows():
    many = [row for seed in range(5) for row in rows(seed)]
    many = [{**row, "random": row.get("random", 0) + 0.1 * row["seed"]} for row in many]
    for row in many:  # no two seeds alike: an interval without width decides nothing
        if row["part"] == "generalization":
            row["rule"] += 0.001 * (row["seed"] * row["concept"] % 5)
        if row["part"] == "description":
            row["K"] += 0.02 * (row["seed"] * row["concept"] % 7)
    judged = [claim.judge(many, Scale.LAPTOP).verdict for claim in study.claims]
    assert judged == [Verdict.SUPPORTED] * 7
