"""The contract battery catches plugs that were broken on purpose, and lets sound ones pass."""

import copy
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import nan
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from unseen.attribution import Cause, Credits
from unseen.engine.batches import Columns, once
from unseen.engine.loop import Budget, train
from unseen.errors import InvalidData, UnseenError
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify, correct, cross_entropy, next_token
from unseen.reading import Reading
from unseen.study import Claim, Scale, Study, average
from unseen.study.source import Source
from unseen.task import Axis, Objective, Split, Task, Use
from unseen.testing import (
    ContractViolation,
    check_attribution,
    check_measure,
    check_method,
    check_study,
    check_task,
    small_model,
    small_subject,
    small_task,
)

# Tasks


@dataclass(frozen=True)
class Spec:
    """A sound task, or one with exactly one fault."""

    fault: str = ""

    def build(self, lab: Lab) -> Task:
        task = small_task(lab)
        splits = dict(task.splits)
        columns = dict(splits["train"].data.columns)
        if self.fault == "global torch":
            columns["x"] = columns["x"] + torch.randn(columns["x"].shape)
        if self.fault == "global numpy":
            columns["x"] = columns["x"] + torch.tensor(
                np.random.rand(*columns["x"].shape),  # noqa: NPY002
                dtype=torch.float32,
            )
        if self.fault == "global random":
            columns["x"] = columns["x"] + random.random()
        if self.fault == "nan":
            columns["x"][3, 1] = nan
        if self.fault == "unlearnable":  # equal inputs, equal numbers of both classes
            columns["x"] = torch.zeros_like(columns["x"])
        splits["train"] = Split(Columns(**columns), Use.TRAIN, "here")
        if self.fault == "leak":
            splits["same"] = Split(splits["train"].data.subset(slice(0, 5)), Use.EVALUATE, "here")
        if self.fault == "renumbered leak":
            leaked = splits["train"].data.subset(slice(0, 5)).columns
            splits["train"] = Split(Columns(**columns, index=torch.arange(96)), Use.TRAIN, "here")
            splits["same"] = Split(
                Columns(**leaked, index=torch.arange(5) + 500), Use.EVALUATE, "here"
            )
        objective = {
            "mean loss": Objective(
                lambda m, b: F.cross_entropy(m(b["x"]), b["y"]).reshape(1), correct
            ),
            "batch loss": Objective(
                lambda m, b: cross_entropy(m, b) - cross_entropy(m, b).mean(), correct
            ),
            "unlearnable": Objective(lambda m, b: 0 * m(b["x"]).sum(1) + 1, correct),
        }.get(self.fault, classify)
        return replace(task, splits=splits, objective=objective)


def test_a_sound_task_passes() -> None:
    check_task(Spec())


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("global torch", "global random"),
        ("global numpy", "global random"),
        ("global random", "differs between two builds"),
        ("nan", "NaN"),
        ("leak", "5 examples of the evaluation split `same`"),
        ("renumbered leak", "5 examples of the evaluation split `same`"),
        ("mean loss", "one number per example"),
        ("batch loss", "depends on the other examples"),
        ("unlearnable", "loss of `small` went from"),
    ],
)
def test_a_broken_task_is_caught(fault: str, what: str) -> None:
    with pytest.raises(ContractViolation, match=what):
        check_task(Spec(fault))


def test_repeated_examples_pass_where_the_task_says_so() -> None:
    class Recalling(Spec):
        recalls: ClassVar = frozenset({"same"})

    check_task(Recalling("leak"))


def test_two_people_may_be_alike_but_nobody_is_fitted_and_judged() -> None:
    @dataclass(frozen=True)
    class People:
        first: int
        """Number of the first judged person; the first of the 96 looks like one of the fitted
        96.
        """

        def build(self, lab: Lab) -> Task:
            task = small_task(lab)
            fitted, judged = (dict(task.split(name).data.columns) for name in ("train", "same"))
            judged = {key: torch.cat([fitted[key][:1], judged[key][1:]]) for key in judged}
            splits = {
                "train": Split(Columns(**fitted, index=torch.arange(96)), Use.TRAIN),
                "same": Split(Columns(**judged, index=torch.arange(96) + self.first), Use.EVALUATE),
            }
            return replace(task, splits=splits)

    check_task(People(first=96))
    with pytest.raises(ContractViolation, match="1 examples of the evaluation split"):
        check_task(People(first=0))


