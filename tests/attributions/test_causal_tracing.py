"""Identities of tracing and of the logit lens, on our decoder and on transformers' GPT-2 and Llama
with random weights.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.attributions.causal_tracing import CausalTracing, Trace, trace
from unseen.attributions.causal_tracing import example as traced_example
from unseen.attributions.logit_lens import LogitLens, lens_values, logit_lens, token_ranks
from unseen.engine.trace import keep_last_position, residual_stream
from unseen.errors import InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.models.pretrained import CausalLM
from unseen.models.transformer import Decoder, Transformer
from unseen.task import Batch

V, S, N, LAYERS = 23, 6, 5, 3
SHAPE = Decoder(vocabulary=V, width=16, layers=LAYERS, heads=2, context=8)


def ours() -> nn.Module:
    return Transformer(SHAPE)


def shared() -> nn.Module:
    return Transformer(replace(SHAPE, loops=2))


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=V,
        n_positions=8,
        n_embd=16,
        n_layer=LAYERS,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    return CausalLM(GPT2LMHeadModel(config), None)


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=V,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return CausalLM(LlamaForCausalLM(config), None)


EMBEDDINGS = {
    ours: "embed",
    shared: "embed",
    gpt2: "model.transformer.wte",
    llama: "model.model.embed_tokens",
}
MODELS = pytest.mark.parametrize("make", EMBEDDINGS, ids=lambda make: make.__name__)


def build(make) -> nn.Module:
    with Lab(0).seeded():
        model = make().double()
    for parameter in model.parameters():  # a fresh model says nearly the same of every prompt
        parameter.data *= 3
    return model.eval()


def drawn(seed: int, width: int = S) -> torch.Tensor:
    return torch.randint(V, (N, width), generator=Lab(seed).generator())


QUERIES: Batch = {"tokens": drawn(1), "counterfactual": drawn(2)}


def last_logit(model: nn.Module, batch: Batch) -> torch.Tensor:
    return model(batch["tokens"])[:, -1, 3]


def all_at_once(n: int = N) -> torch.Tensor:
    return torch.ones(n, 1, S, dtype=torch.bool)


@MODELS
def test_patching_a_state_by_itself_changes_nothing(make):
    model = build(make)
    same = {"tokens": QUERIES["tokens"], "counterfactual": QUERIES["tokens"]}
    found = trace(model, same, last_logit)
    assert found.patched.shape == (N, LAYERS * (2 if make is shared else 1), S)
    assert_close(found.effects, torch.zeros_like(found.effects), atol=1e-12, rtol=0)


@MODELS
def test_patching_every_position_of_the_embedding_is_the_counterfactual_run(make):
    model = build(make)
    found = trace(model, QUERIES, last_logit, [EMBEDDINGS[make]], all_at_once())
    assert_close(found.patched[:, 0, 0], found.counterfactual)
    assert_close(found.counterfactual, last_logit(model, {"tokens": QUERIES["counterfactual"]}))
    assert (found.plain - found.counterfactual).abs().min() > 1e-3


@MODELS
def test_patching_the_embedding_where_prompts_differ_is_the_counterfactual_run(make):
    model = build(make)
    twin = QUERIES["tokens"].clone()
    twin[:, 2] = (twin[:, 2] + 1) % V
    queries = {"tokens": QUERIES["tokens"], "counterfactual": twin}
    found = trace(model, queries, last_logit, [EMBEDDINGS[make]])
    assert_close(found.patched[:, 0, 2], found.counterfactual)
    others = [0, 1, 3, 4, 5]
    assert_close(found.effects[:, 0, others], torch.zeros(N, 5).double(), atol=1e-12, rtol=0)


@MODELS
def test_the_last_block_at_the_last_position_gives_the_counterfactual_answer(make):
    found = trace(build(make), QUERIES, last_logit)
    assert_close(found.patched[:, -1, -1], found.counterfactual)
    # earlier positions of the last block are not read by the answer
    assert_close(found.effects[:, -1, :-1], torch.zeros(N, S - 1).double(), atol=1e-12, rtol=0)


@MODELS
def test_patched_runs_equal_hooks_on_the_whole_model(make):
    """The oracle: every patch alone, by a hook of its own, on a model that runs from its start."""
    model = build(make)
    modules = dict(model.named_modules())
    found = trace(model, QUERIES, last_logit, batch_size=7)
    for k, name in enumerate(found.modules):
        module, _, call = name.partition("@")
        for position in range(S):
            assert_close(found.patched[:, k, position], by_hand(modules[module], call, position,
                                                                model))  # fmt: skip


def by_hand(module: nn.Module, call: str, position: int, model: nn.Module) -> torch.Tensor:
    outputs: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda m, i, o: outputs.append(o))
    model(QUERIES["counterfactual"])
    handle.remove()
    at = int(call or 0)
    seen = [0]

    def put(m, i, o):
        seen[0] += 1
        if seen[0] - 1 != at:
            return None
        o = o.clone()
        o[:, position] = outputs[at][:, position]
        return o

    handle = module.register_forward_hook(put)
    try:
        return last_logit(model, QUERIES).detach()
    finally:
        handle.remove()


@MODELS
def test_the_lens_behind_the_last_block_is_the_model(make):
    model = build(make)
    found = list(logit_lens(model, QUERIES["tokens"]).values())
    assert_close(found[-1], model(QUERIES["tokens"]).detach())
    assert (found[0] - found[-1]).abs().max() > 1e-3


def test_the_lens_is_norm_and_head_of_a_state():
    model = build(ours)
    assert isinstance(model, Transformer)
    states = []
    handle = model.blocks[1].register_forward_hook(lambda m, i, o: states.append(o))
    model(QUERIES["tokens"])
    handle.remove()
    found = logit_lens(model, QUERIES["tokens"])["blocks.1"]
    assert_close(found, model.head(model.norm(states[0])).detach())


def test_a_shared_stack_has_a_state_per_pass_and_equals_copied_weights():
    twice = build(shared)
    deep = Transformer(replace(SHAPE, layers=2 * LAYERS)).double().eval()
    weights = twice.state_dict()
    for name, value in list(weights.items()):
        if name.startswith("blocks."):
            _, k, rest = name.split(".", 2)
            weights[f"blocks.{int(k) + LAYERS}.{rest}"] = value
    deep.load_state_dict(weights)
    assert_close(twice(QUERIES["tokens"]), deep(QUERIES["tokens"]))
    one, other = trace(twice, QUERIES, last_logit), trace(deep, QUERIES, last_logit)
    assert_close(one.patched, other.patched)
    assert one.modules == [f"blocks.{k}@{loop}" for loop in range(2) for k in range(LAYERS)]
    lens = logit_lens(twice, QUERIES["tokens"]), logit_lens(deep, QUERIES["tokens"])
    for a, b in zip(lens[0].values(), lens[1].values(), strict=True):
        assert_close(a, b)


@MODELS
def test_batching_and_the_order_of_queries_change_nothing(make):
    model, order = build(make), torch.tensor([3, 1, 4, 0, 2])
    one = trace(model, QUERIES, last_logit, batch_size=1)
    moved = trace(model, {k: v[order] for k, v in QUERIES.items()}, last_logit, batch_size=200)
    assert_close(one.patched[order], moved.patched)
    assert all(not m._forward_hooks and "forward" not in vars(m) for m in model.modules())


@MODELS
def test_groups_are_patched_together(make):
    model = build(make)
    groups = torch.zeros(N, 2, S, dtype=torch.bool)
    groups[:, 0, 1] = groups[:, 1, 1:4] = True
    found = trace(model, QUERIES, last_logit, groups=groups)
    alone = trace(model, QUERIES, last_logit)
    assert_close(found.patched[:, :, 0], alone.patched[:, :, 1])
    assert (found.patched[:, 0, 1] - alone.patched[:, 0, 3]).abs().max() > 1e-4


@MODELS
def test_the_last_position_alone_gives_the_same(make):
    model = build(make)
    found = trace(model, QUERIES, last_logit)
    with keep_last_position(model):
        logits = model(QUERIES["tokens"])
        assert (logits == logits[:, -1:]).all()
        assert_close(trace(model, QUERIES, last_logit).patched, found.patched)
    logits = model(QUERIES["tokens"])
    assert (logits != logits[:, -1:]).any()


def test_parts_of_a_block_can_be_traced_and_what_returns_a_tuple():
    model = build(gpt2)
    names = ["model.transformer.h.1.attn", "model.transformer.h.1.mlp"]
    found = trace(model, QUERIES, last_logit, names)
    with torch.no_grad():
        states = {}
        for name in names:
            module = model.get_submodule(name)
            handle = module.register_forward_hook(
                lambda m, i, o, name=name: states.update({name: o[0] if name[-1] == "n" else o})
            )
            model(QUERIES["counterfactual"])
            handle.remove()

        def put(m, i, o):
            changed = o[0].clone()
            changed[:, 2] = states[names[0]][:, 2]
            return (changed, *o[1:])

        handle = model.get_submodule(names[0]).register_forward_hook(put)
        assert_close(found.patched[:, 0, 2], last_logit(model, QUERIES))
        handle.remove()


def test_attributions_say_modules_and_positions():
    model = build(ours)
    subject = replace(traced_example()[1], model=model)
    credits = CausalTracing().prepare(subject, Lab())(QUERIES, last_logit)
    assert credits.scores.shape == (N, LAYERS * S)
    assert credits.labels[S] == "blocks.1, position 0"
    lens = LogitLens().prepare(subject, Lab())(QUERIES, last_logit)
    assert lens.labels == ["blocks.0", "blocks.1", "blocks.2"]
    assert_close(lens.scores[:, -1], last_logit(model, QUERIES).detach())


def test_ranks_count_from_one_and_ties_are_not_flattered():
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0]] * 3)
    assert token_ranks(logits, torch.tensor([0, 1, 3])).tolist() == [4, 2, 3]


def test_a_nonlinear_behaviour_may_be_all_logits_in_the_lens_only():
    values = lens_values(build(ours), QUERIES, lambda m, b: m(b["tokens"])[:, -1])
    assert {v.shape for v in values.values()} == {(N, V)}


def test_refusals():
    model = build(ours)
    with pytest.raises(InvalidData, match="Queries hold tokens"):
        trace(model, {"tokens": QUERIES["tokens"]}, last_logit)
    with pytest.raises(InvalidData, match=r"shape \(5, 6\), counterfactual ones \(5, 4\)"):
        trace(model, {**QUERIES, "counterfactual": drawn(2, 4)}, last_logit)
    with pytest.raises(UnknownName, match=r"no module `blocks\.9`"):
        trace(model, QUERIES, last_logit, ["blocks.9"])
    with pytest.raises(InvalidData, match="`position` gives"):
        trace(model, QUERIES, last_logit, ["position"])
    with pytest.raises(UnsupportedLayer, match="no list of blocks"):
        residual_stream(nn.Linear(2, 2))
    with (
        pytest.raises(UnsupportedLayer, match="no output embedding"),
        keep_last_position(nn.Linear(2, 2)),
    ):
        pass
    assert isinstance(trace(model, QUERIES, last_logit), Trace)
