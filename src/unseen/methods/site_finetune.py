"""Making a model of many sites fit one of them (Rahman et al., 2024, arXiv:2402.10965).

The task has one TRAIN split of the site itself (`local`) and other TRAIN splits of other sites. All
methods read these and nothing else. The model that is given is the global model f₀, unless `first`
says how to make it: training on the other sites. Representations are the inputs of the model's last
linear layer, the penultimate layer of f₀.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.utils.data import Dataset

from unseen.engine.batches import Columns, once, whole
from unseen.engine.loop import Budget, erm_step, train
from unseen.errors import InvalidConfig, InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Split, Task, Use


@dataclass(frozen=True)
class PooledModel:
    """One model of all TRAIN splits together: every example counts the same, wherever it comes
    from.
    """

    budget: Budget = Budget()

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return _train_on(
            model,
            task,
            _concatenate_splits(list(task.of(Use.TRAIN).values()), lab),
            self.budget,
            lab,
        )


@dataclass(frozen=True)
class GlobalModel:
    """The global model f₀ for a site that is unseen: all TRAIN splits but the local one."""

    budget: Budget = Budget()
    local: str = "local"

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return _train_on(
            model,
            task,
            _concatenate_splits(_global_splits(task, self.local), lab),
            self.budget,
            lab,
        )


@dataclass(frozen=True)
class LocalScratch:
    """Only the site's own examples, from the initialisation given."""

    budget: Budget = Budget()
    local: str = "local"

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return _train_on(
            model, task, _concatenate_splits([_local(task, self.local)], lab), self.budget, lab
        )


@dataclass(frozen=True)
class LocalFinetune:
    """f₀ continued on the site's own examples; 0 steps leave f₀ as it is."""

    budget: Budget = Budget(steps=100, lr=5e-4)
    local: str = "local"
    first: Budget | None = None

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        model = _initial_model(model, task, self.first, self.local, lab)
        return _train_on(
            model, task, _concatenate_splits([_local(task, self.local)], lab), self.budget, lab
        )


