"""Domains: the same question in several places, one of which is left out and evaluated.

The protocol of every domain task here, and of one's own. A spec is a frozen dataclass with a field
`held_out` and a method `domains()`; `leave_one_out(spec)` gives one spec per domain. Each of them
builds a task with these splits:

`train:D` (TRAIN), `select:D` (SELECT) and `seen:D` (EVALUATE): random parts of each training domain
D, at = D; `unseen` (EVALUATE): what is evaluated of the domain left out, at = its name;
`oracle` (EVALUATE): the other part of it. Choosing hyperparameters there uses labels that nobody
has: an upper bound.

Batches hold `x`, `y`, `index` (the row within its domain) and `domain` (the position in
`spec.domains()`).
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Objective, Split, Task, TaskSpec, Use
from unseen.tasks.table.splitting import split_by_stratum

UNSEEN = "unseen"
ORACLE = "oracle"


@runtime_checkable
class DomainSpec(TaskSpec, Protocol):
    """A frozen dataclass that builds a task in which one domain is left out."""

    @property
    def held_out(self) -> str | None:
        """A field: the domain to evaluate on; None: the last one."""

    def domains(self) -> tuple[str, ...]:
        """All domains by name, in their natural order; the same whichever is held out."""


Spec = TypeVar("Spec", bound=DomainSpec)


def leave_one_out(spec: Spec) -> tuple[Spec, ...]:
    """The same task with each domain left out in turn."""
    return tuple(cast(Spec, replace(cast(Any, spec), held_out=domain)) for domain in spec.domains())


@dataclass(frozen=True)
class Division:
    """Which share of a training domain selects and which is evaluated there; which share of the
    other domain is `oracle`.

    Equal to DomainBed's 80/20 (Gulrajani & Lopez-Paz, 2021, arXiv:2007.01434) but for `seen`, which
    it does not have.
    """

    select: float = 0.2
    seen: float = 0.1
    oracle: float = 0.2

    def __post_init__(self) -> None:
        if not (
            self.select > 0
            and self.seen >= 0
            and self.select + self.seen < 1
            and 0 <= self.oracle < 1
        ):
            raise InvalidConfig(
                f"Division(select={self.select}, seen={self.seen}, oracle={self.oracle}) is out of "
                "range.",
                why="some examples must be left to fit, some to select on and some to evaluate.",
                fix="use select > 0, seen ≥ 0, select + seen < 1 and 0 ≤ oracle < 1.",
            )


@dataclass(frozen=True)
class Examples:
    """One domain: the target of each row, and the data set of chosen rows (with columns `index` and
    `domain`).
    """

    y: Shaped[Tensor, " n"]
    take: Callable[[Int[Tensor, " k"]], Dataset[Any]]


def examples_of(columns: Columns, domain: int) -> Examples:
    """Rows in memory as the examples of the domain at this position."""
    n = len(columns)
    own = {"index": torch.arange(n), **columns.columns, "domain": torch.full((n,), domain)}
    return Examples(own["y"], Columns(**own).subset)


def assemble_task(
    name: str,
    parts: Mapping[str, Examples],
    held_out: str | None,
    division: Division,
    lab: Lab,
    objective: Objective = classify,
    axis: Axis = Axis.DOMAIN,
) -> Task:
    """The task of the protocol. How a domain is divided does not depend on which one is left
    out.
    """
    chosen = resolve_held_out(tuple(parts), held_out)
    _inspect(parts, chosen)
    uses = {"train": Use.TRAIN, "select": Use.SELECT}
    splits: dict[str, Split] = {}
    for domain, part in parts.items():
        if domain == chosen:
            shares = {UNSEEN: 1 - division.oracle, ORACLE: division.oracle}
        else:
            shares = {
                "train": 1 - division.select - division.seen,
                "select": division.select,
                "seen": division.seen,
            }
        strata = np.zeros(len(part.y), np.int64) if part.y.is_floating_point() else part.y.numpy()
        rows = split_by_stratum(
            np.arange(len(part.y)), strata, None, shares, lab.child("rows", domain).numpy()
        )
        for kind, share in shares.items():
            if share > 0:
                _refuse_empty(rows[kind].size, kind, domain, len(part.y))
                label = kind if domain == chosen else f"{kind}:{domain}"
                splits[label] = Split(
                    part.take(torch.from_numpy(rows[kind])), uses.get(kind, Use.EVALUATE), domain
                )
    order = {use: k for k, use in enumerate(Use)}
    ordered = dict(sorted(splits.items(), key=lambda item: order[item[1].use]))
    return Task(name=f"{name} · {chosen}", axis=axis, splits=ordered, objective=objective)


def resolve_held_out(domains: tuple[str, ...], held_out: str | None) -> str:
    """The domain that is evaluated, by default the last; one domain alone is refused."""
    if len(domains) < 2:
        raise InvalidData(
            f"There is one domain only: `{domains[0]}`." if domains else "There is no domain.",
            why="one domain is left out and another must remain to learn from.",
            fix="give at least two domains; with three or more, methods can tell what they have in "
            "common.",
        )
    if held_out is not None and held_out not in domains:
        raise UnknownName.near("domain", held_out, domains)
    return domains[-1] if held_out is None else held_out


def _inspect(parts: Mapping[str, Examples], chosen: str) -> None:
    """Refuses training domains of one class in all; warns of a single domain of one class."""
    classes = {
        domain: part.y.unique() for domain, part in parts.items() if not part.y.is_floating_point()
    }
    if not classes:
        return
    fitted = [found for domain, found in classes.items() if domain != chosen]
    if fitted and len(torch.cat(fitted).unique()) < 2:
        raise InvalidData(
            f"All training domains (without `{chosen}`) hold class {int(fitted[0][0])} only.",
            why="with one class there is nothing to tell apart.",
            fix="leave out another domain, or add examples of the other classes.",
        )
    for domain, found in classes.items():
        if len(found) == 1:
            where = (
                "its accuracy is the recall of that class"
                if domain == chosen
                else "the domain tells the class there"
            )
            warnings.warn(
                f"Domain `{domain}` holds class {int(found[0])} only: {where}.",
                SingleClassDomain,
                stacklevel=4,
            )


class SingleClassDomain(UserWarning):
    """A domain with examples of one class only."""


def _refuse_empty(n: int, kind: str, domain: str, of: int) -> None:
    if n == 0:
        raise InvalidData(
            f"The part `{kind}` of domain `{domain}` is empty: it has {of} examples in all.",
            why="every part needs at least one example.",
            fix="give more examples, or larger shares of that part: Division(select=…, seen=…, "
            "oracle=…).",
        )


def validate_on(task: Task, domain: str) -> Task:
    """Leave-one-domain-out validation: `domain` is no longer fitted; all its known examples select,
    nothing else does.

    What was learned from the inputs of all training domains before (scaling, levels of a table)
    stays as it is.
    """
    fit = task.of(Use.TRAIN)
    names = [name for name, split in fit.items() if split.at == domain]
    if not names:
        raise UnknownName.near("training domain", domain, {str(split.at) for split in fit.values()})
    if len(names) == len(fit):
        raise InvalidData(
            f"`{domain}` is the only training domain of `{task.name}`.",
            why="without it nothing is left to fit.",
            fix="validate on a part of the training domain instead, or give more domains.",
        )
    own = [
        split.data
        for split in task.splits.values()
        if split.at == domain and split.use in (Use.TRAIN, Use.SELECT)
    ]
    kept = {
        name: split
        for name, split in task.splits.items()
        if split.use is not Use.SELECT and not (split.use is Use.TRAIN and split.at == domain)
    }
    return replace(
        task, splits={**kept, f"select:{domain}": Split(_concatenate(own), Use.SELECT, domain)}
    )


def _concatenate(parts: list[Dataset[Any]]) -> Dataset[Any]:
    if all(isinstance(part, Columns) for part in parts):
        columns = [part.columns for part in parts if isinstance(part, Columns)]
        return Columns(**{key: torch.cat([each[key] for each in columns]) for key in columns[0]})
    return ConcatDataset(parts)


TARGETS = frozenset({"y", "labels"})
"""Columns that an unlabelled split must not have."""


class LabelsIgnored(UserWarning):
    """Targets in a split that is there for its inputs only."""


def drop_adapt_targets(task: Task) -> Task:
    """The task without targets in its ADAPT splits; where there were some, a warning says that they
    are ignored.
    """
    splits = dict(task.splits)
    for name, split in task.of(Use.ADAPT).items():
        if isinstance(split.data, Columns):
            found = TARGETS & split.data.columns.keys()
            bare: Dataset[Any] = Columns(
                **{k: v for k, v in split.data.columns.items() if k not in TARGETS}
            )
        elif isinstance(split.data, IterableDataset):
            found, bare = TARGETS & next(iter(split.data)).keys(), _BareStream(split.data)
        else:
            found, bare = TARGETS & split.data[0].keys(), _Bare(split.data)
        if found:
            splits[name] = replace(split, data=bare)
            warnings.warn(
                f"The unlabelled split `{name}` of `{task.name}` holds labels "
                f"({', '.join(sorted(found))}): they are ignored.",
                LabelsIgnored,
                stacklevel=2,
            )
    return replace(task, splits=splits)


class _Bare(Dataset[Any]):
    """A map-style data set without targets."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value for key, value in self.data[index].items() if key not in TARGETS}


