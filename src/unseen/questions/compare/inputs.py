"""From what a person names (a table, a Python file, a task of this package) to the subjects that
methods are trained on.
"""

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import TypeAlias

import pandas as pd
import torch

from unseen.engine.batches import length, subset
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.lab import Lab, Silent, Sink
from unseen.questions.compare.candidates import methods_named
from unseen.questions.compare.job import Comparison
from unseen.questions.compare.protocols import Protocol
from unseen.questions.compare.sweep import Sweep, network_of
from unseen.runs.catalog import entries
from unseen.runs.devices import device
from unseen.runs.field_flags import apply_flags
from unseen.runs.tensors import home_cache
from unseen.search_space import LogUniform, Range, Uniform
from unseen.subjects.domains import of_domains, of_task
from unseen.subjects.python_files import load_object, refuse_nameless
from unseen.subjects.sources import refuse_columns, with_steps
from unseen.subjects.subject import Subject, validate
from unseen.subjects.tables import TableColumns, is_table, of_table_by_site, table_name
from unseen.task import Split, Task, TaskSpec, Use
from unseen.tasks.domains import DomainSpec
from unseen.tasks.table_domains import TableDomains, heart_sites

SELECTION_SHARE = 0.2
FEWEST = 10
"""Examples of a training split from which some can be set apart."""
PROTOCOLS = {
    "training": Protocol.TRAINING,
    "left-out": Protocol.LEFT_OUT,
    "oracle": Protocol.ORACLE,
}


@dataclass(frozen=True)
class Request:
    """What is compared, in plain words, so that a worker process can be told."""

    source: "Compared" = None
    columns: TableColumns = TableColumns()
    flags: tuple[str, ...] = ()
    """Fields of a task of this package."""
    methods: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    ranges: tuple[tuple[str, float, float], ...] = ()
    """Name of a hyperparameter, and the ends of what is searched instead of its own range."""
    seeds: int = 3
    draws: int = 10
    steps: int | None = None
    seed: int = 0
    device: str = "cpu"

    @property
    def can_travel(self) -> bool:
        """Whether a worker process can read the data itself."""
        return self.source is None or isinstance(self.source, str)

    def job(self) -> Comparison:
        protocols = [protocol_named(name) for name in self.protocols] or tuple(Protocol)
        space = {name: search_range(low, high) for name, low, high in self.ranges}
        return Comparison(
            entrants=methods_named(self.methods),
            seeds=self.seeds,
            draws=self.draws,
            protocols=protocols,
            space=space,
        )

    def subjects(self) -> list[Subject]:
        found = subjects_of(self)
        if self.steps is None:
            return found
        return [with_steps(one, self.steps) for one in found]

    def sweep(self, subjects: Sequence[Subject], sink: Sink = Silent()) -> Sweep:
        """The sweep whose scores are kept in the user's home."""
        lab = Lab(
            seed=self.seed, device=device(self.device), keeper=home_cache("comparisons"), sink=sink
        )
        return Sweep(subjects, lab, self.job().space)


Compared: TypeAlias = (
    str | Path | pd.DataFrame | Subject | Sequence[Subject] | Task | DomainSpec | TaskSpec | None
)
"""A table, `file.py:name`, a task of this package by name, subjects, a task or a spec; None: heart
disease.
"""


