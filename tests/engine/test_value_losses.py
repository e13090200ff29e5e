"""Offline learners on a chain whose values are known, and their losses by hand."""

import math
from dataclasses import replace

import pytest
import torch

from unseen.engine.loop import Budget, Optimizer
from unseen.engine.toy_chain import (
    DISCOUNT,
    RIGHT,
    STATES,
    chain_model,
    chain_step,
    chain_task,
    chain_transitions,
    chain_values,
)
from unseen.engine.value_losses import (
    AVOIDED,
    advantage_weight,
    bellman_target,
    conservative_penalty,
    constrain,
    expectile_loss,
    likely_actions,
    require_transitions,
    untrained_copy,
)
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.batch_constrained_q import DiscreteBCQ
from unseen.methods.behaviour_cloning import BehaviourCloning
from unseen.methods.conservative_q import DiscreteCQL
from unseen.methods.implicit_q import DiscreteIQL
from unseen.methods.sequence_policy import BCTransformer, DecisionTransformer

STEPS = Budget(steps=300, batch_size=1_000, lr=5.0, optimizer=Optimizer.SGD)
"""Every minibatch is the whole chain: no noise is left."""
LAB = Lab(dtype=torch.float64)
SKEWED = torch.tensor([[1.0, 3.0]]).repeat(STATES, 1)


def table(model):
    with torch.no_grad():
        return model(torch.eye(STATES, dtype=torch.float64))


def fit(method, data=None):
    data = chain_transitions() if data is None else data
    return method.fit(chain_model(), chain_task(data), LAB).model


def q_learning(**changes):
    return DiscreteCQL(
        **{"penalty": 0.0, "discount": DISCOUNT, "rate": 0.5, "budget": STEPS} | changes
    )


def test_without_penalty_conservative_q_learning_is_value_iteration():
    assert torch.allclose(table(fit(q_learning())), chain_values(), atol=1e-3)


def test_the_penalty_lowers_actions_that_were_not_logged():
    counts = SKEWED.clone()
    counts[:, 0] = 0  # nobody went left
    data = chain_transitions(counts)
    free, lowered = (table(fit(q_learning(penalty=p), data)) for p in (0.0, 0.5))
    start = table(chain_model().double())
    assert torch.allclose(free[:, 0], start[:, 0])  # without data nothing moves them
    assert (lowered[:, 0] < free[:, 0] - 0.1).all()


def bcq(threshold, data):
    return fit(DiscreteBCQ(threshold, DISCOUNT, 0.5, replace(STEPS, steps=500)), data)


def test_a_low_threshold_is_double_q_learning():
    model = bcq(0.0, chain_transitions(SKEWED))
    assert torch.allclose(table(model.values), chain_values(), atol=1e-3)


def test_a_threshold_near_one_is_the_favourite_of_the_logged_player():
    counts = SKEWED.clone()
    counts[::2] = torch.tensor([5.0, 2.0])
    model = bcq(1 - 1e-6, chain_transitions(counts))
    assert torch.equal(table(model).argmax(1), counts.argmax(1))
    assert (table(model).min(1).values == AVOIDED).all()


def behaviour_values(counts):
    """V of the policy that logged, by iteration."""
    policy = counts / counts.sum(1, keepdim=True)
    value = torch.zeros(STATES, dtype=torch.float64)
    for _ in range(2_000):
        new = torch.zeros_like(value)
        for state in range(STATES):
            for action in range(2):
                after, reward, ends = chain_step(state, action)
                step = reward + DISCOUNT * (not ends) * value[after]
                new[state] += policy[state, action] * step
        value = new
    return policy.double(), value


def test_implicit_q_learning_at_one_half_clones_and_evaluates_the_behaviour():
    data = chain_transitions(SKEWED)
    method = DiscreteIQL(0.5, 0.0, DISCOUNT, 0.5, replace(STEPS, lr=3.0))
    model = fit(method, data)
    policy, value = behaviour_values(SKEWED)
    assert torch.allclose(table(model).softmax(1), policy, atol=1e-3)
    assert torch.allclose(table(model.baseline)[:, 0], value, atol=1e-3)
    cloned = fit(BehaviourCloning(STEPS), data)
    assert torch.allclose(table(cloned).softmax(1), policy, atol=1e-3)


def test_a_high_expectile_approaches_the_best_value():
    budget = replace(STEPS, lr=2.0, steps=600)
    best = chain_values().max(1).values
    gaps = []
    for expectile in (0.7, 0.999):
        model = fit(DiscreteIQL(expectile, 0.0, DISCOUNT, 0.5, budget), chain_transitions(SKEWED))
        gaps.append((best - table(model.baseline)[:, 0]).abs().max().item())
    assert gaps[1] < 0.02 < gaps[0]