class _BareStream(IterableDataset[Any]):
    """A stream without targets."""

    def __init__(self, data: IterableDataset[Any]) -> None:
        self.data = data

    def __iter__(self) -> Any:
        for row in self.data:
            yield {key: value for key, value in row.items() if key not in TARGETS}


@dataclass(frozen=True)
class Domains:
    """One's own tensors as domains: a function from a lab to the columns (`x`, `y`, more) of each
    domain by name.
    """

    data: Callable[[Lab], Mapping[str, Columns]]
    held_out: str | None = None
    division: Division = Division()
    name: str = "domains"

    def domains(self) -> tuple[str, ...]:
        return tuple(self.data(Lab()))

    def build(self, lab: Lab) -> Task:
        made = self.data(lab.child("data"))
        parts = {name: examples_of(columns, k) for k, (name, columns) in enumerate(made.items())}
        return assemble_task(self.name, parts, self.held_out, self.division, lab)


def shifting_clusters(lab: Lab, n: int = 120) -> dict[str, Columns]:
    """Generated: two classes of plane Gaussians around ±(1, 1), moved along (1, −1) from place to
    place.
    """
    made = {}
    for k, place in enumerate(("west", "middle", "east")):
        rng = lab.child(place).numpy()
        y = np.arange(n) % 2
        x = rng.normal(size=(n, 2)) + np.outer(2 * y - 1, [1, 1]) + np.array([1, -1]) * (k - 1)
        made[place] = Columns(x=torch.from_numpy(x).float(), y=torch.from_numpy(y))
    return made


def example() -> Domains:
    return Domains(shifting_clusters, held_out="east")
