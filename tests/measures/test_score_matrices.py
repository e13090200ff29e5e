"""Correlations of queries, answers among the top, volatility per nat and sources: the measures of
score matrices.
"""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from torch.testing import assert_close

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.answer_recall import AnswerRecall, answer_excess, answer_recall
from unseen.measures.influence_volatility import InfluenceVolatility, per_nat, tail_mass, volatility
from unseen.measures.query_correlation import QueryCorrelation, blocks, correlations
from unseen.measures.source_enrichment import SourceEnrichment, source_enrichment


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64)


def groups_of(*sizes: int) -> torch.Tensor:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


# correlations of queries


@given(q=integers(2, 7), n=integers(2, 90), chunk=integers(1, 90), seed=integers(0, 999))
def test_correlations_equal_numpy_whatever_the_chunks(q, n, chunk, seed):
    scores = normal(q, n, seed=seed) * 1e-3 + 5 * normal(
        q, 1, seed=seed + 1
    )  # far from zero, as cancellation likes it
    found = correlations(scores.split(chunk, 1))
    # rounding of the scores themselves, as seen by the spread that is left: with two documents it
    # may be tiny
    rounding = float((scores.abs().amax(1) / scores.std(1)).max()) * torch.finfo(scores.dtype).eps
    assert_close(
        found, torch.from_numpy(np.corrcoef(scores.numpy())), atol=1e-9 + 100 * rounding, rtol=0
    )


def test_correlations_ignore_scale_shift_and_order_of_documents_and_take_float32():
    scores = normal(5, 40)
    want = correlations([scores])
    order = torch.randperm(40, generator=Lab(1).generator())
    assert_close(correlations([(3 * scores + normal(5, 1))[:, order]]), want)
    assert_close(correlations([-scores]), want)
    assert correlations([scores.float()]).dtype is torch.float64
    assert_close(correlations([scores.float()]), want, atol=1e-6, rtol=0)


def test_the_same_query_twice_correlates_one():
    scores = normal(3, 40)
    assert correlations([torch.cat([scores, scores[:1]])])[0, 3] == pytest.approx(1.0, abs=1e-12)


def test_blocks_are_means_over_pairs_of_different_queries():
    correlation, groups = correlations([normal(9, 30)]), groups_of(4, 5)
    found = blocks(correlation, groups, np.random.default_rng(0), draws=20)
    within = np.mean([float(correlation[i, j]) for i, j in combinations(range(4), 2)])
    between = np.mean([float(correlation[i, j]) for i in range(4) for j in range(4, 9)])
    assert found.of(0, 0).value == pytest.approx(within)
    assert found.of(0, 1).value == pytest.approx(between) == pytest.approx(found.of(1, 0).value)


def test_resamples_are_those_of_a_loop_without_pairs_of_a_query_and_itself():
    correlation, groups = correlations([normal(7, 30)]), groups_of(3, 4)
    found = blocks(correlation, groups, np.random.default_rng(5), draws=30)
    rng = np.random.default_rng(5)
    counts = [rng.multinomial(size, np.full(size, 1 / size), size=30) for size in (3, 4)]
    for k in range(30):
        one, two = np.repeat([0, 1, 2], counts[0][k]), np.repeat([3, 4, 5, 6], counts[1][k])
        pairs = [(i, j) for i in two for j in two if i != j]
        assert float(found.drawn[k, 1, 1]) == pytest.approx(
            np.mean([float(correlation[i, j]) for i, j in pairs])
        )
        crossed = [float(correlation[i, j]) for i in one for j in two]
        assert float(found.drawn[k, 0, 1]) == pytest.approx(np.mean(crossed))


def test_intervals_cover_the_correlation_of_the_population():
    """Queries share one part and have noise of their own, as strong as |s_q|: r of a pair is ∏
    1/√(1 + s²).
    """
    held, strength = 0, normal(400_000, seed=1)
    population = float((1 + strength.square()).rsqrt().mean() ** 2)
    for seed in range(100):
        scores = normal(40, 2_000, seed=seed) * normal(40, 1, seed=seed + 500) + normal(
            1, 2_000, seed=seed + 900
        )
        groups = torch.zeros(40, dtype=torch.int64)
        reading = blocks(correlations([scores]), groups, np.random.default_rng(seed), 300).of(0, 0)
        held += reading.low <= population <= reading.high
    assert held >= 88


