"""The compact decoder against transformers' GPT-2 and Llama, ALiBi's formula, and its own uncached
self.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close

from unseen.engine.decode import greedy
from unseen.engine.parameters import shift_parameters
from unseen.engine.tap import tap
from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.models.pretrained import from_gpt2, from_llama
from unseen.models.transformer import (
    Activation,
    Cache,
    Decoder,
    Norm,
    Positions,
    Scene,
    Transformer,
    attend,
    init_by_inputs,
    slopes,
)
from unseen.objectives import mean_token_loss

transformers = pytest.importorskip("transformers")


def gpt2(**own):
    config = transformers.GPT2Config(
        vocab_size=53,
        n_positions=40,
        n_embd=32,
        n_layer=3,
        n_head=4,
        bos_token_id=0,
        eos_token_id=None,
        **own,
    )
    return randomised(transformers.GPT2LMHeadModel(config))


def llama(**own):
    config = transformers.LlamaConfig(
        vocab_size=53,
        hidden_size=32,
        intermediate_size=44,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=40,
        bos_token_id=0,
        eos_token_id=None,
        **own,
    )
    return randomised(transformers.LlamaForCausalLM(config))


def randomised(model):
    """Weights large enough that every part matters, norms and biases included."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(std=0.2).add_(1.0 if name.endswith("weight") and p.dim() == 1 else 0.0)
    return model.eval()


PEERS = {
    "gpt2 tied": lambda: (gpt2(), from_gpt2),
    "gpt2 untied": lambda: (gpt2(tie_word_embeddings=False, n_inner=72), from_gpt2),
    "llama": lambda: (llama(), from_llama),
    "llama tied, grouped": lambda: (
        llama(num_key_value_heads=2, tie_word_embeddings=True),
        from_llama,
    ),
    "llama, one key head, other base": lambda: (
        llama(num_key_value_heads=1, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
        from_llama,
    ),
}


@pytest.mark.parametrize("name", PEERS)
@torch.no_grad()
def test_equals_transformers_with_copied_weights(name):
    peer, copied = PEERS[name]()
    ours = copied(peer).eval()
    tokens = torch.randint(53, (5, 17))
    assert_close(ours(tokens), peer(tokens).logits, atol=1e-5, rtol=1e-5)
    generated = peer.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=20,
        do_sample=False,
        pad_token_id=0,
    )
    assert greedy(ours, tokens.tolist(), 20) == generated[:, 17:].tolist()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())


def test_gradients_equal_those_of_transformers():
    peer = gpt2().train()
    for part in peer.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    ours, tokens = from_gpt2(peer), torch.randint(53, (5, 17))
    mean_token_loss(ours, {"tokens": tokens}).mean().backward()
    peer(input_ids=tokens, labels=tokens).loss.backward()
    assert_close(ours.embed.weight.grad, peer.transformer.wte.weight.grad, atol=1e-5, rtol=1e-4)
    assert_close(
        ours.blocks[0].attention.qkv.weight.grad,
        peer.transformer.h[0].attn.c_attn.weight.grad.T,
        atol=1e-5,
        rtol=1e-4,
    )


def test_variants_that_would_differ_are_refused():
    with pytest.raises(UnsupportedLayer, match="activation_function"):
        from_gpt2(gpt2(activation_function="relu"))
    with pytest.raises(UnsupportedLayer, match="linear"):
        from_llama(llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}))


def decoder(positions=Positions.LEARNED, **own):
    options = {"vocabulary": 23, "width": 24, "layers": 2, "heads": 4, "context": 24} | own
    model = Transformer(Decoder(positions=positions, **options))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.double().eval()


KINDS = [
    *({"positions": kind} for kind in Positions),
    {
        "positions": Positions.ROTARY,
        "norm": Norm.RMS,
        "activation": Activation.SWIGLU,
        "key_heads": 2,
        "bias": False,
    },
    {"positions": Positions.ALIBI, "loops": 3, "tied": False},
]


@pytest.mark.parametrize("own", KINDS, ids=str)
@torch.no_grad()
def test_later_tokens_leave_earlier_logits(own):
    model, tokens = decoder(**own), torch.randint(23, (3, 12))
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 23
    assert_close(model(changed)[:, :7], model(tokens)[:, :7])
    assert not torch.allclose(model(changed)[:, 7:], model(tokens)[:, 7:])


@pytest.mark.parametrize("own", KINDS, ids=str)
@given(first=st.integers(1, 9), second=st.integers(1, 5), pad=st.integers(0, 4), left=st.booleans())
@examples(10)
@torch.no_grad()
def test_cache_and_padding_change_nothing(own, first, second, pad, left):
    model, tokens = decoder(**own), torch.randint(23, (2, first + second))
    plain = model(tokens)
    filler = torch.zeros(2, pad, dtype=torch.long)
    real = torch.ones_like(tokens, dtype=torch.bool)
    sides = (lambda t, f: torch.cat([f, t], 1)) if left else (lambda t, f: torch.cat([t, f], 1))
    head, mask = sides(tokens[:, :first], filler), sides(real[:, :first], filler.bool())
    cache = Cache()
    early = model(head, mask, cache)[mask].view(2, first, -1)
    late = model(tokens[:, first:], torch.cat([mask, real[:, first:]], 1), cache)
    assert_close(torch.cat([early, late], 1), plain)
    cache = Cache()
    one_by_one = torch.cat([model(token[:, None], cache=cache) for token in tokens.T], 1)
    assert_close(one_by_one, plain)


