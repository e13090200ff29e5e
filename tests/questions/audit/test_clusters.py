"""What hangs together is labelled or evaluated, never both."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from unseen.engine.batches import whole
from unseen.engine.loop import Budget
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.questions.audit import local_labels, remedies
from unseen.questions.audit.clusters import clusters, in_order, largest, whole_clusters
from unseen.subjects.session import Session, open_session
from unseen.subjects.tables import TableColumns, of_table

PEOPLE, ROWS = 60, 5


def session(rows: int = ROWS, **columns: str) -> Session:
    """People whose label only they themselves tell: five rows of each, labels by a coin."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(3 * PEOPLE), rows)
    x = rng.normal(size=(3 * PEOPLE, 2))[person]
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "person": [f"p{k}" for k in person]})
    frame["ward"] = [f"w{k // 2}" for k in person]
    frame["site"] = np.repeat(["A", "B", "C"], PEOPLE * rows)
    frame["ill"] = rng.integers(0, 2, 3 * PEOPLE)[person]
    drop = sorted({"person", "ward"} - set(columns.values()))
    given = TableColumns(target="ill", site="site", drop=drop, **columns)
    subject = of_table(frame, Lab(), given)[-1]
    subject = replace(subject, budget=Budget(steps=5, batch_size=64, lr=1e-2))
    return open_session(subject, Lab(), retrain=True)


def drawn(one: Session) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labelled and remaining rows of draws of 100 labels."""
    found = []

    def change(labelled: np.ndarray, rest: np.ndarray) -> dict:
        found.append((labelled, rest))
        return {}

    local_labels._gain(one, "unseen", "none", 100, 5, change)
    return found


@pytest.mark.parametrize("columns", [{"entity": "person"}, {"block": "ward"}])
def test_labelled_and_evaluated_rows_share_no_entity_and_no_block(columns: dict) -> None:
    one = session(**columns)
    (name,) = columns
    codes = whole(one.task.splits["unseen"].data, Lab())[name].numpy()
    for labelled, rest in drawn(one):
        assert not set(codes[labelled]) & set(codes[rest])
        assert 90 < len(labelled) <= 100
        assert sorted([*labelled, *rest]) == list(range(len(codes)))
    (found,) = [local_labels.local_labels(one, name) for name in one.unseen]
    assert found.skipped == {}
    assert {gain.labels for gain in found.gains} == {30, 100}


def test_fine_tuning_for_a_site_shares_no_entity_with_its_evaluation() -> None:
    one = session(entity="person")
    rows = one.task.splits["unseen"].data
    local, rest = remedies._halves(one, rows)
    people = [set(part.columns["entity"].tolist()) for part in (local, rest)]
    assert not people[0] & people[1]
    assert (len(local), len(rest)) == (150, 150)
    assert remedies.local_finetuning(one)


def test_a_site_of_few_entities_says_why_no_labels_are_drawn() -> None:
    one = session(entity="person")
    rows = one.task.splits["unseen"]
    codes = torch.arange(len(rows.data)) // 150
    data = type(rows.data)(**{**rows.data.columns, "entity": codes})
    task = replace(one.task, splits={**one.task.splits, "unseen": replace(rows, data=data)})
    one.subject = replace(one.subject, task=task)
    with pytest.raises(InvalidData, match="150 of the 300 examples at the site are of one entity"):
        local_labels.local_labels(one, "unseen")


def test_entities_and_blocks_are_linked_by_chains() -> None:
    batch = {"entity": torch.tensor([7, 7, 2, 3, 4]), "block": torch.tensor([0, 1, 1, 5, 6])}
    assert clusters(batch).tolist() == [0, 0, 0, 1, 2]
    assert clusters({"x": torch.zeros(3)}).tolist() == [0, 1, 2]
    assert largest(clusters(batch)) == 3


def test_examples_without_either_keep_the_order_of_a_permutation() -> None:
    order = np.random.default_rng(0).permutation(20)
    assert in_order(np.arange(20), order).tolist() == order.tolist()
    assert whole_clusters(order, 8) == 8
    assert whole_clusters(np.array([1, 1, 1, 0, 0]), 4) == 3
    assert whole_clusters(np.array([1, 1, 1, 0, 0]), 2) == 0