def test_a_spec_that_cannot_be_hashed_or_changed_is_caught() -> None:
    @dataclass
    class Mutable(Spec.__base__):  # type: ignore[name-defined,misc]
        def build(self, lab: Lab) -> Task:
            return small_task(lab)

    @dataclass(frozen=True)
    class Listed:
        lengths: Any

        def build(self, lab: Lab) -> Task:
            return small_task(lab)

    for broken, what in ((Mutable(), "frozen"), (Listed([1, 2]), "hashed")):
        with pytest.raises(ContractViolation, match=what):
            check_task(broken)


@dataclass(frozen=True)
class Sentences:
    """Streams of tokens: 0 1 2 3 … modulo 7, from different starts."""

    def build(self, lab: Lab) -> Task:
        class Stream(IterableDataset[dict[str, Tensor]]):
            def __init__(self, starts: range) -> None:
                self.starts = starts

            def __iter__(self) -> Iterator[dict[str, Tensor]]:
                for start in self.starts:
                    yield {"tokens": (torch.arange(5) + start) % 7}

        splits = {
            "train": Split(Stream(range(5)), Use.TRAIN),
            "test": Split(Stream(range(5, 7)), Use.EVALUATE),
        }
        return Task(name="sentences", axis=Axis.IID, splits=splits, objective=next_token)


def test_streams_of_tokens_are_checked_too() -> None:
    check_task(Sentences())


def test_a_task_with_other_columns_brings_its_model() -> None:
    @dataclass(frozen=True)
    class Renamed:
        def build(self, lab: Lab) -> Task:
            task = small_task(lab)
            splits = {
                name: replace(s, data=Columns(age=s.data.columns["x"], y=s.data.columns["y"]))
                for name, s in task.splits.items()
            }

            def loss(model: nn.Module, batch: Any) -> Tensor:
                return F.cross_entropy(model(batch["age"]), batch["y"], reduction="none")

            return replace(
                task,
                splits=splits,
                objective=Objective(loss, lambda model, batch: -loss(model, batch)),
            )

    with pytest.raises(ContractViolation, match=r"return \(spec, model\)"):
        check_task(Renamed())
    check_task(Renamed(), lambda task: nn.Linear(4, 2))


# Methods


@dataclass(frozen=True)
class Method:
    """Plain training, or training with exactly one fault."""

    fault: str = ""

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        if self.fault == "reads an evaluation example":
            task.split("same").data[0]
        if self.fault == "reads the judged columns":
            task.split("same").data.columns  # noqa: B018
        if self.fault == "evaluates on evaluation data":
            list(once(task.split("shifted").data, 8, lab))
        if self.fault == "global torch":
            with torch.no_grad():
                next(model.parameters()).add_(torch.randn(()))
        if self.fault == "global random":
            with torch.no_grad():
                next(model.parameters()).add_(random.random())

        def step(model: nn.Module, draw: Any, objective: Objective) -> Tensor:
            loss = objective.loss(model, draw.fit["train"]).mean()
            loss.backward()
            return loss.detach()

        trained = train(model, task, step, Budget(steps=5), lab)
        if self.fault == "diverges":
            with torch.no_grad():
                next(trained.model.parameters()).fill_(nan)
        return trained


def test_a_sound_method_passes() -> None:
    check_method(Method())


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("reads an evaluation example", "`same` was read"),
        ("reads the judged columns", "`same` was read"),
        ("evaluates on evaluation data", "`shifted` was read"),
        ("global torch", "global random"),
        ("global random", "different weights"),
        ("diverges", "not finite"),
    ],
)
def test_a_broken_method_is_caught(fault: str, what: str) -> None:
    with pytest.raises(ContractViolation, match=what):
        check_method(Method(fault))


def test_a_method_brings_its_own_task_and_model() -> None:
    task = Sentences().build(Lab())

    @dataclass(frozen=True)
    class Bigrams(Method):
        def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
            batch = next(once(task.split("train").data, 8, lab))
            task.objective.loss(model, batch).mean().backward()
            return Trained(model, task)

    check_method(Bigrams(), Trained(small_model(task), task))


# Measures


