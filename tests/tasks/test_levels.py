"""Levels of MiniGrid on arrays, logged data and their file, the split by level."""

import heapq

import numpy as np
import pytest
import torch
from torch import nn

from unseen.engine.rollouts import GymArena, RandomPolicy, act, play, returns_of
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.tasks.levels import (
    TRAINING,
    UNSEEN,
    GridLevels,
    Levels,
    Skill,
    collect,
    drop_known_layouts,
    level_task,
)
from unseen.tasks.levels.full_grid import full_grid
from unseen.tasks.levels.grid import (
    FORWARD,
    LEFT,
    RIGHT,
    STEPS,
    GridArena,
    Planner,
    distances,
    read_layout,
)
from unseen.tasks.levels.logged import (
    Episode,
    LoggedData,
    level_of,
    read_minari,
    write_minari,
)

CROSSING = "MiniGrid-SimpleCrossingS11N5-v0"
LAVA = "MiniGrid-LavaCrossingS9N1-v0"
LAB = Lab(seed=1)


@pytest.mark.parametrize("environment", [CROSSING, LAVA, "MiniGrid-FourRooms-v0"])
def test_games_on_arrays_equal_minigrid_step_by_step(environment):
    levels, most = [3, 8, 21, 55], 60
    games = GridArena(environment, most).start(levels)
    copies = [full_grid(environment, most) for _ in levels]
    seen = [copy.reset(seed=level)[0] for copy, level in zip(copies, levels, strict=True)]
    assert np.array_equal(games.observations, np.stack(seen))
    over = np.zeros(len(levels), dtype=bool)
    rng = np.random.default_rng(0)
    planner = Planner(games, rng, np.array([0.0, 0.2, 0.5, 1.0]))
    while not over.all():
        running = np.flatnonzero(~over)
        actions = np.zeros(len(levels), dtype=int)
        actions[running] = planner.act(games.observations, np.zeros(0), running)
        outcome = games.step(actions)
        for k in running:
            planes, reward, ends, cut, _ = copies[k].step(int(actions[k]))
            assert np.array_equal(planes, games.observations[k])
            assert (reward, ends, cut) == (
                outcome.rewards[k],
                outcome.terminated[k],
                outcome.truncated[k],
            )
            over[k] = ends or cut


def a_star(walls, goal, start):
    """Fewest actions by A*, written apart from the planner: positions and headings one by one."""
    heap = [(0, 0, tuple(start))]
    best = {tuple(start): 0}
    while heap:
        _, done, (x, y, heading) = heapq.heappop(heap)
        if (x, y) == goal:
            return done
        dx, dy = STEPS[heading]
        ahead = (x + dx, y + dy)
        after = [(x, y, (heading + 1) % 4), (x, y, (heading - 1) % 4)]
        if not walls[ahead[1], ahead[0]]:
            after.append((*ahead, heading))
        for pose in after:
            pose = tuple(int(part) for part in pose)
            if done + 1 < best.get(pose, 10**9):
                best[pose] = done + 1
                ahead_at_least = abs(goal[0] - pose[0]) + abs(goal[1] - pose[1])
                heapq.heappush(heap, (done + 1 + ahead_at_least, done + 1, pose))
    raise AssertionError("no way")


def test_the_planner_solves_every_level_on_a_shortest_way():
    arena = GridArena(CROSSING)
    levels = list(range(100))
    layouts = arena.layouts(levels)
    games = arena.start(levels)
    planner = Planner(games, np.random.default_rng(0))
    played = play(planner, FixedGames(games), levels)
    shortest = [
        a_star(layouts.walls[k], (9, 9), layouts.start[k].tolist()) for k in range(len(levels))
    ]
    assert played.returns.tolist() == [1.0] * len(levels)
    assert played.steps.tolist() == shortest


class FixedGames:
    """An arena whose games have begun: the planner looks into them."""

    actions = 3

    def __init__(self, games):
        self.games = games

    def start(self, levels):
        return self.games


