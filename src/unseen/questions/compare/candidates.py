"""Who takes part: methods under the subject's budget, and the hyperparameters that random search
draws for them.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, cast

import unseen.methods
from unseen.engine.loop import Budget
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.method import Method
from unseen.methods.adversarial_training import AdversarialTraining
from unseen.methods.coral import CORAL
from unseen.methods.early_stopping import EarlyStopping
from unseen.methods.erm import ERM
from unseen.methods.group_reweighting import DomainDRO
from unseen.methods.irm import IRM
from unseen.methods.mixup import Mixup
from unseen.methods.pretrain_then_fit import PretrainThenFit
from unseen.methods.robust_gradients import MedianOfMicrobatches
from unseen.methods.sam import SAM
from unseen.methods.vrex import VREx
from unseen.search_space import LogUniform, Range, Space, sample
from unseen.subjects.python_files import load_call

BASELINE = "ERM"
"""What the other methods are compared with, where it takes part."""
COMMON = ("lr", "weight_decay")
"""Fields of the budget that are searched for every method, with the same draws."""


@dataclass(frozen=True)
class MethodSpec:
    """A method by name, made from the subject's budget."""

    name: str
    make: Callable[[Budget], Method]

    def draw_method(
        self, budget: Budget, draw: int, lab: Lab, given: Space | None = None
    ) -> Method:
        """Draw 0 has the method's defaults; later ones learning rate, weight decay and what the
        method declares.

        Draw k gives every method the same learning rate and weight decay: they depend on the lab
        and on k only.
        """
        method = self.make(budget)
        return (
            with_values(method, sample(self.space(budget, given), lab.child("draw", draw)))
            if draw
            else method
        )

    def space(self, budget: Budget, given: Space | None = None) -> dict[str, Range]:
        """The ranges around the budget's values and those that the method's class declares as
        `search`.

        A given range replaces the one of that name; names that the method does not have are left
        out.
        """
        method = self.make(budget)
        common = common_space(budget) if hasattr(method, "budget") else {}
        own: dict[str, Range] = {**common, **getattr(type(method), "search", {})}
        return {name: (given or {}).get(name, scale) for name, scale in own.items()}


def with_values(method: Method, values: Mapping[str, float]) -> Method:
    """The method with other hyperparameters; those of its budget by their own name."""
    own: dict[str, Any] = {name: value for name, value in values.items() if name not in COMMON}
    common = {name: values[name] for name in COMMON if name in values}
    if common:
        own["budget"] = replace(cast(Any, method).budget, **common)
    return cast(Method, replace(cast(Any, method), **own))


def common_space(budget: Budget) -> dict[str, LogUniform]:
    """Learning rates from a fifth to five times the budget's, weight decays over three orders of
    magnitude.
    """
    decay = budget.weight_decay or 1e-3
    return {
        "lr": LogUniform(budget.lr / 5, budget.lr * 5),
        "weight_decay": LogUniform(decay / 30, decay * 30),
    }


def standard_methods() -> list[MethodSpec]:
    """The methods that are compared when none is named."""
    return [
        MethodSpec("ERM", lambda budget: ERM(budget)),
        MethodSpec("group DRO", lambda budget: DomainDRO(budget=budget)),
        MethodSpec("IRM", lambda budget: IRM(budget=budget)),
        MethodSpec("V-REx", lambda budget: VREx(budget=budget)),
        MethodSpec("CORAL", lambda budget: CORAL(budget=budget)),
        MethodSpec("mixup", lambda budget: Mixup(budget=budget)),
        MethodSpec("adversarial training", lambda budget: AdversarialTraining(budget=budget)),
        MethodSpec("SAM", lambda budget: SAM(budget=budget)),
    ]


def further_methods() -> list[MethodSpec]:
    """Further methods whose settings follow from the budget."""
    return [
        MethodSpec(
            "early stopping", lambda budget: EarlyStopping(max(1, budget.steps // 30), budget)
        ),
        MethodSpec("robust gradients", lambda budget: MedianOfMicrobatches(3, budget)),
        MethodSpec("pretrain then fit", lambda budget: PretrainThenFit()),
    ]


def methods_named(names: Sequence[str]) -> list[MethodSpec]:
    """The entrants of these names: standard ones, any class in `unseen.methods` that trains within
    a budget, and `file.py:Name` of a person's own.
    """
    known = {_bare(entrant.name): entrant for entrant in (*standard_methods(), *further_methods())}
    known |= {_bare(name): _method_of_file(name) for name in names if ".py:" in name}
    if any(_bare(name) not in known for name in names):  # only then every method is imported
        known = {_bare(entrant.name): entrant for entrant in methods_of_classes()} | known
    found = []
    for name in names:
        if _bare(name) not in known:
            raise UnknownName.near("method", name.lower(), known)
        found.append(known[_bare(name)])
    return found or standard_methods()


def _method_of_file(text: str) -> MethodSpec:
    """A method of a Python file, under the subject's budget where it has one."""
    found = load_call(text, "--method")
    if not is_dataclass(found) or not hasattr(found, "fit"):
        raise InvalidData(
            f"`{text}` gives a {type(found).__name__}.",
            why="a method is a frozen dataclass with `fit(model, task, lab)`; its fields are its "
            "hyperparameters.",
            fix="see docs/method.md; a class is made without arguments, or with those in "
            "brackets: 'file.py:Name(rho=0.1)'.",
        )
    has_budget = "budget" in {field.name for field in fields(found)}
    method = cast(Any, found)
    name = text.rpartition(".py:")[2]

    def make(budget: Budget) -> Method:
        return cast(Method, replace(method, budget=budget) if has_budget else method)

    return MethodSpec(name, make)


def methods_of_classes() -> list[MethodSpec]:
    """One entrant per method class whose fields other than the budget have defaults, and that can
    be imported here.
    """
    found = []
    for module in pkgutil.iter_modules(unseen.methods.__path__):
        try:
            room = importlib.import_module(f"unseen.methods.{module.name}")
        except (
            ImportError
        ):  # a library of an extra that is not installed: its methods cannot take part
            continue
        for name, kind in vars(room).items():
            if inspect.isclass(kind) and kind.__module__ == room.__name__ and _is_entrant(kind):
                found.append(MethodSpec(name, _maker(kind)))
    return found


def _is_entrant(kind: type) -> bool:
    if not (
        is_dataclass(kind)
        and hasattr(kind, "fit")
        and "budget" in {field.name for field in fields(kind)}
    ):
        return False
    try:
        kind()
    except (TypeError, InvalidConfig):  # a field without default
        return False
    return True


def _maker(kind: type) -> Callable[[Budget], Method]:
    by_domain = {"group": "domain"} if "group" in {field.name for field in fields(kind)} else {}
    return lambda budget: kind(budget=budget, **by_domain)


def _bare(name: str) -> str:
    """ "group DRO", "group_dro" and "GroupDRO" are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def check_ranges(entrants: Sequence[MethodSpec], budget: Budget, given: Space) -> None:
    """Refuses ranges of hyperparameters that no entrant has, and values that a method refuses,
    before anything trains.
    """
    known = {name for one in entrants for name in one.space(budget)}
    for name in given:
        if name not in known:
            raise UnknownName.near("hyperparameter", name, known)
    for entrant in entrants:
        space = entrant.space(budget, given)
        for share in (
            0.0,
            1.0,
        ):  # a method's domain is an interval: both ends fit, or some draws would not
            with_values(
                entrant.make(budget), {name: scale.at(share) for name, scale in space.items()}
            )