@dataclass(frozen=True)
class Loss:
    """Mean loss, or with exactly one fault."""

    fault: str = ""
    split: str = "train"
    batch_size: int = 32
    invariances: ClassVar[tuple[str, ...]] = ("order", "repetition")

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        model, f = subject.model, subject.task.objective.loss
        if self.fault == "leaves evaluation mode":
            model.eval()
        if self.fault == "leaves gradients":
            f(model, next(once(subject.task.split(self.split).data, 8, lab))).mean().backward()
        if self.fault == "moves weights":
            with torch.no_grad():
                next(model.parameters()).mul_(1 + 1e-7)
        if self.fault == "freezes weights":
            model.requires_grad_(False)
        if self.fault == "made-up zero" and len(subject.task.split(self.split).data) == 0:  # type: ignore[arg-type]
            return Reading(0.0)
        batches = list(once(subject.task.split(self.split).data, self.batch_size, lab))
        means = torch.stack([f(model, batch).mean() for batch in batches])
        values = torch.cat([f(model, batch) for batch in batches])
        value = (means.mean() if self.fault == "mean of means" else values.mean()).item()
        if self.fault == "global torch":
            value += torch.rand(()).item()
        if self.fault == "global random":
            value += random.random()
        value += values[0].item() * (self.fault == "first example counts")
        if not np.isfinite(value) and self.fault != "returns nan":
            if self.fault == "untyped error":
                raise RuntimeError("nan")
            raise InvalidData(
                "The loss is not finite.", "inputs or weights are not.", "clean them."
            )
        low = value + 1 if self.fault == "interval beside" else nan
        return Reading(value, low, low + 1, n=len(values))


class Undeclared(Loss):
    invariances: ClassVar[tuple[str, ...]] = ("loss scale",)


class Unknown(Loss):
    invariances: ClassVar[tuple[str, ...]] = ("colour",)


def test_a_sound_measure_passes() -> None:
    check_measure(Loss())
    check_measure(Loss(), small_subject(Lab(seed=3)))


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("leaves evaluation mode", "left the model changed"),
        ("leaves gradients", "left the model changed"),
        ("moves weights", "gave|left the model changed"),
        ("freezes weights", "left the model changed"),
        ("made-up zero", "for a subject with no examples"),
        ("mean of means", "batch_size="),
        ("global torch", "global random"),
        ("global random", "then"),
        ("first example counts", "with order"),
        ("interval beside", "outside its interval"),
        ("returns nan", "NaN inputs"),
    ],
)
def test_a_broken_measure_is_caught(fault: str, what: str) -> None:
    with pytest.raises(ContractViolation, match=what):
        check_measure(Loss(fault))


def test_a_wrong_invariance_is_caught() -> None:
    with pytest.raises(ContractViolation, match="with loss scale"):
        check_measure(Undeclared())
    with pytest.raises(ContractViolation, match="no invariance `colour`"):
        check_measure(Unknown())


def test_an_untyped_error_is_not_taken_for_a_refusal() -> None:
    with pytest.raises(RuntimeError):
        check_measure(Loss("untyped error"))


def test_measures_of_tasks_and_tables() -> None:
    @dataclass(frozen=True)
    class Size:
        def __call__(self, subject: Task, lab: Lab) -> Reading:
            x = torch.cat([batch["x"] for batch in once(subject.split("train").data, 50, lab)])
            if not torch.isfinite(x).all():
                raise InvalidData("x is not finite.")
            return Reading(float(x.abs().mean()), n=len(x))

    @dataclass(frozen=True)
    class Spread:
        refuses: bool = True

        def __call__(self, subject: Tensor, lab: Lab) -> Reading:
            if self.refuses and len(subject) < 2:
                raise InvalidData("One value has no spread.")
            return Reading(float(subject.std()) if len(subject) else 0.0, n=max(1, len(subject)))

    check_measure(Size())
    check_measure(Spread(), torch.tensor([1.0, 2.0, 4.0]))
    with pytest.raises(ContractViolation, match="nothing in it"):
        check_measure(Spread(refuses=False), torch.tensor([1.0, 2.0, 4.0]))
    with pytest.raises(ContractViolation, match=r"return \(measure, subject\)"):
        check_measure(Spread())


# Attributions


