import pytest
import torch

from unseen.errors import InvalidConfig, MissingFile, UnseenError
from unseen.lab import Lab
from unseen.tasks.omniglot import Omniglot, drawings


def build(**settings):
    try:
        return Omniglot(**settings).build(Lab())
    except (MissingFile, UnseenError) as error:
        if isinstance(error, InvalidConfig):
            raise
        pytest.skip(str(error))


def test_every_character_is_drawn_by_the_people_of_its_split():
    task = build(side=15, drawers=12)
    train, test = (task.splits[name].data.columns for name in ("train", "test"))
    assert len(train["y"]) == 136 * 12
    assert len(test["y"]) == 136 * 8
    assert train["x"].shape[1:] == (1, 15, 15)
    assert set(train["drawer"].tolist()).isdisjoint(test["drawer"].tolist())
    assert train["y"].bincount().unique().tolist() == [12]
    assert train["alphabet"].max() == 4
    of_character = {int(c): set() for c in train["y"]}
    for character, alphabet in zip(train["y"].tolist(), train["alphabet"].tolist(), strict=True):
        of_character[character].add(alphabet)
    assert {len(found) for found in of_character.values()} == {1}


def test_pixels_are_ink_and_pooling_keeps_their_mean():
    task = build(side=105)
    x = task.splits["train"].data.columns["x"]
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert 0.02 < x.mean() < 0.1
    pooled = drawings((1,), 21).columns["x"]
    assert pooled.mean() == pytest.approx(float(drawings((1,)).columns["x"].mean()), rel=1e-5)
    assert torch.isfinite(pooled).all()


@pytest.mark.parametrize("settings", [{"drawers": 20}, {"drawers": 0}, {"side": 30}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InvalidConfig, match="Omniglot"):
        Omniglot(**settings)
