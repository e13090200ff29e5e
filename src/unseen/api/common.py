"""What the questions share: options of tables in signatures, labs, models, files."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from threadpoolctl import threadpool_limits

from unseen.errors import InvalidConfig
from unseen.lab import Lab, Sink
from unseen.models.pretrained import CausalLM
from unseen.questions.answer import Answer
from unseen.questions.influence import of_text
from unseen.questions.parallel import Job, SiteRequest, Workers, answer_sites
from unseen.questions.tracking import track_answer
from unseen.runs.devices import device as named_device
from unseen.runs.locks import writing
from unseen.runs.runner import Watcher
from unseen.runs.store import home
from unseen.runs.tensors import home_cache
from unseen.subjects.subject import Subject
from unseen.subjects.tables import TableColumns, TableOptions
from unseen.tasks.text_corpus import Cut, TextCorpus

F = TypeVar("F", bound=Callable[..., Any])


def spell_out_options(function: F) -> F:
    """The function with each of the `TableOptions` in its signature, for help and notebooks."""
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    hints = get_type_hints(TableOptions)
    defaults = {one.name: one.default for one in fields(TableColumns)}
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=t
        )
        for name, t in hints.items()
    ]
    function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return function


def make_lab(seed: int, device: str, cache: str, sink: Sink) -> Lab:
    """Where and how a question is computed, with what it has cached in the user's home."""
    return Lab(seed=seed, device=named_device(device), sink=sink, keeper=home_cache(cache))


def language_model(model: str | Path | CausalLM) -> tuple[CausalLM, str]:
    """The model with its name."""
    if isinstance(model, CausalLM):
        return model, type(model).__name__
    return of_text.load_model(str(model)), Path(model).name


def paths(files: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    return tuple(map(str, (files,) if isinstance(files, str | Path) else files))


def save_if_asked(found: Answer, path: Path | None) -> Answer:
    if path is not None:
        found.report(path)
    return found


def track_if_asked(found: Answer, question: str, tracker: str | None) -> Answer:
    if tracker is not None:
        track_answer(tracker, question, found.document, found.machine)
    return found


def answer_one_by_one(
    question: str, job: Job, subjects: Sequence[Subject], lab: Lab, watch: Watcher
) -> list[Any]:
    found = []
    watch.begin(question, len(subjects), 0, "sites")
    try:
        # small models on many threads wait for each other longer than they compute
        with threadpool_limits(1), writing(home(), "audits"):
            for one in subjects:
                found.append(job(one, lab.child(one.task.name)))
                watch.on_finish(one)
    finally:
        watch.end()
    return found


def answer_by_workers(
    question: str, request: SiteRequest, sites: int, workers: Workers, watch: Watcher
) -> list[Any]:
    watch.begin(question, sites, 0, "sites")
    try:
        with writing(home(), "audits"):
            return answer_sites(request, sites, workers, watch.on_finish)
    finally:
        watch.end()


def refuse_below(least: int, **sizes: int | None) -> None:
    """Raises before any work where a size that is given is smaller than that."""
    for name, size in sizes.items():
        if size is not None and size < least:
            raise InvalidConfig(
                f"{name}={size}.",
                why="at least one is needed." if least else "there are no fewer than none.",
                fix=f"use {least} or more, or leave it out for the default.",
            )


def text_corpus(
    model: CausalLM,
    corpus: str | Path | Sequence[str | Path],
    field: str,
    length: int,
    windows: int,
    cut: str | Cut,
) -> TextCorpus:
    refuse_below(0, windows=windows)
    return TextCorpus(
        files=paths(corpus),
        encode=model.encode,
        length=length,
        field=field,
        cut=Cut(cut),
        most=windows,
        folder=str(home() / "influence" / "corpora"),
    )
