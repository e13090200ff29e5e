"""Explanations of images and tokens, and what is refused."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from unseen.attribution import Cause
from unseen.attributions.explanation import (
    CLime,
    IntegratedGradients,
    KernelShap,
    Lime,
    Occlusion,
    SmoothGrad,
    VanillaGradients,
    eight,
)
from unseen.engine.local.features import FeatureSpec, patches
from unseen.engine.local.neighbourhoods import Gaussian, Masks, PathSegment
from unseen.errors import InvalidConfig, InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.estimator import Estimator
from unseen.models.pretrained import CausalLM
from unseen.objectives import sequence_log_probability
from unseen.task import Batch
from unseen.testing import small_task

LAB = Lab(dtype=torch.float64)


def trained(model: nn.Module) -> Trained:
    return Trained(model.double().eval(), small_task())


def logit(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch["x"])[:, 0]


def net(d: int = 4, *extra: nn.Module) -> nn.Module:
    with LAB.seeded():
        return nn.Sequential(nn.Linear(d, 8), *extra, nn.Tanh(), nn.Linear(8, 2))


class Reader(nn.Module):
    """A small causal language model whose head is tied to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(11, 6), nn.GRU(6, 6, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mix(self.embed(tokens))[0] @ self.embed.weight.T


def reader() -> Reader:
    with LAB.child("reader").seeded():
        return Reader()


def text() -> dict[str, Tensor]:
    tokens = torch.randint(1, 11, (3, 7), generator=LAB.generator())
    mask = torch.zeros(3, 7)
    mask[:, 5:] = 1
    return {"tokens": tokens, "mask": mask}


def test_masked_tokens_are_read_as_the_baseline_and_still_asked_for():
    model, batch = reader(), text()
    found = Occlusion(inputs=FeatureSpec("tokens", baseline=0)).prepare(trained(model), LAB)(
        batch, sequence_log_probability
    )
    assert found.cause is Cause.FEATURE
    assert found.scores.shape == (3, 7)
    for j in range(7):
        read = batch["tokens"].clone()
        read[:, j] = 0
        logp = model(read)[:, :-1].log_softmax(-1).gather(2, batch["tokens"][:, 1:, None])[..., 0]
        whole = (
            model(batch["tokens"])[:, :-1]
            .log_softmax(-1)
            .gather(2, batch["tokens"][:, 1:, None])[..., 0]
        )
        want = ((whole - logp) * batch["mask"][:, 1:]).sum(1)
        assert_close(found.scores[:, j], want.detach(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", list(eight()))
def test_every_method_explains_tokens_and_a_token_that_is_never_read_gets_nothing(name: str):
    preset = eight(n=150, inputs=FeatureSpec("tokens", baseline=0))[name]
    found = preset.prepare(trained(reader()), LAB)(text(), sequence_log_probability)
    assert found.scores.shape == (3, 7)
    assert torch.isfinite(found.scores).all()
    assert found.scores.abs().max() > 1e-3
    # the last token predicts nothing; C-LIME alone fits a random sample that does not cover every
    # direction evenly
    assert found.scores[:, -1].abs().max() < (1e-4 if name == "C-LIME" else 1e-10)


def test_embedding_gradients_are_those_of_autograd():
    model, batch = reader().double(), text()
    found = IntegratedGradients(n=40, inputs=FeatureSpec("tokens")).prepare(trained(model), LAB)(
        batch, sequence_log_probability
    )
    assert found.gap.abs().max() < 1e-6
    slopes = VanillaGradients(inputs=FeatureSpec("tokens")).prepare(trained(model), LAB)(
        batch, sequence_log_probability
    )
    e = model.embed(batch["tokens"]).detach().requires_grad_()
    logp = (
        (model.mix(e)[0] @ model.embed.weight.T)[:, :-1]
        .log_softmax(-1)
        .gather(2, batch["tokens"][:, 1:, None])
    )
    (g,) = torch.autograd.grad((logp[..., 0] * batch["mask"][:, 1:]).sum(), e)
    way = nn.functional.normalize(e - model.embed.weight[0], dim=-1)
    assert_close(slopes.scores, (g * way).sum(-1).detach())


@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_models_of_transformers_read_the_baseline_token_and_no_position_is_confused_with_one(
    kind: str,
):
    transformers = pytest.importorskip("transformers")
    shape = {"vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {
        "GPT2": {"n_positions": 12},
        "Llama": {"intermediate_size": 16, "num_key_value_heads": 1},
    }[kind]
    with LAB.child(kind).seeded():
        config = getattr(transformers, f"{kind}Config")(**shape, **more)
        inside = getattr(
            transformers, f"{kind}LMHeadModel" if kind == "GPT2" else "LlamaForCausalLM"
        )(config)
    model = CausalLM(inside, None).double().eval()
    tokens = torch.arange(6)[
        None
    ]  # equal to the positions: the model's own table must be found all the same
    batch = {
        "tokens": torch.cat([tokens, tokens.flip(1)]),
        "mask": torch.tensor([[0, 0, 0, 0, 0, 1]] * 2),
    }
    inputs = FeatureSpec("tokens", baseline=11)
    found = Occlusion(inputs).prepare(Trained(model, small_task()), LAB)(
        batch, sequence_log_probability
    )
    for j in range(6):
        read = batch["tokens"].clone()
        read[:, j] = 11
        whole, less = (
            model(t)[:, 4].log_softmax(-1).gather(1, batch["tokens"][:, 5:]).squeeze(1)
            for t in (batch["tokens"], read)
        )
        assert_close(found.scores[:, j], (whole - less).detach(), atol=1e-10, rtol=0)
    integrated = IntegratedGradients(n=64, inputs=inputs).prepare(Trained(model, small_task()), LAB)
    assert integrated(batch, sequence_log_probability).gap.abs().max() < 1e-4


def test_words_of_several_tokens():
    words = torch.tensor([0, 0, 1, 1, 1, 2, 3])
    inputs = FeatureSpec("tokens", mask=words, names=("a", "b", "c", "d"))
    found = KernelShap(n=14, inputs=inputs).prepare(trained(reader()), LAB)(
        text(), sequence_log_probability
    )
    assert found.labels == ("a", "b", "c", "d")
    assert found.scores.shape == (3, 4)
    assert found.gap.abs().max() < 1e-10


def test_images_by_patches_and_channels_move_together():
    with LAB.seeded():
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 2))
    x = torch.rand(2, 2, 6, 6, generator=LAB.generator(), dtype=torch.float64)
    mask = patches((2, 6, 6), 3)
    assert torch.equal(mask[0], mask[1])
    assert mask.max() == 3
    for preset in eight(n=40, inputs=FeatureSpec(mask=mask)).values():
        assert preset.prepare(trained(model), LAB)({"x": x}, logit).scores.shape == (2, 4)
    whole = VanillaGradients().prepare(trained(model), LAB)({"x": x}, logit)
    assert whole.scores.shape == (2, 72)


def test_an_estimator_is_explained_by_perturbations_only():
    from sklearn.linear_model import LogisticRegression

    estimator = Estimator(LogisticRegression(), 2)
    x = torch.randn(40, 3, generator=LAB.generator(), dtype=torch.float64)
    estimator.learn(x, (x[:, 0] > 0).long())
    one = Trained(estimator, small_task())
    assert KernelShap(n=6).prepare(one, LAB)({"x": x[:3]}, logit).scores.shape == (3, 3)
    with pytest.raises(UnsupportedLayer, match="no gradient"):
        SmoothGrad().prepare(one, LAB)({"x": x[:3]}, logit)


def test_the_same_lab_draws_the_same_and_the_model_keeps_its_mode():
    model = net()
    batch = {"x": torch.randn(2, 4, generator=LAB.generator(), dtype=torch.float64)}
    one = trained(model)
    model[0].train()
    first, again = (CLime(n=20).prepare(one, LAB)(batch, logit).scores for _ in range(2))
    assert torch.equal(first, again)
    other = CLime(n=20).prepare(one, LAB.child("other"))(batch, logit).scores
    assert not torch.equal(first, other)
    assert model[0].training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(8)])
