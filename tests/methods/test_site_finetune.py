"""Site-wise fine-tuning: identities between the methods, exact neighbours, nothing evaluated is
read.
"""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from properties import examples

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, erm_step, train
from unseen.errors import InvalidConfig, InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods.site_finetune import (
    ClusterFinetune,
    ClusterRouter,
    GlobalModel,
    InstanceAugmentedFinetune,
    LocalFinetune,
    LocalScratch,
    PooledModel,
    neighbours,
    penultimate,
)
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

LAB = Lab(seed=1)
SHORT = Budget(steps=12, batch_size=16, lr=1e-2)


class Tripwire(Columns):
    """Evaluation rows: reading them is the failure."""

    def __getitem__(self, index):
        raise AssertionError("a method read an evaluation split")


def rows(n: int, seed: int, shift: float = 0.0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g) + shift
    return {"x": x, "y": (x[:, 0] + 0.3 * torch.randn(n, generator=g) > shift).long()}


def task(judged=Tripwire) -> Task:
    splits = {
        "others": Split(Columns(**rows(120, 1)), Use.TRAIN, "others"),
        "local": Split(Columns(**rows(30, 2, 1.0)), Use.TRAIN, "here"),
        "site": Split(judged(**rows(40, 3, 1.0)), Use.EVALUATE, "here"),
    }
    return Task(name="sites", axis=Axis.SITE, splits=splits, objective=classify)


def model(dropout: float = 0.0):
    with Lab(seed=5).seeded():
        return mlp([4, 8, 2], dropout=dropout)


def weights(trained) -> list[torch.Tensor]:
    return [p.detach() for p in trained.model.parameters()]


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


METHODS = (
    PooledModel(SHORT),
    GlobalModel(SHORT),
    LocalScratch(SHORT),
    LocalFinetune(SHORT, first=SHORT),
    InstanceAugmentedFinetune(2, SHORT, first=SHORT),
    ClusterFinetune(3, SHORT, first=SHORT),
)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_fits_without_a_look_at_judged_rows_and_repeats(method):
    a, b = (method.fit(model(0.1), task(), LAB) for _ in range(2))
    assert equal(a, b)
    assert "site" in a.task.splits
    assert not a.model.training


def test_zero_steps_are_the_global_model_bit_by_bit():
    first = GlobalModel(SHORT).fit(model(), task(), LAB.child("first"))
    none = Budget(steps=0)
    for method in (
        LocalFinetune(none, first=SHORT),
        InstanceAugmentedFinetune(3, none, first=SHORT),
    ):
        assert equal(method.fit(model(), task(), LAB), first)
    routed = ClusterFinetune(3, none, first=SHORT).fit(model(), task(), LAB).model
    x = rows(50, 9)["x"]
    assert torch.equal(routed(x), first.model(x))


def test_the_first_stage_may_be_done_before():
    done = GlobalModel(SHORT).fit(model(), task(), LAB.child("first")).model
    assert equal(
        LocalFinetune(SHORT).fit(done, task(), LAB),
        LocalFinetune(SHORT, first=SHORT).fit(model(), task(), LAB),
    )


def test_no_neighbours_is_local_fine_tuning():
    assert equal(
        InstanceAugmentedFinetune(0, SHORT).fit(model(), task(), LAB),
        LocalFinetune(SHORT).fit(model(), task(), LAB),
    )


def test_neighbours_change_the_result():
    a = InstanceAugmentedFinetune(4, SHORT).fit(model(), task(), LAB)
    assert not equal(a, LocalFinetune(SHORT).fit(model(), task(), LAB))


def test_one_cluster_is_the_global_model_continued_on_everything():
    one = ClusterFinetune(1, SHORT).fit(model(), task(), LAB).model
    continued = PooledModel(SHORT).fit(model(), task(), LAB).model
    x = rows(50, 9)["x"]
    assert torch.equal(one(x), continued(x))


def test_from_scratch_is_plain_training_on_the_local_rows():
    local = Split(task().splits["local"].data, Use.TRAIN)
    plain = train(
        model(),
        Task(name="x", axis=Axis.IID, splits={"train": local}, objective=classify),
        erm_step,
        SHORT,
        LAB,
    )
    assert equal(plain, LocalScratch(SHORT).fit(model(), task(), LAB))


@given(
    n=integers(1, 20),
    m=integers(1, 60),
    k=integers(1, 8),
    width=integers(1, 24),
    seed=integers(0, 99),
)
@examples(30)
def test_neighbours_equal_brute_force(n, m, k, width, seed):
    g = torch.Generator().manual_seed(seed)
    own, others = torch.randn(n, width, generator=g), torch.randn(m, width, generator=g)
    near = set()
    for row in own.double():
        near |= set((others.double() - row).square().sum(1).argsort()[: min(k, m)].tolist())
    assert neighbours(own, others, k).tolist() == sorted(near)


def test_neighbours_equal_brute_force_on_a_thousand_rows():
    g = torch.Generator().manual_seed(0)
    own, others = torch.randn(50, 64, generator=g), torch.randn(1_000, 64, generator=g)
    distance = torch.cdist(
        own.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    assert neighbours(own, others, 5).tolist() == distance.argsort(1)[:, :5].unique().tolist()


def test_representations_are_the_inputs_of_the_last_layer():
    net, data = model(), Columns(**rows(20, 0))
    expected = torch.relu(net[1](data.columns["x"]))
    torch.testing.assert_close(penultimate(net, data, LAB), expected)
    torch.testing.assert_close(net[-1](penultimate(net, data, LAB)), net(data.columns["x"]))


def test_inputs_are_routed_to_the_nearest_centre():
    net = model()
    x = rows(40, 0)["x"]
    inside = penultimate(net, Columns(x=x), LAB)
    copies = [deepcopy(net) for _ in range(3)]
    for k, copy in enumerate(copies):
        torch.nn.init.zeros_(copy[-1].weight)
        torch.nn.init.constant_(copy[-1].bias, float(k))
    routed = ClusterRouter(net, copies, inside[:3].clone())
    nearest = (inside[:, None] - inside[None, :3]).square().sum(2).argmin(1)
    assert routed(x)[:, 0].tolist() == nearest.tolist()
    assert np.unique(nearest).size > 1


def test_refusals():
    with pytest.raises(UnknownName, match="locla"):
        LocalFinetune(SHORT, local="locla").fit(model(), task(), LAB)
    alone = Task(
        name="one", axis=Axis.SITE, splits={"local": task().splits["local"]}, objective=classify
    )
    with pytest.raises(InvalidData, match="no TRAIN split besides"):
        InstanceAugmentedFinetune(1, SHORT).fit(model(), alone, LAB)
    with pytest.raises(InvalidConfig):
        InstanceAugmentedFinetune(-1)
    with pytest.raises(InvalidConfig):
        ClusterFinetune(0)
    with pytest.raises(UnsupportedLayer):
        penultimate(torch.nn.ReLU(), Columns(x=torch.zeros(2, 3)), LAB)
