"""Remedies that an audit tries: methods made from the subject's own budget."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from unseen.engine.loop import Budget
from unseen.method import Method
from unseen.methods.early_stopping import EarlyStopping
from unseen.methods.erm import ERM
from unseen.methods.group_reweighting import GroupDRO
from unseen.methods.robust_gradients import MedianOfMicrobatches
from unseen.methods.sam import SAM

Remedy = Callable[[Budget], Method]
"""The method under the subject's budget."""


def standard() -> Mapping[str, Remedy]:
    """Weight decay, early stopping, robust gradients, SAM and group reweighting."""
    return {
        "weight decay": lambda budget: ERM(replace(budget, weight_decay=max(0.1, 10 * budget.weight_decay))),
        "early stopping": lambda budget: EarlyStopping(max(1, budget.steps // 30), budget),
        "robust gradients": lambda budget: MedianOfMicrobatches(3, budget),
        "SAM": lambda budget: SAM(0.05, budget),
        "group reweighting": lambda budget: GroupDRO(budget=budget),
    }
