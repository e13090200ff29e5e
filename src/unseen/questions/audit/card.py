"""The front matter of a model card (huggingface.co/docs/hub/model-cards) from the findings."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

from unseen import __version__
from unseen.questions.audit.advice import shared_metric
from unseen.questions.audit.results import Findings, evaluation_sites

TYPES = {"AUC": "roc_auc", "mean absolute error": "mae"}
"""What a metric is called there, where the name differs."""


def front_matter(findings: Sequence[Findings]) -> dict[str, Any]:
    """Tags, and the shared metric at every site of use as results of a `model-index`."""
    first, metric = findings[0], shared_metric(findings)
    results = []
    for one in findings:
        for split in evaluation_sites(one):
            reading = one.score(split, metric)
            if reading is None or not isfinite(reading.value):
                continue
            site = one.sites.get(split, split)
            measured = {
                "type": TYPES.get(metric, metric),
                "name": f"{metric} [{reading.low:.3g}, {reading.high:.3g}], n = {reading.n}",
                "value": round(reading.value, 4),
            }
            results.append(
                {
                    "task": {"type": "tabular-classification" if one.curves else "other"},
                    "dataset": {"type": "local", "name": f"{one.task.split(':')[0]}: {site}"},
                    "metrics": [measured],
                }
            )
    return {
        "tags": ["unseen", "generalization"],
        "model-index": [{"name": first.name, "results": results}],
        "unseen_version": __version__,
    }
