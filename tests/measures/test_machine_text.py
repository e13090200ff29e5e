"""Likelihood, rank, curvature and Binoculars against brute force, and where another author takes
over."""

import math

import numpy as np
import pytest
import torch

from unseen import stats
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.machine_text import MachineText, Statistic, example
from unseen.measures.machine_text.scorer import TextScorer, refuse_other_tokenizer
from unseen.measures.machine_text.takeover import change_point, change_statistics
from unseen.measures.machine_text.token_statistics import (
    binoculars,
    curvature,
    entropy,
    likelihood_over_rank,
    log_likelihood,
    log_rank,
    sample_curvature,
    token_statistics,
)
from unseen.models.pretrained import CausalLM
from unseen.models.tiny_causal import tiny_causal
from unseen.models.transformer import Decoder, Transformer

VOCABULARY = 50


def random_logits(length: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(length, VOCABULARY, generator=generator, dtype=torch.float64)


def random_tokens(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed))


def brute_force(logits, tokens, other):
    """Every statistic by loops over positions and tokens."""
    likelihoods, means, variances, ranks = [], [], [], []
    for row, sampler, token in zip(logits.tolist(), other.tolist(), tokens.tolist(), strict=True):
        norm = math.log(sum(math.exp(z) for z in row))
        log_q = [z - norm for z in row]
        total = sum(math.exp(z) for z in sampler)
        p = [math.exp(z) / total for z in sampler]
        mean = sum(a * b for a, b in zip(p, log_q, strict=True))
        likelihoods.append(log_q[token])
        means.append(mean)
        variances.append(sum(a * (b - mean) ** 2 for a, b in zip(p, log_q, strict=True)))
        ranks.append(1 + sum(z > log_q[token] for z in log_q))
    return likelihoods, means, variances, ranks


@pytest.mark.parametrize("same", [True, False])
def test_statistics_equal_loops_over_a_vocabulary_of_fifty(same):
    logits, tokens = random_logits(30), random_tokens(30)
    other = logits if same else random_logits(30, seed=1)
    found = token_statistics(logits, tokens, None if same else other)
    likelihoods, means, variances, ranks = brute_force(logits, tokens, other)
    np.testing.assert_allclose(found.log_probability, likelihoods)
    np.testing.assert_allclose(found.mean, means)
    np.testing.assert_allclose(found.variance, variances, rtol=1e-9)
    assert found.rank.tolist() == ranks
    assert log_likelihood(found) == pytest.approx(np.mean(likelihoods))
    assert log_rank(found) == pytest.approx(-np.mean(np.log(ranks)))
    assert likelihood_over_rank(found) == pytest.approx(
        -sum(likelihoods) / sum(map(math.log, ranks))
    )
    assert entropy(found) == pytest.approx(-np.mean(means))
    d = (sum(likelihoods) - sum(means)) / math.sqrt(sum(variances))
    assert curvature(found) == pytest.approx(d)


def test_statistics_do_not_depend_on_a_constant_added_to_the_logits():
    logits, tokens = random_logits(20), random_tokens(20)
    shifted = logits + torch.arange(20, dtype=torch.float64)[:, None]
    one, other = token_statistics(logits, tokens), token_statistics(shifted, tokens)
    for statistic in Statistic:
        assert statistic.of(one) == pytest.approx(statistic.of(other))


def test_a_token_that_the_sampler_cannot_write_counts_nothing():
    logits, tokens = random_logits(5), random_tokens(5)
    tokens[tokens == 3] = 4
    logits[:, 3] = -torch.inf
    found = token_statistics(logits, tokens)
    assert torch.isfinite(found.mean).all()
    assert torch.isfinite(found.variance).all()
    without = torch.cat([logits[:, :3], logits[:, 4:]], 1)
    np.testing.assert_allclose(
        found.variance, token_statistics(without, tokens - (tokens > 3).long()).variance
    )


@pytest.mark.parametrize("same", [True, False])
def test_analytic_curvature_equals_sampling_within_three_standard_errors(same):
    logits, tokens, draws = random_logits(40), random_tokens(40), 10_000
    other = None if same else random_logits(40, seed=2)
    analytic = curvature(token_statistics(logits, tokens, other))
    sampled = sample_curvature(logits, tokens, draws, Lab().generator(), other)
    # of a mean 1/√n, of a spread |d|/√(2n)
    error = math.sqrt(1 / draws + analytic**2 / (2 * draws))
    assert abs(analytic - sampled) < 3 * error


def test_binoculars_with_one_model_twice_is_likelihood_over_entropy():
    logits, tokens = random_logits(25), random_tokens(25)
    found = token_statistics(logits, tokens)
    expected = -log_likelihood(found) / entropy(found)
    assert binoculars(logits, logits, tokens) == pytest.approx(expected)
    other = random_logits(25, seed=1)
    p, log_q = other.softmax(-1), logits.log_softmax(-1)
    cross = -(p * log_q).sum(-1).mean()
    assert binoculars(logits, other, tokens) == pytest.approx(
        float(-log_q.gather(-1, tokens[:, None]).mean() / cross)
    )


