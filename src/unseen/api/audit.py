"""`unseen.audit`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

from sklearn.base import BaseEstimator

from unseen.api.common import (
    answer_by_workers,
    answer_one_by_one,
    make_lab,
    save_if_asked,
    spell_out_options,
    track_if_asked,
)
from unseen.attribution import Attribution
from unseen.lab import Lab
from unseen.method import Trained
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
from unseen.questions.parallel import (
    ExecutorChoice,
    SiteRequest,
    find_workers,
    refuse_own_objects,
)
from unseen.reading import Measure
from unseen.runs.progress import watcher
from unseen.runs.provenance import facts
from unseen.runs.trackers import check_tracker
from unseen.subjects.embedded import attribution_of, choose_example
from unseen.subjects.sources import Source, TableSource, read_subjects
from unseen.subjects.table_models import Mode
from unseen.subjects.tables import TableColumns, TableOptions


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
    executor: ExecutorChoice = "",
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
    track: str | None = None,
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
    table; the numbers are the same. `executor` is who computes them instead: "processes", "dask",
    "ray", "slurm", or what makes one (`unseen.runs.clusters.executor`).
    `track` names an experiment tracker that gets the answer: "tensorboard", "wandb", "mlflow" or
    "trackio".
    """
    muted = parse_codes(ignore)
    path = None if report is None else check_report_path(report)
    tracker = None if track is None else check_tracker(track)
    card_path = None if card is None else check_card_path(card)
    check_margin(margin)
    subject = subject if example is None else choose_example(example, subject)
    watch, workers = watcher(shown=progress), find_workers(executor, jobs)
    own_lab = lab
    lab = lab or make_lab(seed, device, "audits", watch.sink)
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
    if workers is not None and (executor or len(subjects) > 1):
        refuse_own_objects(
            workers,
            lab=own_lab,
            remedies=remedies or None,
            measures=measures,
            attribution=attribution,
        )
        make_job = partial(standard_audit, seeds, remedies is None)
        request = SiteRequest(read, seed, device, make_job)
        findings = answer_by_workers("audit", request, len(subjects), workers, watch)
    else:
        findings = answer_one_by_one("audit", job, subjects, lab, watch)
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
    return track_if_asked(save_if_asked(found, path), "audit", tracker)
