"""Remedies that an audit tries: methods made from the subject's own budget."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from enum import Enum
from typing import Any

from unseen.engine.loop import Budget
from unseen.method import Method
from unseen.methods.erm import ERM
from unseen.methods.fit_estimator import FitEstimator
from unseen.methods.group_reweighting import GroupDRO
from unseen.models.recorded import RecordedModel
from unseen.questions.compare.candidates import methods_named
from unseen.subjects.session import Session

STOPPING = "early stopping"
Remedy = Callable[[Budget], Method]
"""The method under the subject's budget."""


def applicable(remedies: Mapping[str, Remedy], session: Session) -> Mapping[str, Remedy]:
    """Of the standard remedies those that the model can be trained with and that are not how it is
    trained anyway, others as they are; none of predictions without their model.
    """
    if remedies and isinstance(session.first.model, RecordedModel):
        session.attempt("remedies", session.require_model)
        return {}
    is_standard = set(remedies) == set(standard_remedies())
    if session.has_gradients or not is_standard:
        stops = is_standard and session.subject.budget.select_every > 0
        return {name: one for name, one in remedies.items() if not (stops and name == STOPPING)}
    return {"site reweighting": lambda budget: FitEstimator(group="site")}


def standard_remedies() -> Mapping[str, Remedy]:
    """Weight decay, early stopping, robust gradients, SAM and group reweighting."""
    return {
        "weight decay": lambda budget: ERM(
            replace(budget, weight_decay=max(0.1, 10 * budget.weight_decay))
        ),
        **{
            entrant.name: entrant.make
            for entrant in methods_named([STOPPING, "robust gradients", "SAM"])
        },
        "group reweighting": lambda budget: GroupDRO(
            budget=budget
        ),  # groups of a column: training sites are one split here
    }


def settings_in_words(method: Method) -> str:
    """ "SAM: rho 0.05, steps 768, lr 0.002": what its budget and itself have otherwise than by
    default.
    """
    name = type(method).__name__
    if not is_dataclass(method):
        return name
    said = _settings(method)
    return f"{name}: {', '.join(said)}" if said else name


def _settings(value: Any) -> list[str]:
    said: list[str] = []
    for field in fields(value):
        setting = getattr(value, field.name)
        if is_dataclass(setting):
            said += _settings(setting)
        elif isinstance(setting, (int, float, str, Enum)) and setting != _default(field):
            shown = setting.value if isinstance(setting, Enum) else setting
            number = isinstance(shown, float)
            said.append(f"{field.name.replace('_', ' ')} {f'{shown:g}' if number else shown}")
    return said


def _default(field: "Field[Any]") -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default
