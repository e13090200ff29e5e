"""Steps of T5's decoder against transformers' own."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.decode import Side, pad_sequences
from unseen.models.encoder_decoder import t5
from unseen.models.t5_steps import StepCache, takes_steps

pytest.importorskip("transformers")


def sharp(**shape):
    torch.manual_seed(0)
    model = t5(23, width=16, layers=2, heads=2, dropout=0.1, **shape)
    for name, p in model.named_parameters():
        nn.init.normal_(p, std=1.0 if "norm" in name else 0.3)
    return model.double().eval()


PROMPTS = [[4, 5, 6, 2], [7, 2, 10, 11], [8, 9, 2, 13]]
"""Sources of unequal length; the last two with the beginning of a target."""


@torch.no_grad()
def test_steps_equal_one_pass_over_the_whole():
    """Eighty tokens, so that distances share buckets; padding of sources and targets beside. T5's
    norm sums squares in float32 in transformers, whatever the weights are.
    """
    model = sharp()
    rows = pad_sequences(PROMPTS, [()] * 3, Side.LEFT)
    _, state = model.read(rows.tokens, rows.real, None)
    drawn = torch.randint(3, 23, (3, 80), generator=torch.Generator().manual_seed(0))
    real, found = rows.real, []
    for k in range(79):
        real = torch.cat([real, real.new_ones(3, 1)], 1)
        logits, state = model.read_last(drawn[:, k : k + 1], real, state)
        assert isinstance(state.cache, StepCache)
        found.append(logits)
    # several tokens at once, and some of the rows, go on from there
    kept = model.select(state, torch.tensor([2, 0]))
    more, _ = model.read(drawn[[2, 0], 77:], torch.cat([real, real[:, -3:]], 1)[[2, 0]], kept)
    for row, prompt in enumerate(PROMPTS):
        tokens = torch.tensor([[*prompt, *drawn[row, :79].tolist()]])
        whole = model(tokens)[0]
        assert_close(torch.stack(found)[:, row], whole[len(prompt) :], atol=1e-5, rtol=1e-3)
    for at, row in enumerate((2, 0)):
        long = [*PROMPTS[row], *drawn[row, :79].tolist(), *drawn[row, 77:].tolist()]
        assert_close(more[at], model(torch.tensor([long]))[0, -3:], atol=1e-5, rtol=1e-3)


def test_training_gradients_and_other_models_go_the_ordinary_way():
    model = sharp()
    assert not takes_steps(model.model)  # gradients are asked for
    with torch.no_grad():
        assert takes_steps(model.model)
        model.model.config.feed_forward_proj = "gated-gelu"
        assert not takes_steps(model.model)
        model.model.config.feed_forward_proj = "relu"
        assert not takes_steps(model.train().model)