def test_lava_is_never_on_the_way():
    arena = GridArena(LAVA)
    games = arena.start(range(20))
    played = play(Planner(games, np.random.default_rng(0)), FixedGames(games), range(20))
    assert played.returns.tolist() == [1.0] * 20
    assert (distances(games.layouts)[games.layouts.lava] > 1_000).all()


def test_turning_and_walking_by_hand():
    games = GridArena(CROSSING).start([0])
    assert games.state.tolist() == [[1, 1, 0]]
    games.step(np.array([LEFT]))
    assert games.state.tolist() == [[1, 1, 3]]
    games.step(np.array([FORWARD]))  # the border
    assert games.state.tolist() == [[1, 1, 3]]
    games.step(np.array([RIGHT]))
    games.step(np.array([FORWARD]))
    assert games.state.tolist() == [[2, 1, 0]]


@pytest.fixture(scope="module")
def data():
    return collect(GridArena(CROSSING), range(10, 20), 400, Skill.EXPERT, LAB)


def test_logged_games_are_of_the_levels_and_end_by_the_goal_or_the_limit(data):
    assert len(data) == 400
    assert set(data.levels) <= set(range(10, 20))
    for one in data.episodes[:-1]:
        assert one.terminated == (one.rewards.sum() == 1)
        assert one.terminated or len(one) == 80
    columns = data.columns().columns
    assert int(columns["terminal"].sum()) == sum(one.terminated for one in data.episodes)
    follows = (columns["episode"][1:] == columns["episode"][:-1]).nonzero().flatten()
    assert torch.equal(columns["next_x"][follows], columns["x"][follows + 1])


def test_skills_differ_in_how_often_the_goal_is_reached():
    arena = GridArena(CROSSING)
    means = [collect(arena, range(30), 3_000, skill, LAB).mean_return for skill in Skill]
    assert means[0] > means[1] > means[2]


