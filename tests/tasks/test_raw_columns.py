"""A table's columns as inputs, and back without loss."""

import numpy as np
import pandas as pd
import torch
from hypothesis import given
from hypothesis import strategies as st

from unseen.tasks.table.raw_columns import as_pandas_reads, encode_columns

FRAME = pd.DataFrame(
    {
        "number": [3.5, np.nan, -1.0, 3.5],
        "large": np.array([2**62, 1, 2**62 + 1, 5]),
        "word": ["b", None, "a", "b"],
        "kind": pd.Categorical(["x", "y", "x", "x"], categories=["z", "y", "x"]),
        "day": pd.to_datetime(["2020-01-02", "2019-01-01", None, "2020-01-02"]),
        "mixed": [1, "one", 2.0, "one"],
        "list": [[1], [2], [1], []],
        "same": [True, True, True, True],
    }
)


def test_rows_come_back_with_their_types():
    columns, ranks = encode_columns(FRAME)
    pd.testing.assert_frame_equal(columns(ranks), FRAME)
    assert columns(ranks)["kind"].cat.categories.tolist() == ["z", "y", "x"]
    assert ranks.abs().max() <= 1


@given(st.lists(st.floats(allow_infinity=False), min_size=1, max_size=40), st.integers(0, 3))
def test_numbers_come_back_in_any_order_and_behind_other_inputs(values, start):
    frame = pd.DataFrame({"x": values})
    columns, ranks = encode_columns(frame, start)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    x = torch.cat([torch.zeros(len(values), start), ranks], 1)[order]
    expected = frame.iloc[order.numpy()].reset_index(drop=True)
    pd.testing.assert_frame_equal(columns(x), expected)


def test_ranks_keep_the_order_and_any_input_is_a_cell():
    columns, ranks = encode_columns(pd.DataFrame({"x": [10.0, 1000.0, 20.0]}))
    assert ranks.flatten().tolist() == [-1.0, 1.0, 0.0]
    moved = columns(torch.tensor([[-7.0], [0.3], [9.0]]))
    assert moved.x.tolist() == [10.0, 20.0, 1000.0]


def test_text_cells_are_typed_as_pandas_types_them(tmp_path):
    text = "n,word,flag\n1,a,True\n,NA,False\n2,b,True\n"
    (tmp_path / "t.csv").write_text(text)
    as_text = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(as_pandas_reads(as_text), pd.read_csv(tmp_path / "t.csv"))
