"""The shipped examples: made by the stated rule, with the stated columns, and named as their
licences ask for.
"""

import gzip
import lzma
import os
from pathlib import Path

import pytest

import unseen
from unseen.data.files import data_file, data_folders
from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab
from unseen.questions.audit.checks import checks
from unseen.subjects.embedded import EXAMPLES, attribution_of, choose_example, find_example
from unseen.subjects.session import open_session
from unseen.subjects.sources import read_subjects
from unseen.subjects.tables import TableColumns

MIRROR = Path(os.environ.get("UNSEEN_DATA", "/nowhere"))


@pytest.mark.parametrize(
    ("shipped", "origin", "every"),
    [
        ("bike-sharing-small/hour.csv.gz", "bike-sharing/hour.csv.gz", 5),
        ("beijing-air-small/six_hours.csv.gz", "beijing-air/beijing_air_6h.csv.xz", 17),
    ],
)
def test_a_subset_is_every_so_manyth_row(shipped, origin, every):
    if not (MIRROR / origin).is_file():
        pytest.skip("UNSEEN_DATA does not hold the whole table")
    unpack = gzip.open if origin.endswith(".gz") else lzma.open
    with unpack(MIRROR / origin, "rt", newline="") as file:
        head, *rows = file.readlines()
    wanted = "".join([head, *rows[::every]]).encode()
    assert gzip.decompress(data_file(shipped).read_bytes()) == wanted
    assert data_file(shipped).stat().st_size <= 300_000


@pytest.mark.parametrize(("name", "sites"), [("heart", 4), ("bikes", 2), ("air", 12)])
def test_every_site_is_held_out(name, sites):
    subjects = read_subjects(find_example(name), Lab())
    assert len(subjects) == sites
    assert all(subject.task.unseen for subject in subjects)
    assert "CC BY 4.0" in attribution_of(find_example(name))["data"]


def test_the_parts_of_the_rentals_are_named_as_a_leak():
    (subject, _) = read_subjects(find_example("bikes"), Lab(), steps=5)
    (check,) = (check for check in checks() if check.part == "leaks")
    found = check.find(open_session(subject, Lab()))
    assert {frozenset(leak.features) for leak in found} >= {frozenset({"casual", "registered"})}


def test_columns_of_an_example_can_be_left_out():
    columns = TableColumns(drop=("casual", "registered"))
    (subject, _) = read_subjects(find_example("bikes"), Lab(), columns)
    assert not {"casual", "registered", "dteday", "instant", "yr"} & set(subject.features)


def test_an_example_stands_alone():
    assert choose_example("air", None) is EXAMPLES["air"]
    with pytest.raises(InvalidConfig, match="beside a subject"):
        choose_example("air", "table.csv")
    with pytest.raises(UnknownName, match="bikes"):
        choose_example("bike", None)
    with pytest.raises(InvalidConfig, match="embedded data are no table, but target"):
        read_subjects(find_example("air"), Lab(), TableColumns(target="CO"))
    with pytest.raises(UnknownName, match="casual"):
        read_subjects(find_example("bikes"), Lab(), TableColumns(drop=("casuals",)))


def test_a_report_names_the_authors_and_the_licence():
    answer = unseen.audit(
        example="bikes", steps=5, seeds=1, remedies={}, measures={}, lab=Lab(), progress=False
    )
    assert "10.1007/s13748-013-0040-3" in answer.document.facts["data"]
    assert "registered" in answer.summary()


def test_every_shipped_table_says_its_licence_beside_the_data():
    for folder in ("heart-disease", "bike-sharing-small", "beijing-air-small"):
        assert "CC BY 4.0" in (data_folders()[0] / folder / "README.md").read_text()
