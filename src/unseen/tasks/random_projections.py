"""Classification problems made of one by random projections and permutations of the labels (Kirsch
et al., 2022, arXiv:2212.04458).

An example is a sequence of labelled instances of one problem; each label is to be predicted from
those before it. Evaluation tells apart who remembers instances, who recognises one of the training
problems, and who learns a problem that is new.

Columns: `x` [n, example, dim] and `y` [n, example]; in training also the instances as they come,
`raw` and `label`, from which methods make further problems.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.in_context import change_task, in_context, random_maps, random_permutations
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.task import Axis, Split, Task, Use

SEEN, NEW_INSTANCES, NEW_TASKS = (
    "seen tasks, seen instances",
    "seen tasks, unseen instances",
    "unseen tasks",
)
"""Evaluation splits; instances of unseen tasks are unseen, too."""


@dataclass(frozen=True)
class RandomProjections:
    """Contexts of `tasks` problems in training. Problem k is drawn from a stream of its own: the
    same for any number of problems, and made anew whenever it is needed.
    """

    tasks: int = 16
    classes: int = 5
    """The first so many of the base."""
    dim: int = 16
    """Of the projected inputs."""
    n_examples: int = 30
    """Labelled instances in a context, drawn with replacement."""
    n_train: int = 8_192
    """Contexts in training."""
    n_test: int = 1_000
    """Contexts of every evaluation split."""
    held_out: float = 0.2
    """Share of the instances that only evaluation shows."""

    def __post_init__(self) -> None:
        sizes = (self.tasks, self.dim, self.n_train, self.n_test)
        if min(sizes) < 1 or self.n_examples < 2 or self.classes < 2 or not 0 < self.held_out < 1:
            raise InvalidConfig(
                f"RandomProjections(tasks={self.tasks}, classes={self.classes}, dim={self.dim}, "
                f"n_examples={self.n_examples}, n_train={self.n_train}, n_test={self.n_test}, "
                f"held_out={self.held_out}) is out of range.",
                why="at least one problem, one context and one input, two classes and two examples "
                "are needed: the first explains the second.",
                fix="for example RandomProjections(tasks=16, n_examples=30).",
            )

    def build(self, lab: Lab) -> Task:
        digits = load_digits()
        x = torch.tensor(digits.data, dtype=torch.float32)
        with warnings.catch_warnings():  # pixels at the edge are always blank
            warnings.simplefilter("ignore")
            return self.build_from(x, torch.tensor(digits.target), lab)

    def build_from(self, x: Float[Tensor, "row width"], y: Int[Tensor, " row"], lab: Lab) -> Task:
        """The task on rows of one's own with classes 0, 1, …; inputs are standardised here."""
        self._refuse_classes(y)
        x, y = x[y < self.classes], y[y < self.classes]
        order = torch.randperm(len(y), generator=lab.child("instances").generator())
        n_new = max(1, round(self.held_out * len(y)))
        new, seen = order[:n_new], order[n_new:]
        x = standardise(x, x[seen])
        train = self.contexts(x[seen], y[seen], self.n_train, lab.child("train"), 0, lab)
        evaluate = {
            SEEN: (seen, 0),
            NEW_INSTANCES: (new, 0),
            NEW_TASKS: (new, self.tasks),
        }
        splits = {"train": Split(train, Use.TRAIN, "seen tasks")}
        for name, (rows, first) in evaluate.items():
            data = self.contexts(x[rows], y[rows], self.n_test, lab.child(name), first, lab)
            shown = Columns(x=data.columns["x"], y=data.columns["y"])
            at = NEW_TASKS if first else "seen tasks"
            splits[name] = Split(shown, Use.EVALUATE, at)
        objective = in_context(self.classes)
        return Task(name="random projections", axis=Axis.TASK, splits=splits, objective=objective)

    def _refuse_classes(self, y: Tensor) -> None:
        found = torch.unique(y)
        if not torch.equal(found, torch.arange(len(found))) or len(found) < self.classes:
            raise InvalidData(
                f"{self.classes} classes are asked for, the base has {len(found)}: "
                f"{found.tolist()[:10]}.",
                why="labels are numbered from 0 without a gap, and every class needs instances.",
                fix=f"ask for at most {len(found)} classes, or number them 0, 1, ….",
            )

    def contexts(self, x: Tensor, y: Tensor, n: int, draw: Lab, first: int, lab: Lab) -> Columns:
        """So many contexts of the training problems; of a new one each where `first`, the number
        of the first, is beyond them.
        """
        generator = draw.generator()
        rows = torch.randint(len(y), (n, self.n_examples), generator=generator)
        if first:
            numbers = torch.arange(first, first + n)
        else:
            numbers = torch.randint(self.tasks, (n,), generator=generator)
        known, index = numbers.unique(return_inverse=True)
        maps, permutations = self.problems(known.tolist(), x.shape[1], lab)
        raw, label = x[rows], y[rows]
        inputs, targets = change_task(raw, label, maps[index], permutations[index])
        return Columns(x=inputs, y=targets, raw=raw, label=label)

    def problems(
        self, numbers: list[int], width: int, lab: Lab
    ) -> tuple[Float[Tensor, "task dim width"], Int[Tensor, "task classes"]]:
        """Maps and permutations of these problems."""
        maps, permutations = [], []
        for k in numbers:
            generator = lab.child("task", k).generator()
            maps.append(random_maps(1, self.dim, width, generator))
            permutations.append(random_permutations(1, self.classes, generator))
        return torch.cat(maps), torch.cat(permutations)


def standardise(x: Float[Tensor, "row width"], like: Float[Tensor, "some width"]) -> Tensor:
    """Mean 0 and deviation 1 by the rows `like`; what is constant there becomes 0."""
    deviation = like.std(0)
    constant = deviation == 0
    if constant.all():
        raise InvalidData(
            "Every input is constant.",
            why="nothing tells the rows apart.",
            fix="check the columns.",
        )
    if constant.any():
        warnings.warn(
            f"{int(constant.sum())} of {len(constant)} inputs are constant and count as 0.",
            stacklevel=2,
        )
    scaled = (x - like.mean(0)) / deviation.masked_fill(constant, 1.0)
    return scaled.masked_fill(constant, 0.0)


class PositionMLP(nn.Module):
    """Logits of every position from its own input alone: enough for a single problem."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, x: Float[Tensor, "b n i"]) -> Float[Tensor, "b n classes"]:
        return self.layers(x)


def example() -> tuple[RandomProjections, Callable[[Task], nn.Module]]:
    spec = RandomProjections(tasks=1, classes=3, n_examples=6, n_train=64, n_test=32)

    def easy_model(task: Task) -> nn.Module:
        with Lab().child("easy").seeded():
            return PositionMLP(spec.dim + spec.classes, spec.classes)

    return spec, easy_model
