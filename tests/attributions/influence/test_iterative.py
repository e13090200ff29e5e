"""Iterative solves against dense Gauss–Newton matrices."""

from dataclasses import dataclass, replace

import pytest
import torch
from oracles import gradients as gradient_oracle
from torch import nn
from torch.testing import assert_close

from unseen.attributions.influence import Curvature, Fisher, Influence, attributor, sequence_nats
from unseen.attributions.influence.iterative import Batches, Coordinates, convergence_sentence
from unseen.attributions.influence.layers import restrict_gradients
from unseen.engine.batches import Columns, whole
from unseen.engine.gauss_newton import summed_products
from unseen.engine.iterative_solves import conjugate_gradients, stochastic_descent
from unseen.errors import Divergence, InvalidConfig
from unseen.lab import Lab, SingleProcess
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import classify, cross_entropy, next_token, sequence_log_probability
from unseen.task import Axis, Split, Task, Use

LAB = Lab(dtype=torch.float64)
CG = Influence(curvature=Curvature.EKFAC_CG, fisher=Fisher.EMPIRICAL, batch_size=5, iterations=200)


def images(n: int, seed: str = "data") -> dict[str, torch.Tensor]:
    g = LAB.child(seed).generator()
    x = torch.randn(n, 5, generator=g, dtype=torch.float64)
    return {"x": x, "y": torch.randint(3, (n,), generator=g)}


def subject(model: nn.Module, columns: dict[str, torch.Tensor], objective) -> Trained:
    splits = {"a": Split(Columns(**columns), Use.TRAIN)}
    task = Task(name="t", axis=Axis.IID, splits=splits, objective=objective)
    return Trained(model.double().eval(), task)


def perceptron(n: int = 13) -> Trained:
    with LAB.child("init").seeded():
        return subject(mlp([5, 6, 3]), images(n), classify)


def sentences(n: int, seed: str = "text") -> dict[str, torch.Tensor]:
    return {"tokens": torch.randint(11, (n, 7), generator=LAB.child(seed).generator())}


def decoder(n: int = 9) -> Trained:
    shape = Decoder(vocabulary=11, width=8, layers=1, heads=2, context=7)
    with LAB.child("init").seeded():
        return subject(Transformer(shape), sentences(n), next_token)


def softmax_gauss_newton(run: Trained, names: list[str], per_token: bool) -> torch.Tensor:
    """Mean over examples of Jᵀ (diag p − p pᵀ) J, by its definition."""
    data = whole(run.task.splits["a"].data, LAB)
    inputs = data["tokens"] if per_token else data["x"]
    params = [run.model.get_parameter(name) for name in names]
    total = 0.0
    for k in range(len(inputs)):
        logits = run.model(inputs[k : k + 1])[0]
        for z in logits[:-1] if per_token else [logits]:
            rows = [torch.autograd.grad(one, params, retain_graph=True) for one in z.unbind()]
            jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
            p = z.softmax(0).detach()
            total = total + jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    return total / len(inputs)


def dense_scores(run: Trained, asked, behaviour, loss, influences, names, per_token):
    """−(1/N) ∇fᵀ (G + λ)⁻¹ ∇ℓ with the λ of every parameter's block."""
    data = whole(run.task.splits["a"].data, LAB)
    levels = []
    for name in names:
        blocks = influences.factors.blocks
        block = blocks[name if name in blocks else name.rpartition(".")[0]]
        levels.append(torch.full_like(run.model.get_parameter(name), block.damping).flatten())
    g = softmax_gauss_newton(run, names, per_token) + torch.diag(torch.cat(levels).detach())
    q, t = (
        gradient_oracle.flattened({n: found[n] for n in names})
        for batch, f in ((asked, behaviour), (data, loss))
        for found in [gradient_oracle.per_example_gradients(run.model, batch, f)]
    )
    return -q @ torch.linalg.solve(g, t.T) / len(t)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_converged_conjugate_gradients_are_the_dense_solve_of_a_perceptron():
    run, asked = perceptron(), images(4, "queries")
    names = [name for name, _ in run.model.named_parameters()]
    influences = CG.prepare(run, LAB)
    want = dense_scores(run, asked, cross_entropy, cross_entropy, influences, names, False)
    assert relative(influences(asked, cross_entropy).scores, want) < 1e-6


