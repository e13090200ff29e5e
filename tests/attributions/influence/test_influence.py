"""Influence against dense matrices, whatever the curvature, the level and the way scores are
summed.
"""

from dataclasses import replace

import pytest
import torch
from oracles import gradients as gradient_oracle
from oracles import influence as oracle
from torch import nn
from torch.testing import assert_close

from unseen.attributions.influence import Curvature, Fisher, Influence, sequence_nats
from unseen.attributions.influence.factors import Factors
from unseen.attributions.influence.layers import digest
from unseen.engine.batches import Columns, whole
from unseen.errors import InvalidConfig, InvalidData, TooBig, UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import classify, cross_entropy, next_token, sequence_log_probability
from unseen.task import Axis, Split, Task, Use

LAB = Lab(dtype=torch.float64)
EMPIRICAL = Influence(fisher=Fisher.EMPIRICAL, batch_size=5)


def images(n: int = 13, seed: str = "data") -> dict[str, torch.Tensor]:
    g = LAB.child(seed).generator()
    return {
        "x": torch.randn(n, 5, generator=g, dtype=torch.float64),
        "y": torch.randint(3, (n,), generator=g),
    }


def perceptron(n: int = 13) -> Trained:
    with LAB.child("init").seeded():
        model = mlp([5, 6, 3]).double().eval()
    splits = {"a": Split(Columns(**images(n)), Use.TRAIN)}
    return Trained(model, Task(name="t", axis=Axis.IID, splits=splits, objective=classify))


def sentences(n: int = 9, seed: str = "text") -> dict[str, torch.Tensor]:
    tokens = torch.randint(11, (n, 7), generator=LAB.child(seed).generator())
    return {"tokens": tokens, "mask": torch.ones(n, 7, dtype=torch.int64)}


def decoder(n: int = 9) -> Trained:
    with LAB.child("init").seeded():
        model = (
            Transformer(Decoder(vocabulary=11, width=8, layers=1, heads=2, context=7))
            .double()
            .eval()
        )
    splits = {"a": Split(Columns(**sentences(n)), Use.TRAIN)}
    return Trained(model, Task(name="t", axis=Axis.IID, splits=splits, objective=next_token))


def rows(model: nn.Module, batch, f, *names: str) -> torch.Tensor:
    found = gradient_oracle.per_example_gradients(model, batch, f)
    return gradient_oracle.flattened({name: found[name] for name in names} if names else found)


def test_the_exact_curvature_of_all_classes_is_the_gauss_newton_matrix():
    run, asked = perceptron(), images(4, "queries")
    data = whole(run.task.splits["a"].data, LAB)
    inside = list(run.model.parameters())
    total = 0.0
    for k in range(len(data["x"])):  # Jᵀ (diag p − p pᵀ) J by its definition
        logits = run.model(data["x"][k : k + 1])[0]
        jacobian = torch.stack(
            [
                torch.cat([g.flatten() for g in torch.autograd.grad(z, inside, retain_graph=True)])
                for z in logits.unbind()
            ]
        )
        p = logits.softmax(0).detach()
        total = total + jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    want = oracle.scores(
        rows(run.model, asked, cross_entropy), rows(run.model, data, cross_entropy), total / 13, 0.1
    )
    config = Influence(curvature=Curvature.EXACT, fisher=Fisher.EXACT, batch_size=5)
    assert_close(config.prepare(run, LAB)(asked, cross_entropy).scores, want)


@pytest.mark.parametrize("curvature", [Curvature.KFAC, Curvature.EKFAC])
def test_kronecker_curvature_of_a_perceptron_equals_the_dense_matrix_by_layer(curvature):
    run, asked = perceptron(), images(4, "queries")
    data = whole(run.task.splits["a"].data, LAB)
    found = replace(EMPIRICAL, curvature=curvature).prepare(run, LAB).by_layer(asked, cross_entropy)
    hidden = {}
    maps = [m for m in run.model.modules() if isinstance(m, nn.Linear)]
    names = [n for n, m in run.model.named_modules() if isinstance(m, nn.Linear)]
    for m in maps:
        m.register_forward_hook(
            lambda m, x, y: (hidden.__setitem__(m, (x[0].detach(), y)), y.retain_grad())[1]
        )
    cross_entropy(run.model, data).sum().backward()
    seen = [hidden[m] for m in maps]
    for (x, y), name in zip(seen, names, strict=True):
        a = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)[:, None]
        matrix = getattr(oracle, curvature.value)(a, y.grad[:, None])
        grads = [
            gradient_oracle.per_example_gradients(run.model, batch, cross_entropy)
            for batch in (asked, data)
        ]
        q, t = [
            torch.cat([g[f"{name}.weight"], g[f"{name}.bias"][..., None]], 2).flatten(1)
            for g in grads
        ]
        assert_close(found[name], oracle.scores(q, t, matrix, 0.1))