def test_a_uniform_model_has_no_curvature():
    with pytest.raises(InvalidData, match="equally likely"):
        curvature(token_statistics(torch.zeros(30, VOCABULARY), random_tokens(30)))


def test_first_choices_alone_have_no_likelihood_over_rank():
    logits = random_logits(10)
    with pytest.raises(InvalidData, match="first choice"):
        likelihood_over_rank(token_statistics(logits, logits.argmax(1)))


def test_other_vocabularies_are_refused():
    with pytest.raises(InvalidData, match="shape"):
        binoculars(random_logits(5), random_logits(5)[:, :-1], random_tokens(5))


def tiny_decoder() -> Transformer:
    """Random weights with logits far from uniform."""
    with Lab().child("tiny decoder").seeded():
        model = Transformer(Decoder(vocabulary=64, width=32, layers=2, heads=4, context=101))
        with torch.no_grad():
            model.head.weight.mul_(6)
    return model.eval()


@torch.no_grad()
def write(model, texts: int, length: int) -> torch.Tensor:
    """Texts drawn from the model at temperature 1, each from a random first token."""
    generator = Lab().child("texts").generator()
    tokens = torch.randint(64, (texts, 1), generator=generator)
    state = None
    for _ in range(length):
        real = torch.ones_like(tokens, dtype=torch.bool)
        logits, state = model.read(tokens[:, -1:], real, state)
        drawn = torch.multinomial(logits[:, -1].softmax(-1), 1, generator=generator)
        tokens = torch.cat([tokens, drawn], 1)
    return tokens


@torch.no_grad()
def test_curvature_of_text_that_a_model_writes_itself_is_standard_normal():
    model = tiny_decoder()
    tokens = write(model, 500, 100)
    found = [
        curvature(token_statistics(logits[:-1], text[1:]))
        for batch in tokens.split(50)
        for logits, text in zip(model(batch), batch, strict=True)
    ]
    assert abs(np.mean(found)) < 0.15
    assert 0.8 < np.std(found) < 1.2


class Letters:
    """A tokenizer of single characters."""

    is_fast = False

    def __init__(self, alphabet: str = "abcdefghijklmnopqrstuvwxyz ,."):
        self.alphabet = alphabet

    def encode(self, text, add_special_tokens=False):
        return [self.alphabet.find(one) % len(self.alphabet) for one in text]

    def decode(self, tokens, **_):
        return "".join(self.alphabet[k] for k in tokens)

    def get_vocab(self):
        return {one: k for k, one in enumerate(self.alphabet)}


def letter_model(seed: int = 0, alphabet: str = Letters().alphabet) -> CausalLM:
    with Lab(seed).child("letters").seeded():
        inside = Transformer(
            Decoder(vocabulary=len(alphabet), width=16, layers=1, heads=2, context=64)
        )
    model = CausalLM.__new__(CausalLM)
    torch.nn.Module.__init__(model)
    model.model, model.tokenizer = inside, Letters(alphabet)
    model.forward = inside.forward
    return model


TEXT = "the quick brown fox jumps over the lazy dog, and then it sleeps for a while. "


def test_scores_do_not_depend_on_the_texts_beside():
    texts = [TEXT, TEXT[:40] * 2, TEXT[20:60]]
    scorer = TextScorer(letter_model(), length=32, batch_tokens=70)
    alone = [scorer.score([text])[0] for text in texts]
    for one, other in zip(scorer.score(texts), alone, strict=True):
        assert len(one) == len(other)
        torch.testing.assert_close(one.log_probability, other.log_probability)
        torch.testing.assert_close(one.variance, other.variance)


def test_every_token_but_the_first_is_scored_once():
    scorer = TextScorer(letter_model(), length=10)
    tokens = scorer.encode(TEXT)
    found = scorer.score([TEXT])[0]
    assert len(found) == len(tokens) - 1
    window = scorer.model(tokens[None, 9:19])[0]  # the second one begins at the last of the first
    expected = window[:-1].log_softmax(-1).gather(1, tokens[10:19, None])[:, 0]
    torch.testing.assert_close(found.log_probability[9:18], expected)
    assert scorer.ends(TEXT) == list(range(1, len(TEXT) + 1))


def test_windows_fit_the_context_and_begin_as_texts_do():
    """A Llama has logits beyond its context, which mean nothing; GPT-2 has none."""
    model = tiny_causal(context=24)
    text = "The quick brown fox jumps over the lazy dog."
    found = TextScorer(model, length=512).score([text])[0]
    torch.testing.assert_close(
        found.log_probability, TextScorer(model, length=24).score([text])[0].log_probability
    )

    class Opened(CausalLM):
        @property
        def start(self):
            return [7]

    opened = Opened(model.model, model.tokenizer)
    scorer = TextScorer(opened, length=512)
    assert scorer.window == 23
    tokens = scorer.encode(text)
    with torch.no_grad():
        row = model(torch.cat([torch.tensor([7]), tokens[:23]])[None])[0].log_softmax(-1)
    wanted = row[1:-1].gather(1, tokens[1:23, None])[:, 0]  # token 0 stays without a number
    found = scorer.score([text])[0]
    assert len(found) == len(tokens) - 1
    torch.testing.assert_close(found.log_probability[:22], wanted)


