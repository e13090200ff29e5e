"""Expressions as images: pools of images, drawn symbols, columns."""

import numpy as np
import pytest
import torch

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.tasks.digit_sources import load_part
from unseen.tasks.hint import Hint, meaning
from unseen.tasks.hint_images import (
    ARITY,
    STROKES,
    WIDTH,
    HintImages,
    count_operators,
    draw_rows,
    draw_symbol,
)
from unseen.tasks.images import Collection

SPEC = HintImages(Hint(n_train=150, n_test=20), n_each=30)


def test_every_symbol_has_an_image_and_every_number_of_operators_its_sequences():
    given = SPEC.sequences(Lab(1))
    assert set(STROKES) | set("0123456789") == set(ARITY)
    sizes = [count_operators(one.pair) for one in given.train]
    assert [sizes.count(k) for k in range(4)] == [30] * 4
    for one in (*given.train, *given.evaluate["longer"]):
        assert one.images.shape == (len(one.pair.source), 8, 8)
        assert one.images.min() >= 0
        assert one.images.max() <= 1
        assert one.pair.target == tuple(str(meaning(one.pair.source).value))


def test_training_and_evaluation_show_digits_of_other_writers():
    given = SPEC.sequences(Lab(2))
    pools = {
        name: set(map(bytes, load_part(Collection.OPTDIGITS, name).pixels(torch.arange(n)).numpy()))
        for name, n in (("train", 3_823), ("test", 1_797))
    }
    for one in given.train:
        for image, symbol in zip(one.images.numpy(), one.pair.source, strict=True):
            assert not symbol.isdigit() or image.tobytes() in pools["train"]
    for part in given.evaluate.values():
        for one in part:
            for image, symbol in zip(one.images.numpy(), one.pair.source, strict=True):
                assert not symbol.isdigit() or image.tobytes() in pools["test"]


def test_sequences_repeat_with_the_seed_and_drawn_symbols_differ():
    one, two = SPEC.sequences(Lab(3)), SPEC.sequences(Lab(3))
    assert all(torch.equal(a.images, b.images) for a, b in zip(one.train, two.train, strict=True))
    drawn = np.stack([draw_symbol("+", 0.3, 0.08, np.random.default_rng(k)) for k in range(5)])
    assert len(np.unique(drawn.reshape(5, -1), axis=0)) == 5
    plain = {s: draw_symbol(s, 0.0, 0.0, np.random.default_rng(0)).tobytes() for s in STROKES}
    assert len(set(plain.values())) == len(STROKES)


def test_rows_are_drawn_evenly():
    rows = draw_rows(10, 25, np.random.default_rng(0))
    assert sorted(rows.count(k) for k in range(10)) == [2] * 5 + [3] * 5


def test_columns_hold_pixels_then_tokens():
    task = SPEC.build(Lab(4))
    given = SPEC.sequences(Lab(4)).train
    data = task.splits["train"].data
    for k in (0, 40, 119):
        row, n = data[k], len(given[k].images)
        assert row["x"].shape[1] == WIDTH
        assert torch.equal(row["x"][:n, :64], given[k].images.flatten(1))
        assert (row["x"][:n, 64:] == 0).all()
        assert (row["x"][n:, :64] == 0).all()
        assert torch.equal(row["x"][n:, 64:].argmax(1), row["tokens"][n:])


def test_bad_configurations_are_refused():
    with pytest.raises(InvalidConfig, match="out of range"):
        HintImages(n_each=0)
    with pytest.raises(InvalidConfig, match="out of range"):
        HintImages(noise=2.0)