@dataclass(frozen=True)
class Alignment:
    """Inner products of last-layer gradients, or with exactly one fault."""

    fault: str = ""

    def prepare(self, trained: Trained, lab: Lab) -> "Alignment.Asked":
        return Alignment.Asked(self.fault, trained, lab)

    @dataclass(frozen=True)
    class Asked:
        fault: str
        trained: Trained
        lab: Lab

        def __call__(self, queries: Any, behaviour: Any) -> Credits:
            model = self.trained.model
            weight = list(model.parameters())[-1]

            def gradients(batch: Any, f: Any) -> Tensor:
                return torch.stack(
                    [torch.autograd.grad(v, weight, retain_graph=True)[0] for v in f(model, batch)]
                )

            (batch,) = once(self.trained.task.split("train").data, 10_000, self.lab)
            scores = (
                gradients(queries, behaviour) @ gradients(batch, self.trained.task.objective.loss).T
            )
            if self.fault == "credits nothing":
                scores = scores + 1e-3
            if self.fault == "nan":
                scores = scores / scores.new_zeros(())
            if self.fault == "transposed":
                scores = scores.T
            if self.fault == "half":
                scores = scores[:, ::2]
            if self.fault == "global random":
                scores = scores * (1 + random.random())
            if self.fault == "mode":
                model.train(not model.training)
            labels = ["one"] if self.fault == "labels" else ()
            return Credits(scores, Cause.EXAMPLE, labels)


def test_a_sound_attribution_passes() -> None:
    check_attribution(Alignment())


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("credits nothing", "always 0"),
        ("nan", "not finite"),
        ("transposed", r"\[query, cause\]"),
        ("half", "48 scores for 96"),
        ("global random", "second time"),
        ("mode", "left the model changed"),
        ("labels", "1 labels name 96"),
    ],
)
def test_a_broken_attribution_is_caught(fault: str, what: str) -> None:
    with pytest.raises(ContractViolation, match=what):
        check_attribution(Alignment(fault))


# Studies


@dataclass(frozen=True)
class Cell:
    seed: int
    fault: str = ""


def rows(cell: Cell, lab: Lab) -> Iterator[dict[str, Any]]:
    value: Any = float(lab.numpy().random())
    if cell.fault == "tensor":
        value = torch.tensor(value)
    if cell.fault == "nan":
        value = nan
    if cell.fault == "impure":
        value = random.random()
    yield {"seed": cell.seed, "accuracy": value, "split": "test"}


def study(fault: str = "", **changes: Any) -> Study[Any, Any]:
    given: dict[str, Any] = {
        "name": "coin",
        "source": Source(key="k", title="t", authors=("A",), year=2024),
        "scales": {Scale.SMOKE: fault, Scale.LAPTOP: fault},
        "cells": lambda config: [Cell(seed, config) for seed in range(2)],
        "run": rows,
        "claims": (Claim(says="It is high.", effect=average("accuracy"), above=0.5),),
    }
    return Study(**(given | changes))


def test_a_sound_study_passes() -> None:
    check_study(study())


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (study("tensor"), "Tensor"),
        (study("nan"), "accuracy=nan"),
        (study("impure"), "other rows"),
        (study(scales={Scale.SMOKE: ""}), "no laptop scale"),
        (study(cells=lambda config: []), "no cells"),
        (study(cells=lambda config: [frozenset()]), "no `seed`"),
        (study(claims=()), "claims nothing"),
        (
            study(claims=(Claim(says="So.", effect=average("accurracy"), above=0.1),)),
            "column `accurracy`",
        ),
        (study(table=lambda rows: 1 / 0), "division"),
    ],
)
def test_a_broken_study_is_caught(broken: Study[Any, Any], what: str) -> None:
    with pytest.raises((UnseenError, ZeroDivisionError), match=what):
        check_study(broken)


def test_how_long_the_smoke_scale_took_is_printed(capsys) -> None:
    check_study(study())
    assert re.search(r"took \d+\.\d CPU s", capsys.readouterr().out)


def test_the_stand_ins_are_the_same_every_time() -> None:
    a, b = small_subject(), small_subject()
    assert a is not b
    assert all(
        torch.equal(p, q) for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True)
    )
    accuracy = float(correct(a.model, copy.copy(a.task.split("same").data.columns)).mean())
    assert 0.8 < accuracy < 1