def test_positions_of_a_sequence_are_summed_before_they_are_squared():
    run, asked = decoder(), sentences(3, "queries")
    data = whole(run.task.splits["a"].data, LAB)
    config = replace(EMPIRICAL, layers=("blocks.0.mlp.up",), loss=sequence_nats)
    found = config.prepare(run, LAB)(asked, sequence_log_probability).scores
    seen = {}
    layer = run.model.get_submodule("blocks.0.mlp.up")
    layer.register_forward_hook(
        lambda m, x, y: (seen.update(a=x[0].detach(), y=y), y.retain_grad())[1]
    )
    sequence_nats(run.model, data).sum().backward()
    a = torch.cat([seen["a"], torch.ones(9, 7, 1, dtype=torch.float64)], 2)
    matrix = oracle.ekfac(a, seen["y"].grad)
    name = "blocks.0.mlp.up"
    q, t = (
        torch.cat([g[f"{name}.weight"], g[f"{name}.bias"][..., None]], 2).flatten(1)
        for batch, f in ((asked, sequence_log_probability), (data, sequence_nats))
        for g in [gradient_oracle.per_example_gradients(run.model, batch, f)]
    )
    assert_close(found, oracle.scores(q, t, matrix, 0.1))


@pytest.mark.parametrize("layers", [(), ("*",), ("blocks.*",), ("embed", "position", "norm")])
def test_dot_products_of_every_layer_type_equal_autograd(layers):
    run, asked = decoder(), sentences(3, "queries")
    data = whole(run.task.splits["a"].data, LAB)
    identity = Influence(
        curvature=Curvature.IDENTITY, layers=layers, loss=sequence_nats, batch_size=4
    )
    influences = identity.prepare(run, LAB)
    names = [
        n for n, _ in run.model.named_parameters() if n.rpartition(".")[0] in influences.layers
    ]
    want = (
        rows(run.model, asked, sequence_nats, *names)
        @ rows(run.model, data, sequence_nats, *names).T
        / -9
    )
    assert_close(influences(asked, sequence_nats).scores, want)
    assert ("head" in "".join(names)) == (layers == ("*",)) or layers != ()


@pytest.mark.parametrize("curvature", list(Curvature))
def test_layers_tokens_self_influence_and_top_are_parts_of_the_same_scores(curvature):
    run, asked = decoder(), sentences(3, "queries")
    config = replace(EMPIRICAL, curvature=curvature, loss=sequence_nats, layers=("blocks.0.mlp.*",))
    influences = config.prepare(run, LAB)
    scores = influences(asked, sequence_log_probability).scores
    assert_close(sum(influences.by_layer(asked, sequence_log_probability).values()), scores)
    if curvature is not Curvature.EXACT:
        chosen = torch.tensor([8, 0, 5])
        tokens = influences.by_token(asked, sequence_log_probability, chosen)
        assert_close(tokens.sum(2), scores[:, chosen])
    data = whole(run.task.splits["a"].data, LAB)
    own = influences(data, sequence_log_probability).scores.diagonal()
    assert_close(influences.self_influence(), own)
    assert (own > 0).all()
    top = influences.top(asked, sequence_log_probability, 4)
    assert_close(top.scores, scores.topk(4).values)
    assert_close(top.worst_scores, scores.topk(4, largest=False).values)
    assert_close(scores.gather(1, top.index), top.scores)
    few = influences.top(asked, sequence_log_probability, 2, candidates=torch.tensor([1, 7, 3]))
    assert_close(few.scores, scores[:, [1, 7, 3]].topk(2).values)


@pytest.mark.parametrize("make", [perceptron, decoder])
def test_batches_memory_and_the_second_pass_do_not_change_scores(make):
    run = make()
    asked = images(4, "queries") if make is perceptron else sentences(3, "queries")
    loss = cross_entropy if make is perceptron else sequence_nats
    for fisher in (Fisher.EMPIRICAL, Fisher.SAMPLED):
        want = None
        for size, memory in ((64, 1 << 30), (64, 0), (64, 3_000)):
            config = Influence(fisher=fisher, loss=loss, batch_size=size, memory=memory)
            scores = config.prepare(run, LAB)(asked, loss).scores
            want = scores if want is None else want
            assert_close(scores, want)
    config = Influence(fisher=Fisher.EMPIRICAL, loss=loss)
    sizes = [
        replace(config, batch_size=b).prepare(run, LAB)(asked, loss).scores for b in (1, 4, 64)
    ]
    assert_close(sizes[0], sizes[1])
    assert_close(sizes[0], sizes[2])


