"""Wrong labels found, own documents recalled, tails: the measures that read a table of credits."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.testing import assert_close

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.document_recall import DocumentRecall, document_recall
from unseen.measures.mislabel_detection import MislabelDetection, detection, detection_rate
from unseen.measures.tail_exponent import TailExponent, tail_exponent, top_share


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64)


def pareto(n: int, alpha: float, seed: int) -> torch.Tensor:
    """Values whose tail is P(X > x) = x^(−1/α): they fall as rank^−α."""
    return torch.rand(n, generator=Lab(seed).generator(), dtype=torch.float64).pow(-alpha)


# wrong labels


def test_detection_equals_sklearn_and_a_count():
    suspicion, wrong = normal(60), normal(60, seed=1) > 0.8
    suspicion = suspicion + wrong
    assert detection(suspicion, wrong).value == pytest.approx(
        roc_auc_score(wrong.numpy(), suspicion.numpy())
    )
    most = sorted(range(60), key=lambda k: -suspicion[k])[:12]
    share = detection_rate(suspicion, wrong, 0.2)
    assert share.value == sum(bool(wrong[k]) for k in most) / int(wrong.sum())
    assert share.low < share.value < share.high
    reading = MislabelDetection(0.2)({"suspicion": suspicion, "wrong": wrong}, Lab())
    assert_close(
        reading.detail, torch.tensor([share.value, share.low, share.high], dtype=torch.float64)
    )


def test_detection_knows_ranks_only():
    suspicion, wrong = normal(60), normal(60, seed=1) > 0.8
    order = torch.randperm(60, generator=Lab(2).generator())
    value = detection(suspicion, wrong).value
    assert detection(suspicion[order].exp() * 7, wrong[order]).value == pytest.approx(value)
    assert detection(-suspicion, wrong).value == pytest.approx(1 - value)
    assert detection_rate(suspicion, wrong, 1.0).value == 1


def test_detection_refusals():
    with pytest.raises(InvalidData, match="0 of 5 labels are wrong"):
        detection(normal(5), torch.zeros(5, dtype=torch.bool))
    with pytest.raises(InvalidData, match="1 of them not finite"):
        detection(torch.tensor([0.0, torch.nan]), torch.tensor([True, False]))
    with pytest.raises(InvalidConfig, match="inspected=0"):
        detection_rate(normal(5), torch.arange(5) > 2, 0.0)


# own documents


@pytest.mark.parametrize("top", [0, 5])
def test_recall_equals_sets(top):
    stated, asked = torch.randint(6, (40,), generator=Lab().generator()), torch.tensor([3, 0, 5])
    scores = normal(3, 40)
    shares = []
    for row, fact in zip(scores, asked, strict=True):
        own = {k for k in range(40) if stated[k] == fact}
        first = sorted(range(40), key=lambda k: -row[k])[: top or len(own)]
        shares.append(len(own & set(first)) / len(own))
    reading = document_recall(scores, stated, asked, top)
    assert_close(reading.detail, torch.tensor(shares, dtype=torch.float64))
    assert reading.value == pytest.approx(np.mean(shares))
    assert 0 <= reading.low <= reading.value <= reading.high <= 1


def test_recall_knows_ranks_only():
    stated, asked, scores = torch.arange(30) // 3, torch.arange(10), normal(10, 30)
    order = torch.randperm(30, generator=Lab(2).generator())
    value = document_recall(scores, stated, asked).detail
    assert_close(document_recall(scores[:, order].exp(), stated[order], asked).detail, value)
    assert document_recall((asked[:, None] == stated).double(), stated, asked).value == 1


def test_recall_refusals():
    with pytest.raises(InvalidData, match="1 of 2 queries ask for a fact that no document states"):
        document_recall(normal(2, 4), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2]))
    table = {
        "scores": normal(2, 3),
        "stated": torch.tensor([0, 0, 1, 1]),
        "asked": torch.tensor([0, 1]),
    }
    with pytest.raises(InvalidData, match=r"\(2, 3\) for 2 queries and 4 documents"):
        DocumentRecall()(table, Lab())


# tails


def test_exponent_of_a_power_law_and_the_line_of_numpy():
    ranks = torch.arange(1, 301, dtype=torch.float64)
    assert tail_exponent((ranks - 0.5).pow(-0.7), 300).value == pytest.approx(0.7)
    values = pareto(2_000, 0.6, 3)
    largest = np.sort(values.numpy())[::-1][:500]
    slope = np.polyfit(np.log(np.arange(1, 501) - 0.5), np.log(largest), 1)[0]
    assert tail_exponent(values).value == pytest.approx(-slope)


def test_interval_of_the_exponent_covers_the_truth():
    """In about 95 of 100 samples; the regression's own interval would in about 20."""
    found = [tail_exponent(pareto(3_000, 0.5, seed), 300) for seed in range(100)]
    assert sum(reading.low <= 0.5 <= reading.high for reading in found) >= 88
    assert np.mean([reading.value for reading in found]) == pytest.approx(0.5, abs=0.02)


def test_tails_ignore_scale_order_and_what_is_negative():
    values = pareto(200, 0.6, 1)
    order = torch.randperm(200, generator=Lab(2).generator())
    value = tail_exponent(values, 100).value
    assert tail_exponent(7 * values[order], 100).value == pytest.approx(value)
    assert tail_exponent(torch.cat([values, -values]), 100).value == pytest.approx(value)
    reading = TailExponent(100)({"scores": torch.stack([values, 2 * values[order]])}, Lab())
    assert_close(reading.detail, torch.full((2,), value, dtype=torch.float64))


def test_share_of_the_largest():
    values = torch.tensor([10.0, 1, 1, 1, 1, 1, 1, 1, 1, -5])
    assert top_share(values, 0.1) == pytest.approx(10 / 18)
    assert top_share(values, 0.15) == pytest.approx(11 / 18)
    assert top_share(values, 1.0) == pytest.approx(1)
    with pytest.raises(InvalidConfig, match="share=0"):
        top_share(values, 0.0)


def test_tail_refusals():
    with pytest.raises(InvalidData, match="9 of 20 influences are positive"):
        tail_exponent(torch.arange(20, dtype=torch.float64) - 10)
    with pytest.raises(InvalidData, match="1 of 20 influences are NaN"):
        tail_exponent(torch.where(torch.arange(20) == 3, torch.nan, 1.0))
