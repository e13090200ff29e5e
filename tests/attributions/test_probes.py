"""Linear probes: what is planted is read, what is not is chance, and a control tells memory from
knowledge.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen import stats
from unseen.attributions.probes import (
    LinearProbes,
    Pooling,
    deal_labels,
    layer_states,
    probe,
)
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.models.transformer import Decoder, Transformer
from unseen.testing import small_subject


def planted(n: int, shift: float, seed: int = 0, d: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes that differ by `shift` deviations along the first coordinate."""
    rng = Lab(seed).child("planted").numpy()
    y = rng.permutation(np.arange(n) % 2)
    rows = rng.standard_normal((n, d))
    rows[:, 0] += shift * y
    return torch.from_numpy(rows).float(), torch.from_numpy(y)


def test_a_planted_class_is_read_and_noise_is_chance():
    known, nothing = (probe(*planted(200, shift), Lab()) for shift in (6.0, 0.0))
    assert known.accuracy.value >= 0.98
    assert known.selectivity.low > 0.3
    assert nothing.accuracy.low < 0.5 < nothing.accuracy.high
    assert nothing.selectivity.low < 0 < nothing.selectivity.high
    assert known.majority == 0.5
    assert known.correct.mean().item() == known.accuracy.value


def test_units_and_shifts_of_states_change_nothing():
    h, y = planted(100, 1.5)
    plain, scaled = probe(h, y, Lab()), probe(1000 * h - 7, y, Lab())
    assert_close(scaled.correct, plain.correct)


def test_a_control_by_type_shows_what_the_probe_remembers():
    """States that are one of 8 keys: any labels of keys can be read, so nothing is selective."""
    keys = torch.arange(160) % 8
    y = (keys % 2).long()
    found = probe(torch.eye(8)[keys], y, Lab(), types=keys.tolist())
    assert found.accuracy.value == found.control.value == 1
    assert found.selectivity.value == 0


def test_labels_are_dealt_by_type_with_their_frequencies():
    labels = np.array([0, 0, 0, 1, 1, 0])
    dealt = deal_labels(labels, np.arange(6), Lab())
    assert sorted(dealt) == sorted(labels)
    by_type = deal_labels(labels, np.array([0, 0, 1, 2, 2, 3]), Lab())
    assert by_type[0] == by_type[1]
    assert by_type[3] == by_type[4]


def test_groups_stay_in_one_fold():
    """Noise with every row twice: read from the copy where copies are parted, chance where not."""
    h, y = planted(60, 0.0, d=200)
    twice, labels = torch.cat([h, h]), torch.cat([y, y])
    leaky = probe(twice, labels, Lab())
    sound = probe(twice, labels, Lab(), groups=list(range(60)) * 2)
    assert leaky.accuracy.value > 0.75
    assert sound.accuracy.value < 0.65


def test_the_interval_of_the_accuracy_holds_that_of_new_examples():
    """0.744: the mean over 200 probes fitted to 48 examples, of 5,000 new ones each."""
    held = []
    for seed in range(30):
        h, y = planted(60, 1.5, seed, d=5)
        found = probe(h, y, Lab(seed))
        held.append(found.accuracy.low <= 0.744 <= found.accuracy.high)
    assert stats.proportion(sum(held), len(held)).high >= 0.93


def test_states_are_those_of_the_named_module_at_the_last_token_of_the_mask():
    with Lab().child("init").seeded():
        model = Transformer(Decoder(vocabulary=9, width=16, heads=2, context=6)).train()
    tokens = torch.randint(0, 9, (5, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(6) < torch.tensor([6, 3, 1, 2, 5])[:, None]
    data = Columns(tokens=tokens, mask=mask)
    found = layer_states(model, data, ["blocks.0", "norm"], Lab(), batch_size=2)
    assert model.training
    whole = []
    handle = model.blocks[0].register_forward_hook(lambda m, i, out: whole.append(out.detach()))
    model(tokens)
    handle.remove()
    last = mask.sum(1) - 1
    assert_close(found["blocks.0"], whole[0][torch.arange(5), last])
    assert found["norm"].shape == (5, 16)
    mean = layer_states(model, data, ["blocks.0"], Lab(), pooling=Pooling.MEAN)["blocks.0"]
    assert_close(mean, whole[0].mean(1))
    flat = layer_states(model, data, ["blocks.0"], Lab(), pooling=Pooling.FLAT)["blocks.0"]
    assert_close(flat, whole[0].flatten(1))
    with pytest.raises(UnknownName, match=r"blocks\.7"):
        layer_states(model, data, ["blocks.7"], Lab())


def test_credits_are_the_behaviour_where_the_class_is_read():
    trained = small_subject(Lab())
    name = next(name for name, part in trained.model.named_modules() if isinstance(part, nn.Linear))
    attributor = LinearProbes((name,)).prepare(trained, Lab())
    batch = trained.task.splits["train"].data[torch.arange(20)]
    scores = attributor(batch, lambda model, b: torch.ones(len(b["y"]))).scores
    assert scores.shape == (20, 1)
    assert bool(((scores >= 0) & (scores <= 1)).all())


def test_what_cannot_be_probed_is_refused():
    h, y = planted(40, 1.0)
    with pytest.raises(InvalidData, match="classes: 40 of 0"):
        probe(h, torch.zeros(40, dtype=torch.long), Lab())
    with pytest.raises(InvalidData, match="38 of 0, 2 of 1"):
        probe(h, (torch.arange(40) < 2).long(), Lab())
    with pytest.raises(InvalidData, match="40 states and 39 labels"):
        probe(h, y[:-1], Lab())
    with pytest.raises(InvalidData, match="not finite"):
        probe(h.masked_fill(h > 2, float("nan")), y, Lab())
    with pytest.raises(InvalidConfig, match="1 folds"):
        probe(h, y, Lab(), folds=1)
    with pytest.raises(InvalidData, match="3 types or groups"):
        probe(h, y, Lab(), types=[1, 2, 3])