def test_and_of_a_decoder_with_all_its_kinds_of_layers():
    run, asked = decoder(), sentences(3, "queries")
    names = [name for name, _ in run.model.named_parameters()]
    influences = replace(CG, loss=sequence_nats, layers=("*",), damping=1.0).prepare(run, LAB)
    want = dense_scores(
        run, asked, sequence_log_probability, sequence_nats, influences, names, True
    )
    assert relative(influences(asked, sequence_log_probability).scores, want) < 1e-6


@pytest.mark.parametrize("curvature", [Curvature.EKFAC_CG, Curvature.EKFAC_ASTRA])
@pytest.mark.parametrize("rank", [0, 8])
def test_without_iterations_it_is_ekfac(curvature, rank):
    run, asked = decoder(), sentences(3, "queries")
    config = Influence(loss=sequence_nats, batch_size=2, rank=rank)
    want = config.prepare(run, LAB)(asked, sequence_log_probability).scores
    none = replace(config, curvature=curvature, iterations=0)
    assert_close(none.prepare(run, LAB)(asked, sequence_log_probability).scores, want)


def test_more_iterations_come_closer_and_minibatches_go_the_same_way():
    run, asked = perceptron(40), images(3, "queries")
    want = CG.prepare(run, LAB)(asked, cross_entropy).scores

    def error(curvature: Curvature, iterations: int) -> float:
        config = replace(CG, curvature=curvature, iterations=iterations, batch_size=20)
        return relative(config.prepare(run, LAB)(asked, cross_entropy).scores, want)

    errors = [error(Curvature.EKFAC_CG, k) for k in (0, 4, 12, 60)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6
    assert error(Curvature.EKFAC_ASTRA, 30) < errors[0] / 2


def test_a_query_does_not_depend_on_its_company_nor_scores_on_memory():
    run, asked = perceptron(), images(7, "queries")
    config = replace(CG, iterations=3)
    want = config.prepare(run, LAB)(asked, cross_entropy).scores
    alone = {name: tensor[2:3] for name, tensor in asked.items()}
    assert_close(config.prepare(run, LAB)(alone, cross_entropy).scores, want[2:3])
    small = replace(config, memory=0, batch_size=2)
    assert_close(small.prepare(run, LAB)(asked, cross_entropy).scores, want)


@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, groups=2),
            nn.Tanh(),
            nn.GroupNorm(2, 6),
            nn.Flatten(),
            nn.Linear(24, 1),
            nn.Linear(1, 3, bias=False),
        ),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False)),
    ],
)
def test_blocks_and_parameters_are_the_same_vectors(model):
    with LAB.child("init").seeded():
        made = model()
    g = LAB.child("pixels").generator()
    x = torch.randn(8, 4, 4, 4, generator=g, dtype=torch.float64)
    run = subject(made, {"x": x, "y": torch.randint(3, (8,), generator=g)}, classify)
    influences = replace(CG, layers=("*",)).prepare(run, LAB)
    with restrict_gradients(run.model, influences.layers):
        at = Coordinates.of(run.model, influences.factors.blocks)
        size = sum(p.numel() for p in run.model.parameters())
        rows = torch.randn(2, size, generator=g, dtype=torch.float64)
        by_parameter = at.to_parameters(at.unflatten(rows))
        assert_close(at.flatten(at.of_parameters(by_parameter)), rows)
        batch = {"x": x[:3], "y": torch.tensor([0, 1, 2])}
        total, n = summed_products(run.model, [batch], cross_entropy, by_parameter)
    # the same inner products with gradients, by block and by parameter
    scores = influences(batch, cross_entropy).scores
    assert scores.shape == (3, 8)
    assert n == 3
    assert all(tensor.isfinite().all() for tensor in total.values())
    names = list(by_parameter)
    want = gradient_oracle.per_example_gradients(run.model, batch, cross_entropy)
    given = {
        name: parts[0].gradients()
        for name, parts in influences._gradients(batch, cross_entropy).items()
    }
    in_blocks = at.flatten(given) @ rows.T
    in_parameters = sum(want[n].flatten(1) @ by_parameter[n].flatten(1).T for n in names)
    assert_close(in_blocks, in_parameters)


