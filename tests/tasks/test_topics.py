import pytest
import torch
from scipy.stats import chisquare

from unseen.engine.batches import whole
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.tasks.topics import Topics


def tokens_of(spec: Topics, lab: Lab) -> tuple[torch.Tensor, torch.Tensor]:
    batch = whole(spec.build(lab).splits["train"].data, lab)
    return batch["tokens"], batch["topic"]


def test_frequencies_follow_zipf_in_the_topics_own_order():
    spec, lab = Topics(sequences=300, length=100, vocabulary=20, topics=2, focus=1.0), Lab(1)
    tokens, topic = tokens_of(spec, lab)
    rng = lab.child("orders").numpy()
    orders = [rng.permutation(20) for _ in range(3)]
    zipf = 1 / torch.arange(1, 21, dtype=torch.float64)
    for k in range(2):
        counts = tokens[topic == k].flatten().bincount(minlength=20)[torch.from_numpy(orders[k])]
        assert chisquare(counts.numpy(), (zipf / zipf.sum() * counts.sum()).numpy()).pvalue > 1e-3


def test_without_focus_topics_say_nothing_and_streams_keep_apart():
    spec = Topics(sequences=400, length=100, vocabulary=20, topics=2, focus=0.0)
    tokens, topic = tokens_of(spec, Lab(1))
    one, two = (tokens[topic == k].flatten().bincount(minlength=20).double() for k in range(2))
    assert torch.allclose(one / one.sum(), two / two.sum(), atol=0.01)
    more = Topics(sequences=400, queries=90, length=100, vocabulary=20, topics=2, focus=0.0)
    assert torch.equal(tokens, tokens_of(more, Lab(1))[0])


def test_refusals():
    with pytest.raises(InvalidConfig, match=r"focus=1\.5"):
        Topics(focus=1.5)
    with pytest.raises(InvalidConfig, match="two tokens"):
        Topics(length=1)
