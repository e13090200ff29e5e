"""The online reference: games on training levels only, the same again with the same seed."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from unseen.engine.level_environment import LevelEnvironment
from unseen.engine.online_ppo import OnlinePPO, lengthen, numpy_seeded, training_levels
from unseen.engine.toy_chain import chain_subject
from unseen.errors import InvalidConfig, InvalidData, MissingExtra
from unseen.lab import Lab
from unseen.models.policy import policy_network
from unseen.tasks.levels import GridArena, GridLevels

SPEC = GridLevels("MiniGrid-SimpleCrossingS9N1-v0", 3, 2, 60, most=5, pool=3)
SHORT = OnlinePPO(steps=64, longest=5, games=2, rollout=16, batch_size=16, epochs=1)


def network():
    with Lab().child("init").seeded():
        return policy_network((7, 9, 9), 3)


def test_games_are_on_the_levels_and_as_the_arena_plays_them():
    lab = Lab(seed=1)
    levels, returns = SPEC.levels(lab).train, list[float]()
    env = LevelEnvironment(SPEC.arena, levels, np.random.default_rng(0), returns)
    starts = SPEC.arena.start(levels).observations
    seen = {env.reset()[0].tobytes() for _ in range(20)}
    assert seen == {one.astype(np.float32).tobytes() for one in starts}
    first, _ = env.reset()
    for step in range(1, 6):
        _, reward, terminated, truncated, _ = env.step(1)  # turning in place
        assert (reward, terminated, truncated) == (0.0, False, step == 5)
    assert returns == [0.0]
    again = {env.reset()[0].tobytes() for _ in range(20)}
    assert first.tobytes() in again == seen  # a game does not change its level's start


def test_a_missing_library_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(MissingExtra, match="stable-baselines3") as error:
        SHORT.fit(network(), SPEC.build(Lab()), Lab())
    assert "pip install 'unseen[rl]'" in error.value.fix


def test_levels_are_those_of_the_log():
    lab = Lab(seed=1)
    assert {*training_levels(SPEC.build(lab))} <= {*SPEC.levels(lab).train}
    with pytest.raises(InvalidData, match="plays nothing"):
        SHORT.fit(network(), chain_subject().task, lab)


def test_games_are_longer_than_in_evaluation_but_never_shorter():
    assert lengthen(SPEC.arena, 484) == GridArena("MiniGrid-SimpleCrossingS9N1-v0", 484)
    assert lengthen(SPEC.arena, 3) == SPEC.arena


def test_numpy_streams_outside_are_not_touched():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    with numpy_seeded(1):
        first = np.random.random()  # noqa: NPY002
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    with numpy_seeded(1):
        assert np.random.random() == first  # noqa: NPY002


def test_the_network_learns_and_does_so_again():
    pytest.importorskip("stable_baselines3")
    lab = Lab(seed=1)
    task, before = SPEC.build(lab), network()
    one, other = (SHORT.fit(network(), task, lab) for _ in range(2))
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name])
    assert not torch.equal(one.model[-1].weight, before[-1].weight)
    assert one.curves == other.curves
    assert len(one.curves["loss"]) == 64 // (2 * 16)  # one of every round
    with pytest.raises(InvalidConfig, match="no last linear layer"):
        SHORT.fit(nn.Flatten(), task, lab)


def test_settings_out_of_range():
    with pytest.raises(InvalidConfig, match="at least one"):
        OnlinePPO(steps=0)
