"""`unseen.measure` and its relatives: difficulty, sweeps, concurrence, texts, items, authors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import pandas as pd
from sklearn.base import BaseEstimator

from unseen.api.common import (
    answer_by_workers,
    answer_one_by_one,
    language_model,
    make_lab,
    paths,
    save_if_asked,
    spell_out_options,
    text_corpus,
    track_if_asked,
)
from unseen.engine import choice_likelihood
from unseen.lab import Lab
from unseen.measures.machine_text.scorer import TextScorer
from unseen.models.pretrained import CausalLM
from unseen.questions.answer import Answer, check_report_path
from unseen.questions.measure.authorship import (
    AuthorshipJob,
    AuthorshipReport,
    find_texts,
    measure_texts,
    read_texts,
    window_of,
)
from unseen.questions.measure.authorship_document import SUMMARY_SECTIONS as AUTHORSHIP_SECTIONS
from unseen.questions.measure.authorship_document import document as authorship_document
from unseen.questions.measure.authorship_document import machine_readable as machine_authorship
from unseen.questions.measure.concurrence import ConcurrenceReport, evaluate_concurrence
from unseen.questions.measure.concurrence_document import concurrence_document, machine_concurrence
from unseen.questions.measure.difficulty import (
    DifficultyJob,
    DifficultyReport,
    difficulty_document,
    machine_difficulty,
)
from unseen.questions.measure.document import document as measure_document
from unseen.questions.measure.document import machine_readable as machine_measures
from unseen.questions.measure.document import summary_sections
from unseen.questions.measure.items_document import items_document, machine_items
from unseen.questions.measure.job import MeasureJob
from unseen.questions.measure.of_items import ItemsReport, ItemsRequest, measure_items
from unseen.questions.measure.of_text import WINDOWS, text_subject
from unseen.questions.measure.results import MeasureReport
from unseen.questions.measure.sweep import SweepReport, SweepRequest, evaluate_sweep
from unseen.questions.measure.sweep_document import machine_sweep, sweep_document
from unseen.questions.parallel import (
    ExecutorChoice,
    SiteRequest,
    find_workers,
    refuse_own_objects,
)
from unseen.runs.progress import watcher
from unseen.runs.provenance import facts
from unseen.runs.trackers import check_tracker
from unseen.subjects.embedded import attribution_of, choose_example
from unseen.subjects.sources import Source, TableSource, read_counterparts, read_subjects
from unseen.subjects.table_models import Mode
from unseen.subjects.tables import TableColumns, TableOptions
from unseen.tasks.graded_questions import LENGTH, Item, read_items
from unseen.tasks.text_corpus import Cut


@spell_out_options
def measure(
    subject: Source = None,
    table: TableSource = None,
    *,
    measures: Sequence[str] = (),
    minutes: float | None = None,
    estimator: str | BaseEstimator | None = None,
    mode: str | Mode | None = None,
    predictions: str | Sequence[str] = (),
    against: Source = None,
    seeds: int = 3,
    steps: int | None = None,
    example: str | None = None,
    jobs: int = 1,
    executor: ExecutorChoice = "",
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
    track: str | None = None,
    **columns: Unpack[TableOptions],
) -> Answer[Sequence[MeasureReport]]:
    """Every number about a model that applies to it, with its interval, direction, cost and
    meaning, and why others were left out: one `MeasureReport` per held-out site.

    `subject`, `table`, `estimator`, `mode`, `predictions`, `jobs` and `executor` are as in `audit`,
    and so are the numbers. `against` is another model for the same data ("other.py:subject", a
    subject, or a pipeline for the table): differences are paired over examples or trainings.
    `measures` are names of the catalogue: only these, whatever they cost. `minutes` is what all
    measures of a model may take, estimated before they are read; those beyond it are left out by
    name (None: ten).
    `track` names an experiment tracker that gets the answer: "tensorboard", "wandb", "mlflow" or
    "trackio".
    """
    path = None if report is None else check_report_path(report)
    tracker = None if track is None else check_tracker(track)
    subject = subject if example is None else choose_example(example, subject)
    watch, workers = watcher(shown=progress), find_workers(executor, jobs)
    # the audit's streams and cache: a model that it trained is measured as it is
    own_lab = lab
    lab = lab or make_lab(seed, device, "audits", watch.sink)
    read = partial(
        read_subjects,
        subject,
        columns=TableColumns(**columns),
        table=table,
        mode=mode,
        predictions=predictions,
        estimator=estimator,
        steps=steps,
    )
    rows = subject if table is None else table
    other = None
    if against is not None:
        other = partial(
            read_counterparts, against, rows, columns=TableColumns(**columns), steps=steps
        )
    make_job = partial(
        MeasureJob, seeds=seeds, names=tuple(measures), minutes=minutes, against=other
    )
    job, subjects = make_job(), read(lab)
    if workers is not None and (executor or len(subjects) > 1):
        refuse_own_objects(workers, lab=own_lab)
        request = SiteRequest(read, seed, device, make_job)
        found = answer_by_workers("measure", request, len(subjects), workers, watch)
    else:
        found = answer_one_by_one("measure", job, subjects, lab, watch)
    answer = _measure_answer(found, {**facts(rows), **attribution_of(subject)})
    return track_if_asked(save_if_asked(answer, path), "measure", tracker)


@spell_out_options
def difficulty(
    subject: Source = None,
    *,
    eps: float = 1e-3,
    separation: float | None = None,
    models: bool = True,
    estimator: str | BaseEstimator | None = None,
    seeds: int = 3,
    steps: int | None = None,
    example: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
    **columns: Unpack[TableOptions],
) -> Answer[Sequence[DifficultyReport]]:
    """How hard a task is, in bits to reach an error of `eps`, from its training inputs and classes
    alone; with `models` also how much the test error of each model supplies.

    `separation` is how far apart inputs with different answers are (None: the closest pair of two
    classes).
    """
    path = None if report is None else check_report_path(report)
    subject = subject if example is None else choose_example(example, subject)
    job = DifficultyJob(eps=eps, separation=separation, models=models, seeds=seeds)
    watch = watcher(shown=progress)
    lab = lab or make_lab(seed, device, "audits", watch.sink)
    subjects = read_subjects(
        subject, lab, TableColumns(**columns), estimator=estimator, steps=steps
    )
    found = answer_one_by_one("difficulty", job, subjects, lab, watch)
    page = difficulty_document(found)
    page = replace(page, facts={**page.facts, **facts(subject), **attribution_of(subject)})
    answer = Answer(
        results=found, document=page, summary_sections=3, machine=machine_difficulty(found)
    )
    return save_if_asked(answer, path)


def measure_sweep(
    source: str | Path | pd.DataFrame,
    *,
    gap: str = "gap",
    axes: Sequence[str] = (),
    measures: Sequence[str] = (),
    permutations: int = 199,
    seed: int = 0,
    report: str | Path | None = None,
) -> Answer[SweepReport]:
    """Which measure foretells the gap: a table with one row per trained model (a file, a folder of
    such files or of runs of the store, or a DataFrame) with its hyperparameters (`axes`), measures
    and the column `gap`. None named: columns that the catalogue knows are measures, the others
    with few values hyperparameters.
    """
    path = None if report is None else check_report_path(report)
    request = SweepRequest(
        gap=gap, axes=axes, measures=measures, permutations=permutations, seed=seed
    )
    found = evaluate_sweep(source, request)
    page = sweep_document(found)
    answer = Answer(results=found, document=page, summary_sections=1, machine=machine_sweep(found))
    return save_if_asked(answer, path)


def concurrence(
    source: str | Path | pd.DataFrame,
    *,
    permutations: int = 999,
    seed: int = 0,
    report: str | Path | None = None,
) -> Answer[ConcurrenceReport]:
    """Do benchmarks agree? A table (file or DataFrame) with the columns `model`, `split`, `score`,
    for trainings that were repeated `seed`, and `source` and `strategy` of each split where those
    should be set against each other.
    """
    path = None if report is None else check_report_path(report)
    found = evaluate_concurrence(source, draws=permutations, seed=seed)
    answer = Answer(
        results=found,
        document=concurrence_document(found),
        summary_sections=3,
        machine=machine_concurrence(found),
    )
    return save_if_asked(answer, path)


def measure_of_text(
    model: str | Path | CausalLM,
    corpus: str | Path | Sequence[str | Path],
    *,
    measures: Sequence[str] = (),
    minutes: float | None = None,
    field: str = "text",
    length: int = 128,
    windows: int = WINDOWS,
    cut: str | Cut = Cut.REFUSE,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[Sequence[MeasureReport]]:
    """The same of a language model as it is, on the first `windows` windows (0: all) of `length`
    tokens of a corpus. `model` and `corpus` are as in `influence_of_text`, `minutes` as in
    `measure`.
    """
    path = None if report is None else check_report_path(report)
    job = MeasureJob(names=tuple(measures), minutes=minutes)
    watch = watcher(shown=progress)
    model, name = language_model(model)
    text = text_corpus(model, corpus, field, length, windows, cut)
    lab = lab or make_lab(seed, device, "audits", watch.sink)
    subject = text_subject(model, name, text, lab)
    watch.begin("measure", 1, 0, "models")
    try:
        found = [job(subject, lab.child(subject.task.name))]
        watch.on_finish(subject)
    finally:
        watch.end()
    return save_if_asked(_measure_answer(found, facts(None)), path)


def measure_of_items(
    model: str | Path | CausalLM,
    items: str | Path | Sequence[Item],
    *,
    hardness: str = LENGTH,
    hardness_model: str | Path | CausalLM | None = None,
    precision: str | choice_likelihood.Precision = choice_likelihood.Precision.FLOAT32,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[ItemsReport]:
    """Likelihoods of the choices of multiple-choice items (a file of JSON lines: `question`,
    `choices`, `answer`, annotations) under a language model as it is; accuracy beside chance, and
    by `hardness`: "length", an annotation, "likelihood" under `hardness_model`, or "probe", the
    loss of a linear probe that did not train on the item.
    """
    path = None if report is None else check_report_path(report)
    watch = watcher(shown=progress)
    lab = lab or make_lab(seed, device, "items", watch.sink)
    read = read_items(items) if isinstance(items, str | Path) else list(items)
    model, name = language_model(model)
    other, other_name = language_model(hardness_model) if hardness_model else (None, "")
    asked = ItemsRequest(
        model=model.to(lab.device),
        name=name,
        items=read,
        source=Path(items).name if isinstance(items, str | Path) else "items",
        hardness=hardness,
        hardness_model=None if other is None else other.to(lab.device),
        hardness_name=other_name,
        precision=choice_likelihood.Precision(precision),
    )
    watch.begin("measure", 1, 0, "models")
    try:
        found = measure_items(asked, lab)
        watch.on_finish(asked)
    finally:
        watch.end()
    page = items_document(found)
    answer = Answer(
        results=found,
        document=replace(page, facts={**page.facts, **facts(None)}),
        summary_sections=2,
        machine=machine_items(found),
    )
    return save_if_asked(answer, path)


def measure_authorship(
    texts: str | Path | Sequence[str | Path] | Mapping[str, str] | pd.DataFrame,
    *,
    column: str | None = None,
    encoding: str = "utf-8",
    human: str | Path | Sequence[str | Path] = (),
    model: str | Path | CausalLM = "smollm2",
    against: str | Path | CausalLM | None = None,
    field: str = "text",
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[AuthorshipReport]:
    """Did a machine write it? Likelihood, rank, curvature and Binoculars of texts under a language
    model, with a threshold at 1 % false positives from `human` texts, and the place where a machine
    may take over. Never proof about a person.

    `texts` and `human` are files, folders or .jsonl files (whose `field` holds the text), `texts`
    also texts by name, or a table whose `column` holds one text per row. `model` is as in
    `influence_of_text`; `against` is the second model of Binoculars, with the same tokenizer.
    """
    path = None if report is None else check_report_path(report)
    named, notes = find_texts(texts, column, field, encoding)
    people = list(read_texts(paths(human), field).values()) if human else []
    scorer, name = language_model(model)
    observer, second = (None, "") if against is None else language_model(against)
    watch = watcher(shown=progress)
    lab = lab or make_lab(seed, device, "audits", watch.sink)
    for one in (scorer, observer):
        if one is not None:
            one.to(lab.device)
    job = AuthorshipJob(
        texts=named,
        human=people,
        scorer=TextScorer(scorer, observer, length=window_of(scorer, observer)),
        model=name,
        observer=second,
    )
    watch.begin("measure", 1, 0, "models")
    try:
        found = measure_texts(job, lab.child("authorship"))
        watch.on_finish(job)
    finally:
        watch.end()
    found = replace(found, notes=notes)
    page = authorship_document(found)
    answer = Answer(
        results=found,
        document=replace(page, facts={**page.facts, **facts(None)}),
        summary_sections=AUTHORSHIP_SECTIONS,
        machine=machine_authorship(found),
    )
    return save_if_asked(answer, path)


def _measure_answer(
    found: Sequence[MeasureReport], about: Mapping[str, str]
) -> Answer[Sequence[MeasureReport]]:
    page = measure_document(found)
    return Answer(
        results=found,
        document=replace(page, facts={**page.facts, **about}),
        summary_sections=summary_sections(found),
        machine=machine_measures(found),
    )
