"""Sampling against the distribution of the model and against greedy decoding."""

import pytest
import torch

from unseen.engine.decode import greedy
from unseen.engine.sampling import sample
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.models.pretrained import CausalLM
from unseen.models.transformer import Decoder, Positions, Transformer

SIZE = 31
PROMPTS = [[1, 2], [3, 4, 5], [6]]


def ours():
    shape = Decoder(vocabulary=SIZE, width=32, heads=4, positions=Positions.ROTARY)
    return sharp(Transformer(shape))


def llama():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=SIZE,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=None,
    )
    return sharp(CausalLM(transformers.LlamaForCausalLM(config), None))


def sharp(model):
    torch.manual_seed(1)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


@pytest.mark.parametrize("make", [ours, llama])
def test_at_temperature_zero_it_is_greedy(make):
    model = make()
    found = sample(model, PROMPTS, 6, Lab().generator(), samples=2, temperature=1e-6)
    expected = greedy(model, PROMPTS, 6)
    assert found == [[row, row] for row in expected]


@pytest.mark.parametrize("make", [ours, llama])
def test_pairs_of_tokens_have_their_probabilities(make):
    """The second token depends on the first: frequencies of 2,000 pairs, within five standard
    errors.
    """
    model, n = make(), 2000
    (drawn,) = sample(model, [[3, 4, 5]], 2, Lab().generator(), samples=n, batch_size=n)
    counts = torch.zeros(SIZE, SIZE)
    for first, second in drawn:
        counts[first, second] += 1
    with torch.no_grad():
        first = model(torch.tensor([[3, 4, 5]]))[0, -1].softmax(-1)
        rows = torch.tensor([[3, 4, 5, k] for k in range(SIZE)])
        p = first[:, None] * model(rows)[:, -1].softmax(-1)
    error = (p * (1 - p) / n).sqrt()
    assert bool(((counts / n - p).abs() <= 5 * error + 5 / n).all())


def test_answers_end_before_the_stop_token():
    """Dropping finished rows changes no answer: the others have the same state as without it."""
    model = llama()
    free = sample(model, PROMPTS, 12, Lab().generator(), temperature=1e-6)
    stop = free[0][0][3]
    ended = [[row[: row.index(stop)] if stop in row else row for row in rows] for rows in free]
    found = sample(model, PROMPTS, 12, Lab().generator(), temperature=1e-6, stop=stop)
    assert found == ended


def test_a_generator_gives_the_same_samples_again():
    model = ours()
    first, again = (sample(model, PROMPTS, 5, Lab(3).generator(), samples=4) for _ in range(2))
    assert first == again
    assert first != sample(model, PROMPTS, 5, Lab(4).generator(), samples=4)


@pytest.mark.parametrize("odd", [{"temperature": 0.0}, {"temperature": -1.0}, {"samples": 0}])
def test_impossible_settings_are_refused(odd):
    with pytest.raises(InvalidConfig, match="temperature"):
        sample(ours(), PROMPTS, 5, Lab().generator(), **odd)