def test_shuffled_documents_correlate_with_nothing():
    scores = normal(1, 3_000).expand(6, -1) + 0.1 * normal(6, 3_000, seed=1)
    shuffled = scores.gather(1, torch.rand(scores.shape, generator=Lab(2).generator()).argsort(1))
    assert QueryCorrelation()({"scores": scores, "groups": groups_of(6)}, Lab()).value > 0.95
    assert abs(QueryCorrelation()({"scores": shuffled, "groups": groups_of(6)}, Lab()).value) < 0.02


def test_correlation_refusals():
    scores = normal(4, 10)
    with pytest.raises(InvalidData, match="Query 2 has the same score for all 10 documents"):
        correlations([torch.where(torch.arange(4)[:, None] == 2, 0.1, scores)])
    with pytest.raises(InvalidData, match="1 of 4 queries have scores that are NaN"):
        correlations([torch.where(torch.arange(4)[:, None] == 2, torch.nan, scores)])
    with pytest.raises(InvalidData, match="4 queries with 1 documents"):
        correlations([scores[:, :1]])
    with pytest.raises(InvalidData, match=r"groups of \[3, 1\] queries"):
        QueryCorrelation()({"scores": scores, "groups": groups_of(3, 1)}, Lab())
    with pytest.raises(InvalidConfig, match="second=1"):
        QueryCorrelation(second=1)({"scores": scores, "groups": groups_of(4)}, Lab())


# answers among the top


def test_recall_of_answers_equals_sets():
    scores, is_answer = normal(6, 30), normal(6, 30, seed=1) > 1.2
    found = []
    for row, answers in zip(scores, is_answer, strict=True):
        top = sorted(range(30), key=lambda k: -row[k])[:7]
        found.append(any(bool(answers[k]) for k in top))
    reading = answer_recall(scores, is_answer, 7)
    assert_close(reading.detail, torch.tensor(found, dtype=torch.float64))
    assert reading.value == pytest.approx(np.mean(found))
    assert answer_recall(scores, is_answer, 30).value == is_answer.any(1).double().mean()


def test_every_step_of_an_answer_must_be_found_but_not_in_one_document():
    scores = torch.tensor([[3.0, 2, 1, 0], [3, 2, 1, 0]])
    first = torch.tensor([[True, False, False, False], [True, False, False, False]])
    second = torch.tensor([[False, True, False, False], [False, False, False, True]])
    assert_close(
        answer_recall(scores, torch.stack([first, second]), 2).detail,
        torch.tensor([1.0, 0.0]).double(),
    )


def test_excess_of_answers_is_their_share_on_top_minus_everywhere():
    scores, is_answer = normal(5, 20), normal(5, 20, seed=1) > 0.5
    want = []
    for row, answers in zip(scores, is_answer, strict=True):
        top = sorted(range(20), key=lambda k: -row[k])[:4]
        want.append(np.mean([bool(answers[k]) for k in top]) - float(answers.double().mean()))
    assert_close(
        answer_excess(scores, is_answer, 4).detail, torch.tensor(want, dtype=torch.float64)
    )
    assert answer_excess(scores, is_answer, 20).value == pytest.approx(0)


def test_answers_know_ranks_only():
    scores, is_answer = normal(6, 30), normal(6, 30, seed=1) > 1.2
    order = torch.randperm(30, generator=Lab(2).generator())
    for measure in (answer_recall, answer_excess):
        now = measure(scores[:, order].exp(), is_answer[:, order], 7)
        assert_close(now.detail, measure(scores, is_answer, 7).detail)


def test_answer_refusals():
    with pytest.raises(InvalidData, match="No document states any"):
        answer_recall(normal(2, 4), torch.zeros(2, 4, dtype=torch.bool), 2)
    with pytest.raises(InvalidData, match="top 5 of 4"):
        AnswerRecall(5)(
            {"scores": normal(2, 4), "is_answer": torch.ones(2, 4, dtype=torch.bool)}, Lab()
        )
    with pytest.raises(InvalidData, match=r"answers \(2, 3\)"):
        answer_recall(normal(2, 4), torch.ones(2, 3, dtype=torch.bool), 2)


# volatility


