"""`unseen.explain`, of a subject or of prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from sklearn.base import BaseEstimator
from torch import nn

from unseen.api.common import language_model, make_lab, save_if_asked, spell_out_options
from unseen.attributions.explanation.guide import Question
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.models.pretrained import CausalLM
from unseen.questions.answer import Answer, check_report_path
from unseen.questions.explain.document import document as explanation_document
from unseen.questions.explain.document import machine_readable
from unseen.questions.explain.job import explain as explain_subject
from unseen.questions.explain.of_authors import (
    AuthorCreditsReport,
    authors_document,
    explain_author,
    machine_authors,
)
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
from unseen.runs.progress import watcher
from unseen.subjects.sources import Source, TableSource, read_subjects
from unseen.subjects.table_models import Mode
from unseen.subjects.tables import TableColumns, TableOptions


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
    lab = lab or make_lab(seed, device, "explanations", watch.sink)
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


@spell_out_options
def explain_authors(
    table: TableSource,
    *,
    estimator: str | BaseEstimator = "unseen.models:CharNgram",
    split: str = "",
    rows: Sequence[int] = (),
    examples: int = 8,
    author: int | str | None = None,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
    **columns: Unpack[TableOptions],
) -> Answer[AuthorCreditsReport]:
    """Which features of a text speak for its author: exact linear SHAP of `CharNgram` or
    `Stylometry`, fitted to the column `text` of a table whose `target` names the authors.

    `rows` are those of the table; without them `examples` are drawn from `split` (empty: the held
    out site, or the rows held out). `author` is whom the credits speak for (None: the predicted
    one). Never proof about a person.
    """
    path = None if report is None else check_report_path(report)
    refuse_nonpositive(examples=examples)
    watch = watcher(shown=progress)
    lab = lab or make_lab(seed, device, "explanations", watch.sink)
    asked = TableColumns(**columns)
    if asked.text is None:
        raise InvalidConfig(
            "No column of texts was named.",
            why="authors are told apart by their texts.",
            fix='explain_authors("essays.csv", text="essay", target="author").',
        )
    one = read_subjects(table, lab, asked, estimator=estimator)[-1]
    request = ExplainRequest(
        split=split, rows=tuple(rows), examples=examples, target=class_index(author, one)
    )
    watch.begin("explain", 1, 0, "subjects")
    try:
        found = explain_author(one, request, lab)
        watch.on_finish(found)
    finally:
        watch.end()
    answer = Answer(
        results=found,
        document=authors_document(found),
        summary_sections=1,
        machine=machine_authors(found),
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
        (model, type(model).__name__) if isinstance(model, nn.Module) else language_model(model)
    )
    refuse_nonpositive(most=most, batch_size=batch_size)
    watch = watcher(shown=progress)
    lab = lab or make_lab(seed, device, "explanations", watch.sink)
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
