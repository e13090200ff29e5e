"""The linear head on choices: a conditional logit."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods.choice_head import (
    ChoiceHead,
    LinearChoiceHead,
    choice_scores,
    head_task,
    right_share,
    share_of_highest,
)
from unseen.models.mlp import mlp


def columns(n=120, choices=3, features=4, seed=0, noise=1.0):
    lab = Lab(seed=seed).child("choices")
    x = torch.randn(n, choices, features, generator=lab.generator())
    e = noise * torch.randn(n, choices, generator=lab.child("noise").generator())
    y = (x[..., 0] - 0.5 * x[..., 1] + e).argmax(1)
    return Columns(x=x, present=torch.ones(n, choices, dtype=torch.bool), y=y)


def fit(data, **settings):
    method = LinearChoiceHead(**settings)
    head = ChoiceHead(data.columns["x"].shape[2])
    return method.fit(head, head_task(data, data), Lab(dtype=torch.float64)).model


def test_with_two_choices_it_is_logistic_regression_on_their_difference():
    data = columns(choices=2)
    head = fit(data, penalty=0.0, steps=500)
    x, y = data.columns["x"].double(), data.columns["y"]
    z = (x - head.mean) / head.scale
    reference = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10, max_iter=1_000)
    reference.fit((z[:, 1] - z[:, 0]).numpy(), y.numpy())
    assert np.allclose(head.weight.detach().numpy(), reference.coef_[0], atol=1e-4)


def test_permuting_the_choices_permutes_their_probabilities():
    data = columns()
    order = torch.tensor([2, 0, 1])
    place = order.argsort()
    moved = Columns(
        x=data.columns["x"][:, order],
        present=data.columns["present"],
        y=place[data.columns["y"]],
    )
    head, other = fit(data), fit(moved)
    with torch.no_grad():
        p = choice_scores(head, {**data.columns, "x": data.columns["x"].double()}).softmax(1)
        q = choice_scores(other, {**moved.columns, "x": moved.columns["x"].double()}).softmax(1)
    assert torch.allclose(p[:, order], q, atol=1e-4)


def test_the_scale_and_offset_of_a_feature_do_not_matter():
    data = columns()
    other = Columns(**{**data.columns, "x": data.columns["x"] * 7 - 3})
    assert torch.allclose(fit(data).weight, fit(other).weight, atol=1e-5)


def test_a_choice_that_is_not_there_is_never_chosen():
    data = columns(n=60)
    fewer = data.columns["present"].clone()
    fewer[::2, 2] = False
    y = torch.where(fewer.gather(1, data.columns["y"][:, None])[:, 0], data.columns["y"], 0)
    partial = Columns(x=data.columns["x"], present=fewer, y=y)
    head = fit(partial)
    batch = {**partial.columns, "x": partial.columns["x"].double()}
    assert (choice_scores(head, batch)[::2, 2] == -torch.inf).all()
    assert right_share(head, batch).mean() > 0.5


def test_a_tie_counts_its_share():
    scores = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert share_of_highest(scores, torch.tensor([0, 0, 0])).tolist() == [0.5, 1.0, 0.0]


def test_a_strong_penalty_leaves_no_weight_and_chance():
    head = fit(columns(), penalty=100.0)
    assert head.weight.abs().max() < 1e-3


def test_bad_input_is_refused():
    data = columns()
    empty = data.subset(slice(0, 0))
    with pytest.raises(InvalidData, match="no item"):
        fit(empty)
    with pytest.raises(UnsupportedLayer, match="Sequential"):
        LinearChoiceHead().fit(mlp([4, 2]), head_task(data, data), Lab())
    with pytest.raises(InvalidConfig, match="penalty=-1"):
        LinearChoiceHead(penalty=-1)
