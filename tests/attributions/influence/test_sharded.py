"""Two processes (gloo) that each hold half of every parameter find what one whole model finds."""

import copy
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from unseen.attributions import influence
from unseen.attributions.influence import (
    Curvature,
    Fisher,
    Influence,
    InfluenceScores,
    sequence_nats,
)
from unseen.attributions.influence.layers import digest
from unseen.attributions.influence.resume import top
from unseen.engine.batches import Columns, once
from unseen.engine.ranks import ranks
from unseen.engine.sharding import is_sharded, shard_blocks
from unseen.errors import InvalidConfig, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import classify, sequence_log_probability
from unseen.runs import tensors
from unseen.runs.tensors import TensorCache
from unseen.task import Axis, Batch, Split, Task, Use
from unseen.tasks.text_corpus import TextCorpus


class Tied(nn.Module):
    """A layer whose weight is used once more behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.last = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.inner(x))) @ self.inner.weight


def points(n: int) -> Task:
    draw = torch.Generator().manual_seed(3)
    data = Columns(
        x=torch.randn(n, 3, generator=draw, dtype=torch.float64),
        y=torch.randint(0, 3, (n,), generator=draw),
    )
    splits = {"train": Split(data, Use.TRAIN)}
    return Task(name="points", axis=Axis.IID, splits=splits, objective=classify)


def of_text(folder: str, lab: Lab, is_spread: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
    decoder = Decoder(vocabulary=128, width=16, layers=2, heads=2, context=16)
    model = Transformer(decoder).double().eval()
    if is_spread:
        shard_blocks(model)
    mapped = f"{folder}/{lab.ranks.rank}{is_spread}"
    task = TextCorpus((f"{folder}/a.txt",), length=12, folder=mapped).build(lab)
    queries = next(once(task.splits["corpus"].data, 3, lab))
    made: dict[str, Tensor] = {"digest": torch.tensor([*bytes.fromhex(digest(model))])}
    for layers in ((), ("*mlp*", "embed", "*norm*")):
        config = Influence(loss=sequence_nats, batch_size=4, layers=layers, memory=1 << 12)
        found = config.prepare(Trained(model, task), lab)
        name = f"text {' '.join(layers)}"
        values = [block.values.flatten() for block in found.factors.blocks.values()]
        best = found.top(queries, sequence_log_probability, 3)
        made |= {
            f"{name} factors": torch.cat(values),
            f"{name} scores": found(queries, sequence_log_probability).scores,
            f"{name} own": found.self_influence(),
            f"{name} best": best.scores,
            f"{name} index": best.index,
            f"{name} resumable": resumed(found, queries, folder, lab),
        }
        if not layers:
            rows = torch.tensor([5, 2])
            made["by token"] = found.by_token(queries, sequence_log_probability, rows)
    return made


def resumed(found: InfluenceScores, queries: Batch, folder: str, lab: Lab) -> Tensor:
    """The best by way of a state that one process stored and the other did not."""
    store = Stored(f"{folder}/{lab.ranks.size}-{lab.ranks.rank}-{len(found.layers)}.pt")
    first = top(found, queries, sequence_log_probability, 3, store, every=1)
    if lab.ranks.rank == 0:
        Path(store.path).unlink()
    again = top(found, queries, sequence_log_probability, 3, store, every=1)
    assert torch.equal(first.index, again.index)
    return first.scores


@dataclass(frozen=True)
class Stored:
    path: str

    def load(self) -> dict[str, Tensor] | None:
        return torch.load(self.path) if Path(self.path).is_file() else None

    def save(self, state: dict[str, Tensor]) -> None:
        torch.save(state, self.path)


def of_points(folder: str, lab: Lab, is_spread: bool) -> dict[str, Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))
    model = model.double()
    queries = next(once(points(4).splits["train"].data, 4, lab))
    # one batch: one of two processes has none, though each has the whole model
    found = Influence(batch_size=9).prepare(Trained(copy.deepcopy(model), points(9)), lab)
    made = {"one batch": found.top(queries, classify.loss, 2).scores}
    if is_spread:
        from torch.distributed.fsdp import fully_shard

        fully_shard(model[2])
        fully_shard(model)
    # nine examples, five a batch: the second batch is smaller, and three a batch leave one idle
    for batch_size, curvature, fisher in (
        (5, Curvature.EKFAC, Fisher.EXACT),
        (3, Curvature.KFAC, Fisher.SAMPLED),
        (9, Curvature.DIAGONAL, Fisher.EMPIRICAL),
        (4, Curvature.EXACT, Fisher.EXACT),
    ):
        config = Influence(curvature=curvature, fisher=fisher, batch_size=batch_size)
        found = config.prepare(Trained(model, points(9)), lab)
        best = found.top(queries, classify.loss, 2)
        made[f"{curvature} {batch_size}"] = found(queries, classify.loss).scores
        made[f"{curvature} {batch_size} best"] = best.scores
    # five batches: one process is idle in the last round
    config = Influence(batch_size=2, fisher=Fisher.EMPIRICAL)
    for stop in (2, 3, 4, 5, 6):
        place = Path(folder, f"{lab.ranks.size}-{lab.ranks.rank}-{stop}")
        made[f"stopped at {stop}"] = interrupted(model, config, lab, place, stop)
    if is_spread:
        made |= refusals(model, lab)
    return made


class Stop(Exception):
    """Ends a fit as a kill does."""


def interrupted(model: nn.Module, config: Influence, lab: Lab, folder: Path, stop: int) -> Tensor:
    """Scores by a fit that was stopped before so many runs of the model, and goes on."""
    queries = next(once(points(4).splits["train"].data, 4, lab))
    if lab.ranks.size == 1:
        return config.prepare(Trained(model, points(9)), lab)(queries, classify.loss).scores
    tensors.WRITE_EVERY = 0.0  # sums are stored after every batch
    lab, calls, pairs = replace(lab, keeper=TensorCache(folder)), [0], influence.pairs

    def counted(*arguments):
        calls[0] += 1
        if calls[0] == stop:
            raise Stop
        return pairs(*arguments)

    influence.pairs = counted
    try:
        with pytest.raises(Stop):
            config.prepare(Trained(model, points(9)), lab)
        if stop == 4 and lab.ranks.rank == 0:  # one process lost its sums: both begin anew
            for part in folder.glob("*.part.safetensors"):
                part.unlink()
        calls[0] = stop
        found = config.prepare(Trained(model, points(9)), lab)
    finally:
        influence.pairs = pairs
    # three rounds in each of two passes
    assert calls[0] - stop == (6 if stop == 4 else 6 - (stop - 1))
    return found(queries, classify.loss).scores


def refusals(model: nn.Module, lab: Lab) -> dict[str, Tensor]:
    """What is refused in every process alike."""
    from torch.distributed.fsdp import fully_shard

    with pytest.raises(InvalidConfig, match="sharded or lies on several"):
        Influence(curvature=Curvature.EKFAC_CG).prepare(Trained(model, points(9)), lab)
    with pytest.raises(InvalidConfig, match="does not know"):
        Influence().prepare(Trained(model, points(9)), replace(lab, ranks=Lab().ranks))
    torch.manual_seed(2)
    tied = Tied().double()
    fully_shard(tied)
    with pytest.raises(UnsupportedLayer, match="outside the forward pass of their own layer"):
        Influence().prepare(Trained(tied, points(9)), lab)
    assert is_sharded(model)
    return {}


def found(folder: str, lab: Lab, is_spread: bool) -> dict[str, Tensor]:
    return of_points(folder, lab, is_spread) | of_text(folder, lab, is_spread)


def member(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    lab = Lab(dtype=torch.float64, ranks=ranks())
    torch.save(found(folder, lab, is_spread=True), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def all_three():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.txt").write_text(" ".join(f"{n} and {n * n}" for n in range(20)))
        both = [
            subprocess.Popen([sys.executable, __file__, str(rank), folder]) for rank in range(2)
        ]
        alone = found(folder, Lab(dtype=torch.float64), is_spread=False)
        assert [process.wait(timeout=1_200) for process in both] == [0, 0]
        yield alone, *(torch.load(Path(folder) / f"{rank}.pt") for rank in range(2))


def test_half_of_every_parameter_finds_what_the_whole_model_finds(all_three):
    alone, *both = all_three
    for one in both:
        assert one.keys() == alone.keys()
        for name, wanted in alone.items():
            if wanted.is_floating_point():
                # sums over processes are added in another order
                atol = 1e-10 * float(wanted.abs().max())
                assert torch.allclose(one[name], wanted, rtol=1e-8, atol=atol), name
            else:
                assert torch.equal(one[name], wanted), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    member(int(sys.argv[1]), sys.argv[2])
