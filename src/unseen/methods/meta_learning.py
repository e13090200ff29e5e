"""Meta-training of an in-context learner on problems that no two steps share, with a biased
projection against the plateau (Kirsch et al., 2022, arXiv:2212.04458, section 5).
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.in_context import change_task, in_context, random_maps, random_permutations
from unseen.engine.loop import Budget, Draw, mean_loss, train
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Axis, Batch, Objective, Split, Task, Use


def renew_tasks(batch: Batch, fixed: Tensor, classes: int, bias: float, draw: Draw) -> Batch:
    """The contexts `raw` and `label` as problems of their own: a new permutation of the labels
    each, and a new map of the inputs, but the fixed map with probability `bias`.
    """
    assert draw.generator is not None
    n, width = len(batch["raw"]), batch["raw"].shape[-1]
    maps = random_maps(n, len(fixed), width, draw.generator)
    biased = torch.rand(n, generator=draw.generator) < bias
    maps = torch.where(biased[:, None, None], fixed, maps).to(batch["raw"])
    permutations = random_permutations(n, classes, draw.generator).to(batch["label"].device)
    x, y = change_task(batch["raw"], batch["label"], maps, permutations)
    return {"x": x, "y": y}


def meta_step(
    model: nn.Module,
    draw: Draw,
    objective: Objective,
    *,
    fixed: Tensor,
    classes: int,
    bias: float,
) -> Tensor:
    """Leaves in `.grad` the gradient of the mean loss on new problems."""
    batches = {
        name: renew_tasks(batch, fixed, classes, bias, draw) for name, batch in draw.fit.items()
    }
    loss = mean_loss(model, batches, objective)
    loss.backward()
    return loss.detach()


@dataclass(frozen=True)
class MetaLearning:
    """Every context of every step is a new problem: its instances (`raw`, `label`) with a random
    map and a random permutation of the labels.

    Of some contexts the map is always the same, which is easier and leads off the plateau at
    log(classes) nats on which unbiased training may stay.
    """

    bias: float = 0.5
    """Share of contexts with the fixed map; 0: none."""
    budget: Budget = Budget(steps=3_000, batch_size=64, lr=2e-3, warmup=200, clip=1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.bias <= 1:
            raise InvalidConfig(
                f"bias={self.bias}.", why="it is a share of the contexts.", fix="0 … 1; try 0.5."
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        dim, width, classes = sizes(task)
        fixed = random_maps(1, dim, width, lab.child("fixed map").generator())[0]
        step = partial(meta_step, fixed=fixed, classes=classes, bias=self.bias)
        return train(model, task, step, self.budget, lab)


def sizes(task: Task) -> tuple[int, int, int]:
    """Projected inputs, inputs and classes of the contexts in training."""
    for name, split in task.of(Use.TRAIN).items():
        columns = split.data.columns if isinstance(split.data, Columns) else {}
        if not {"x", "raw", "label"} <= columns.keys():
            raise InvalidData(
                f"Split `{name}` of `{task.name}` has the columns {sorted(columns)}.",
                why="new problems are made of the instances in `raw` and `label`, for a model of "
                "inputs as wide as `x`.",
                fix="use RandomProjections().build_from(x, y, lab).",
            )
    first = next(iter(task.of(Use.TRAIN).values())).data
    assert isinstance(first, Columns)
    x, raw, label = (first.columns[name] for name in ("x", "raw", "label"))
    return x.shape[-1], raw.shape[-1], int(label.max()) + 1


class _PrefixMean(nn.Module):
    """Adds to every position the mean of those up to it: a small in-context learner."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * inputs, 16), nn.ReLU(), nn.Linear(16, classes))

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        return self.layers(torch.cat([x, x.cumsum(1) / count], -1))


def example() -> tuple[MetaLearning, Trained]:
    """Twenty steps on two Gaussian classes in contexts of five."""
    generator = Lab().child("contexts").generator()
    label = torch.randint(2, (64, 5), generator=generator)
    raw = torch.randn(64, 5, 4, generator=generator) + 2.0 * label[..., None]
    data = Columns(x=raw[..., :3], y=label, raw=raw, label=label)
    new = Columns(x=raw[:8, :, :3].flip(1), y=label[:8].flip(1))
    splits = {"train": Split(data, Use.TRAIN, "a"), "new": Split(new, Use.EVALUATE, "b")}
    task = Task(name="Gaussian contexts", axis=Axis.TASK, splits=splits, objective=in_context(2))
    with Lab().child("model").seeded():
        model = _PrefixMean(5, 2)
    method = MetaLearning(budget=Budget(steps=20, batch_size=16, lr=1e-2))
    return method, Trained(model, task)