def test_a_time_limit_bootstraps_and_an_end_does_not():
    ends, cut = (
        table(fit(q_learning(), chain_transitions(terminal=terminal))) for terminal in (True, False)
    )
    assert ends[-1, RIGHT] == pytest.approx(1.0, abs=1e-3)
    # the same reward for ever: 1 / (1 − γ)
    assert cut[-1, RIGHT] == pytest.approx(1 / (1 - DISCOUNT), abs=1e-2)


def test_losses_by_hand():
    values = torch.tensor([[1.0, 3.0, 2.0]])
    action = torch.tensor([0])
    assert conservative_penalty(values, action).item() == pytest.approx(
        math.log(math.e + math.e**3 + math.e**2) - 1
    )
    one = torch.ones(1)
    assert bellman_target(one, 0 * one, 2 * one, 0.9).item() == pytest.approx(2.8)
    assert bellman_target(one, one, 2 * one, 0.9).item() == 1
    errors = torch.tensor([2.0, -2.0])
    assert expectile_loss(errors, 0.8).tolist() == pytest.approx([3.2, 0.8])
    assert advantage_weight(torch.tensor([0.0, 10.0]), 3.0).tolist() == [1.0, 100.0]
    logits = torch.tensor([0.5, 0.3, 0.2]).log()[None]
    assert likely_actions(logits, 0.5).tolist() == [[True, True, False]]
    assert constrain(values, logits, 0.9).tolist() == [[1.0, AVOIDED, AVOIDED]]


def test_losses_do_not_depend_on_a_constant_in_all_logits():
    values, action = torch.randn(4, 3, generator=LAB.generator()), torch.tensor([0, 1, 2, 0])
    for shift in (-5.0, 7.0):
        moved = conservative_penalty(values + shift, action)
        assert torch.allclose(moved, conservative_penalty(values, action), atol=1e-5)
        assert torch.equal(likely_actions(values + shift, 0.3), likely_actions(values, 0.3))


def test_cloning_needs_as_many_nats_as_there_are_equal_ways():
    fitted = BehaviourCloning(STEPS).fit(chain_model(), chain_task(chain_transitions()), LAB)
    assert fitted.curves["loss"][-1] == pytest.approx(math.log(2), abs=1e-4)
    only = torch.tensor([[0.0, 1.0]]).repeat(STATES, 1)
    fitted = BehaviourCloning(STEPS).fit(chain_model(), chain_task(chain_transitions(only)), LAB)
    assert fitted.curves["loss"][-1] < 1e-2


@pytest.mark.parametrize("method", [BCTransformer, DecisionTransformer])
def test_sequence_models_learn_the_chain(method):
    budget = Budget(steps=60, batch_size=60, lr=1e-2)
    data = chain_transitions(torch.tensor([[0.0, 2.0]]).repeat(STATES, 1))
    small = method(context=3, width=16, layers=1, heads=2, budget=budget)
    model = small.fit(chain_model(hidden=8), chain_task(data), Lab()).model
    with torch.no_grad():
        assert (model(torch.eye(STATES)).argmax(1) == RIGHT).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"y": torch.rand(10)}, "finitely many actions"),
        ({"reward": torch.full((10,), math.nan)}, "not finite"),
    ],
)
def test_continuous_actions_and_rewards_that_are_nan_are_refused(change, says):
    columns = chain_transitions().columns | change
    task = chain_task(type(chain_transitions())(**columns))
    with pytest.raises(InvalidData, match=says):
        DiscreteIQL().fit(chain_model(), task, Lab())


def test_what_is_missing_is_named():
    columns = chain_transitions().columns
    task = chain_task(type(chain_transitions())(x=columns["x"], y=columns["y"]))
    require_transitions(task, ("x", "y"))
    with pytest.raises(InvalidData, match="no reward, next_x, terminal"):
        DiscreteCQL().fit(chain_model(), task, Lab())
    with pytest.raises(InvalidConfig, match="threshold=1"):
        DiscreteBCQ(1.0)
    with pytest.raises(InvalidConfig, match="context=0"):
        DecisionTransformer(context=0)


def test_a_copy_has_new_weights_and_the_same_shape():
    model = chain_model(hidden=8)
    copy = untrained_copy(model, Lab(), outputs=1)
    assert copy[-1].weight.shape == (1, 8)
    assert not torch.equal(copy[0].weight, model[0].weight)
    assert torch.equal(copy[0].weight, untrained_copy(model, Lab(), outputs=1)[0].weight)
