"""What helps: remedies trained under the same budget and seeds, as paired changes."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from unseen.engine.batches import Columns, whole
from unseen.engine.loop import Budget
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.site_shift.relations import LEVEL
from unseen.methods.fit_estimator import FitEstimator
from unseen.methods.site_finetune import LocalFinetune
from unseen.questions.audit.clusters import clusters, in_order, largest, whole_clusters
from unseen.questions.audit.remedy_methods import Remedy, settings_in_words
from unseen.questions.audit.results import Outcome
from unseen.questions.audit.site_shift import is_misleading
from unseen.subjects.predictions import predict
from unseen.subjects.session import Session, plain_method
from unseen.subjects.training import TrainingRuns
from unseen.task import Split, Task, Use
from unseen.text import count_noun

MOST_TRIED = 3
"""Flagged features that are left out in turn: each costs as much training as a remedy."""


def remedy(session: Session, name: str, make: Remedy) -> list[Outcome]:
    """Paired change of every metric on every evaluation split, same seeds and budget."""
    method = make(session.subject.budget)
    if not isinstance(method, FitEstimator):
        session.require_gradients()
    if not session.retrained:
        raise InvalidData(
            "The model is audited as it is.",
            why="a remedy is compared with the same model trained here.",
            fix="audit with mode=trained-again (--mode trained-again).",
        )
    _needs_groups(session, getattr(method, "group", None))
    runs = session.runs.seeds(method, len(session.retrained))
    outcomes = []
    for split in session.evaluation_splits:
        changed = predict(
            [run.model for run in runs],
            session.task,
            session.task.splits[split],
            session.lab,
            session.subject.unit,
        )
        for metric, change in changed.changes(session.baseline_predictions(split)).items():
            outcomes.append(
                Outcome(
                    remedy=name,
                    split=split,
                    metric=metric,
                    change=change,
                    note=settings_in_words(method),
                )
            )
    return outcomes


def without_feature(session: Session, feature: str) -> list[Outcome]:
    """Paired change by training without one feature: it is the same in every example, its training
    median.
    """
    if not session.retrained:
        raise InvalidData(
            "The model is audited as it is.",
            why="without a feature it has to be trained anew.",
            fix="audit with mode=trained-again (--mode trained-again).",
        )
    task = _with_constant(session, list(session.subject.features[feature]))
    runs = TrainingRuns(replace(session.subject, task=task), session.lab)
    method = plain_method(session.subject, runs.initial_model(0))
    models = [run.model for run in runs.seeds(method, len(session.retrained))]
    outcomes = []
    for split in session.evaluation_splits:
        changed = predict(models, task, task.splits[split], session.lab, session.subject.unit)
        for metric, change in changed.changes(session.baseline_predictions(split)).items():
            outcomes.append(
                Outcome(
                    remedy=f"without {feature}",
                    split=split,
                    metric=metric,
                    change=change,
                    note="tried because the feature was flagged, at sites evaluated here by their "
                    "own labels",
                )
            )
    return outcomes


def _with_constant(session: Session, positions: Sequence[int]) -> Task:
    """The task with these inputs at their training medians in every example."""
    train = [whole(split.data, session.lab)["x"] for split in session.task.of(Use.TRAIN).values()]
    # the lower median is a value of the column: a pipeline gets a cell of its table
    middle = torch.cat(train).flatten(1)[:, positions].median(0).values
    splits = {}
    for name, split in session.task.splits.items():
        batch = whole(split.data, session.lab)
        x = batch["x"].flatten(1).clone()
        x[:, positions] = middle
        columns = Columns(**{**batch, "x": x.reshape(batch["x"].shape)})
        splits[name] = replace(split, data=columns)
    return replace(session.task, splits=splits)


def flagged_features(session: Session, checked: Mapping[str, Any]) -> list[str]:
    """Features that give the target away at one site, or tell it otherwise at the held-out one."""
    sites = len(np.unique(session.site_rows.site)) if "why sites differ" in checked else 1
    names = [name for leak in checked.get("leaks", ()) if leak.site for name in leak.features]
    for at in checked.get("why sites differ", ()):
        names += [
            change.feature
            for change in at.relations
            if change.p * sites <= LEVEL and is_misleading(change)
        ]
    return [name for name in dict.fromkeys(names) if name in session.subject.features][:MOST_TRIED]


def leave_features_out(session: Session, checked: Mapping[str, Any]) -> list[Outcome]:
    """Each flagged feature left out in turn."""
    names = flagged_features(session, checked)
    return [outcome for name in names for outcome in without_feature(session, name)]


def _needs_groups(session: Session, column: str | None) -> None:
    if column is None:
        return
    found: set[int] = set()
    for name, split in session.task.of(Use.TRAIN).items():
        session.require_columns(name, column)
        found |= set(whole(split.data, session.lab)[column].flatten().tolist())
    if len(found) < 2:
        raise InvalidData(
            f"All training examples have the same `{column}`.",
            why="one group has nothing to be weighed against.",
            fix="fit examples of several groups (with a table: --site).",
        )


def _halves(session: Session, rows: Columns) -> tuple[Columns, Columns]:
    """At most half of the examples at random and the others, whole entities and blocks on one
    side.
    """
    cluster = clusters(rows.columns)
    count, half = int(cluster.max()) + 1, len(rows) // 2
    drawn = torch.randperm(count, generator=session.lab.child("local half").generator())
    order = in_order(cluster, drawn.numpy())
    end = whole_clusters(cluster[order], half)
    if 4 * end < len(rows) - 3:
        raise InvalidData(
            f"{largest(cluster)} of the {len(rows)} examples at the site are of one entity or "
            "block.",
            why="whole ones are fitted or evaluated, about half of the examples each.",
            fix="collect labelled examples of more entities there.",
        )
    places = torch.from_numpy(order)
    return rows.subset(places[:end]), rows.subset(places[end:])


def local_finetuning(session: Session) -> list[Outcome]:
    """What labelled examples of the unseen site would buy: half of them fitted, the other half for
    evaluation, and none of an entity or block that has fitted ones.
    """
    session.require_gradients()
    if not session.unseen:
        raise InvalidData(
            "No evaluation split is at an unseen site.",
            why="there is no place of its own to fine-tune for.",
            fix="name a site or a time.",
        )
    outcomes = []
    for name, split in session.unseen.items():
        rows = Columns(**whole(split.data, Lab()))
        local, rest = _halves(session, rows)
        judge = Split(rest, Use.EVALUATE, split.at)
        task = replace(
            session.task,
            splits={**session.task.of(Use.TRAIN), "local": Split(local, Use.TRAIN, split.at)},
        )
        method = LocalFinetune(
            Budget(steps=100, batch_size=session.subject.budget.batch_size, lr=5e-4)
        )
        runs = [
            method.fit(deepcopy(run.model), task, session.lab.child("local", seed)).model
            for seed, run in enumerate(session.retrained)
        ]
        base = predict(
            [run.model for run in session.retrained],
            session.task,
            judge,
            session.lab,
            session.subject.unit,
        )
        note = (
            f"{settings_in_words(method)}; fitted on {count_noun(len(local), 'labelled example')} "
            f"from there, evaluated on the other {len(rest)}"
        )
        for metric, change in (
            predict(runs, session.task, judge, session.lab, session.subject.unit)
            .changes(base)
            .items()
        ):
            outcomes.append(
                Outcome(
                    remedy="site-wise fine-tuning",
                    split=name,
                    metric=metric,
                    change=change,
                    note=note,
                )
            )
    return outcomes
