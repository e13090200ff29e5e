import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from torch.testing import assert_close
from torch.utils.data import Dataset, IterableDataset

from unseen.engine.batches import (
    Columns,
    Tokens,
    forever,
    gather,
    length,
    once,
    orders,
    size,
    to_device,
    whole,
)
from unseen.errors import InvalidData
from unseen.lab import Lab


def numbered(n: int) -> Columns:
    return Columns(x=torch.arange(n, dtype=torch.float32).unsqueeze(1), y=torch.arange(n))


class Listed(Dataset):
    """Map-style data that are not columns."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"x": torch.tensor([float(i)]), "y": torch.tensor(i)}


class Streamed(IterableDataset):
    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self):
        return (Listed(self.n)[i] for i in range(self.n))


@given(n=integers(1, 40), batch_size=integers(1, 50))
def test_once_gives_every_example_once_in_order_for_every_kind_of_data(n, batch_size):
    for data in (numbered(n), Listed(n), Streamed(n)):
        batches = list(once(data, batch_size, Lab()))
        assert torch.cat([b["y"] for b in batches]).tolist() == list(range(n))
        assert all(size(b) == batch_size for b in batches[:-1])
        assert_close(whole(data, Lab())["x"], numbered(n).columns["x"])


@given(n=integers(1, 30), batch_size=integers(1, 40), seed=integers(0, 99))
def test_orders_are_shuffled_passes_of_full_batches(n, batch_size, seed):
    full = min(batch_size, n)
    stream = orders(n, batch_size, Lab(seed))
    for _ in range(3):
        one_pass = [next(stream) for _ in range(n // full)]
        assert all(len(index) == full for index in one_pass)
        seen = torch.cat(one_pass).tolist()
        assert len(set(seen)) == len(seen) == n - n % full


def test_forever_follows_orders_and_the_lab():
    for data in (numbered(10), Listed(10)):
        stream, index = forever(data, 4, Lab(1)), orders(10, 4, Lab(1))
        for _ in range(7):
            assert next(stream)["y"].tolist() == next(index).tolist()
    a, b, c = (next(forever(numbered(100), 50, lab))["y"] for lab in (Lab(1), Lab(1), Lab(2)))
    assert a.tolist() == b.tolist() != c.tolist()


def test_a_stream_is_repeated_in_its_own_order():
    stream = forever(Streamed(5), 2, Lab())
    assert torch.cat([next(stream)["y"] for _ in range(6)]).tolist() == [
        0,
        1,
        2,
        3,
        4,
        0,
        1,
        2,
        3,
        4,
    ]
    assert length(Streamed(5)) is None
    assert length(Listed(5)) == 5


def test_columns_take_any_index_and_subsets_are_columns():
    data = numbered(6)
    index = torch.tensor([4, 1])
    assert data[index]["y"].tolist() == data[[4, 1]]["y"].tolist() == [4, 1]
    assert data[2]["y"].item() == 2
    assert data[torch.tensor([True, False] * 3)]["y"].tolist() == [0, 2, 4]
    assert data.subset(slice(1, 3)).columns["y"].tolist() == [1, 2]
    assert gather(Listed(6), index)["y"].tolist() == [4, 1]
    assert repr(data) == "Columns(x: (6, 1), y: (6,))"


def test_place_casts_floating_columns_only():
    batch = to_device(
        {"x": torch.ones(2), "y": torch.ones(2, dtype=torch.int32)}, Lab(dtype=torch.float64)
    )
    assert (batch["x"].dtype, batch["y"].dtype) == (torch.float64, torch.int32)


def test_tokens_are_windows_without_overlap():
    data = Tokens(np.arange(11, dtype=np.uint16), 3)
    assert [data[i]["tokens"].tolist() for i in range(len(data))] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
    ]
    assert data[0]["tokens"].dtype == torch.int64
    with pytest.raises(IndexError):
        data[3]


def test_refusals():
    with pytest.raises(InvalidData, match="lengths"):
        Columns(x=torch.zeros(3), y=torch.zeros(4))
    with pytest.raises(InvalidData, match="lengths"):
        Columns()
    with pytest.raises(InvalidData, match="windows of 9"):
        Tokens(np.arange(5), 9)
    for data in (Columns(x=torch.zeros(0, 2)), Streamed(0), Listed(0)):
        with pytest.raises(InvalidData, match="no examples"):
            list(once(data, 4, Lab()))
    with pytest.raises(InvalidData, match="no examples"):
        next(forever(Columns(x=torch.zeros(0, 2)), 4, Lab()))
