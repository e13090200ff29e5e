"""Sums and gathers over two real processes equal those over all the data at once."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as some

from unseen.engine.ranks import Group, ranks, share
from unseen.errors import InvalidConfig
from unseen.lab import Lab, Ranks, SingleProcess

DATA = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def member(rank: int, size: int, folder: str) -> None:
    """One of the processes: its share of DATA, summed and gathered through a lab."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    lab = Lab(ranks=ranks())
    mine = DATA[list(share(len(DATA), lab.ranks))]
    before = mine.clone()
    group = Group()
    found = {
        "sum": lab.sum(mine.sum(0)),
        "count": lab.sum(torch.tensor(len(mine))),
        "strided": lab.sum(DATA.T),
        "gathered": group.gather(mine),
        "none on one": group.gather(mine[: 2 * rank]),
        "with gradient": lab.sum(mine.sum(0).requires_grad_()),
        "untouched": torch.equal(mine, before),
        "place": (group.rank, group.size),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found():
    with tempfile.TemporaryDirectory() as folder:
        # started by file, not forked: a fork of a process with torch's threads is unsafe
        both = [
            subprocess.Popen([sys.executable, __file__, str(rank), folder]) for rank in range(2)
        ]
        assert [process.wait(timeout=1_200) for process in both] == [0, 0]
        yield [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]


def test_every_process_gets_the_sum_over_all(found):
    for rank, one in enumerate(found):
        assert one["place"] == (rank, 2)
        assert torch.allclose(one["sum"], DATA.sum(0), atol=1e-12)
        assert one["count"] == len(DATA)
        assert torch.allclose(one["strided"], 2 * DATA.T)
        assert one["untouched"]
        assert not one["with gradient"].requires_grad


def test_gathered_shares_of_different_lengths_are_the_whole_in_order(found):
    for one in found:
        assert torch.equal(one["gathered"], DATA)
        assert torch.equal(one["none on one"], DATA[3:5])


def test_alone_sums_are_the_identity():
    assert isinstance(ranks(), SingleProcess)
    assert isinstance(ranks(), Ranks)
    assert Lab().sum(DATA) is DATA


def test_a_group_needs_torch_distributed():
    with pytest.raises(InvalidConfig, match="no process group"):
        Group()


@given(n=some.integers(0, 50), size=some.integers(1, 8))
def test_shares_are_disjoint_and_together_all(n, size):
    shares = [share(n, SingleProcess(rank, size)) for rank in range(size)]
    assert [i for part in shares for i in part] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


if __name__ == "__main__":
    member(int(sys.argv[1]), 2, sys.argv[2])
