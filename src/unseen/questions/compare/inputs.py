"""From what a person names (a table, a Python file, a task of this package) to the subjects that methods are trained on."""

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path

from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.lab import Lab, Silent, Sink
from unseen.questions.compare.candidates import methods_named
from unseen.questions.compare.job import Comparison
from unseen.questions.compare.protocols import Protocol
from unseen.questions.compare.sweep import Sweep, network_of
from unseen.runs.catalog import entries
from unseen.runs.code_keys import code_of
from unseen.runs.devices import device
from unseen.runs.field_flags import overlaid
from unseen.runs.store import home
from unseen.runs.tensors import Kept
from unseen.search_space import LogUniform, Range, Uniform
from unseen.subjects.domains import of_domains, of_task
from unseen.subjects.python_files import TABLES, loaded
from unseen.subjects.subject import Subject
from unseen.subjects.tables import of_table_by_site
from unseen.task import Task, TaskSpec
from unseen.tasks.domains import DomainSpec
from unseen.tasks.table import Table
from unseen.tasks.table_domains import TableDomains, heart_sites

PROTOCOLS = {"training": Protocol.TRAINING, "left-out": Protocol.LEFT_OUT, "oracle": Protocol.ORACLE}


@dataclass(frozen=True)
class Request:
    """What is compared, in plain words, so that a worker process can be told."""

    what: str | None = None
    flags: tuple[str, ...] = ()
    """Fields of a task of this package."""
    target: str | None = None
    site: str | None = None
    time: str | None = None
    entity: str | None = None
    groups: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    seeds: int = 3
    draws: int = 10
    steps: int | None = None
    seed: int = 0
    device: str = "cpu"

    def job(self) -> Comparison:
        protocols = [PROTOCOLS[name] for name in self.protocols] or tuple(Protocol)
        space = dict(range_of(text) for text in self.ranges)
        return Comparison(
            entrants=methods_named(self.methods), seeds=self.seeds, draws=self.draws, protocols=protocols, space=space
        )

    def subjects(self) -> list[Subject]:
        found = subjects_of(self)
        if self.steps is None:
            return found
        return [replace(one, budget=replace(one.budget, steps=self.steps)) for one in found]

    def sweep(self, subjects: Sequence[Subject], sink: Sink = Silent()) -> Sweep:
        """The sweep whose scores are kept in the user's home, apart for every version of the code behind them."""
        job = self.job()
        methods = tuple(entrant.make(subjects[0].budget) for entrant in job.entrants)
        code = code_of("unseen.questions.compare.job", methods)
        keeper = Kept(home() / "comparisons" / code.version)
        return Sweep(subjects, Lab(seed=self.seed, device=device(self.device), keeper=keeper, sink=sink), job.space)


def range_of(text: str) -> tuple[str, Range]:
    """ "rho=0.01:0.2" → its name and range; logarithmic where both ends are above zero."""
    name, _, ends = text.partition("=")
    low, _, high = ends.partition(":")
    try:
        limits = float(low), float(high or low)
    except ValueError:
        raise InvalidConfig(
            f"`--range {text}` is no range.",
            why="a hyperparameter is drawn between two numbers.",
            fix="write --range NAME=LOW:HIGH, for example --range lr=0.0001:0.01; --range rho=0.05 for one value.",
        ) from None
    return name.strip(), (LogUniform if min(limits) > 0 else Uniform)(*limits)


def subjects_of(request: Request) -> list[Subject]:
    """The subjects of a table, a Python file or a task of this package."""
    lab, what = Lab(seed=request.seed), request.what or "heart"
    if what.lower().endswith(TABLES):
        if request.target is None:
            raise InvalidConfig(
                "No target column was named.", why="methods learn to predict it.", fix="add --target COLUMN."
            )
        table = Table(what, request.target, request.site, request.time, request.entity, request.groups, request.drop)
        return of_table_by_site(table, lab.child("data"), Path(what).stem)
    if request.target or request.site or request.groups:
        raise InvalidConfig(
            f"`{what}` is no table, but --target, --site or --group was given.",
            why=f"columns are named for tables only ({', '.join(TABLES)}).",
            fix="leave these options out, or give a table.",
        )
    if what == "heart":
        return of_table_by_site(heart_sites().table, lab.child("data"), "heart disease")
    found = file_of(what) if ".py" in what else task_of(what, request.flags)
    return subjects_from(found, what, lab)


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
    bare = of_task(subject.task, model=lambda: network_of(subject), budget=subject.budget)
    return replace(subject, task=bare.task, warnings=[*subject.warnings, *bare.warnings])


def file_of(text: str) -> object:
    """What `path/to/file.py:name` holds."""
    place, _, name = text.rpartition(":")
    path = Path(place)
    if path.suffix != ".py" or not path.is_file():
        raise MissingFile(
            f"There is no `{text}`.",
            why="a subject is written file.py:name.",
            fix="check the path, for example unseen compare my_model.py:subject.",
        )
    return loaded(path, name)


def task_of(name: str, flags: Sequence[str]) -> object:
    """A task of this package with its defaults, changed by flags: `--n 2000`."""
    known = [entry.name for entry in entries("tasks")]
    if name not in known:
        raise UnknownName.near("task", name, ["heart", *known])
    room = importlib.import_module(f"unseen.tasks.{name}")
    kinds = [kind for kind in vars(room).values() if inspect.isclass(kind) and kind.__module__ == room.__name__]
    specs = [kind for kind in kinds if is_dataclass(kind) and hasattr(kind, "build")]
    specs.sort(key=lambda kind: not hasattr(kind, "domains"))  # what can be left out first
    try:
        spec = specs[0]()
    except (TypeError, IndexError):  # a field without default
        spec = room.example()
    try:
        return overlaid(spec, flags, f"unseen compare {name}")
    except NameError as error:  # tyro reads the annotations of data frames, which name what is not imported
        raise InvalidConfig(
            f"The fields of {type(spec).__name__} cannot be set by flags.",
            why="one of them is a data frame or a function, which no flag can write.",
            fix=f"make it in a file: from unseen.tasks.{name} import {type(spec).__name__}; spec = …; and compare file.py:spec.",
        ) from error