@torch.no_grad()
def test_alibi_equals_its_formula():
    model, tokens = decoder(Positions.ALIBI, layers=1, heads=6), torch.randint(23, (2, 9))
    block, b, s = model.blocks[0], 2, 9
    x = model.embed(tokens)
    q, k, v = block.attention.qkv(block.attention_norm(x)).chunk(3, -1)
    mixed = torch.zeros_like(x)
    # Press et al., section 3: for 6 heads the slopes of 4 heads (2^-2, 2^-4, …) and every second of
    # 8 (2^-1, 2^-3)
    for head, slope in enumerate([2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]):
        part = slice(4 * head, 4 * head + 4)
        for row in range(b):
            for i in range(s):
                score = torch.stack(
                    [q[row, i, part] @ k[row, j, part] / 2 - slope * (i - j) for j in range(i + 1)]
                )
                mixed[row, i, part] = score.softmax(0) @ v[row, : i + 1, part]
    x = x + block.attention.out(mixed)
    x = x + block.mlp(block.mlp_norm(x))
    assert_close(model(tokens), model.head(model.norm(x)))
    assert_close(slopes(8), torch.tensor([2.0**-k for k in range(1, 9)], dtype=torch.float64))


@torch.no_grad()
def test_without_positions_order_matters_only_through_the_mask():
    model, tokens = decoder(Positions.NONE, layers=1), torch.randint(23, (1, 8))
    swapped = tokens[:, [1, 0, 2, 3, 4, 5, 6, 7]]
    assert_close(model(swapped)[:, 2:], model(tokens)[:, 2:])


@torch.no_grad()
def test_random_offset_moves_whole_sequences_in_training_only():
    model, tokens = decoder(Positions.OFFSET), torch.randint(23, (1, 20))
    assert_close(model(tokens), model(tokens))
    rows = model.train().rows(torch.arange(20)[None].expand(400, 20))
    assert_close(rows - rows[:, :1], torch.arange(20).expand(400, 20))
    assert set(rows[:, 0].tolist()) == set(
        range(5)
    )  # 24 rows, 20 tokens: offsets 0 … 4; 400 draws miss one w.p. e-38
    with Lab(3).seeded():
        first = model(tokens)
    with Lab(3).seeded():
        assert_close(model(tokens), first)


def test_loops_share_weights_and_equal_a_deeper_copy():
    shared = decoder(layers=2, loops=2)
    deep = decoder(layers=4)
    weights = shared.state_dict()
    deeper = {name: value for name, value in weights.items() if not name.startswith("blocks")}
    for k in range(4):
        deeper |= {
            f"blocks.{k}.{n[9:]}": v for n, v in weights.items() if n.startswith(f"blocks.{k % 2}.")
        }
    deep.load_state_dict(deeper)
    tokens = torch.randint(23, (2, 6))
    assert_close(shared(tokens), deep(tokens))


@pytest.mark.parametrize("own", KINDS, ids=str)
def test_tap_reads_every_parameter(own):
    model = decoder(**own)
    batch = {"tokens": torch.randint(23, (3, 7))}
    forms = tap(model, batch, mean_token_loss)
    mean_token_loss(model, batch).sum().backward()
    for name, p in model.named_parameters():
        assert_close(forms[name].total(), p.grad, msg=name)


def test_module_names_are_stable():
    names = {
        name
        for name, _ in decoder(tied=False).named_modules()
        if "." not in name or name.startswith("blocks.0")
    }
    parts = {
        "attention_norm",
        "attention",
        "attention.qkv",
        "attention.out",
        "mlp_norm",
        "mlp",
        "mlp.up",
        "mlp.down",
    }
    assert names == {
        "",
        "embed",
        "position",
        "blocks",
        "blocks.0",
        "norm",
        "head",
        *(f"blocks.0.{p}" for p in parts),
    }


@pytest.mark.parametrize(
    "bad", [{"heads": 5}, {"key_heads": 3}, {"vocabulary": 0}, {"key_heads": 0}]
)
def test_shapes_that_do_not_fit_are_refused(bad):
    with pytest.raises(InvalidConfig, match="heads"):
        Decoder(**({"vocabulary": 23, "width": 24, "heads": 4} | bad))


def test_too_long_and_wrong_masks_are_refused():
    model = decoder()
    with pytest.raises(InvalidData, match="context of 24"):
        model(torch.zeros(1, 25, dtype=torch.long))
    with pytest.raises(InvalidData, match="real"):
        model(torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool))


