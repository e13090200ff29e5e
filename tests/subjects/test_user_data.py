"""What people bring as data: loaders, pairs, and labels that are to be ignored."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from unseen.engine.batches import Columns
from unseen.engine.evaluate import score
from unseen.engine.loop import Budget
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import IGNORED, classify, mean_token_loss, next_token, regress
from unseen.questions.audit.job import Audit
from unseen.subjects.subject import Subject, validate
from unseen.subjects.user_data import NamedExamples
from unseen.task import Axis, Objective, Split, Task, Use

G = torch.Generator().manual_seed(0)
X = torch.randn(80, 4, generator=G)
Y = (X[:, 0] > 0).long()
SOME = torch.arange(80) % 5 == 0
NAMELESS = {
    *("features", "leaks", "slices", "labels of a site"),
    *("copied rows", "columns recorded otherwise", "why sites differ"),
}
"""Parts of an audit that need the names of the inputs, or more than a few examples of a site."""
PART = Audit(seeds=1, remedies={}, measures={})


def subject_of(data: Dataset, objective: Objective = classify, **more) -> Subject:
    splits = {"train": Split(data, Use.TRAIN, "a"), "new": Split(data, Use.EVALUATE, "b")}
    task = Task(name="t", axis=Axis.SITE, splits=splits, objective=objective)
    budget = Budget(steps=20, batch_size=20, lr=1e-2)
    return Subject(task=task, model=lambda: nn.Linear(4, 2), budget=budget, **more)


class Pairs(Dataset):
    def __len__(self) -> int:
        return 80

    def __getitem__(self, i: int):
        return X[i], int(Y[i])


def scores_of(subject: Subject) -> dict[str, float]:
    found = PART(subject, Lab())
    assert not set(found.skipped) - NAMELESS - {"comparison models"}, found.skipped
    return {f"{one.split} {one.metric}": one.reading.value for one in found.scores}


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(X, Y),
        Pairs(),
        DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True),
        DataLoader(Pairs(), batch_size=7),
        NamedExamples(TensorDataset(X, Y), "x", "y"),
    ],
    ids=["tensors", "pairs", "loader of tensors", "loader of pairs", "named"],
)
def test_pairs_and_loaders_are_the_examples_that_they_hold(data):
    assert scores_of(subject_of(data)) == scores_of(subject_of(Columns(x=X, y=Y)))


def test_other_tuples_are_refused_with_the_adapter_that_names_them():
    data = TensorDataset(X, Y, X[:, 0])
    with pytest.raises(InvalidData, match="tuple of 3 entries") as found:
        validate(subject_of(data))
    assert "NamedExamples" in found.value.fix
    named = validate(subject_of(NamedExamples(data, "x", "y", "weight"))).task.splits["train"]
    assert set(named.data[0]) == {"x", "y", "weight"}


@pytest.mark.parametrize(
    ("loader", "named"),
    [
        (DataLoader(Pairs(), sampler=SubsetRandomSampler([1, 2])), "SubsetRandomSampler"),
        (DataLoader(Pairs(), collate_fn=lambda rows: default_collate(rows)), "collate_fn"),
    ],
)
def test_a_loader_that_changes_its_examples_is_refused(loader, named):
    with pytest.raises(InvalidData, match=named):
        validate(subject_of(loader))


@pytest.mark.parametrize("kind", ["columns", "pairs"])
def test_ignored_labels_count_in_no_loss_no_score_and_no_n(kind):
    y = Y.masked_fill(SOME, IGNORED)
    data = Columns(x=X, y=y) if kind == "columns" else TensorDataset(X, y)
    found = PART(subject_of(data), Lab())
    labelled = PART(subject_of(Columns(x=X[~SOME], y=Y[~SOME])), Lab())
    assert [o.reading.value for o in found.scores] == [o.reading.value for o in labelled.scores]
    assert {o.reading.n for o in found.scores} == {64}
    assert not set(found.skipped) - NAMELESS, found.skipped
    assert "16 of 80 examples of split `train` have the label -100: they are ignored." in (
        found.decisions
    )


def test_examples_keep_their_place_and_picture_when_others_are_ignored():
    y = Y.masked_fill(SOME, IGNORED)
    subject = validate(subject_of(Columns(x=X, y=y), show=lambda split, index: f"example {index}"))
    assert subject.show is not None
    kept = subject.task.splits["train"].data
    for k in (0, 3, 4, 63):
        row = int(kept[k]["index"])
        assert torch.equal(kept[k]["x"], X[row])
        assert subject.show("train", k) == f"example {row}"


def test_labels_by_another_name_are_looked_at_too():
    y = Y.masked_fill(SOME, IGNORED)
    for labels in (y, y[:, None]):
        data = validate(subject_of(Columns(x=X, labels=labels))).task.splits["train"].data
        assert len(data) == 64


def test_a_number_of_minus_100_is_a_target_like_any_other():
    data = Columns(x=X, y=torch.full((80,), IGNORED))
    subject = subject_of(data, replace(regress))
    assert validate(subject) is subject


def test_a_split_without_any_label_is_refused():
    with pytest.raises(InvalidData, match="Split `train` has no label"):
        validate(subject_of(Columns(x=X, y=torch.full((80,), IGNORED))))


def test_ignored_labels_of_a_sequence_are_left_out_token_by_token():
    with Lab().seeded():
        model = Transformer(Decoder(vocabulary=7, width=8, layers=1, heads=2, context=9)).eval()
    tokens = torch.randint(7, (5, 9), generator=G)
    hidden = torch.rand(5, 9, generator=G) < 0.4
    hidden[:, 1] = False
    labels = tokens.masked_fill(hidden, IGNORED)
    by_labels = {"tokens": tokens, "labels": labels}
    by_mask = {"tokens": tokens, "mask": ~hidden}
    torch.testing.assert_close(mean_token_loss(model, by_labels), mean_token_loss(model, by_mask))
    torch.testing.assert_close(next_token.score(model, by_labels), next_token.score(model, by_mask))


def test_scores_outside_an_audit_ignore_such_labels_too():
    model, y = nn.Linear(4, 2), Y.masked_fill(SOME, IGNORED)
    task = subject_of(Columns(x=X, y=y)).task
    plain = subject_of(Columns(x=X[~SOME], y=Y[~SOME])).task
    found, wanted = (score(model, t, t.splits["new"], Lab()) for t in (task, plain))
    assert (found.value, found.low, found.n) == (wanted.value, wanted.low, 64)