def test_a_loss_that_calls_the_model_twice_is_refused():
    def twice(model, batch):
        return cross_entropy(model, batch) + cross_entropy(model, batch)

    run, asked = perceptron(), images(2, "queries")
    with pytest.raises(InvalidConfig, match="2 times"):
        replace(CG, loss=twice).prepare(run, LAB)(asked, cross_entropy)
    with pytest.raises(InvalidConfig, match="iterations=-1"):
        replace(CG, iterations=-1)
    for damping in (float("nan"), float("inf")):
        with pytest.raises(InvalidConfig, match="damping"):
            replace(CG, damping=damping)


def test_solvers_on_a_matrix():
    g = LAB.child("matrix").generator()
    root = torch.randn(6, 6, generator=g, dtype=torch.float64)
    matrix, b = root @ root.T + torch.eye(6), torch.randn(3, 6, generator=g, dtype=torch.float64)
    want = torch.linalg.solve(matrix, b.T).T
    found = conjugate_gradients(lambda x: x @ matrix, lambda x: x / 3, b, range(12))
    assert_close(found.x, want)
    exact = stochastic_descent(
        [lambda x: x @ matrix] * 4,
        lambda x: x @ matrix,
        lambda x: torch.linalg.solve(matrix, x.T).T,
        b,
        b[:1],
        range(4),
    )
    assert_close(exact.x, want)
    assert float(torch.cat([found.residual, exact.residual]).max()) < 1e-9
    with pytest.raises(Divergence, match="finite"):
        conjugate_gradients(lambda x: x * torch.nan, lambda x: x, b, range(2))


def test_conjugate_gradients_that_did_not_converge_say_so(caplog):
    values = torch.logspace(0, 6, 40, dtype=torch.float64)
    b = torch.ones(2, 40, dtype=torch.float64)
    b[1] = 0  # solved before the first step
    conjugate_gradients(lambda x: x * values, lambda x: x, b, range(2))
    (said,) = caplog.messages
    assert "for 1 of 2 vectors" in said
    assert "damping" in said
    caplog.clear()
    found = conjugate_gradients(lambda x: x * values, lambda x: x / values, b, range(2))
    assert_close(found.x, b / values)
    assert not caplog.messages


def test_descent_that_did_not_converge_says_how_much_is_left(caplog):
    values = torch.logspace(0, 6, 40, dtype=torch.float64)
    b = torch.ones(1, 40, dtype=torch.float64)
    found = stochastic_descent(
        [lambda x: x * values] * 8, lambda x: x * values, lambda x: x, b, b, range(8)
    )
    want = (found.x * values - b).norm() / b.norm()
    assert_close(found.residual[0], want)
    assert float(want) > 0.5
    (said,) = caplog.messages
    assert "Stochastic descent did not converge for 1 of 1" in said


@dataclass(frozen=True)
class Third(SingleProcess):
    """The last of three processes, as far as the shares of batches go."""

    rank: int = 2
    size: int = 3


@pytest.mark.parametrize(("examples", "own"), [(10, 0), (13, 1)])
def test_no_process_multiplies_with_a_batch_of_another(examples, own):
    run = perceptron(examples)
    found = CG.prepare(run, LAB)
    last = replace(LAB, ranks=Third())
    shared = replace(found, stream=replace(found.stream, lab=last), lab=last)
    assert len(list(Batches(shared))) == own


