"""What the parts that train anew train on: of very many rows a sample, so that their cost stays."""

import math
from collections.abc import Mapping
from dataclasses import replace

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.engine.stratified_sample import sample_columns
from unseen.lab import Lab
from unseen.subjects.networks import PASSES
from unseen.subjects.session import Session, plain_method
from unseen.subjects.training import TrainingRuns
from unseen.task import Split, Use

MOST_ROWS = 20_000
"""Rows of a split that remedies, and the models that suspect labels, are trained or evaluated on:
a paired change of accuracy is known to 0.005 there.
"""


def sample_splits(splits: Mapping[str, Split], lab: Lab) -> dict[str, Split]:
    """The splits whose rows lie in memory, each with at most `MOST_ROWS` of them, drawn at random
    within site and class.
    """
    return {
        name: replace(split, data=sample_columns(split.data, MOST_ROWS, lab.child(name).numpy()))
        if isinstance(split.data, Columns) and len(split.data) > MOST_ROWS
        else split
        for name, split in splits.items()
    }


def shorter_budget(budget: Budget, rows: int, of: int) -> Budget:
    """For a sample of the rows: as many passes over it as the budget makes over all of them, or as
    those of a table's network where that is more; never more steps.
    """
    passes = max(PASSES, budget.steps * budget.batch_size / of)
    steps = min(budget.steps, math.ceil(passes * rows / budget.batch_size))
    share = steps / max(1, budget.steps)
    return replace(
        budget,
        steps=steps,
        warmup=round(budget.warmup * share),
        drops=tuple(round(at * share) for at in budget.drops),
        select_every=max(1, round(budget.select_every * share)) if budget.select_every else 0,
    )


def trial_session(session: Session) -> Session:
    """The session itself, or, of very many rows, one of the same model trained and evaluated on a
    sample of them: what remedies are compared with there.
    """
    task, lab = session.task, session.lab.child("trial sample")
    used = {name: one for name, one in task.splits.items() if one.use is not Use.ADAPT}
    splits = {**task.splits, **sample_splits(used, lab)}
    if all(splits[name] is split for name, split in task.splits.items()) or not session.retrained:
        return session
    before, after = (
        {name: session.require_length(name) for name in task.of(Use.TRAIN)},
        {name: len(splits[name].data) for name in task.of(Use.TRAIN)},  # type: ignore[arg-type]
    )
    budget = session.subject.budget
    if before != after:
        budget = shorter_budget(budget, sum(after.values()), sum(before.values()))
    _tell(session, splits, budget)
    # what is shown of an example goes by its place in the whole split
    subject = replace(
        session.subject,
        task=replace(task, splits=splits),
        budget=budget,
        show=None,
        cells=None,
        columns=None,
    )
    runs = TrainingRuns(subject, session.lab)
    method = plain_method(subject, runs.initial_model(0))
    models = runs.seeds(method, len(session.retrained))
    return Session(
        subject,
        runs,
        models,
        models,
        session.tries_remedies,
        skipped=session.skipped,
        caps=session.caps,
    )


def _tell(session: Session, splits: Mapping[str, Split], budget: Budget) -> None:
    """Which rows remedies are trained and evaluated on, as sentences of the report."""
    for name, split in splits.items():
        n, drawn = session.require_length(name), len(split.data)  # type: ignore[arg-type]
        if drawn == n:
            continue
        among = (
            f"{drawn:,} of the {n:,} examples of `{name}`, drawn at random within site and class"
        )
        if split.use is Use.TRAIN:
            steps = f" for {budget.steps:,} steps" if session.has_gradients else ""
            sentence = (
                f"Remedies, and the model they are compared with, are trained{steps} on {among}."
            )
        elif split.use is Use.SELECT:
            sentence = f"Remedies stop early by {among}."
        else:
            sentence = f"Remedies are evaluated on {among}."
        session.note_cap(sentence)