def test_random_layers_in_training_mode_are_told_once_and_switched_off(layer: nn.Module):
    model = net(4, layer).double()
    batch = {"x": torch.randn(3, 4, generator=LAB.generator(), dtype=torch.float64)}
    with pytest.warns(UserWarning, match="training mode"):
        explain = Occlusion().prepare(Trained(model.train(), small_task()), LAB)
    first = explain(batch, logit).scores  # says no more
    assert layer.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(
            Occlusion().prepare(Trained(model.eval(), small_task()), LAB)(batch, logit).scores,
            first,
        )


def ask(preset, batch: Batch, behaviour=logit, d: int = 4) -> None:
    preset.prepare(trained(net(d)), LAB)(batch, behaviour)


def good() -> dict[str, Tensor]:
    return {"x": torch.randn(2, 4, generator=LAB.generator(), dtype=torch.float64)}


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: ask(Occlusion(), good(), lambda m, b: m(b["x"])), "behaviour"),
        (lambda: ask(Occlusion(), good(), lambda m, b: m(b["x"]).sum()), "behaviour"),
        (lambda: ask(Occlusion(FeatureSpec(baseline=torch.zeros(3))), good()), "baseline"),
        (lambda: ask(Occlusion(FeatureSpec(baseline=float("nan"))), good()), "baseline"),
        (lambda: ask(Occlusion(FeatureSpec(mask=torch.tensor([0, 0, 2, 2]))), good()), "mask"),
        (lambda: ask(Occlusion(FeatureSpec(mask=torch.tensor([-1, 0, 1, 2]))), good()), "mask"),
        (lambda: ask(Occlusion(FeatureSpec(mask=torch.tensor([0, 1, 2]))), good()), "mask"),
        (lambda: ask(Occlusion(FeatureSpec(mask=torch.tensor([0.0, 1, 2, 3]))), good()), "mask"),
        (lambda: ask(Occlusion(FeatureSpec(names=("a",))), good()), "names"),
        (lambda: ask(Occlusion(), {"x": good()["x"] * float("nan")}), "x0"),
        (lambda: ask(Occlusion(), {"x": good()["x"][:0]}), "x0"),
        (lambda: ask(CLime(n=4), good()), "n=4"),
        (lambda: ask(Lime(n=3), good()), "n=3"),
        (lambda: ask(KernelShap(n=4), good()), "n=4"),
        (lambda: ask(Lime(width=1e-3, n=16), good()), "weighted samples"),
        (lambda: ask(Occlusion(), good(), lambda m, b: logit(m, b) / 0), "behaviour"),
        (lambda: Gaussian(sigma=0.0), "sigma"),
        (lambda: Gaussian(sigma=-1.0), "sigma"),
        (lambda: Gaussian(n=0), "n="),
        (lambda: Masks(width=0.0), "width"),
        (lambda: PathSegment(start=1.0), "start"),
        (lambda: patches((4, 4), 0), "size"),
    ],
)
def test_bad_input_is_refused_by_name(make, names: str):
    with pytest.raises((InvalidData, InvalidConfig), match=names) as error:
        make()
    assert isinstance(error.value, ValueError)
    assert error.value.why
    assert error.value.fix


def test_integers_without_an_embedding_and_unknown_columns_are_refused():
    with pytest.raises(InvalidData, match="x0 holds integers"):
        ask(
            VanillaGradients(),
            {"x": torch.ones(2, 4, dtype=torch.long)},
            lambda m, b: m(b["x"].double())[:, 0],
        )
    with pytest.raises(UnknownName, match="column"):
        ask(VanillaGradients(FeatureSpec("text")), good())
    for baseline in (0.5, 99, torch.zeros(6)):
        with pytest.raises(InvalidData, match="baseline"):
            Occlusion(FeatureSpec("tokens", baseline)).prepare(trained(reader()), LAB)(
                text(), sequence_log_probability
            )


def test_a_detached_behaviour_has_no_gradient():
    with pytest.raises(UnsupportedLayer, match="no gradient"):
        ask(VanillaGradients(), good(), lambda m, b: m(b["x"])[:, 0].detach())