def test_self_influence_is_refused_where_processes_would_solve_for_other_examples():
    found = CG.prepare(perceptron(), LAB)
    with pytest.raises(InvalidConfig, match="in 3 processes"):
        replace(found, lab=replace(LAB, ranks=Third())).self_influence()


@pytest.fixture
def solves(monkeypatch):
    """The sizes of the batches of queries that are solved for."""
    sizes, plain = [], attributor.solve

    def counted(found, given, lab):
        sizes.append(len(next(iter(given.values()))))
        return plain(found, given, lab)

    monkeypatch.setattr(attributor, "solve", counted)
    return sizes


@pytest.mark.parametrize("curvature", [Curvature.EKFAC_CG, Curvature.EKFAC_ASTRA])
def test_scores_and_their_shares_by_token_are_of_one_solve(solves, curvature):
    run, asked, rows = decoder(), sentences(3, "queries"), torch.arange(9)
    config = Influence(curvature=curvature, loss=sequence_nats, batch_size=2, iterations=2)
    fresh = config.prepare(run, LAB).by_token(asked, sequence_log_probability, rows)
    assert solves == [2, 1]
    found = config.prepare(run, LAB)
    scores = found(asked, sequence_log_probability).scores
    shares = found.by_token(asked, sequence_log_probability, rows)
    assert solves == [2, 1] * 2
    assert len(found.residuals) == 3
    assert torch.equal(shares, fresh)
    assert_close(shares.sum(2), scores)


def test_other_queries_and_behaviours_are_solved_for(solves):
    run, asked = decoder(), sentences(2, "queries")
    config = replace(CG, loss=sequence_nats, iterations=2)
    found = config.prepare(run, LAB)
    first = found(asked, sequence_log_probability).scores
    assert_close(found(asked, sequence_nats).scores, -first)
    asked["tokens"] = asked["tokens"].flip(0)  # the same dictionary, with other contents
    assert_close(found(asked, sequence_nats).scores, -first.flip(0))
    assert solves == [2] * 3
    other = replace(found, config=replace(config, iterations=0))
    assert not torch.equal(other(asked, sequence_nats).scores, -first.flip(0))


@dataclass(frozen=True)
class Doubled(SingleProcess):
    """The first of two processes, the other of which adds so many times the same."""

    times: int = 1
    size: int = 2

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.times


@pytest.mark.parametrize(("times", "often"), [(2, 1), (1, 2)], ids=["both know", "one knows"])
def test_processes_solve_again_unless_all_know_the_answer(solves, times, often):
    asked, found = images(4, "queries"), replace(CG, iterations=2).prepare(perceptron(), LAB)
    lab = replace(LAB, ranks=Doubled(times=times))
    found = replace(found, lab=lab, stream=replace(found.stream, lab=lab))
    for _ in range(2):
        found.gradients(asked, cross_entropy)
        found.prepare_queries(asked, cross_entropy)
    assert solves == [4] * often


def test_conjugate_gradients_come_nearer_with_a_residual_that_grows():
    matrix = torch.diag(torch.logspace(0, 3, 30, dtype=torch.float64))
    b = torch.randn(1, 30, generator=LAB.child("side").generator(), dtype=torch.float64)
    guess = torch.logspace(0, 1, 30, dtype=torch.float64)  # leaves 100 times b

    def error(passes: int) -> tuple[float, float]:
        found = conjugate_gradients(lambda x: x @ matrix, lambda x: x / guess, b, range(passes))
        away = found.x - b / matrix.diagonal()
        return float((away @ matrix * away).sum()), float(found.residual)

    # the norm in which the method comes nearest, and the Euclidean norm of what is left
    errors, residuals = zip(*map(error, range(12)), strict=True)
    assert list(errors) == sorted(errors, reverse=True)
    assert list(residuals) != sorted(residuals, reverse=True)
    assert residuals[0] > residuals[4] > 1
    said = convergence_sentence(residuals[4:5], 4)
    assert f"up to {residuals[4]:.2g} of its gradient" in said
    assert "not that scores are worse" in said
