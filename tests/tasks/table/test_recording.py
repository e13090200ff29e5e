"""What is recorded from some moment on only: named where it is, and never by chance."""

import numpy as np
import pandas as pd

from unseen.lab import Lab
from unseen.tasks.table import Table


def visits(seed: int, n: int = 1_500) -> pd.DataFrame:
    """Ten years of visits with codes of several frequencies and cells missing at random."""
    rng = np.random.default_rng(seed)
    year = np.sort(rng.integers(2010, 2020, n))
    return pd.DataFrame(
        {
            "year": year,
            "ward": rng.choice(list("abcdefgh"), n, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.06, 0.03, 0.01]),
            "code": np.where(rng.random(n) < 0.3, np.nan, rng.integers(0, 6, n)),
            "age": np.where(rng.random(n) < 0.9, np.nan, rng.normal(50, 10, n)),
            "ill": rng.integers(0, 2, n),
        }
    )


def said(frame: pd.DataFrame) -> list[str]:
    made = Table(frame, "ill", time="year").prepare(Lab())
    return [text for text in made.warnings if "recording changed" in text]


def test_nothing_is_named_where_nothing_changes():
    assert [text for seed in range(40) for text in said(visits(seed))] == []


def test_a_new_code_a_new_column_and_a_code_that_ends_are_named_with_their_moment():
    frame = visits(0)
    late = frame.year >= 2017
    rng = np.random.default_rng(1)
    frame["alcohol"] = np.where(late, rng.integers(0, 2, len(frame)).astype(float), np.nan)
    frame.loc[late & (rng.random(len(frame)) < 0.15), "code"] = 9
    frame.loc[frame.year > 2014, "ward"] = frame.ward.replace("c", "d")[frame.year > 2014]
    found = {text.split("`")[1]: text for text in said(frame)}
    assert found.keys() == {"alcohol", "code", "ward"}
    before = int((~late).sum())
    assert "has any value from 2017 on only: in 100.0% of the rows" in found["alcohol"]
    assert "the value 9 from 2017 on only" in found["code"]
    assert f"in none of {before} before" in found["code"]
    assert "the value c up to 2014 only" in found["ward"]


def test_a_rare_code_and_few_rows_say_nothing():
    frame = visits(0)
    frame.loc[frame.index[-3:], "ward"] = "new"
    assert said(frame) == []
    few = visits(0, 40)
    few.loc[few.index[-3:], "ward"] = "new"
    assert said(few) == []
