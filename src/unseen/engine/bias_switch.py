"""One set of biases per task in an otherwise shared network.

As in Visual Token Matching (Kim et al., 2023, arXiv:2303.14969), where a task owns the biases of
the image encoder and nothing else.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unseen.errors import InvalidConfig, InvalidData, UnknownName


def bias_names(module: nn.Module) -> list[str]:
    """Names of the parameters that are added: vectors whose name has the word `bias`."""
    return [
        name
        for name, p in module.named_parameters()
        if p.dim() == 1 and "bias" in name.rpartition(".")[2].split("_")
    ]


class BiasSwitch(nn.Module):
    """Any module with a copy of its biases (or of other named parameters) for every task.

        switch = BiasSwitch(model)
        switch.add_task("edges")
        switch("edges", images)                 # or: with switch.use("edges") as model: …

    Outside of `use` the module holds its own values, which no task changes.
    """

    def __init__(self, module: nn.Module, names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(bias_names(module) if names is None else names)
        self.tasks: list[str] = []
        self.sets = nn.ModuleList()
        known = dict(module.named_parameters())
        if not self.names:
            raise InvalidData(
                f"{type(module).__name__} has no biases.",
                why="a task is told from another by its biases.",
                fix="build its layers with bias=True, or give the names of other parameters.",
            )
        for name in self.names:
            if name not in known:
                raise UnknownName.near("parameter", name, known)

    def add_task(self, task: str, start: str | None = None) -> None:
        """A set of its own for a new task: the values of `start`, or the mean over all tasks (with
        none: those of the module). It must not be known: what was trained is no new task.
        """
        if task in self.tasks:
            raise InvalidConfig(
                f"There is already a set of biases for the task `{task}`.",
                why="it was trained or adapted before, so it is not a new task.",
                fix="give the new task another name, or leave the trained one out of training.",
            )
        values = self._mean() if start is None else self.parameters_of(start)
        copies = [nn.Parameter(value.detach().clone()) for value in values]
        self.tasks.append(task)
        self.sets.append(nn.ParameterList(copies))

    def remove_task(self, task: str) -> None:
        """Forgets the set of a task; the others stay as they are."""
        index = self._index(task)
        kept = [one for k, one in enumerate(self.sets) if k != index]
        self.tasks.remove(task)
        self.sets = nn.ModuleList(kept)

    def parameters_of(self, task: str) -> list[nn.Parameter]:
        """The set of a task, in the order of `names`."""
        return list(self.sets[self._index(task)].parameters())

    @contextmanager
    def use(self, task: str | None) -> Iterator[nn.Module]:
        """Inside the block the module computes with the set of this task, and gradients reach it;
        None: with the mean of all tasks.
        """
        values = self._mean() if task is None else self.parameters_of(task)
        owners = [_owner(self.module, name) for name in self.names]
        before = [owner._parameters[leaf] for owner, leaf in owners]
        try:
            for (owner, leaf), value in zip(owners, values, strict=True):
                owner._parameters[leaf] = value
            yield self.module
        finally:
            for (owner, leaf), own in zip(owners, before, strict=True):
                owner._parameters[leaf] = own

    def forward(self, task: str | None, *inputs: object) -> Tensor:
        with self.use(task) as module:
            found = module(*inputs)
        assert isinstance(found, Tensor)
        return found

    def share(self) -> float:
        """Numbers in one set of biases as a share of those in the module."""
        known = dict(self.module.named_parameters())
        return sum(known[name].numel() for name in self.names) / sum(
            p.numel() for p in known.values()
        )

    def _index(self, task: str) -> int:
        if task not in self.tasks:
            raise UnknownName.near("task", task, self.tasks)
        return self.tasks.index(task)

    @torch.no_grad()
    def _mean(self) -> list[nn.Parameter]:
        """The mean over the sets: not the first task's, from which others are farther away."""
        sets = [self.parameters_of(task) for task in self.tasks]
        if not sets:
            known = dict(self.module.named_parameters())
            sets = [[known[name] for name in self.names]]
        means = [torch.stack(list(group)).mean(0) for group in zip(*sets, strict=True)]
        return [nn.Parameter(mean, requires_grad=False) for mean in means]


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf
