"""Rows without a target become unlabelled data of a comparison, and of no one who is evaluated."""

import numpy as np
import pandas as pd
import pytest
import torch

from unseen.lab import Lab
from unseen.subjects.tables import of_table_by_site
from unseen.task import Use
from unseen.tasks.table import Table

N = 400


def visits(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, 3))
    site = rng.choice(["Basel", "Bern", "Chur"], N)
    ill = np.where(rng.random(N) < 0.6, None, np.where(x[:, 0] > 0, "yes", "no"))
    ill[site == "Chur"] = None  # a site without labels
    return pd.DataFrame(
        {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "site": site, "ill": ill}
        | {"person": rng.integers(60, size=N), "day": rng.permutation(N)}
    )


def subjects(frame, drop=("person", "day"), **roles):
    return of_table_by_site(Table(frame, target="ill", site="site", drop=drop, **roles), Lab())


def test_rows_without_a_target_have_inputs_alone_and_come_from_every_site():
    frame = visits()
    found = subjects(frame)
    assert [one.held_out for one in found] == ["Basel", "Bern"]
    for one in found:
        split = one.task.splits["unlabelled"]
        assert split.use is Use.ADAPT
        assert "y" not in split.data.columns
        rows = split.data.columns["index"].numpy()
        np.testing.assert_array_equal(rows, np.flatnonzero(frame["ill"].isna()))
        # encoded as the others are
        assert split.data.columns["x"].shape[1] == one.task.splits["unseen"].data[0]["x"].numel()
        assert bool(torch.isfinite(split.data.columns["x"]).all())
        inside = int((frame["site"].iloc[rows] == one.held_out).sum())
        said = f"{len(rows)} rows without a target are unlabelled data (split `unlabelled`)"
        assert any(said in text and f"{inside} of them" in text for text in one.decisions)
        assert any("left out of training and evaluation" in text for text in one.decisions)


def test_of_a_person_who_is_evaluated_no_row_is_unlabelled_data():
    frame = visits()
    for one in subjects(frame, drop=("day",), entity="person"):
        persons = {
            use: set(frame["person"].iloc[torch.cat([s.data.columns["index"] for s in parts])])
            for use in (Use.ADAPT, Use.EVALUATE)
            if (parts := one.task.of(use).values())
        }
        assert not persons[Use.ADAPT] & persons[Use.EVALUATE]


def test_with_time_the_future_is_no_unlabelled_data():
    frame = visits()
    for one in subjects(frame, drop=("person",), time="day"):
        fitted, free = (
            frame["day"].iloc[
                torch.cat([s.data.columns["index"] for s in one.task.of(use).values()]).numpy()
            ]
            for use in (Use.TRAIN, Use.ADAPT)
        )
        assert free.max() <= fitted.max()


@pytest.mark.parametrize("missing", [0, 19])
def test_a_few_gaps_are_no_unlabelled_data(missing):
    frame = visits()
    frame["ill"] = np.where(frame["a"] > 0, "yes", "no")
    frame.loc[: missing - 1, "ill"] = None
    for one in subjects(frame):
        assert not one.task.of(Use.ADAPT)


def test_without_sites_rows_are_unlabelled_data_too():
    (one,) = of_table_by_site(
        Table(visits(), target="ill", drop=("site", "person", "day")), Lab(), "visits"
    )
    assert len(one.task.splits["unlabelled"].data) == visits()["ill"].isna().sum()