def test_initial_loss_is_that_of_guessing():
    model = Transformer(Decoder(vocabulary=64))
    loss = mean_token_loss(model, {"tokens": torch.randint(64, (32, 20))})
    assert loss.mean().item() == pytest.approx(math.log(64), abs=0.1)


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_short_and_long_attention_are_the_same_function(groups, masked, monkeypatch):
    query = torch.randn(3, 4, 9, 6, dtype=torch.float64)
    key, value = torch.randn(2, 3, groups, 9, 6, dtype=torch.float64)
    bias = torch.randn(3, 1, 9, 9, dtype=torch.float64) if masked else None
    scene = Scene(not masked, bias, None, None)
    short = attend(query, key, value, scene)
    monkeypatch.setattr("unseen.models.transformer.SHORT", 0)
    assert_close(attend(query, key, value, scene), short)


@pytest.mark.parametrize("own", KINDS, ids=str)
def test_second_derivatives_equal_finite_differences(own):
    model, batch = decoder(**own), {"tokens": torch.randint(23, (3, 7))}
    params = list(model.parameters())
    way = [torch.randn_like(p) for p in params]

    def slopes_at(step):
        with shift_parameters(params, [step * w for w in way]):
            return torch.autograd.grad(mean_token_loss(model, batch).mean(), params)

    grads = torch.autograd.grad(mean_token_loss(model, batch).mean(), params, create_graph=True)
    products = torch.autograd.grad(
        sum((g * w).sum() for g, w in zip(grads, way, strict=True)), params
    )
    for product, up, down in zip(products, slopes_at(1e-6), slopes_at(-1e-6), strict=True):
        assert_close(product, (up - down) / 2e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("own", KINDS[:5], ids=str)
def test_many_models_at_once_equal_one_after_the_other(own):
    models, tokens = [decoder(**own) for _ in range(3)], torch.randint(23, (2, 7))
    stacked, _ = stack_module_state(models)
    together = vmap(lambda values: functional_call(models[0], values, (tokens,)))(stacked)
    assert_close(together, torch.stack([model(tokens) for model in models]))


def sliced(monkeypatch):
    """One sequence at a time through the blocks."""
    monkeypatch.setattr("unseen.models.transformer.ROWS", 1)
    monkeypatch.setattr("unseen.models.transformer.WIDEST", 1)


@pytest.mark.parametrize("own", KINDS, ids=str)
def test_slices_of_the_batch_have_the_same_derivatives(own, monkeypatch):
    model, tokens = decoder(**own), torch.randint(23, (5, 7))
    params = list(model.parameters())
    way = [torch.randn_like(p) for p in params]

    def derivatives():
        logits = model(tokens)
        grads = torch.autograd.grad(logits.logsumexp(-1).mean(), params, create_graph=True)
        return (
            logits,
            *grads,
            *torch.autograd.grad(
                sum((g * w).sum() for g, w in zip(grads, way, strict=True)), params
            ),
        )

    whole, sizes = derivatives(), []
    inner = model.stack
    monkeypatch.setattr(model, "stack", lambda x, scene: sizes.append(len(x)) or inner(x, scene))
    sliced(monkeypatch)
    for mine, peer in zip(derivatives(), whole, strict=True):
        assert_close(mine, peer, atol=1e-12, rtol=1e-12)
    # ALiBi's bias may differ between the sequences: all together
    assert sizes == ([5] if own["positions"] is Positions.ALIBI else [1] * 5)


def test_hooks_see_the_whole_batch(monkeypatch):
    sliced(monkeypatch)
    model, tokens = decoder(), torch.randint(23, (5, 7))
    seen, logits = [], model(tokens)
    handle = model.blocks[1].mlp.up.register_forward_hook(
        lambda part, args, out: seen.append(len(out))
    )
    assert_close(model(tokens), logits)
    handle.remove()
    model(tokens)
    assert seen == [5]
    test_tap_reads_every_parameter({})


def test_many_models_at_once_run_in_slices_too(monkeypatch):
    sliced(monkeypatch)
    test_many_models_at_once_equal_one_after_the_other({})


@torch.no_grad()
def test_large_batches_are_sliced_unevenly():
    model, tokens = decoder(), torch.randint(23, (300, 24))
    slice_size = model.slice_size(model.embed(tokens), Scene(True, None, None, None))
    assert slice_size == 2**19 // 96 // 24 < 300
    assert 300 % slice_size
    expected = [model(part) for part in tokens.split(10)]
    assert_close(model(tokens), torch.cat(expected))


def test_maps_drawn_by_their_inputs_keep_the_size_of_what_they_read():
    shape = Decoder(vocabulary=5, inputs=400, tied=False, width=256, layers=2, heads=4)
    with Lab(1).seeded():
        model = init_by_inputs(Transformer(shape))
    x = torch.randn(50, 1, 400)
    assert model.embed(x).std().item() == pytest.approx(1, rel=0.05)
    assert model.blocks[0].attention.qkv.weight.std().item() == pytest.approx(1 / 16, rel=0.05)
    assert model.blocks[0].mlp.down.weight.std().item() == pytest.approx(1 / 64, rel=0.05)
    with Lab(1).seeded():
        again = init_by_inputs(Transformer(shape))
    assert torch.equal(model.head.weight, again.head.weight)
