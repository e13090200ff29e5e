"""Logged games of levels are compared from Python and from the command line."""

import json

import gymnasium
import numpy as np
import pytest

import unseen
from unseen.cli.main import main
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.lab import Lab
from unseen.questions.compare.levels import (
    TRAINING,
    UNSEEN,
    LevelResults,
    paired_difference,
    unseen_levels,
)
from unseen.questions.compare.levels_document import levels_document
from unseen.tasks.levels import GridArena, Levels, Skill, collect, drop_known_layouts
from unseen.tasks.levels.environments import open_arena
from unseen.tasks.levels.full_grid import full_grid
from unseen.tasks.levels.logged import Episode, LoggedData, write_minari

CROSSING = "MiniGrid-SimpleCrossingS9N1-v0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    data = collect(GridArena(CROSSING), range(4), 120, Skill.EXPERT, Lab())
    return write_minari(
        data, tmp_path / "logged", "crossing/expert-v0", lambda: full_grid(CROSSING)
    )


def run(folder, *options):
    small = ("--steps", "3", "--seeds", "2", "--unseen-levels", "6", "--max-steps", "25")
    return main(["compare", str(folder), "--by", "level", *small, *options])


def test_methods_are_trained_and_play_levels_that_the_data_never_showed(folder, tmp_path, capsys):
    report = tmp_path / "report.html"
    assert run(folder, "--environment", CROSSING, "--report", str(report), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["methods"]) == {"bc", "cql", "bcq", "iql", "dt", "bc-transformer"}
    assert found["training_levels"] == 4
    assert found["unseen_levels"] + found["dropped"] == 6
    for method in found["methods"].values():
        assert 0 <= method["unseen levels"]["value"] <= 1
    assert found["planner"]["unseen levels"] > 0  # the shortest way has about 15 steps
    page = report.read_text()
    for words in ("random", "planner", "twice the levels", "What these data cannot tell"):
        assert words in page


def test_finished_trainings_are_kept(folder):
    again = [
        unseen.compare_levels(
            folder, CROSSING, methods=["bc"], seeds=1, steps=2, unseen="3", max_steps=10,
            progress=False,
        ).results.returns["bc"]
        for _ in range(2)
    ]  # fmt: skip
    for part in again[0]:
        assert np.array_equal(again[0][part], again[1][part])


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ((), InvalidConfig, "--environment"),
        (("--environment", "MiniGrid-SimpleCrossingS9N9-v0"), UnknownName, "SimpleCrossingS9N"),
        (("--environment", CROSSING, "--unseen-levels", "2:9"), InvalidData, "called unseen: 2, 3"),
        (("--environment", CROSSING, "--unseen-levels", "few"), InvalidConfig, "names no level"),
        (("--environment", CROSSING, "--levels", "stage"), InvalidData, "--levels"),
        (("--environment", CROSSING, "--method", "sac"), UnknownName, "offline method `sac`"),
        (("--environment", "CartPole-v1"), InvalidData, "the environment gives"),
    ],
)
def test_what_cannot_be_compared_is_refused(folder, options, error, says, capsys):
    assert run(folder, *options) == 2
    said = capsys.readouterr().err
    assert said.startswith(error.__name__)
    assert says in said


def test_data_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    with pytest.raises(MissingFile, match="no local Minari data set"):
        unseen.compare_levels(tmp_path / "none", CROSSING, progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidData, match="has no metadata"):
        unseen.compare_levels(tmp_path / "empty", CROSSING, progress=False)


class Corridor(gymnasium.Env):
    """Walk to the door, whose side the seed chooses."""

    def __init__(self, seeded=True):
        self.observation_space = gymnasium.spaces.Box(-5, 5, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.seeded, self.shades = seeded, 1_000

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed if self.seeded else 0)
        self.at, self.door = 0, int(self.np_random.choice([-3, 3]))
        self.shade = self.np_random.integers(self.shades) / self.shades
        return np.array([self.at, self.door, self.shade], np.float32), {}

    def step(self, action):
        self.at += 2 * action - 1
        done = self.at == self.door
        seen = np.array([self.at, self.door, self.shade], np.float32)
        return seen, float(done), done, abs(self.at) == 3 and not done, {}


def test_any_environment_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    episodes = []
    for level in range(8):
        env = Corridor()
        seen = [env.reset(seed=level)[0]]
        action = int(env.door > 0)
        seen += [env.step(action)[0] for _ in range(3)]
        rewards = np.array([0.0, 0.0, 1.0])
        episodes.append(Episode(np.stack(seen), np.full(3, action), rewards, True, level))
    folder = write_minari(LoggedData(tuple(episodes), 2), tmp_path / "walks", "walk-v0", Corridor)
    answer = unseen.compare_levels(
        folder, Corridor, methods=["bc"], seeds=2, steps=60, unseen="8", progress=False
    )
    found = answer.results
    assert found.planner is None
    assert found.distinct == 8
    assert found.returns["bc"]["training levels"].shape == (2, 8)


class FewCorridors(Corridor):
    """Two layouts only."""

    def __init__(self):
        super().__init__()
        self.shades = 1


def test_where_every_unseen_level_is_known_nothing_is_unseen():
    arena = open_arena(FewCorridors)
    with pytest.raises(InvalidData, match="All 8 unseen levels begin in a layout"):
        drop_known_layouts(arena, range(8), range(58, 66))


def test_an_environment_whose_level_cannot_be_set():
    with pytest.raises(InvalidData, match="its level cannot be set"):
        open_arena(lambda: Corridor(seeded=False))


def test_continuous_actions_are_refused():
    with pytest.raises(InvalidData, match="Discrete action space"):
        open_arena("Pendulum-v1")


def test_ranges_of_unseen_levels():
    assert unseen_levels("3", [0, 9]) == (59, 60, 61)
    assert unseen_levels("20:22", [0]) == (20, 21)
    assert len(unseen_levels(None, [0])) == 200


def test_equal_returns_have_no_interval():
    same = np.ones((3, 4))
    assert np.isnan(paired_difference(same, same).low)
    assert paired_difference(same, same).value == 0
    zeros = {TRAINING: np.zeros((3, 4)), UNSEEN: np.zeros((3, 4))}
    found = LevelResults(
        returns={"bc": zeros, "iql": zeros},
        random=zeros,
        planner=None,
        shares={},
        logged=0.5,
        transitions=100,
        levels=Levels(train=(0, 1, 2, 3), unseen=(4, 5, 6, 7)),
        distinct=4,
        dropped=0,
        seeds=3,
        steps=1,
    )
    assert np.isnan(found.quartile_mean("bc").low)
    assert "Whether it is better than iql is undecided" in levels_document(found, "d", "e").lead
