"""Remedies that an audit tries: methods made from the subject's own budget."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from unseen.engine.loop import Budget
from unseen.method import Method
from unseen.methods.erm import ERM
from unseen.methods.group_reweighting import GroupDRO
from unseen.questions.compare.candidates import methods_named

Remedy = Callable[[Budget], Method]
"""The method under the subject's budget."""


def standard_remedies() -> Mapping[str, Remedy]:
    """Weight decay, early stopping, robust gradients, SAM and group reweighting."""
    return {
        "weight decay": lambda budget: ERM(
            replace(budget, weight_decay=max(0.1, 10 * budget.weight_decay))
        ),
        **{
            entrant.name: entrant.make
            for entrant in methods_named(["early stopping", "robust gradients", "SAM"])
        },
        "group reweighting": lambda budget: GroupDRO(
            budget=budget
        ),  # groups of a column: training sites are one split here
    }