def test_minari_holds_what_was_written(data, tmp_path):
    make = lambda: full_grid(CROSSING)  # noqa: E731
    write_minari(data, tmp_path / "a", "crossing/expert-v0", make)
    write_minari(data, tmp_path / "b", "crossing/expert-v0", make)
    read = read_minari(tmp_path / "a")
    for one, other in zip(data.episodes, read.episodes, strict=True):
        assert np.array_equal(one.observations, other.observations)
        assert np.array_equal(one.actions, other.actions)
        assert (one.rewards.sum(), one.terminated, one.level) == (
            other.rewards.sum(),
            other.terminated,
            other.level,
        )
    files = [(tmp_path / name / "main_data.hdf5").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    assert read_minari(tmp_path / "a", levels="seed").levels == data.levels
    with pytest.raises(InvalidData, match=r"No `stage` in infos of episode 0: infos hold level"):
        read_minari(tmp_path / "a", levels="stage")


def test_the_same_seed_logs_the_same_games():
    one, other = (
        collect(GridArena(CROSSING), range(5), 120, Skill.MIXED, LAB).columns().columns
        for _ in range(2)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_random_parts_are_whole_episodes_but_the_last(data):
    part = data.draw(100, LAB)
    assert len(part) == 100
    lengths = {len(one) for one in data.episodes}
    assert all(len(one) in lengths for one in part.episodes[:-1])
    assert data.draw(10_000, LAB) is data


def test_a_task_plays_training_levels_and_unseen_ones():
    spec = GridLevels(train=4, unseen=6, transitions=100)
    task = spec.build(LAB)
    assert list(task.unseen) == [UNSEEN]
    trained = set(task.splits["train"].data.columns["level"].tolist())
    assert trained <= set(task.splits[TRAINING].data.columns["level"].tolist())
    assert not trained & set(task.splits[UNSEEN].data.columns["level"].tolist())
    wider = GridLevels(train=8, unseen=6, transitions=100).levels(LAB)
    assert set(spec.levels(LAB).train) < set(wider.train)
    assert spec.levels(LAB).unseen == wider.unseen


def forward_only():
    model = nn.Sequential(nn.Flatten(), nn.Linear(7 * 11 * 11, 3))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    return nn.Sequential(Floats(), model)


class Floats(nn.Module):
    def forward(self, x):
        return x.float()


def test_scores_are_returns_of_levels_in_any_order():
    task = GridLevels(train=4, unseen=6, transitions=100).build(LAB)
    score = task.objective.score
    levels = torch.tensor([3, 1, 3])
    got = score(forward_only(), {"level": levels})
    assert got.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(InvalidData, match="No level is played"):
        returns_of(forward_only(), GridArena(CROSSING), [], Lab())


def test_gymnasium_copies_give_the_same_games_as_arrays():
    arena = GymArena(lambda: full_grid(CROSSING, 30), lambda seen: seen, 3)
    levels = [4, 9]
    a, b = (
        play(RandomPolicy(3, np.random.default_rng(0)), one, levels)
        for one in (arena, GridArena(CROSSING, 30))
    )
    assert a.steps.tolist() == b.steps.tolist()
    assert a.returns.tolist() == b.returns.tolist()


def test_the_greedy_action_and_outputs_that_are_nan():
    x = np.zeros((2, 7, 11, 11), dtype=np.uint8)
    model = forward_only()
    assert act(model, x).tolist() == [FORWARD, FORWARD]
    with torch.no_grad():
        model[1][1].bias[0] = torch.nan
    with pytest.raises(InvalidData, match="not finite"):
        act(model, x)


@pytest.mark.parametrize("level", [np.nan, np.inf, 0.5, "first", b"1"])
def test_a_level_that_is_no_whole_number_is_refused(level):
    with pytest.raises(InvalidData, match="of episode 3 is"):
        level_of({"level_seed": np.array([level, level])}, None, "level_seed", 3)


def test_levels_that_overlap_are_refused():
    with pytest.raises(InvalidData, match="1 levels are trained on and called unseen: 3"):
        Levels((1, 2, 3), (3, 4))
    with pytest.raises(InvalidData, match="0 unseen"):
        Levels((1,), ())


def test_known_layouts_are_dropped():
    arena = GridArena("MiniGrid-SimpleCrossingS9N1-v0")
    train = list(range(100))
    kept, distinct = drop_known_layouts(arena, train, range(200, 260))
    assert distinct < 100  # few different ones exist
    layouts = arena.layouts([*train, *kept]).identities()
    assert len(set(layouts)) == distinct + len(kept)


def episode(**changes):
    fields = {
        "observations": np.zeros((3, 2), dtype=np.float32),
        "actions": np.array([0, 1]),
        "rewards": np.zeros(2),
        "terminated": True,
        "level": 0,
    }
    return Episode(**(fields | changes))


@pytest.mark.parametrize(
    ("episodes", "says"),
    [
        ((), "no transition"),
        ((episode(rewards=np.array([0.0, np.nan])),), "Episode 0 has a reward that is not finite"),
        ((episode(actions=np.array([0, 2])),), "actions from 0 to 2"),
        ((episode(observations=np.zeros((2, 2))),), "2 observations, 2 actions"),
    ],
)
def test_data_that_cannot_be_learned_from(episodes, says):
    with pytest.raises(InvalidData, match=says):
        LoggedData(episodes, 2)


def test_data_of_another_environment_are_refused(data):
    with pytest.raises(InvalidData, match="The data have 3 actions, the environment 4"):
        level_task(data, GymArena(lambda: None, lambda x: x, 4), Levels((10,), (1,)))


def test_settings_out_of_range():
    with pytest.raises(InvalidConfig, match="0 training levels"):
        GridLevels(train=0)
    with pytest.raises(InvalidConfig, match="0 transitions"):
        collect(GridArena(CROSSING), [1], 0, Skill.EXPERT, LAB)


def test_objects_with_other_rules_are_named():
    import gymnasium
    import minigrid  # noqa: F401

    env = gymnasium.make("MiniGrid-DoorKey-5x5-v0")
    env.reset(seed=0)
    with pytest.raises(InvalidData, match="door, key"):
        read_layout(env)