@dataclass(frozen=True)
class InstanceAugmentedFinetune:
    """f₀ continued on the site's examples and, once each, the `k` nearest examples of other sites
    to any of them.
    """

    k: int = 5
    budget: Budget = Budget(steps=100, lr=5e-4)
    local: str = "local"
    first: Budget | None = None

    def __post_init__(self) -> None:
        if self.k < 0:
            raise InvalidConfig(
                f"k={self.k} neighbours.", why="a number of examples is at least 0.", fix="use k=5."
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        model = _initial_model(model, task, self.first, self.local, lab)
        own, others = (
            _concatenate_splits([_local(task, self.local)], lab),
            _concatenate_splits(_global_splits(task, self.local), lab),
        )
        data = own
        if self.k:
            near = neighbours(penultimate(model, own, lab), penultimate(model, others, lab), self.k)
            data = _concatenate([own, others.subset(torch.from_numpy(near))])
        return _train_on(model, task, data, self.budget, lab)


@dataclass(frozen=True)
class ClusterFinetune:
    """k-means on the representations of all training examples; a copy of f₀ continued per cluster;
    inputs are routed.

    One cluster is f₀ continued on everything. `budget` holds for each copy.
    """

    n_clusters: int = 4
    budget: Budget = Budget(steps=100, lr=5e-4)
    local: str = "local"
    first: Budget | None = None

    def __post_init__(self) -> None:
        if self.n_clusters < 1:
            raise InvalidConfig(
                f"n_clusters={self.n_clusters}.", why="at least one copy is needed.", fix="use 4."
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        model = _initial_model(model, task, self.first, self.local, lab)
        data = _concatenate_splits(list(task.of(Use.TRAIN).values()), lab)
        where = penultimate(model, data, lab)
        seed = int(lab.child("clusters").numpy().integers(2**31))
        found = KMeans(min(self.n_clusters, len(data)), n_init=4, random_state=seed).fit(
            where.cpu().numpy()
        )
        copies = []
        for cluster in range(len(found.cluster_centers_)):
            mine = data.subset(torch.from_numpy(np.flatnonzero(found.labels_ == cluster)))
            # the same stream for each: with one cluster it is the stream of `PooledModel`
            copies.append(_train_on(deepcopy(model), task, mine, self.budget, lab).model)
        centres = torch.from_numpy(found.cluster_centers_).to(where)
        return Trained(ClusterRouter(model, copies, centres).eval(), task)


class ClusterRouter(nn.Module):
    """Each input goes to the copy whose cluster centre is nearest to its representation under the
    router.
    """

    def __init__(
        self,
        router: nn.Module,
        copies: Sequence[nn.Module],
        centres: Float[Tensor, "cluster width"],
    ) -> None:
        super().__init__()
        self.router = router.requires_grad_(False)
        self.copies = nn.ModuleList(copies)
        self.register_buffer("centres", centres)

    def route(self, x: Tensor) -> Int[Tensor, " batch"]:
        """The cluster of each input."""
        was_training = self.router.training
        self.router.eval()  # no dropout: an input has one cluster
        try:
            inside = _last_inputs(self.router, x)
        finally:
            self.router.train(was_training)
        return torch.cdist(inside, self.get_buffer("centres")).argmin(1)

    def forward(self, x: Tensor) -> Tensor:
        cluster = self.route(x)
        answers = torch.stack([copy(x) for copy in self.copies])
        return answers[cluster, torch.arange(len(x), device=x.device)]


def neighbours(
    own: Float[Tensor, "query width"], others: Float[Tensor, "other width"], k: int
) -> NDArray[np.int64]:
    """Positions in `others` of the k nearest (Euclidean, exact) to any row of `own`, each once,
    ascending.
    """
    k = min(k, len(others))
    search = NearestNeighbors(n_neighbors=k, algorithm="brute" if own.shape[1] > 15 else "auto")
    found = search.fit(others.double().cpu().numpy()).kneighbors(
        own.double().cpu().numpy(), return_distance=False
    )
    return np.unique(found).astype(np.int64)


@torch.no_grad()
def penultimate(model: nn.Module, data: Dataset, lab: Lab) -> Float[Tensor, "n width"]:
    """The input of the model's last linear layer for every example, in evaluation mode."""
    was_training = model.training
    model.eval()
    try:
        return torch.cat([_last_inputs(model, batch["x"]) for batch in once(data, 1024, lab)])
    finally:
        model.train(was_training)


def _last_inputs(model: nn.Module, x: Tensor) -> Float[Tensor, "batch width"]:
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UnsupportedLayer(
            f"{type(model).__name__} has no linear layer.",
            why="representations are the inputs of the last one.",
            fix="end the model with nn.Linear.",
        )
    kept: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            model(x)
    finally:
        hook.remove()
    return kept[-1].flatten(1)


def _local(task: Task, local: str) -> Split:
    fits = task.of(Use.TRAIN)
    if local not in fits:
        raise UnknownName.near("TRAIN split", local, fits)
    return fits[local]


def _global_splits(task: Task, local: str) -> list[Split]:
    _local(task, local)
    others = [split for name, split in task.of(Use.TRAIN).items() if name != local]
    if not others:
        raise InvalidData(
            f"Task `{task.name}` has no TRAIN split besides `{local}`.",
            why="the global model and the neighbours come from other sites.",
            fix="add the other sites' training rows as a TRAIN split, or use LocalScratch.",
        )
    return others


def _initial_model(
    model: nn.Module, task: Task, first: Budget | None, local: str, lab: Lab
) -> nn.Module:
    if first is None:
        return model.to(lab.device, lab.dtype).eval()
    return GlobalModel(first, local).fit(model, task, lab.child("first")).model


def _concatenate_splits(splits: Sequence[Split], lab: Lab) -> Columns:
    return _concatenate([Columns(**whole(split.data, lab)) for split in splits])


def _concatenate(parts: Sequence[Columns]) -> Columns:
    names = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    return Columns(**{name: torch.cat([part.columns[name] for part in parts]) for name in names})


def _train_on(model: nn.Module, task: Task, data: Columns, budget: Budget, lab: Lab) -> Trained:
    """Training on `data` alone; the result carries the whole task."""
    only = replace(task, splits={"train": Split(data, Use.TRAIN), **task.of(Use.SELECT)})
    return replace(train(model, only, erm_step, budget, lab), task=task)


def example() -> PooledModel:
    """For any task; the others need a TRAIN split named by `local` and one of other sites."""
    return PooledModel(Budget(steps=20, batch_size=16))
