"""LEVI: what its depths read, what stays frozen, and its limits."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine import parameters
from unseen.engine.loop import Budget, Optimizer, draws, erm_step, train
from unseen.engine.toy import toy_task
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.errors import InvalidConfig, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods.levi import LEVI, levi_criterion
from unseen.models.ensemble_model import MeanLogit, SingleMember
from unseen.models.levi import Layerwise, pool_positions
from unseen.models.mlp import mlp
from unseen.objectives import classify

LAB = Lab(dtype=torch.float64)
SGD = Budget(steps=10, batch_size=16, lr=0.1, optimizer=Optimizer.SGD, momentum=0.9)
X = toy_task().splits["unseen"].data.columns["x"].double()


def backbone(seed: int = 1) -> nn.Module:
    with Lab(seed).seeded():
        return mlp([4, 8, 6, 2]).double()


def test_depths_read_the_models_own_hidden_states():
    net = backbone()
    made = LEVI().surgery(copy.deepcopy(net), toy_task(), LAB)
    assert made.depths == ("2", "4")
    assert_close(made.backbone_features(X), [net[:3](X), net[:5](X)])
    assert_close(made.small_features(X), [made.small(X)] * 2)
    both = torch.cat([net[:3](X), made.small(X)], 1)
    assert_close(made.outputs_by_depth(X)[0], made.adapters[0](both))
    assert_close(made(X), made.outputs_by_depth(X).log_softmax(-1).mean(0))


def test_criterion_is_the_mean_over_depths():
    made = LEVI().surgery(backbone(), toy_task(), LAB)
    draw = next(draws(toy_task(), SGD, LAB))
    x, y = (torch.cat([b[key] for b in draw.fit.values()]) for key in ("x", "y"))
    wanted = sum(nn.functional.cross_entropy(z, y) for z in made.outputs_by_depth(x)) / 2
    assert_close(levi_criterion(made, draw, classify), wanted)


def test_order_of_depths_does_not_change_the_prediction_and_one_depth_is_its_head():
    made = LEVI().surgery(backbone(), toy_task(), LAB)
    turned = Layerwise(
        made.backbone,
        made.small,
        list(made.adapters)[::-1],
        made.depths[::-1],
        ("2",),
        made.rule,
        frozen=True,
    )
    assert_close(turned(X), made(X))
    single = LEVI(depths=("4",)).surgery(backbone(), toy_task(), LAB)
    assert_close(single(X), single.outputs_by_depth(X)[0].log_softmax(-1))
    made.rule = SingleMember(1)
    assert_close(made(X), made.outputs_by_depth(X)[1])


def test_without_the_small_network_it_is_a_probe_of_the_last_hidden_state():
    made = LEVI(depths=("4",), rule=MeanLogit(), budget=SGD).surgery(backbone(), toy_task(), LAB)
    made.small[1].requires_grad_(False)
    for p in made.small[1].parameters():
        p.data.zero_()
    probe = copy.deepcopy(made.adapters[0])
    kept = probe[1].weight.data[:, :6].clone()
    net, seen = backbone(), toy_task()
    hidden = {
        name: replace(
            s,
            data=type(s.data)(
                **{**s.data.columns, "x": net[:5](s.data.columns["x"].double()).detach()}
            ),
        )
        for name, s in seen.splits.items()
    }
    narrow = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 32), nn.ReLU(), copy.deepcopy(probe[3])
    ).double()
    narrow[1].weight.data.copy_(kept)
    narrow[1].bias.data.copy_(probe[1].bias.data)
    train(made, seen, LEVI().training, SGD, LAB)
    train(narrow, replace(seen, splits=hidden), erm_step, SGD, LAB)
    assert_close(made(X), narrow(net[:5](X)), rtol=1e-9, atol=1e-11)


def test_frozen_weights_stay_and_tuned_ones_move():
    for frozen in (True, False):
        net = backbone()
        before = parameters.state(net)
        trained = LEVI(frozen=frozen, budget=SGD).fit(net, toy_task(), LAB).model
        same = all(
            torch.equal(before[name], tensor)
            for name, tensor in trained.backbone.state_dict().items()
        )
        assert same == frozen
        assert all((p.grad is None) == frozen for p in list(trained.backbone.parameters())[:2])


def test_at_once_equals_one_after_the_other():
    method = LEVI(budget=SGD)
    labs = [Lab(k, dtype=torch.float64) for k in range(3)]
    alone = [method.fit(backbone(k), toy_task(), lab).model for k, lab in enumerate(labs)]
    nets = [method.surgery(backbone(k), toy_task(), lab) for k, lab in enumerate(labs)]
    train_stacked(TrainingRuns(nets, [toy_task()] * 3, [method.training] * 3, [SGD] * 3, labs))
    for one, other in zip(alone, nets, strict=True):
        assert_close(dict(other.state_dict()), dict(one.state_dict()), rtol=1e-9, atol=1e-11)


def test_other_inputs_for_the_small_view_show_what_it_contributes():
    made = LEVI().surgery(backbone(), toy_task(), LAB)
    assert_close(made.outputs_by_depth(X, X), made.outputs_by_depth(X))
    assert not torch.allclose(made.outputs_by_depth(X, X.flip(0)), made.outputs_by_depth(X))


def test_pooling():
    g = Lab(0).generator()
    tokens, image = torch.randn(2, 5, 3, generator=g), torch.randn(2, 3, 4, 4, generator=g)
    assert_close(pool_positions(tokens), tokens.mean(1))
    assert_close(pool_positions(image), image.mean((2, 3)))


def test_refusals():
    with pytest.raises(InvalidConfig, match="small=0"):
        LEVI(small=0)
    with pytest.raises(UnknownName, match=r"`blocks\.9`"):
        LEVI(depths=("blocks.9",)).surgery(backbone(), toy_task(), LAB)
    with pytest.raises(UnsupportedLayer, match="where its depths are"):
        LEVI().surgery(nn.Linear(4, 2), toy_task(), LAB)
    with pytest.raises(InvalidConfig, match="0 depths"):
        Layerwise(backbone(), backbone(), [], (), ("2",), MeanLogit(), frozen=True)
