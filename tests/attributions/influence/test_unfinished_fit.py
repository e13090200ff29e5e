"""A fit that is killed in the middle goes on from its last stored sums and gives the very factors
of one that was not.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from unseen.attributions import influence
from unseen.attributions.influence import Curvature, Fisher, Influence, Precision
from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify
from unseen.questions.influence.saving import FactorFile, factor_keeper
from unseen.runs import tensors
from unseen.runs.tensors import TensorCache
from unseen.task import Axis, Split, Task, Use

BATCHES = 6
REAL_PAIRS = influence.pairs


class Net(nn.Module):
    """An embedding, positions, and a gain so wide that its curvature is diagonal."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.wide = nn.LayerNorm(1030)
        self.hidden, self.up, self.out = nn.Linear(6, 8), nn.Linear(8, 1030), nn.Linear(1030, 3)

    def forward(self, x):
        return self.out(self.wide(self.up(self.hidden(self.words(x)).relu())).mean(1))


CASES = {
    "no memory": Influence(memory=0),
    "all in memory": Influence(),
    "some in memory": Influence(memory=400_000),
    "two draws": Influence(draws=2, memory=700_000),
    "all classes": Influence(fisher=Fisher.EXACT, memory=700_000),
    "half": Influence(precision=Precision.BFLOAT16, memory=300_000),
    "on disk": Influence(memory=0, disk=1 << 30),
    "some on disk": Influence(memory=200_000, disk=300_000),
    "own labels": Influence(fisher=Fisher.EMPIRICAL),
    "diagonal": Influence(curvature=Curvature.DIAGONAL),
    "k-fac": Influence(curvature=Curvature.KFAC),
    "first examples": Influence(most=10, memory=0),
}
LAYERS = ("words", "hidden", "up", "wide", "out")


class Stop(BaseException):
    """Ends a fit as a kill does: nothing catches it."""


def fit(keeper: Path | FactorFile, case: str, stop: int = 0, by_signal: bool = False):
    """The factors, and how often the model was differentiated; stops instead of call `stop`."""
    torch.manual_seed(0)
    model = Net().eval()
    x = torch.randint(0, 11, (4 * BATCHES - 1, 5), generator=torch.Generator().manual_seed(1))
    split = Split(Columns(x=x, y=x.sum(1) % 3), Use.TRAIN)
    task = Task(name="sums", axis=Axis.IID, splits={"train": split}, objective=classify)
    calls = []

    def counted(*arguments):
        calls.append(1)
        if len(calls) == stop:
            if by_signal:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Stop
        return REAL_PAIRS(*arguments)

    config = replace(CASES[case], layers=LAYERS, batch_size=4)
    lab = Lab(keeper=TensorCache(keeper) if isinstance(keeper, Path) else keeper)
    influence.pairs = counted
    try:
        found = config.prepare(Trained(model, task), lab)
    finally:
        influence.pairs = REAL_PAIRS
    return found.factors.tensors(), len(calls)


def files(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[-2] for path in folder.glob("*.part.safetensors"))


@pytest.fixture
def often(monkeypatch):
    """Sums are stored after every batch."""
    monkeypatch.setattr(tensors, "WRITE_EVERY", 0.0)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("case", CASES)
def test_a_stopped_fit_goes_on_and_ends_with_the_same_bits(case, often, tmp_path):
    whole, calls = fit(tmp_path / "whole", case)
    assert files(tmp_path / "whole") == []
    for stop in sorted({4, calls - 1}):
        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(Stop):
            fit(folder, case, stop)
        assert files(folder)
        found, again = fit(folder, case)
        assert same(found, whole)
        assert again <= calls  # gradients that were held in memory are made again where needed
        assert files(folder) == [], "nothing unfinished is left beside the factors"


@pytest.mark.parametrize("stop", [3, BATCHES, BATCHES + 4])
def test_a_killed_process_has_done_its_batches_for_good(stop, often, tmp_path):
    whole, calls = fit(tmp_path / "whole", "no memory")
    assert calls == 2 * BATCHES
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_unfinished_fit as test\n"
        "from pathlib import Path\n"
        "test.tensors.WRITE_EVERY = 0.0\n"
        f"test.fit(Path(sys.argv[2]), 'no memory', {stop}, by_signal=True)"
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "killed")]
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    found, again = fit(tmp_path / "killed", "no memory")
    assert again == 2 * BATCHES - (stop - 1)
    assert same(found, whole)


def test_it_may_be_killed_again_and_again(often, tmp_path):
    whole, _ = fit(tmp_path / "whole", "some in memory")
    for _ in range(100):
        try:
            found, _ = fit(tmp_path / "killed", "some in memory", stop=2)
        except Stop:
            continue
        break
    assert same(found, whole)


def test_sums_of_anything_else_are_not_gone_on_from(often, tmp_path, caplog):
    whole, calls = fit(tmp_path / "whole", "no memory")
    with pytest.raises(Stop):
        fit(tmp_path / "stopped", "no memory", stop=4)
    # with other memory the second pass reads other last digits
    found, _ = fit(tmp_path / "stopped", "all in memory")
    assert "was made for something else" in caplog.text
    assert same(found, fit(tmp_path / "other", "all in memory")[0])
    with pytest.raises(Stop):
        fit(tmp_path / "damaged", "no memory", stop=4)
    (part,) = (tmp_path / "damaged").glob("*.part.safetensors")
    part.write_bytes(part.read_bytes()[:-100])
    found, again = fit(tmp_path / "damaged", "no memory")
    assert again == calls
    assert same(found, whole)


def test_a_short_fit_writes_nothing_in_between(tmp_path):
    with pytest.raises(Stop):
        fit(tmp_path, "no memory", stop=2 * BATCHES)
    assert files(tmp_path) == []


def test_sums_for_a_file_of_factors_lie_in_the_home(often, tmp_path):
    whole, calls = fit(tmp_path / "whole", "no memory")
    keeper = factor_keeper(tmp_path / "mine.safetensors", {}, TensorCache(tmp_path / "home"))
    with pytest.raises(Stop):
        fit(keeper, "no memory", stop=4)
    assert files(tmp_path / "home") == ["covariances"]
    found, again = fit(keeper, "no memory")
    assert again == calls - 3
    assert same(found, whole)
    assert (tmp_path / "mine.safetensors").exists()
    assert files(tmp_path / "home") == []


@pytest.mark.parametrize("case", ["no memory", "diagonal"])
def test_factors_that_will_not_be_kept_are_named_before_the_fit_is_done(
    case, tmp_path, monkeypatch, caplog
):
    home = tmp_path / "home"
    keeper = TensorCache(home / "influence", lambda code: "1", home)
    whole, _ = fit(tmp_path / "whole", case)
    numbers = {name: t for name, t in whole.items() if not name.endswith("/scalars")}
    size = sum(t.nbytes for name, t in numbers.items() if not name.startswith("unseen/"))
    monkeypatch.setenv("UNSEEN_CACHE_LIMIT", str(size + 1000))
    with pytest.raises(Stop):
        fit(keeper, case, stop=2)
    assert "are not kept" not in caplog.text
    monkeypatch.setenv("UNSEEN_CACHE_LIMIT", str(size - 1))
    with pytest.raises(Stop):
        fit(keeper, case, stop=2)
    assert f"Factors of {tensors.format_size(size)} are not kept" in caplog.text
    fit(keeper, case)
    assert caplog.text.count("are not kept") == 1
    assert not list(home.glob("influence/*"))
