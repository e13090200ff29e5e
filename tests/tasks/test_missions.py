"""Levels with missions: what is held out, what is seen, and what the bot logs."""

import numpy as np
import pytest

from unseen.engine.rollouts import RandomPolicy, play
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.tasks.levels.missions import (
    COLOURS,
    HELD_OUT,
    OBJECTS,
    MissionGridMaker,
    MissionLevels,
    mission_of,
)

SMALL = MissionLevels(train=6, unseen=4, transitions=60)


def missions(levels):
    env = MissionGridMaker(SMALL.environment)()
    found = []
    for level in levels:
        env.reset(seed=level)
        found.append(mission_of(env))
    return found


def test_every_colour_and_object_is_held_out_and_trained_on():
    assert {colour for colour, _ in HELD_OUT} == {*COLOURS}
    trained = {(c, o) for c in COLOURS for o in OBJECTS} - {*HELD_OUT}
    assert {colour for colour, _ in trained} == {*COLOURS}
    assert {kind for _, kind in trained} == {kind for _, kind in HELD_OUT} == {*OBJECTS}


def test_unseen_levels_have_the_missions_that_are_held_out():
    levels = SMALL.levels(Lab(seed=1))
    assert (len(levels.train), len(levels.unseen)) == (6, 4)
    assert not {*missions(levels.train)} & {*HELD_OUT}
    assert {*missions(levels.unseen)} <= {*HELD_OUT}


def test_planes_are_what_minigrid_says():
    env = MissionGridMaker(SMALL.environment)()
    seen, _ = env.reset(seed=3)
    inside = env.unwrapped
    colour, kind = mission_of(env)
    mission = seen[-9:].reshape(9, -1)
    names = [*OBJECTS, *COLOURS]
    assert [name for name, plane in zip(names, mission, strict=True) if plane.all()] == [
        kind,
        colour,
    ]
    assert set(mission.sum(1).tolist()) == {0, seen[0].size}
    for y in range(inside.height):
        for x in range(inside.width):
            thing = inside.grid.get(x, y)
            name = "" if thing is None else thing.type
            assert seen[0, y, x] == (name == "wall")
            kinds, colours = seen[1:4, y, x], seen[4:10, y, x]
            assert kinds.tolist() == [int(name == one) for one in OBJECTS]
            expected = [int(name in OBJECTS and thing.color == one) for one in COLOURS]
            assert colours.tolist() == expected
    x, y = inside.agent_pos
    assert np.argwhere(seen[10:14]).tolist() == [[inside.agent_dir, y, x]]


def test_the_bot_logs_games_of_the_training_levels_that_mostly_end_at_the_object():
    lab = Lab(seed=1)
    levels = SMALL.levels(lab)
    data, again = SMALL.data(levels, lab), SMALL.data(levels, lab)
    assert len(data) == 60
    assert {*data.levels} <= {*levels.train}
    whole = data.episodes[:-1]
    assert all(one.terminated == (one.rewards.sum() == 1) for one in whole)
    assert np.mean([one.terminated for one in whole]) > 0.5
    for one, other in zip(data.episodes, again.episodes, strict=True):
        assert np.array_equal(one.observations, other.observations)
        assert np.array_equal(one.actions, other.actions)


def test_a_logged_game_played_again_gives_the_same():
    lab = Lab(seed=1)
    levels = SMALL.levels(lab)
    episode = SMALL.data(levels, lab).episodes[0]
    games = SMALL.arena.start([episode.level])
    for seen, action, reward in zip(
        episode.observations, episode.actions, episode.rewards, strict=False
    ):
        assert np.array_equal(games.observations[0], seen)
        assert games.step(np.array([action])).rewards[0] == reward


def test_a_task_plays_both_sides():
    task = SMALL.build(Lab(seed=1))
    assert task.splits["train"].data[0]["x"].shape == (23, 6, 6)
    levels = task.splits["unseen levels"].data.columns["level"].tolist()
    random = RandomPolicy(3, np.random.default_rng(0))
    assert play(random, SMALL.arena, levels).returns.shape == (4,)


def test_other_missions_and_settings_are_refused():
    with pytest.raises(InvalidData, match="not to go to a coloured object"):
        MissionLevels("BabyAI-OpenDoor-v0", train=1, unseen=1).levels(Lab())
    with pytest.raises(InvalidConfig):
        MissionLevels(held_out=())
