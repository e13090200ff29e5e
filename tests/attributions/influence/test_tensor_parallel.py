"""Layers that compute a part of their outputs in each process are refused before anything runs."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from unseen.attributions.influence import Influence
from unseen.engine.batches import Columns
from unseen.errors import UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


@pytest.fixture
def group():
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("is_sharded", [False, True], ids=["alone", "and sharded"])
def test_a_tensor_parallel_model_is_refused(group, is_sharded):
    mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("data", "tensor"))
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, mesh["tensor"], plan)
    if is_sharded:
        fully_shard(model, mesh=mesh["data"])
    data = Columns(x=torch.randn(8, 3), y=torch.tensor([0, 1] * 4))
    splits = {"train": Split(data, Use.TRAIN)}
    task = Task(name="points", axis=Axis.IID, splits=splits, objective=classify)
    with pytest.raises(UnsupportedLayer, match=r"`0\.weight` is spread") as caught:
        Influence().prepare(Trained(model, task), Lab())
    assert "fully_shard" in caught.value.fix
