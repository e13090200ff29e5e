"""Mazes: what is read from a picture, the shortest way, and games where envpool is there."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from unseen.errors import InvalidConfig, InvalidData, MissingExtra
from unseen.lab import Lab
from unseen.tasks.levels.maze import (
    CELLS,
    EDGES,
    PLAIN,
    Maze,
    MazeArena,
    MazeLevels,
    cells_to_goal,
    make_maze,
    mean_colours,
    read_maze,
    require_envpool,
    walk,
)

WALL, CHEESE, MOUSE = (189, 137, 88), (254, 231, 98), (199, 212, 212)


def picture(free, start, goal):
    """A maze as Procgen draws it without backgrounds; mouse and cheese fill half of a cell."""
    image = np.zeros((3, 64, 64), dtype=np.uint8)
    for y in range(CELLS):
        for x in range(CELLS):
            rows, columns = (slice(EDGES[k], EDGES[k + 1]) for k in (y, x))
            if not free[y, x]:
                image[:, rows, columns] = np.array(WALL)[:, None, None]
            for place, colour in ((start, MOUSE), (goal, CHEESE)):
                if (y, x) == place:
                    half = slice(EDGES[y], EDGES[y] + 2)
                    image[:, half, columns] = np.array(colour)[:, None, None]
    return image


def corridor():
    free = np.zeros((CELLS, CELLS), dtype=bool)
    free[3, 2:9] = free[3:8, 8] = True
    return free


def test_a_picture_is_read_cell_by_cell():
    maze = read_maze(picture(corridor(), (3, 2), (7, 8)))
    assert np.array_equal(maze.free, corridor())
    assert (maze.start, maze.goal) == ((3, 2), (7, 8))
    with pytest.raises(InvalidData, match="no mouse or no cheese"):
        read_maze(np.zeros((3, 64, 64), dtype=np.uint8))


def test_the_way_is_as_long_as_by_hand_and_walls_stop():
    maze = Maze(corridor(), (3, 2), (7, 8))
    far = cells_to_goal(maze)
    assert far[3, 2] == 6 + 4
    assert far[0, 0] == -1
    assert walk(maze, (3, 2), 0) == (3, 2)
    assert walk(maze, (3, 2), 1) == (3, 3)


def test_colours_of_cells_are_means():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 64, 64), dtype=np.uint8)
    found = mean_colours(image)
    assert found.shape == (3, 15, 15)
    cell = image[:, EDGES[4] : EDGES[5], EDGES[9] : EDGES[10]]
    assert np.abs(found[:, 4, 9] - cell.mean((1, 2))).max() <= 0.5


def test_a_missing_library_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingExtra, match=r"envpool 1\.1") as error:
        MazeLevels(train=1, unseen=1, transitions=1).build(Lab())
    assert "pip install" in error.value.fix
    with pytest.raises(InvalidConfig):
        MazeLevels(train=0)


def test_missing_libraries_of_qt_are_named(monkeypatch):
    def refuse(name):
        raise ImportError("EnvPool Procgen requires the system Qt 5 runtime on Linux.")

    monkeypatch.setitem(sys.modules, "envpool", SimpleNamespace(make_spec=refuse))
    with pytest.raises(MissingExtra, match="libraries of Qt 5") as error:
        require_envpool()
    assert "libqt5gui5" in error.value.fix


def has_envpool():
    try:
        require_envpool()
    except MissingExtra:
        return False
    return True


@pytest.mark.skipif(not has_envpool(), reason="envpool or Qt is missing")
def test_the_planner_solves_mazes_on_the_shortest_way():
    spec = MazeLevels(train=20, unseen=5, transitions=150, epsilon=0.0)
    lab = Lab(seed=1)
    levels = spec.levels(lab)
    whole = spec.data(levels, lab).episodes[:-1]
    assert len(whole) > 5
    for episode in whole:
        maze = read_maze(make_maze(episode.level, **PLAIN).reset()[0][0])
        assert episode.terminated
        assert episode.rewards.tolist() == [0.0] * (len(episode) - 1) + [1.0]
        assert len(episode) == cells_to_goal(maze)[maze.start]
    again = spec.data(levels, lab).episodes[0]
    assert np.array_equal(again.observations, whole[0].observations)
    start = MazeArena().start([whole[0].level]).observations[0]
    assert np.array_equal(start, whole[0].observations[0])
