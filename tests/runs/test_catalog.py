"""A listing says what the sources say, without importing or wholly parsing them."""

import ast
import re

import pytest

from unseen.runs import catalog
from unseen.runs.catalog import StudyLocation, entries


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_entries_agree_with_the_parsed_sources(kind, store):
    for entry in entries(kind):
        where = (
            catalog.locate(entry.name).module
            if kind == "studies"
            else f"unseen.{kind}.{entry.name}"
        )
        tree = ast.parse(catalog.source(where).read_bytes())
        assert entry.says == " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
        names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        assert list(entry.classes) == [name for name in names if not name.startswith("_")]
        if kind == "studies":
            (system,) = {
                k.value.value
                for k in ast.walk(tree)
                if isinstance(k, ast.keyword) and k.arg == "system"
            }
            assert entry.system == system
            assert re.fullmatch(r"\d\d", entry.system)


def test_studies_of_other_packages_are_listed_with_the_own(store):
    found = {entry.name: entry for entry in entries("studies")}
    assert found["fake_counting"].says.startswith("A study whose cells leave a mark")
    assert "xor_grokking" in found
    assert catalog.locate("fake_counting") == StudyLocation("fake_counting")
    assert catalog.locate("xor_grokking") == StudyLocation("unseen.studies.xor_grokking")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ""),
        ("import os\n", ""),
        ("# comment\n\n'''One\n  two.\n\nThree.'''\n", "One two."),
        ('"Short."\nx = (', "Short."),
    ],
)
def test_the_first_sentence_is_that_of_the_docstring(text, says):
    assert catalog._first_sentence(text) == says
