"""Gradients that wait on disk are those that memory would have held; where the disk is full, the
model runs again, with the same numbers.
"""

import errno
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unseen.attributions import influence
from unseen.attributions.influence import Curvature, Fisher, Influence, Precision, pair_cache
from unseen.attributions.influence.pair_cache import PairCache, PairFile, scratch_folder
from unseen.engine.batches import Columns
from unseen.engine.factor_pairs import EmbeddingPair, FactorPair, as_rows
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify, cross_entropy
from unseen.task import Axis, Split, Task, Use

ROOM = 1 << 30
BATCHES = 6


class Reader(nn.Module):
    """An embedding, positions, and gains that are no map."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.gain = nn.Embedding(11, 8), nn.LayerNorm(40)
        self.up, self.out = nn.Linear(8, 40), nn.Linear(40, 3)

    def forward(self, x):
        return self.out(self.gain(self.up(self.words(x))).relu()).mean(1)


CASES = {
    "drawn labels": Influence(draws=2),
    "all classes": Influence(fisher=Fisher.EXACT),
    "own labels": Influence(fisher=Fisher.EMPIRICAL),
    "k-fac": Influence(curvature=Curvature.KFAC, fisher=Fisher.EMPIRICAL),
    "diagonal": Influence(curvature=Curvature.DIAGONAL, fisher=Fisher.EMPIRICAL),
    "exact": Influence(curvature=Curvature.EXACT, fisher=Fisher.EMPIRICAL, layers=("up",)),
    "bfloat16": Influence(precision=Precision.BFLOAT16, fisher=Fisher.EMPIRICAL),
    "first examples": Influence(most=9, fisher=Fisher.EMPIRICAL),
}


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Temporary files lie where the test can see them."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(pair_cache, "scratch_folder", lambda: folder)
    return folder


@pytest.fixture
def passes(monkeypatch):
    """The runs of the model over a batch during a fit."""
    found = []
    plain = influence.pairs

    def counted(*arguments):
        found.append(1)
        return plain(*arguments)

    monkeypatch.setattr(influence, "pairs", counted)
    return found


def trained(case: str = "") -> Trained:
    torch.manual_seed(0)
    model = Reader().eval()
    model = model if case == "bfloat16" else model.double()
    x = torch.randint(0, 11, (4 * BATCHES - 1, 6), generator=torch.Generator().manual_seed(1))
    splits = {"train": Split(Columns(x=x, y=x.sum(1) % 3), Use.TRAIN)}
    return Trained(model, Task(name="disk", axis=Axis.IID, splits=splits, objective=classify))


def log_likelihood(model, batch):
    return -cross_entropy(model, batch)


def results(subject: Trained, config: Influence):
    queries = {name: tensor[:5] for name, tensor in subject.task.split("train").data[:].items()}
    found = config.prepare(subject, Lab())
    return found, found.factors.tensors() | {
        "scores": found(queries, log_likelihood).scores,
        "self": found.self_influence(),
        "top": found.top(queries, log_likelihood, 3).index,
        "chosen": found.top(queries, log_likelihood, 2, candidates=torch.tensor([7, 1, 20])).index,
    }


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("case", CASES)
def test_the_disk_gives_the_bits_of_the_memory(case, passes, scratch):
    layers = CASES[case].layers or ("*",)
    config = replace(CASES[case], batch_size=4, layers=layers)
    _, in_memory = results(trained(case), replace(config, memory=ROOM))
    first = len(passes)
    found, on_disk = results(trained(case), replace(config, memory=0, disk=ROOM))
    assert same(in_memory, on_disk)
    assert len(passes) == 2 * first
    assert "temporary file" in " ".join(found.sentences())
    assert list(scratch.iterdir()) == [], "the file has no name"


@pytest.mark.parametrize("case", CASES)
def test_holding_nothing_gives_the_same_factors(case):
    layers = CASES[case].layers or ("*",)
    config = replace(CASES[case], batch_size=4, layers=layers)
    held, again = (
        replace(config, memory=m).prepare(trained(case), Lab()).factors.tensors() for m in (ROOM, 0)
    )
    assert same(held, again)


def full_after(count: int):
    """Writes that fail as on a full disk."""
    calls = []
    plain = pair_cache._write

    def write(file, data):
        calls.append(1)
        if len(calls) > count:
            file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(file, data)

    return write


@pytest.mark.parametrize("count", [0, 1, 20, 45])
def test_a_disk_that_fills_up_changes_no_number(count, monkeypatch, passes):
    config = replace(CASES["own labels"], batch_size=4, layers=("*",))
    _, in_memory = results(trained(), config)
    first = len(passes)
    monkeypatch.setattr(pair_cache, "_write", full_after(count))
    found, on_disk = results(trained(), replace(config, memory=0, disk=ROOM))
    assert same(in_memory, on_disk)
    assert len(passes) > 2 * first
    assert "No space left on device" in found.cache.sentence()


def test_a_file_that_cannot_be_read_changes_no_number(monkeypatch):
    config = replace(CASES["all classes"], batch_size=4, layers=("*",))
    _, in_memory = results(trained(), config)
    plain, calls = pair_cache._read_into, []

    def read(file, data):
        calls.append(1)
        if len(calls) > 30:
            raise OSError(errno.EIO, "Input/output error")
        plain(file, data)

    monkeypatch.setattr(pair_cache, "_read_into", read)
    _, on_disk = results(trained(), replace(config, memory=0, disk=ROOM))
    assert same(in_memory, on_disk)


def test_no_folder_for_the_file_changes_no_number(monkeypatch, tmp_path):
    config = replace(CASES["own labels"], batch_size=4, layers=("*",))
    _, in_memory = results(trained(), config)
    monkeypatch.setattr(pair_cache, "scratch_folder", lambda: tmp_path / "absent")
    found, again = results(trained(), replace(config, memory=0, disk=ROOM))
    assert same(in_memory, again)
    assert "model ran again" in found.cache.sentence()

    def none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory")

    monkeypatch.setattr(pair_cache, "scratch_folder", none)
    found, again = results(trained(), replace(config, memory=0, disk=ROOM))
    assert same(in_memory, again)
    assert "No usable temporary directory" in found.cache.sentence()


def test_gradients_that_nobody_reads_again_wait_nowhere(passes):
    config = Influence(curvature=Curvature.KFAC, batch_size=4, memory=0, disk=ROOM)
    found = config.prepare(trained(), Lab())
    assert found.cache.bytes_on_disk == found.cache.left_out == 0
    assert found.cache.sentence() == ""
    assert len(passes) == BATCHES


def pair(n: int = 4, s: int = 3, i: int = 5, o: int = 2) -> FactorPair:
    return FactorPair(torch.randn(n, s, i), torch.randn(n, s, o))


def test_the_file_takes_no_more_than_it_leaves_free(monkeypatch):
    each = pair().bytes
    free = 10 * each
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    cache = PairCache(0, disk=100 * each)
    for k in range(9):
        was = k * each
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _, was=was: SimpleNamespace(free=free - was)
        )
        cache.store((k, 0), {"layer": pair()})
    assert [(k, 0) in cache for k in range(9)] == [True] * 5 + [False] * 4
    assert "left free" in cache.sentence()


def test_memory_comes_before_the_disk_and_both_keep_to_their_bytes():
    each = pair().bytes
    cache = PairCache(2 * each, disk=3 * each)
    stored = [{"layer": pair()} for _ in range(7)]
    for k, pairs in enumerate(stored):
        cache.store((k, 0), pairs)
    assert [(k, 0) in cache for k in range(7)] == [True] * 5 + [False] * 2
    assert sorted(cache.pairs) == [(0, 0), (1, 0)]
    for k, pairs in enumerate(stored[:5]):
        assert torch.equal(cache.read((k, 0))["layer"].a, pairs["layer"].a)
    assert cache.read((5, 0)) is None
    assert cache.left_out == 2 * each
    cache.clear()
    assert cache.read((0, 0)) is cache.read((3, 0)) is None
    cache.store((0, 0), stored[0])
    assert (0, 0) not in cache


def test_every_kind_of_pair_comes_back_as_it_was(scratch):
    file = PairFile(ROOM)
    long = pair(s=300)
    stored = {
        "map": pair(),
        "half": pair().to(torch.bfloat16),
        "double": pair().to(torch.float64),
        "turned": FactorPair(torch.randn(4, 5, 3).mT, torch.randn(3, 4, 2).transpose(0, 1)),
        "gaps": FactorPair(long.a[:, ::2], long.g[..., :1]),
        "shared": FactorPair(torch.randn(1, 3, 5).expand(4, 3, 5), torch.randn(4, 3, 2)),
        "words": EmbeddingPair(torch.randn(4, 3, 5), torch.randint(0, 7, (4, 3)), 7),
        "gain": as_rows(torch.randn(4, 6)),
        "none": pair(n=0),
    }
    for k in range(2):
        assert file.write((k, 0), stored, sum(one.bytes for one in stored.values()))
    found = file.read((1, 0))
    assert found.keys() == stored.keys()
    for name, one in stored.items():
        back = found[name]
        assert type(back) is type(one)
        assert back.sizes == one.sizes
        for mine, theirs in ((back.a, one.a), (back.g, one.g)):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)
    assert found["turned"].a.stride() == stored["turned"].a.stride()
    assert file.read((2, 0)) is None
    assert list(scratch.iterdir()) == []


def test_large_files_do_not_go_where_memory_may_be(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(pair_cache, "LASTING", tmp_path)
    assert scratch_folder() == tmp_path
    monkeypatch.setattr(pair_cache, "LASTING", tmp_path / "absent")
    assert scratch_folder().is_dir()


def test_bytes_below_zero_are_refused():
    for wrong in ({"disk": -1}, {"memory": -1}, {"disk": math.nan}, {"memory": math.nan}):
        with pytest.raises(InvalidConfig, match="out of range"):
            Influence(**wrong)


def test_batches_that_are_alike_share_what_describes_them():
    file, stored = PairFile(ROOM), {"layer": pair()}
    others = {"layer": pair(n=3)}
    for k, pairs in enumerate((stored, stored, others)):
        file.write((k, 0), pairs, pairs["layer"].bytes)
    assert file.templates[0, 0] is file.templates[1, 0] is not file.templates[2, 0]
    assert torch.equal(file.read((2, 0))["layer"].a, others["layer"].a)
