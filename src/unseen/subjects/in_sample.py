"""Whether a model that was fitted before has seen the rows it is evaluated on, as far as data tell.

A copy that is fitted on the rows in question and predicts the same has been fitted on the same
rows; that finds most deterministic models. Where copies differ (random forests without a seed, a
part of the rows), a model that is clearly better at a site than its copy without the site raises
the question.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from unseen import stats
from unseen.engine.batches import whole
from unseen.errors import InvalidData, UnseenError
from unseen.lab import Lab
from unseen.models.estimator import Estimator
from unseen.stats import widen
from unseen.subjects.fresh_models import fresh_model
from unseen.subjects.subject import Subject
from unseen.task import Batch, Use
from unseen.text import join_words

SAME = 1e-4
"""Outputs that differ by less are those of the same fit: solvers stop early."""


def without_fitted_sites(subjects: Sequence[Subject], lab: Lab, *, is_named: bool) -> list[Subject]:
    """The subjects with what to beware of. Where a site is known to be the only one that the model
    has not seen, that one alone; refuses a model that was fitted on all rows, unless the mode was
    named.
    """
    try:
        everything = _is_fitted_on(subjects[0], _splits_with_labels(subjects[0]), lab)
        clean = [one for one in subjects if _is_fitted_on(one, _splits_elsewhere(one), lab)]
        better = [one for one in subjects if _is_better_than_its_copy(one, len(subjects), lab)]
    except UnseenError:  # a copy cannot be fitted: nothing is known
        return _with_warning(subjects, UNKNOWN)
    if everything:
        return _with_warning(subjects, _refuse_or_warn(subjects[0], is_named))
    if clean:
        clean = [_with_training_rows(one) for one in clean]
        return _with_warning(clean, ONLY_UNSEEN.format(clean[0].held_out or "the held-out rows"))
    if better:
        names = join_words([one.label for one in better])
        return _with_warning(subjects, BETTER.format(names))
    return _with_warning(subjects, UNKNOWN)


def _with_training_rows(subject: Subject) -> Subject:
    """All rows elsewhere as what they are to the model: training examples, none of them held out,
    so that no score on them stands for new examples of known sites.
    """
    unseen = subject.task.unseen
    splits = {
        name: split if name in unseen or split.use is Use.ADAPT else replace(split, use=Use.TRAIN)
        for name, split in subject.task.splits.items()
    }
    mode = f"{subject.mode}, not fitted on the site"
    return replace(subject, mode=mode, task=replace(subject.task, splits=splits))


def _with_warning(subjects: Sequence[Subject], text: str) -> list[Subject]:
    return [replace(one, warnings=[text, *one.warnings]) for one in subjects]


ONLY_UNSEEN = (
    "The model was fitted on all rows here but those of {}. Only these are evaluated as unseen; "
    "all others are its training examples, so that the difference from them is overfitting, too."
)
BETTER = (
    "At {} the model is clearly better than a copy trained without the site. It was fitted on "
    "rows from there, or on more data than this table: if on rows from there, its numbers there "
    "are in-sample. mode=trained-again trains copies without each site."
)
UNKNOWN = (
    "Whether the model was fitted on rows evaluated here cannot be known. If it was, the numbers "
    "are in-sample and too good; mode=trained-again trains copies without each site."
)


def _refuse_or_warn(subject: Subject, is_named: bool) -> str:
    if is_named:
        return (
            "The model was fitted on the very rows it is evaluated on. All its numbers are "
            "in-sample and say nothing about new data; mode=trained-again trains copies without "
            "each site."
        )
    raise InvalidData(
        f"The {subject.name} was fitted on the very rows it is evaluated on.",
        why="a copy fitted on all rows of this table gives the same answers; in-sample numbers say "
        "nothing about data it has not seen.",
        fix='use mode="trained-again" (--mode trained-again), which trains copies without each '
        "site; or give rows that it has not seen.",
    )


def _splits_elsewhere(subject: Subject) -> list[str]:
    """All splits but the held-out site and the future."""
    return [name for name in _splits_with_labels(subject) if name not in subject.task.unseen]


def _splits_with_labels(subject: Subject) -> list[str]:
    return [name for name, split in subject.task.splits.items() if split.use is not Use.ADAPT]


def _is_fitted_on(subject: Subject, splits: Sequence[str], lab: Lab) -> bool:
    """Whether a copy fitted on these splits gives the model's own answers there."""
    assert isinstance(subject.trained, Estimator)
    rows = _rows(subject, splits, lab)
    copy = _copy(subject, rows)
    with torch.no_grad():
        return bool((copy(rows["x"]) - subject.trained(rows["x"])).abs().max() < SAME)


def _rows(subject: Subject, splits: Sequence[str], lab: Lab) -> Batch:
    """The rows of the splits in the order of the table, as they were probably fitted."""
    batches = [whole(subject.task.splits[name].data, lab) for name in splits]
    found = {key: torch.cat([batch[key] for batch in batches]) for key in ("x", "y", "index")}
    order = found["index"].argsort()
    return {key: tensor[order] for key, tensor in found.items()}


def _copy(subject: Subject, rows: Batch) -> Estimator:
    copy = fresh_model(subject)
    assert isinstance(copy, Estimator)
    copy.learn(rows["x"], rows["y"])
    return copy


def _is_better_than_its_copy(subject: Subject, among: int, lab: Lab) -> bool:
    """Whether the recorded answers at the held-out site are clearly likelier under the model than
    under a copy trained without it.
    """
    unseen = list(subject.task.unseen) or list(subject.task.of(Use.EVALUATE))
    here = _rows(subject, unseen, lab)
    copy = _copy(
        subject, _rows(subject, [n for n in _splits_with_labels(subject) if n not in unseen], lab)
    )
    assert isinstance(subject.trained, Estimator)
    with torch.no_grad():
        # likelihoods, not losses: a forest's probability of zero would decide alone
        by_copy, by_model = (
            (-subject.task.objective.loss(model, here)).double().exp()
            for model in (copy, subject.trained)
        )
    return widen(stats.mean((by_model - by_copy).numpy()), among).low > 0
