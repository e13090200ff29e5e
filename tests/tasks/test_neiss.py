"""NEISS as published: years of one and two narrative columns, codes as words, several hospitals."""

import pandas as pd
import pytest

from unseen.errors import InvalidData, MissingFile
from unseen.lab import Lab
from unseen.subjects.tables import TableColumns, of_table
from unseen.tasks.neiss import Neiss, NeissFiles, synthetic_visits


@pytest.fixture
def years(tmp_path):
    """Two made-up yearly files, one of each layout."""
    old = synthetic_visits(columns=("Narrative_1", "Narrative_2"))
    old.to_csv(tmp_path / "neiss2015.tsv", sep="\t", index=False)
    synthetic_visits(columns=("Narrative",)).to_csv(tmp_path / "neiss2019.csv", index=False)
    return str(tmp_path / "neiss2015.tsv"), str(tmp_path / "neiss2019.csv")


def test_years_of_both_layouts_are_joined(years):
    frame = NeissFiles(years)()
    raw = synthetic_visits()
    known = raw[raw["Disposition"] != "9"]
    assert len(frame) == 2 * len(known)
    stays = known["Disposition"].isin(["2", "4", "5", "8"])
    assert (frame["stays"].iloc[: len(known)] == "stays").tolist() == stays.tolist()
    assert frame["narrative"].str.endswith("AT HOME").any()
    assert set(frame["hospital"]) == {"hospital 12", "hospital 37", "hospital 61"}


def test_ages_are_years_and_zero_is_not_known(years):
    age = NeissFiles(years[1:])()["age"]
    assert age.min() == pytest.approx(1 / 12)  # 201: one month
    assert age.isna().any()
    assert age.max() <= 122


def test_the_audit_reads_the_narrative(years):
    frame = NeissFiles(years)()
    columns = TableColumns(target="stays", site="hospital", text="narrative", drop=("date",))
    subjects = of_table(frame, Lab(), columns)
    assert [one.held_out for one in subjects] == ["hospital 12", "hospital 37", "hospital 61"]
    assert "“fracture”" in subjects[0].features
    task = Neiss(years, by_time=True, held_out="hospital 37").build(Lab())
    assert {"unseen", "later"} <= task.splits.keys()


def test_what_is_no_published_file_is_named(tmp_path):
    with pytest.raises(MissingFile, match=r"download.*cpsc\.gov"):
        NeissFiles(())()
    with pytest.raises(MissingFile, match="There is no file"):
        NeissFiles((str(tmp_path / "neiss2020.tsv"),))()
    path = tmp_path / "other.csv"
    pd.DataFrame({"a": [1]}).to_csv(path, index=False)
    with pytest.raises(InvalidData, match="no column Treatment_Date"):
        NeissFiles((str(path),))()
