"""The small tables: sizes, scaling by the training rows, refusals."""

import pytest
import torch

from unseen.engine.batches import whole
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.tasks.sklearn_tables import SklearnDataset, SklearnTable


@pytest.mark.parametrize(
    ("table", "n", "d"),
    [
        (SklearnDataset.DIABETES, 442, 10),
        (SklearnDataset.CANCER, 569, 30),
        (SklearnDataset.WAVES, 400, 6),
    ],
)
def test_rows_are_split_and_scaled_by_what_is_fitted(table: SklearnDataset, n: int, d: int):
    task = SklearnTable(table).build(Lab())
    parts = {name: whole(split.data, Lab()) for name, split in task.splits.items()}
    sizes = {name: len(batch["y"]) for name, batch in parts.items()}
    assert sum(sizes.values()) == n
    assert sizes["test"] == round(0.2 * n)
    known = torch.cat([parts["train"]["x"], parts["select"]["x"]])
    assert known.shape[1] == d
    assert known.min() == 0
    assert known.max() == 1
    if table.classifies:
        assert set(parts["train"]["y"].tolist()) == {0, 1}
    else:
        assert abs(parts["train"]["y"].mean().item()) < 1e-5
        assert parts["train"]["y"].std(correction=0).item() == pytest.approx(1, abs=1e-5)
    other = whole(SklearnTable(table).build(Lab(seed=1)).splits["test"].data, Lab())
    assert not torch.equal(other["x"], parts["test"]["x"])


@pytest.mark.parametrize("bad", [{"evaluated": 0.0}, {"evaluated": 1.0}, {"rows": 3}])
def test_impossible_shares_are_refused(bad: dict):
    with pytest.raises(InvalidConfig, match="Tabular got"):
        SklearnTable(**bad)
