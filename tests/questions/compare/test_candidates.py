"""Who takes part, and what random search draws for them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers

from unseen.engine.loop import Budget
from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab
from unseen.methods.erm import ERM
from unseen.methods.sam import SAM
from unseen.questions.compare.candidates import (
    MethodSpec,
    check_ranges,
    methods_named,
    methods_of_classes,
    standard_methods,
)
from unseen.search_space import LogUniform, Uniform, sample

BUDGET = Budget(steps=100, lr=2e-3, weight_decay=1e-2)


@given(seed=integers(0, 99), draw=integers(0, 20))
def test_all_methods_get_the_same_learning_rate_and_weight_decay(seed, draw):
    budgets = [
        entrant.draw_method(BUDGET, draw, Lab(seed)).budget for entrant in standard_methods()
    ]
    assert len({(budget.lr, budget.weight_decay) for budget in budgets}) == 1
    assert BUDGET.lr / 5 <= budgets[0].lr <= BUDGET.lr * 5
    assert draw or budgets[0] == BUDGET


def test_the_first_draw_has_the_defaults():
    assert [entrant.draw_method(BUDGET, 0, Lab()) for entrant in methods_named(["erm", "SAM"])] == [
        ERM(BUDGET),
        SAM(budget=BUDGET),
    ]


def test_a_draw_does_not_depend_on_what_else_is_searched():
    entrant = MethodSpec("SAM", lambda budget: SAM(budget=budget))
    whole = entrant.draw_method(BUDGET, 3, Lab())
    fewer = entrant.draw_method(BUDGET, 3, Lab(), {"lr": Uniform(1e-3, 1e-3)})
    assert fewer.rho == whole.rho != SAM().rho
    assert fewer.budget.lr == 1e-3


@given(low=floats(1e-6, 1), factor=floats(1, 1e6), seed=integers(0, 999))
def test_draws_stay_in_their_range(low, factor, seed):
    high = low * factor
    for scale in (LogUniform(low, high), Uniform(low, high)):
        value = sample({"x": scale}, Lab(seed))["x"]
        assert low * (1 - 1e-12) <= value <= high * (1 + 1e-12)


def test_log_uniform_draws_every_order_of_magnitude_alike():
    values = [sample({"x": LogUniform(1e-4, 1)}, Lab().child(k))["x"] for k in range(2_000)]
    counts, _ = np.histogram(np.log10(values), bins=4, range=(-4, 0))
    assert abs(counts / 2_000 - 0.25).max() < 3 * (0.25 * 0.75 / 2_000) ** 0.5 * 1.5


@pytest.mark.parametrize(
    "make", [lambda: LogUniform(0, 1), lambda: LogUniform(2, 1), lambda: Uniform(1, 0)]
)
def test_ranges_that_are_none_are_refused(make):
    with pytest.raises(InvalidConfig, match="is no range"):
        make()


def test_names_match_whatever_their_punctuation():
    assert [entrant.name for entrant in methods_named(["group_dro", "ERM", "v-rex"])] == [
        "group DRO",
        "ERM",
        "V-REx",
    ]
    assert [entrant.name for entrant in methods_named([])] == [
        entrant.name for entrant in standard_methods()
    ]
    with pytest.raises(UnknownName, match="did you mean"):
        methods_named(["vrexx"])


def test_every_class_with_a_budget_is_known_and_takes_it():
    found = {entrant.name: entrant for entrant in methods_of_classes()}
    assert {"ERM", "SAM", "EarlyStopping"} <= set(found)
    for entrant in found.values():
        assert entrant.make(BUDGET).budget == BUDGET


def test_declared_ranges_are_within_every_methods_domain():
    check_ranges([*standard_methods(), *methods_of_classes()], BUDGET, {})


def test_a_hyperparameter_out_of_range_is_refused_before_training():
    with pytest.raises(InvalidConfig, match="rho"):
        check_ranges(methods_named(["sam"]), BUDGET, {"rho": Uniform(-1, 0.1)})
    with pytest.raises(InvalidConfig, match="Budget"):
        check_ranges(methods_named(["erm"]), BUDGET, {"lr": Uniform(-1, 0.1)})
    with pytest.raises(UnknownName, match="no hyperparameter `rhoo`"):
        check_ranges(methods_named(["sam"]), BUDGET, {"rhoo": Uniform(0, 0.1)})


def test_a_budget_without_weight_decay_still_has_a_range():
    assert MethodSpec("ERM", ERM).space(replace(BUDGET, weight_decay=0.0))["weight_decay"].low > 0
