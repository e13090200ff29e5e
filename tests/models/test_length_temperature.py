"""Temperature by length: nothing at zero, the law where it is given, the same with a cache."""

import math

import pytest
import torch

from unseen.engine.decode import greedy
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.models.transformer import Decoder, Positions, Transformer, scale_scores

SHAPE = Decoder(
    vocabulary=11, width=16, layers=2, heads=2, positions=Positions.ROTARY, temperature_from=4
)


def decoder(shape: Decoder = SHAPE) -> Transformer:
    with Lab(1).seeded():
        model = Transformer(shape).eval()
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() > 1:
                    p.mul_(10)  # scores of a trained model, not of an untrained one
    return model


def tokens(n: int, s: int) -> torch.Tensor:
    return torch.randint(11, (n, s), generator=Lab(2).generator())


def test_zero_is_the_identity_bit_for_bit():
    model = decoder()
    plain = Transformer(Decoder(**{**vars(SHAPE), "temperature_from": 0})).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    x = tokens(3, 12)
    assert torch.equal(model(x), plain(x))


def test_only_tokens_that_read_more_keys_change_and_the_last_by_the_law():
    model, x = decoder(), tokens(3, 9)
    before = model(x)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.temperature.fill_(1 / math.log(4))
    after = model(x)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])
    # the law at nine keys is ln 9 / ln 4, for the last token of one layer
    one = Transformer(Decoder(**{**vars(SHAPE), "layers": 1})).eval()
    with torch.no_grad():
        one.blocks[0].attention.temperature.fill_(1 / math.log(4))
    heated = one(x)[:, -1]
    with torch.no_grad():
        one.blocks[0].attention.temperature.zero_()
    with scale_scores(one, math.log(9) / math.log(4)):
        torch.testing.assert_close(one(x)[:, -1], heated)


def test_the_largest_of_n_scores_keeps_its_mass():
    """Attention mass of a score larger by m: at least 1 / (1 + (n − 1) e^(−τm))."""
    n, m = 50, 2.0
    for tau in (1.0, math.log(50) / math.log(10)):
        scores = torch.rand(n, generator=Lab().generator(), dtype=torch.float64) - 1
        scores[7] = m
        mass = (tau * scores).softmax(0)[7]
        assert mass >= 1 / (1 + (n - 1) * math.exp(-tau * m))


def test_decoding_with_a_cache_and_padding_equals_reading_the_whole():
    model = decoder()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.temperature.copy_(torch.tensor([0.5, -0.2]))
    prompts = [row.tolist() for row in (tokens(1, 9)[0], tokens(1, 3)[0])]
    for prompt, answer in zip(prompts, greedy(model, prompts, 6), strict=True):
        for k, token in enumerate(answer):
            logits = model(torch.tensor([[*prompt, *answer[:k]]]))
            assert int(logits[0, -1].argmax()) == token


def test_temperature_trains_and_scores_are_restored():
    model, x = decoder(), tokens(4, 12)
    model(x).square().mean().backward()
    assert model.blocks[0].attention.temperature.grad.abs().min() > 0
    before = model(x)
    with scale_scores(model, 3.0):
        assert not torch.allclose(model(x), before)
    assert torch.equal(model(x), before)


def test_a_negative_start_is_refused():
    with pytest.raises(InvalidConfig, match="temperature_from=-1"):
        Decoder(vocabulary=3, temperature_from=-1)