def test_mass_and_volatility_equal_their_definition():
    scores = normal(6, 50)
    nats = torch.tensor([1.0, 2, 0.5, 4, 1, 3], dtype=torch.float64)
    for sign, negative in ((1, False), (-1, True)):
        mass = []
        for row, size in zip(sign * scores, nats, strict=True):
            top = sorted((float(x) / float(size) for x in row), reverse=True)[:5]
            mass.append(sum(x for x in top if x > 0))
        found = tail_mass(per_nat(scores, nats), 0.1, negative=negative)
        assert_close(found, torch.tensor(mass, dtype=torch.float64))
        reading = InfluenceVolatility(0.1, negative)({"scores": scores, "nats": nats}, Lab())
        assert reading.value == pytest.approx(np.std(mass, ddof=1) / np.mean(mass))
        assert reading.low <= reading.value <= reading.high


def test_a_share_counts_at_least_one_document_and_positive_scores_only():
    scores = torch.tensor([[5.0, 1, -7], [-1, -2, -3]])
    assert_close(tail_mass(scores, 0.01), torch.tensor([5.0, 0.0]))
    assert_close(tail_mass(scores, 1.0), torch.tensor([6.0, 0.0]))
    assert_close(tail_mass(scores, 1.0, negative=True), torch.tensor([7.0, 6.0]))


def test_volatility_ignores_the_unit_and_the_order():
    scores, nats, order = normal(6, 50), normal(6, seed=1).exp(), [3, 0, 5, 1, 4, 2]
    value = InfluenceVolatility(0.1)({"scores": scores, "nats": nats}, Lab()).value
    other = InfluenceVolatility(0.1)(
        {"scores": 7 * scores[order].flip(1), "nats": nats[order]}, Lab()
    ).value
    assert other == pytest.approx(value)


@pytest.mark.parametrize(
    ("nats", "words"), [(0.0, "has 0 nats"), (np.inf, "has inf nats"), (np.nan, "has nan nats")]
)
def test_completions_without_finite_information_are_refused(nats, words):
    with pytest.raises(InvalidData, match=words):
        per_nat(normal(3, 4), torch.tensor([1.0, nats, 2.0], dtype=torch.float64))


def test_volatility_refusals():
    with pytest.raises(InvalidConfig, match="share=0"):
        tail_mass(normal(3, 4), 0.0)
    with pytest.raises(InvalidData, match="not finite"):
        tail_mass(torch.full((3, 4), torch.nan), 0.5)
    with pytest.raises(InvalidData, match="mean influence of 0"):
        volatility(torch.zeros(3), np.random.default_rng())
    with pytest.raises(InvalidData, match="1 queries"):
        volatility(torch.ones(1), np.random.default_rng())
    with pytest.raises(InvalidData, match="3 rows of scores and 2 completions"):
        per_nat(normal(3, 4), torch.ones(2))


# sources


@pytest.mark.parametrize("bottom", [False, True])
def test_enrichment_equals_a_count_and_averages_to_one(bottom):
    scores, source = normal(4, 60), torch.arange(60) % 5 % 3
    table = source_enrichment(scores, source, 12, bottom=bottom)
    for row, found in zip(scores, table, strict=True):
        top = sorted(range(60), key=lambda k: float(row[k]) * (1 if bottom else -1))[:12]
        for s in range(3):
            share = sum(int(source[k]) == s for k in top) / 12
            assert float(found[s]) == pytest.approx(share / float((source == s).double().mean()))
    shares = torch.bincount(source).double() / 60
    assert_close(table @ shares, torch.ones(4, dtype=torch.float64))


def test_enrichment_of_everything_is_one_and_order_does_not_matter():
    scores, source = normal(4, 60), torch.arange(60) % 5 % 3
    assert_close(source_enrichment(scores, source, 60), torch.ones(4, 3, dtype=torch.float64))
    order = torch.randperm(60, generator=Lab(2).generator())
    assert_close(
        source_enrichment(scores[:, order].exp(), source[order], 12),
        source_enrichment(scores, source, 12),
    )
    reading = SourceEnrichment(1, 12)({"scores": scores, "source": source}, Lab())
    assert reading.value == pytest.approx(float(reading.detail[:, 1].mean()))


def test_enrichment_refusals():
    with pytest.raises(InvalidData, match="Source 1 of 3 has no document"):
        source_enrichment(normal(2, 4), torch.tensor([0, 2, 2, 0]), 2)
    with pytest.raises(InvalidData, match="k=9"):
        source_enrichment(normal(2, 4), torch.tensor([0, 1, 1, 0]), 9)
    with pytest.raises(InvalidConfig, match="source=2"):
        SourceEnrichment(2, 2)(
            {"scores": normal(2, 4), "source": torch.tensor([0, 1, 1, 0])}, Lab()
        )
