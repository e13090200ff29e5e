"""Cells that read otherwise than their column are named by row."""

import numpy as np
import pandas as pd
import pytest

from unseen.lab import Lab
from unseen.subjects.tables import TableColumns, of_table


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({17: "2020-02-30"}, []),
        (
            {17: "2020-02-30", 44: "not known", 90: "31/31/2020"},
            [
                "Column `admitted` reads otherwise in row 44 “not known”, "
                "row 90 “31/31/2020”, too.",
            ],
        ),
        (
            {10 * k: f"day {k}" for k in range(1, 9)},
            [
                "Column `admitted` reads otherwise in row 20 “day 2”, row 30 “day 3”, "
                "row 40 “day 4”, row 50 “day 5”, row 60 “day 6”, and 2 more, too.",
            ],
        ),
    ],
)
def test_every_bad_date_is_named_by_row(bad: dict[int, str], said: list[str]) -> None:
    rng, n = np.random.default_rng(0), 1_000
    dates = pd.Series(pd.date_range("2020-01-01", periods=n).strftime("%Y-%m-%d"), dtype=object)
    for row, cell in bad.items():
        dates[row] = cell
    frame = pd.DataFrame(
        {
            "admitted": dates,
            "x": rng.normal(size=n),
            "y": rng.integers(0, 2, n),
            "site": rng.choice(list("ab"), n),
        }
    )
    subject, _ = of_table(frame, Lab(), TableColumns(target="y", site="site"))
    first, *further = subject.warnings
    assert f"{len(bad)} cells read otherwise (“{bad[min(bad)]}”, row {min(bad)})" in first
    assert further == said


@pytest.mark.parametrize("different", [True, False])
def test_dates_that_the_training_rows_alone_do_not_show_are_named(different: bool) -> None:
    rng, n = np.random.default_rng(0), 360
    days = pd.date_range("2020-01-01", periods=n if different else 60).strftime("%Y-%m-%d")
    dates = pd.Series(np.resize(days.to_numpy(object), n), dtype=object)
    # of 360 rows 3 are few, of the 160 or so that are trained on they are not
    dates[200], dates[201], dates[202] = "31.02.2021", "2020/99/99", "soon"
    frame = pd.DataFrame(
        {
            "admitted": dates,
            "x": rng.normal(size=n),
            "y": rng.integers(0, 2, n),
            "site": np.repeat(["a", "b", "c"], n // 3),
        }
    )
    *_, last = of_table(frame, Lab(), TableColumns(target="y", site="site"))
    (said,) = [text for text in last.warnings if "was taken as text" in text]
    assert "row 200 “31.02.2021”, row 201 “2020/99/99”, row 202 “soon”: correct them" in said
