"""Rows of a table as texts in one wording."""

import numpy as np
import pandas as pd
import pytest
from jaxtyping import TypeCheckError

from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.tasks.table.template import Template

FRAME = pd.DataFrame(
    {
        "age": [75.0, np.nan, 40.5],
        "sex": ["woman", "man", None],
        "drug a-b": ["No", "up", "No"],
        "visits": [0, 2, 0],
    }
)
NOTE = Template(("{sex} of {age} years", "{visits} visits", "drug {drug a-b}"), blank=("No", "0"))


def test_a_phrase_with_an_empty_cell_is_left_out():
    assert NOTE.render(FRAME) == ["woman of 75 years.", "2 visits, drug up.", ""]


def test_texts_follow_their_rows_and_read_no_other_column():
    turned = FRAME.iloc[[2, 0, 1]].assign(other="x")
    texts = NOTE.render(FRAME)
    assert NOTE.render(turned) == [texts[2], texts[0], texts[1]]
    assert NOTE.columns == ["sex", "age", "visits", "drug a-b"]


def test_braces_in_a_cell_are_no_columns():
    frame = pd.DataFrame({"said": ["{age}"], "age": [3]})
    assert Template(("{said}",), end="").render(frame) == ["{age}"]


def test_refusals_name_what_is_missing():
    with pytest.raises(InvalidConfig, match="names no column"):
        Template(("a patient",))
    with pytest.raises((InvalidConfig, TypeCheckError)):  # with `make typed`, the annotation's own
        Template("{age}")
    with pytest.raises(UnknownName, match="ages"):
        Template(("{ages} years",)).render(FRAME)
    with pytest.raises(InvalidData, match="no rows"):
        NOTE.render(FRAME.iloc[:0])
