"""Response-only fine-tuning: exact seeds, batches that may be parted, LoRA, kept between runs."""

import copy
import sys

import pytest
import torch
from language import llama
from torch.testing import assert_close

from unseen.engine.loop import Budget, Optimizer
from unseen.engine.parameters import copy_parameters
from unseen.engine.responses import Exchange, encode_exchanges, response_task
from unseen.errors import InvalidConfig, MissingExtra, UnknownName
from unseen.lab import Lab
from unseen.methods.response_finetune import (
    LoRA,
    ResponseFinetune,
    Weighting,
    keep_fit,
    linear_maps,
)
from unseen.models.pretrained import load_causal
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.objectives import next_token
from unseen.runs.tensors import TensorCache

BUDGET = Budget(steps=3, batch_size=4, lr=1e-2, clip=1.0)
EXCHANGES = [Exchange(f"{k}+{k}=", f"{2 * k}") for k in (1, 3, 7, 20, 300, 4000)]


def letters(line: str) -> list[int]:
    return [ord(letter) - 32 for letter in line]


def task():
    return response_task(encode_exchanges(EXCHANGES, letters, 32, end=0))


def decoder() -> Transformer:
    with Lab().child("init").seeded():
        return Transformer(Decoder(vocabulary=96, width=16, heads=2, positions=Positions.ROTARY))


def weights(model) -> dict:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_equal_seeds_give_equal_weights_and_others_do_not():
    method = ResponseFinetune(BUDGET)
    one, same, other = (method.fit(decoder(), task(), Lab(seed)).model for seed in (1, 1, 2))
    assert_close(weights(one), weights(same), rtol=0, atol=0)
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize("weighting", list(Weighting))
def test_parts_of_a_batch_change_nothing_but_the_padding(weighting):
    lab = Lab(dtype=torch.float64)
    whole, parted = (
        ResponseFinetune(BUDGET, weighting=weighting, part_tokens=most).fit(decoder(), task(), lab)
        for most in (10_000, 12)
    )
    assert_close(weights(whole.model), weights(parted.model))
    assert_close(whole.curves.get("loss", []), parted.curves.get("loss", []))


def test_one_step_is_that_of_the_mean_over_examples_or_tokens():
    """Against plain autograd of the whole batch, by hand."""
    lab = Lab(dtype=torch.float64)
    budget = Budget(steps=1, batch_size=6, lr=0.1, optimizer=Optimizer.SGD)
    batch = task().splits["train"].data.columns
    counts = batch["mask"].sum(1).double()
    for weighting, weight in (
        (Weighting.EXAMPLES, torch.full((6,), 1 / 6)),
        (Weighting.TOKENS, counts / counts.sum()),
    ):
        model = decoder().double()
        parameters = dict(model.named_parameters())
        loss = (next_token.loss(model, batch) * weight).sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        expected = {
            name: p.detach() - 0.1 * g
            for (name, p), g in zip(parameters.items(), gradients, strict=True)
        }
        found = ResponseFinetune(budget, weighting=weighting).fit(decoder(), task(), lab)
        assert_close(weights(found.model), expected)


def test_labels_of_prompts_change_no_weight():
    plain = task()
    data = plain.splits["train"].data
    labels = torch.where(data.columns["mask"], data.columns["tokens"], 5)
    other = response_task(type(data)(**data.columns, labels=labels))
    one, two = (ResponseFinetune(BUDGET).fit(decoder(), t, Lab()).model for t in (plain, other))
    assert_close(weights(one), weights(two), rtol=0, atol=0)


def test_without_steps_nothing_changes_and_training_lowers_the_loss():
    model = decoder()
    before = weights(model)
    assert_close(weights(ResponseFinetune(Budget(steps=0)).fit(model, task(), Lab()).model), before)
    trained = ResponseFinetune(Budget(steps=60, batch_size=6, lr=1e-2)).fit(model, task(), Lab())
    batch = task().splits["train"].data.columns
    assert next_token.loss(trained.model, batch).mean() < 0.2
    assert_close(dict(trained.start), before)


def test_bfloat16_keeps_float32_weights_near_those_of_float32():
    half = Budget(steps=1, batch_size=6, lr=1e-3, bfloat16=True)
    one = ResponseFinetune(half).fit(decoder(), task(), Lab()).model
    assert {p.dtype for p in one.parameters()} == {torch.float32}
    assert not torch.equal(one.blocks[0].mlp.up.weight, decoder().blocks[0].mlp.up.weight)


@pytest.mark.parametrize("only", [(), ("qkv",)])
def test_lora_moves_only_what_it_adapts_by_its_rank(only):
    pytest.importorskip("peft")
    lora = LoRA(rank=2, only=only)
    model = decoder()
    before, names = weights(model), linear_maps(model, lora)
    structure = str(model)
    trained = ResponseFinetune(BUDGET, lora).fit(model, task(), Lab())
    after = weights(trained.model)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {f"{name}.weight" for name in names} == set(trained.start)
    assert len(names) == (2 if only else 8)
    for name in moved:
        assert_close(trained.start[name], before[name])
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 2
    assert str(trained.model) == structure
    assert all(p.requires_grad for p in trained.model.parameters())


def test_lora_adapts_models_of_transformers(tmp_path):
    pytest.importorskip("peft")
    model = load_causal(llama(tmp_path))
    before = weights(model)
    trained = ResponseFinetune(BUDGET, LoRA(rank=2, only=("q_proj", "v_proj"))).fit(
        model, task(), Lab()
    )
    moved = {name for name, p in weights(trained.model).items() if not torch.equal(p, before[name])}
    assert len(moved) == 4
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in moved)


def test_lora_adapts_the_transposed_maps_of_gpt2():
    pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    from unseen.models.pretrained import CausalLM

    with Lab().child("init").seeded():
        config = transformers.GPT2Config(
            vocab_size=96, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
            eos_token_id=0, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
        )  # fmt: skip
        model = CausalLM(transformers.GPT2LMHeadModel(config), None)
    before = copy.deepcopy(model)
    trained = ResponseFinetune(BUDGET, LoRA(rank=2)).fit(model, task(), Lab())
    assert len(trained.start) == 4
    assert not torch.equal(
        trained.model.model.transformer.h[0].mlp.c_fc.weight,
        before.model.transformer.h[0].mlp.c_fc.weight,
    )


def test_kept_weights_come_back_and_other_settings_train_anew(tmp_path):
    lab = Lab(keeper=TensorCache(tmp_path))
    method = ResponseFinetune(BUDGET)
    first = keep_fit(method, decoder(), task(), lab)
    files = sorted(tmp_path.iterdir())
    again = keep_fit(method, decoder(), task(), lab)
    assert sorted(tmp_path.iterdir()) == files
    assert_close(weights(again.model), weights(first.model), rtol=0, atol=0)
    assert_close(dict(again.start), copy_parameters(decoder()), rtol=0, atol=0)
    keep_fit(ResponseFinetune(BUDGET, part_tokens=4), decoder(), task(), lab)
    keep_fit(method, decoder(), task(), lab.child("another"))
    assert len(list(tmp_path.iterdir())) == 3


def test_what_cannot_be_is_refused(monkeypatch):
    with pytest.raises(InvalidConfig, match="rank 0"):
        LoRA(rank=0)
    with pytest.raises(UnknownName, match="nose"):
        ResponseFinetune(BUDGET, LoRA(only=("nose",))).fit(decoder(), task(), Lab())
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match="peft") as caught:
        ResponseFinetune(BUDGET, LoRA()).fit(decoder(), task(), Lab())
    assert "unseen[language]" in caught.value.fix