def protocol_named(name: str) -> Protocol:
    """The protocol by its short name: training, left-out or oracle."""
    if name not in PROTOCOLS:
        raise UnknownName.near("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def search_range(low: float, high: float) -> Range:
    """Logarithmic where both ends are above zero."""
    return (LogUniform if min(low, high) > 0 else Uniform)(low, high)


def subjects_of(request: Request) -> list[Subject]:
    """The subjects of a table, a Python file, a task of this package, or of a value."""
    lab, source = Lab(seed=request.seed), request.source
    if isinstance(source, pd.DataFrame) or (isinstance(source, str | Path) and is_table(source)):
        return of_table_by_site(
            request.columns.table(source),
            lab.child("data"),
            table_name(source),
            request.columns.text_options,
        )
    refuse_columns(request.columns, source)
    if source is None or source == "heart":
        return of_table_by_site(heart_sites().table, lab.child("data"), "heart disease")
    if isinstance(source, str | Path):
        name = str(source)
        found = file_of(name) if ".py" in name else task_of(name, request.flags)
        return subjects_from(found, name, lab)
    return subjects_from(source, getattr(source, "name", type(source).__name__), lab)


def subjects_from(found: object, what: str, lab: Lab) -> list[Subject]:
    """The subjects of a `Subject`, several, a spec or a task."""
    name = what.rpartition(":")[2] if ".py" in what else what
    match found:
        case Subject():
            return [comparable(found)]
        case [*several] if several and all(isinstance(one, Subject) for one in several):
            return [comparable(one) for one in several if isinstance(one, Subject)]
        case TableDomains():
            return of_table_by_site(replace(found.table, held_out=None), lab.child("data"), name)
        case DomainSpec() if found.domains():
            return of_domains(found, lab, name)
        case Task():
            return [of_task(found, name)]
        case TaskSpec():
            return [of_task(found.build(lab.child("data")), name)]
    raise InvalidData(
        f"`{what}` is a {type(found).__name__}.",
        why="methods are compared on a task and with a model.",
        fix="return an unseen.Subject, or a domain spec (unseen.tasks.domains).",
    )


def comparable(subject: Subject) -> Subject:
    """The subject without targets in its unlabelled splits, which no method may read."""
    subject = with_selection(validate(subject))
    bare = of_task(subject.task, model=lambda: network_of(subject), budget=subject.budget)
    # a comparison is named by the subject, as its author named it
    dataset = subject.dataset or subject.name
    return replace(
        subject, task=bare.task, dataset=dataset, warnings=[*subject.warnings, *bare.warnings]
    )


def with_selection(subject: Subject) -> Subject:
    """The subject with a fifth of each training split for selection, where it names none: without,
    no draw of the hyperparameters could be chosen.
    """
    task = subject.task
    if task.of(Use.SELECT):
        return subject
    splits = dict(task.splits)
    for name, split in task.of(Use.TRAIN).items():
        n = length(split.data)
        if n is None or n < FEWEST:
            raise InvalidData(
                f"Split `{name}` has {'no length' if n is None else f'{n} examples'}, and the task "
                "has none for selection.",
                why="hyperparameters are chosen on examples of the training sites that are not "
                "trained on.",
                fix='add a split: "select": Split(data, Use.SELECT, at=…).',
            )
        order = torch.randperm(n, generator=Lab().child("select", name).generator())
        cut = max(1, int(n * SELECTION_SHARE))
        chosen, rest = order[:cut].sort().values, order[cut:].sort().values
        splits[name] = replace(split, data=subset(split.data, rest))
        select = "select" if len(task.of(Use.TRAIN)) == 1 else f"select {name}"
        splits[select] = Split(subset(split.data, chosen), Use.SELECT, at=split.at)
    said = (
        "The subject has no split for selection: a fifth of the examples of each training split, "
        "drawn at random, selects hyperparameters and is not trained on."
    )
    return replace(subject, task=replace(task, splits=splits), decisions=[*subject.decisions, said])


def file_of(text: str) -> object:
    """What `path/to/file.py:name` holds."""
    source, _, name = text.rpartition(":")
    path = Path(source)
    if Path(text).is_file():
        refuse_nameless(Path(text))
    if path.suffix != ".py" or not path.is_file():
        raise MissingFile(
            f"There is no `{text}`.",
            why="a subject is written file.py:name.",
            fix="check the path, for example unseen compare my_model.py:subject.",
        )
    return load_object(path, name)


def task_of(name: str, flags: Sequence[str]) -> object:
    """A task of this package with its defaults, changed by flags: `--n 2000`."""
    known = [entry.name for entry in entries("tasks")]
    if name not in known:
        raise UnknownName.near("task", name, ["heart", *known])
    room = importlib.import_module(f"unseen.tasks.{name}")
    kinds = [
        kind
        for kind in vars(room).values()
        if inspect.isclass(kind) and kind.__module__ == room.__name__
    ]
    specs = [kind for kind in kinds if is_dataclass(kind) and hasattr(kind, "build")]
    specs.sort(key=lambda kind: not hasattr(kind, "domains"))  # what can be left out first
    try:
        spec = specs[0]()
    except (TypeError, IndexError):  # a field without default
        spec = room.example()
    try:
        return apply_flags(spec, flags, f"unseen compare {name}")
    except (
        NameError
    ) as error:  # tyro reads the annotations of data frames, which name what is not imported
        raise InvalidConfig(
            f"The fields of {type(spec).__name__} cannot be set by flags.",
            why="one of them is a data frame or a function, which no flag can write.",
            fix=f"make it in a file: from unseen.tasks.{name} import {type(spec).__name__}; spec = "
            "…; and compare file.py:spec.",
        ) from error
