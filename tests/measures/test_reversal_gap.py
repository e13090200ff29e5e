"""The gap of log-probabilities per fact against its definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from scipy import stats

from unseen.engine.decode import log_probability
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.reversal_gap import ReversalGap, example, farthest_mean, reversal_gap


def drawn(facts, templates, seed, gap=0.0):
    g = torch.Generator().manual_seed(seed)
    fact = torch.arange(facts).repeat_interleave(templates)
    base = torch.randn(2, facts, generator=g, dtype=torch.float64).repeat_interleave(templates, 1)
    noise = 0.1 * torch.randn(2, facts * templates, generator=g, dtype=torch.float64)
    return base[0] + noise[0] + gap, base[1] + noise[1], fact


@given(
    facts=st.integers(3, 30),
    templates=st.integers(1, 6),
    seed=st.integers(0, 99),
    gap=st.floats(-3, 3),
)
@examples(30)
def test_equals_the_tests_on_one_mean_per_fact(facts, templates, seed, gap):
    right, wrong, fact = drawn(facts, templates, seed, gap)
    a, b = ([values[fact == k].mean().item() for k in range(facts)] for values in (right, wrong))
    t, (va, vb) = (
        stats.ttest_ind(a, b, equal_var=False),
        (torch.tensor(x).double().var() for x in (a, b)),
    )
    found = reversal_gap(right, wrong, fact)
    assert found.welch_t == pytest.approx(t.statistic)
    differences = torch.tensor(a) - torch.tensor(b)
    assert found.paired_t == pytest.approx(
        (differences.mean() / differences.std() * facts**0.5).item(), rel=1e-5
    )
    by_hand = (sum(a) - sum(b)) / facts / ((va + vb) / facts).sqrt().item()
    assert found.welch_t == pytest.approx(by_hand, rel=1e-5)
    assert found.ks_p == pytest.approx(stats.ks_2samp(a, b, method="asymp").pvalue)
    assert found.facts == facts
    assert found.low < found.value < found.high


@given(seed=st.integers(0, 99), repeat=st.integers(2, 5))
@examples(20)
def test_asking_more_often_does_not_make_it_more_significant(seed, repeat):
    right, wrong, fact = drawn(10, 3, seed, 0.3)
    once = reversal_gap(right, wrong, fact)
    often = reversal_gap(right.repeat(repeat), wrong.repeat(repeat), fact.repeat(repeat))
    assert often.welch_t == pytest.approx(once.welch_t)
    assert often.ks_p == pytest.approx(once.ks_p)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    assert reversal_gap(right[order], wrong[order], fact[order]).welch_t == pytest.approx(
        once.welch_t
    )
    swapped = reversal_gap(wrong, right, fact)
    assert swapped.welch_t == pytest.approx(-once.welch_t)
    assert swapped.value == pytest.approx(-once.value)


def test_the_measure_reads_the_likelihoods_of_the_split():
    measure, trained = example()
    columns = trained.task.splits["reverse/p2d"].data.columns
    prompts = columns["tokens"][:, :4].tolist()
    right, wrong = (
        log_probability(trained.model, prompts, columns[name][:, 4:].tolist())
        for name in ("tokens", "other")
    )
    # in `other` of the example the prompt is another one, too; likelihoods are read after its own
    # prompt
    wrong = log_probability(
        trained.model, columns["other"][:, :4].tolist(), columns["other"][:, 4:].tolist()
    )
    expected = reversal_gap(right, wrong, columns["fact"])
    reading = measure(trained, Lab())
    assert reading.value == pytest.approx(expected.value, abs=1e-6)
    assert (reading.n, reading.unit) == (4, "nats")
    assert ReversalGap(batch_size=5)(trained, Lab()).value == pytest.approx(
        expected.value, abs=1e-6
    )


@pytest.mark.parametrize(
    ("right", "fact", "named"),
    [
        ([1.0, 2.0], [0, 0], "1 fact"),
        ([1.0, float("nan")], [0, 1], "not finite"),
        ([1.0, 1.0], [0, 1], "same"),
    ],
)
def test_what_has_no_test_is_refused(right, fact, named):
    with pytest.raises(InvalidData, match=named):
        reversal_gap(torch.tensor(right), torch.tensor([1.0, 1.0]), torch.tensor(fact))


@given(seed=st.integers(0, 99), scale=st.floats(0.1, 10))
@examples(30)
def test_farthest_mean_has_the_interval_of_a_one_way_layout(seed, scale):
    x = scale * torch.randn(
        4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    found = farthest_mean(x.tolist())
    means, variance = x.mean(1), x.var(1).mean()  # equal sizes: the mean of the groups' variances
    assert abs(found.value) == pytest.approx(means.abs().max().item())
    half = stats.t.ppf(0.975, 8) * (variance / 3).sqrt().item()
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half))
    flipped = farthest_mean((-x.flip(0)).tolist())
    assert (flipped.value, flipped.low) == pytest.approx((-found.value, -found.high))


def test_farthest_mean_of_one_group_is_students():
    x = [0.3, -0.1, 1.2]
    low, high = stats.t.interval(0.95, 2, loc=sum(x) / 3, scale=stats.sem(x))
    found = farthest_mean([x])
    assert (found.low, found.high, found.n) == pytest.approx((low, high, 3))


def test_farthest_mean_without_spread_has_no_interval_and_without_values_is_refused():
    assert farthest_mean([[1.0], [-2.0]]).low != farthest_mean([[1.0], [-2.0]]).low  # NaN
    for bad in ([], [[]], [[1.0, float("nan")]]):
        with pytest.raises(InvalidData, match="groups"):
            farthest_mean(bad)