def test_low_rank_queries_get_closer_with_rank_and_are_exact_at_full_rank():
    run, asked = decoder(), sentences(3, "queries")
    config = replace(EMPIRICAL, loss=sequence_nats)
    want = config.prepare(run, LAB)(asked, sequence_nats).scores
    errors = [
        float(
            (replace(config, rank=k).prepare(run, LAB)(asked, sequence_nats).scores - want).norm()
            / want.norm()
        )
        for k in (1, 2, 4, 32)
    ]
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 1e-10


def test_screening_and_rescoring_finds_the_exact_top_k():
    run, asked = perceptron(400), images(6, "queries")
    influences = replace(EMPIRICAL, batch_size=64).prepare(run, LAB)
    scores = influences(asked, cross_entropy).scores
    top = influences.top(asked, cross_entropy, 5)  # 400 > 4 · 8 · 5: screened
    assert torch.equal(top.index, scores.topk(5).indices)
    assert torch.equal(top.worst_index, scores.topk(5, largest=False).indices)
    assert_close(top.scores, scores.topk(5).values)


def test_factors_of_another_checkpoint_are_refused():
    run = perceptron()
    influences = EMPIRICAL.prepare(run, LAB)
    tensors = influences.factors.tensors()
    again = Factors.of(tensors, digest(run.model))
    for name, block in influences.factors.blocks.items():
        assert_close(again.blocks[name].inverse, block.inverse)
    with torch.no_grad():
        next(run.model.parameters()).add_(1e-6)
    with pytest.raises(InvalidData, match="another checkpoint"):
        Factors.of(tensors, digest(run.model))


def test_the_influence_of_an_added_copy_is_what_a_newton_step_says():
    """A linear model with squared loss: retraining with one more copy, to first order."""
    from unseen.objectives import regress, squared_error

    g = LAB.child("line").generator()
    x, y = (
        torch.randn(40, 3, generator=g, dtype=torch.float64),
        torch.randn(40, 1, generator=g, dtype=torch.float64),
    )
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    task = Task(
        name="t",
        axis=Axis.IID,
        splits={"a": Split(Columns(x=x, y=y), Use.TRAIN)},
        objective=regress,
    )
    config = Influence(curvature=Curvature.EXACT, fisher=Fisher.SAMPLED, draws=400, damping=0.0)
    scores = config.prepare(Trained(model.eval(), task), LAB)(
        {"x": x[:2], "y": y[:2]}, squared_error
    ).scores
    hessian, residual = x.T @ x / 40, (x @ model.weight.T - y).detach()
    want = -((x[:2] * residual[:2]) @ torch.linalg.inv(hessian) @ (x * residual).T) / 40
    assert (
        float((scores - want).norm() / want.norm()) < 0.1
    )  # 400 draws of 40 examples: sampling error


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (lambda: Influence(damping=-1.0), InvalidConfig, "damping"),
        (lambda: Influence(layers=("nothing*",)), UnknownName, "nothing"),
        (
            lambda: Influence(loss=lambda m, b: cross_entropy(m, b).mean().expand(len(b["y"]))),
            InvalidData,
            "alone",
        ),
        (
            lambda: Influence(loss=lambda m, b: cross_entropy(m, b).mean()),
            InvalidData,
            "one number per example",
        ),
        (
            lambda: Influence(fisher=Fisher.EXACT, loss=lambda m, b: 2 * cross_entropy(m, b)),
            InvalidConfig,
            "sums to",
        ),
    ],
)
def test_what_cannot_be_is_refused(config, error, words):
    with pytest.raises(error, match=words):
        config().prepare(perceptron(), LAB)


def test_a_curvature_that_is_not_finite_names_its_layer():
    run = perceptron()
    run.task.splits["a"].data.columns["x"][3, 0] = torch.inf
    with pytest.raises(InvalidData, match=r"curvature of layer|alone"):
        EMPIRICAL.prepare(run, LAB)


def test_a_large_exact_curvature_is_refused():
    with LAB.child("init").seeded():
        model = mlp([5, 4000, 3]).double().eval()
    run = replace(perceptron(), model=model)
    with pytest.raises(TooBig, match="exact curvature"):
        Influence(curvature=Curvature.EXACT).prepare(run, LAB)