def test_short_texts_and_other_tokenizers_are_refused():
    scorer = TextScorer(letter_model())
    with pytest.raises(InvalidData, match="has 19 tokens"):
        scorer.score(["a" * 19])
    assert len(scorer.score(["a" * 20])[0]) == 19
    with pytest.raises(ValueError, match="different tokenizers"):
        TextScorer(letter_model(), letter_model(alphabet="abc ,."))
    refuse_other_tokenizer(letter_model(), letter_model(seed=1))


def test_binoculars_of_two_models_reads_the_observer():
    performer, observer = letter_model(), letter_model(seed=1)
    found = TextScorer(performer, observer).score([TEXT[:60]])[0]
    tokens = TextScorer(performer).encode(TEXT[:60])
    with torch.no_grad():
        logits = [model(tokens[None])[0, :-1] for model in (performer, observer)]
    assert -Statistic.BINOCULARS.of(found) == pytest.approx(
        binoculars(*logits, tokens[1:]), rel=1e-5
    )


def test_the_mean_over_sequences_has_students_interval():
    measure, subject = example()
    reading = measure(subject, Lab())
    assert reading.n == 12
    tokens = subject.task.splits["train"].data.columns["tokens"]
    found = [
        curvature(token_statistics(row[:-1], text[1:]))
        for row, text in zip(subject.model(tokens), tokens, strict=True)
    ]
    assert reading.value == pytest.approx(stats.mean(found).value)
    assert MachineText(Statistic.ENTROPY)(subject, Lab()).value < 0


def test_the_change_point_equals_a_loop_over_cuts():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=12), rng.integers(1, 9, 12).astype(float)
    for k, found in enumerate(change_statistics(x, w), 1):
        left, right = np.average(x[:k], weights=w[:k]), np.average(x[k:], weights=w[k:])
        size = w[:k].sum() * w[k:].sum() / w.sum()
        assert found == pytest.approx(size * max(right - left, 0) ** 2)


def test_a_clear_rise_is_found_and_noise_and_falls_are_not():
    rng = np.random.default_rng(1)
    series = np.concatenate([rng.normal(0, 1, 12), rng.normal(3, 1, 8)])
    found = change_point(series)
    assert found.index == 12
    assert found.p < 0.01
    assert change_point(-series).p > 0.2
    by_chance = [change_point(rng.normal(size=12), orders=99).p <= 0.05 for _ in range(400)]
    assert np.mean(by_chance) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_a_change_point_of_three_pieces_is_refused():
    with pytest.raises(InvalidData, match="3 scores"):
        change_point([1.0, 2.0, 3.0])
    with pytest.raises(InvalidData, match="not positive"):
        change_point([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.0, 1.0])


def test_area_equals_mann_whitney_with_ties_half():
    rng = np.random.default_rng(2)
    machine, human = rng.integers(0, 9, 40), rng.integers(0, 7, 30)
    wins = sum((a > b) + 0.5 * (a == b) for a in machine for b in human)
    found = stats.auc(np.r_[machine, human], [1] * 40 + [0] * 30)
    assert found.value == pytest.approx(wins / (40 * 30))


def test_a_threshold_is_an_order_statistic_of_the_human_scores():
    scores = np.arange(1, 200, dtype=float)
    found = stats.threshold_at(scores)
    assert found.value == 198  # the second largest of 199: 2 / 200
    assert found.rate.value == pytest.approx(0.01)
    assert found.low < found.value < found.high
    same = stats.threshold_at(np.exp(scores / 50))
    assert same.value == pytest.approx(math.exp(198 / 50))  # monotone scales change nothing
    assert stats.fewest_scores(0.01) == 99
    with pytest.raises(InvalidData, match="98 scores"):
        stats.threshold_at(np.arange(98.0))
    with pytest.raises(InvalidConfig, match="share"):
        stats.threshold_at(scores, 0.0)


@pytest.mark.parametrize(("n", "rate"), [(99, 0.01), (300, 0.01), (50, 0.05), (10, 0.2)])
def test_intervals_of_a_threshold_hold_the_truth(n, rate):
    """Of exponential scores: the share beyond the threshold, and the quantile itself."""
    rng, draws = np.random.default_rng(3), 1_500
    shares, quantiles = 0, 0
    for _ in range(draws):
        found = stats.threshold_at(rng.exponential(size=n), rate)
        shares += found.rate.low <= math.exp(-found.value) <= found.rate.high
        quantiles += found.low <= -math.log(rate) <= found.high
    assert shares / draws > 0.93
    assert quantiles / draws > 0.93
