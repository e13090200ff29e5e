"""The study kit: cells in order, rows with their facts, references, and what makes one effect of
another.
"""

from dataclasses import dataclass, replace

import pytest
from torch import nn

from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.study import average, gap
from unseen.study.effects import derive, exponential, highest, lowest, ratio, restrict
from unseen.study.figures import bars, matrix, stack, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import parse_references, reference, references
from unseen.study.trial import label, trial, untrained_model
from unseen.testing.stand_ins import small_task

ROWS = [
    {"site": site, "arm": arm, "seed": seed, "v": value + seed}
    for site, arm, value in (("b", "x", 1.0), ("b", "y", 2.0), ("a", "x", 4.0), ("a", "y", 3.0))
    for seed in range(2)
]


@dataclass(frozen=True)
class Inner:
    steps: int = 100
    lr: float = 0.1


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    n: int = 5


def test_a_grid_has_every_combination_once_seed_by_seed():
    cells = list(Grid(("s", "t"), (1, 2), 2))
    assert cells == [Cell(s, a, seed) for seed in range(2) for s in ("s", "t") for a in (1, 2)]
    assert [(c.setting, c.seed) for c in interleave(Grid("a", (0,), 1), Grid("b", (0,), 2))] == [
        ("a", 0),
        ("b", 0),
        ("b", 1),
    ]


def test_resize_changes_the_named_fields_only_however_deep():
    assert resize(Outer(), inner={"steps": 3}, n=2) == Outer(Inner(3, 0.1), 2)
    assert resize(Outer()) == Outer()
    with pytest.raises(TypeError):
        resize(Outer(), inner={"stepz": 3})


def test_arms_start_from_the_same_weights_and_rows_carry_their_facts():
    @dataclass(frozen=True)
    class Still:
        """Trains nothing; the first weight tells where it started."""

        shift: float

        def fit(self, model, task, lab):
            return Trained(model, task, {"shift": [self.shift], "draw": [lab.numpy().random()]})

    def reads(trained: Trained, lab: Lab):
        start = trained.model.weight[0, 0].item()
        yield {
            "start": start,
            "shift": trained.curves["shift"][0],
            "draw": trained.curves["draw"][0],
        }

    task, lab = small_task(), Lab(seed=3)
    arms = {"one": Still(1.0), "two": Still(2.0)}
    one, two = trial(arms, task, lambda: nn.Linear(2, 2), reads, lab, column="way", part="p")
    assert (one["way"], two["way"], one["part"]) == ("one", "two", "p")
    assert (one["start"], one["draw"]) == (two["start"], two["draw"])
    assert (one["shift"], two["shift"]) == (1.0, 2.0)
    assert untrained_model(lambda: nn.Linear(2, 2), lab).weight[0, 0].item() == one["start"]
    assert list(label([{"v": 1, "seed": 9}], seed=2, arm="a")) == [{"seed": 9, "arm": "a", "v": 1}]


def test_references_are_read_field_by_field_and_a_wrong_key_names_the_right_one():
    source = reference("xu2024benign")
    assert (source.year, source.arxiv, source.authors[0]) == (2024, "2310.02541", "Xu, Zhiwei")
    for key, entry in references().items():
        assert parse_references(entry.bibtex + "\n") == {
            key: replace(entry, venue=entry.venue or f"arXiv:{entry.arxiv}")
        }
    with pytest.raises(UnknownName, match="xu2024benign"):
        reference("xu2024begnin")


def test_effects_figures_and_tables_are_restricted_and_derived_alike():
    mean = average("v")
    assert restrict(mean, site="a")(ROWS) == average("v", site="a")(ROWS)
    assert restrict(mean, lambda row: row["seed"] == 1, arm="x")(ROWS).value == 3.5
    assert restrict(summary("arm", ["v"]), site="b")(ROWS) == [
        {"arm": "x", "v": 1.5},
        {"arm": "y", "v": 2.5},
    ]
    doubled = derive(mean, v=lambda row: 2 * float(row["v"]))
    assert doubled(ROWS).value == 2 * mean(ROWS).value
    assert average("v", {"site": "a"}, arm="x")(ROWS) == average("v", site="a", arm="x")(ROWS)


def test_lowest_and_highest_are_over_effects_or_over_groups():
    x, y = {"arm": "x"}, {"arm": "y"}
    difference = gap("v", x, y)
    assert lowest(difference, over="site")(ROWS).value == -1
    assert highest(difference, over="site")(ROWS).value == 1
    assert lowest(average("v", **x), average("v", **y))(ROWS).value == 3
    with pytest.raises(InvalidData, match="No row has `site`"):
        lowest(difference, over="site")([])


def test_a_ratio_is_the_exponential_of_a_difference():
    x, y = {"arm": "x"}, {"arm": "y"}
    assert exponential(gap("v", x, y))(ROWS) == ratio("v", x, y)(ROWS)


def test_bars_and_matrices_take_groups_in_the_order_of_rows():
    drawn = bars(average("v"), by=("site", "arm"), title="t", label="l")(ROWS)
    assert drawn.values == {"b x": 1.5, "b y": 2.5, "a x": 4.5, "a y": 3.5}
    assert bars({"all": average("v")}, title="t", where={"site": "a"})(ROWS).values == {"all": 4.0}
    grid = matrix("v", down="site", across="arm", title="t")(ROWS)
    assert (grid.rows, grid.columns, grid.values) == (
        ["b", "a"],
        ["x", "y"],
        [[1.5, 2.5], [4.5, 3.5]],
    )
    named = matrix({"value": "v", "number": "seed"}, down=("site", "arm"), title="t")(ROWS)
    assert named.rows == ["b: x", "b: y", "a: x", "a: y"]
    assert named.columns == ["value", "number"]
    assert named.values[0] == [1.5, 0.5]


def test_tables_stand_below_each_other():
    table = stack(summary("site", {"mean": "v"}), summary("arm", {"mean": "v"}))
    assert table(ROWS) == [
        {"site": "b", "mean": 2.0},
        {"site": "a", "mean": 4.0},
        {"arm": "x", "mean": 3.0},
        {"arm": "y", "mean": 3.0},
    ]
