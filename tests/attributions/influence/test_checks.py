"""Influence where the answer is known: linear regression, rotated Fisher matrices, brute force by
layer type.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from oracles import gradients as oracle
from torch import Tensor, nn
from torch.testing import assert_close

from unseen.attributions.influence import Curvature, Fisher, Influence, sequence_nats
from unseen.engine.batches import Columns
from unseen.engine.factor_pairs import FactorPair
from unseen.engine.kron import Covariances
from unseen.errors import InvalidConfig, InvalidData, UnseenError
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.objectives import (
    classify,
    correct,
    cross_entropy,
    drawn_classes,
    next_token,
    squared_error,
)
from unseen.task import Axis, Batch, Objective, Split, Task, Use

LAB = Lab(dtype=torch.float64)
EMPIRICAL = Influence(fisher=Fisher.EMPIRICAL, batch_size=5)
EXACTLY = {"rtol": 1e-8, "atol": 1e-12}


def normal(*shape: int, seed: str = "x") -> Tensor:
    return torch.randn(*shape, generator=LAB.child(seed).generator(), dtype=torch.float64)


def whole_numbers(most: int, *shape: int, seed: str = "y") -> Tensor:
    return torch.randint(most, shape, generator=LAB.child(seed).generator())


def task_of(data: Columns, objective: Objective) -> Task:
    return Task(
        name="t", axis=Axis.IID, splits={"train": Split(data, Use.TRAIN)}, objective=objective
    )


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with LAB.child("init").seeded():
        return make().double().eval()


def prediction(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch["x"])[:, 0]


def one_away(model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
    """Targets at ± 1 from the prediction: of unit variance, so that the sampled Fisher of one
    output is X Xᵀ itself.
    """
    sign = 2.0 * torch.randint(2, (len(batch["y"]), 1), generator=generator) - 1
    with torch.no_grad():
        return {**batch, "y": model(batch["x"]) + sign}


def line(n: int) -> tuple[Columns, nn.Linear]:
    """A regression at its optimum."""
    x = normal(n, 4) * torch.tensor([0.3, 1.0, 2.0, 0.7], dtype=torch.float64)
    y = x.sum(1, keepdim=True) + normal(n, 1, seed="noise")
    model = nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    return Columns(x=x, y=y), model.eval()


@pytest.mark.parametrize("curvature", [Curvature.EXACT, Curvature.EKFAC, Curvature.KFAC])
@pytest.mark.parametrize("damping", [0.0, 0.1, 3.0])
def test_linear_regression_has_its_closed_form(curvature, damping):
    data, model = line(40)
    run = Trained(model, task_of(data, Objective(squared_error, squared_error, one_away)))
    asked = {"x": normal(3, 4, seed="queries"), "y": normal(3, 1, seed="targets")}
    config = Influence(curvature=curvature, damping=damping, batch_size=7)
    found = config.prepare(run, LAB)(asked, squared_error).scores
    x, y, w = data.columns["x"], data.columns["y"], model.weight.detach()
    hessian = x.T @ x / 40
    inverse = torch.linalg.inv(
        hessian + damping * hessian.trace() / 4 * torch.eye(4, dtype=torch.float64)
    )
    near, far = (asked["x"] @ w.T - asked["y"]) * asked["x"], (x @ w.T - y) * x
    assert_close(found, -near @ inverse @ far.T / 40, **EXACTLY)


def test_leaving_one_out_is_minus_the_influence_to_first_order():
    data, model = line(400)
    run = Trained(model, task_of(data, Objective(squared_error, squared_error, one_away)))
    asked = {"x": normal(3, 4, seed="queries")}
    found = (
        Influence(curvature=Curvature.EXACT, damping=0.0)
        .prepare(run, LAB)(asked, prediction)
        .scores
    )
    x, y = data.columns["x"], data.columns["y"]
    keep = ~torch.eye(400, dtype=torch.bool)
    without = torch.stack([torch.linalg.lstsq(x[rows], y[rows]).solution[:, 0] for rows in keep])
    change = asked["x"] @ (without - model.weight.detach()).T
    for wanted, seen in zip(change, -found, strict=True):
        assert torch.corrcoef(torch.stack([wanted, seen]))[0, 1] > 0.999
        assert (
            wanted - seen
        ).norm() / wanted.norm() < 0.05  # the next order is the leverage, 4/400 here


class Noted:
    """Draws classes and remembers them."""

    def __init__(self) -> None:
        self.drawn: list[Tensor] = []

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        made = drawn_classes(model, batch, generator)
        self.drawn.append(made["y"])
        return made


@pytest.mark.parametrize("fisher", [Fisher.EMPIRICAL, Fisher.SAMPLED])
def test_eigenvalues_are_the_diagonal_of_the_dense_fisher_in_the_rotated_basis(fisher):
    data, noted = Columns(x=normal(17, 5), y=whole_numbers(3, 17)), Noted()
    model = seeded(lambda: mlp([5, 6, 3]))
    run = Trained(model, task_of(data, replace(classify, relabel=noted)))
    factors = Influence(fisher=fisher, batch_size=6).prepare(run, LAB).factors
    batch = {
        "x": data.columns["x"],
        "y": torch.cat(noted.drawn) if noted.drawn else data.columns["y"],
    }
    assert len(batch["y"]) == 17  # drawn once, and not again for the eigenvalues
    found = oracle.per_example_gradients(model, batch, cross_entropy)
    for name in ("1", "3"):
        block = factors.blocks[name]
        rows = torch.cat([found[f"{name}.weight"], found[f"{name}.bias"][..., None]], 2).flatten(1)
        fisher_matrix, basis = rows.T @ rows / 17, torch.kron(block.left, block.right)
        assert_close(basis.T @ basis, torch.eye(len(basis), dtype=torch.float64))
        want = (basis.T @ fisher_matrix @ basis).diagonal()
        assert_close(block.values.flatten(), want, rtol=1e-6, atol=1e-6 * float(want.mean()))
        assert block.damping == pytest.approx(0.1 * float(want.mean()))


def test_independent_sides_make_the_kronecker_product_the_fisher_matrix():
    """Inputs and output gradients drawn apart: E (s sᵀ) ⊗ (a aᵀ) = S ⊗ A, to sampling error."""

    def pulled(model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch["x"]) * batch["s"]).sum(1)

    n = 20_000
    mix = normal(4, 4, seed="mix")
    data = Columns(
        x=normal(n, 4) @ mix,
        s=normal(n, 3, seed="s") * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64),
    )
    run = Trained(
        seeded(lambda: nn.Linear(4, 3, bias=False)), task_of(data, Objective(pulled, pulled))
    )
    (block,) = (
        replace(EMPIRICAL, batch_size=n, loss=pulled).prepare(run, LAB).factors.blocks.values()
    )
    basis = torch.kron(block.left, block.right)
    rows = (data.columns["s"][:, :, None] * data.columns["x"][:, None]).flatten(1)
    dense, factored = rows.T @ rows / n, basis @ torch.diag(block.values.flatten()) @ basis.T
    assert (dense - factored).norm() / dense.norm() < 5 / n**0.5


class Twice(nn.Module):
    """One layer at two depths."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.shared(torch.tanh(self.shared(x))).relu())


class Text(nn.Module):
    """Embedding, LayerNorm and transformers' `Conv1D`; the head is tied to the embedding."""

    def __init__(self) -> None:
        from transformers.pytorch_utils import Conv1D

        super().__init__()
        self.table, self.norm, self.mix = nn.Embedding(11, 6), nn.LayerNorm(6), Conv1D(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.table(tokens)
        return self.head(h + torch.tanh(self.mix(self.norm(h.cumsum(1)))))


def flat(bias: bool) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5, bias=bias), nn.Tanh(), nn.Linear(5, 3, bias=bias)
    )


def grouped(bias: bool) -> nn.Module:
    first = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=bias)
    return nn.Sequential(
        first, nn.Tanh(), nn.Conv2d(6, 6, 2, groups=6), nn.Flatten(), nn.Linear(24, 3)
    )


IMAGES = {"x": normal(9, 4, 5, 5), "y": whole_numbers(3, 9)}
VECTORS = {"x": normal(9, 6), "y": whole_numbers(3, 9)}
WORDS = {"tokens": whole_numbers(11, 9, 7), "mask": torch.ones(9, 7, dtype=torch.int64)}
KINDS: dict[str, tuple[Callable[[], nn.Module], dict[str, Tensor], tuple[str, ...]]] = {
    "a layer used twice": (Twice, VECTORS, ("*",)),
    "biases": (lambda: flat(True), VECTORS, ("*",)),
    "no biases": (lambda: flat(False), VECTORS, ("*",)),
    "grouped convolutions": (lambda: grouped(True), IMAGES, ("*",)),
    "grouped convolutions without bias": (lambda: grouped(False), IMAGES, ("*",)),
    "transformers' Conv1D": (Text, WORDS, ("mix",)),
    "an embedding that is the head, too": (Text, WORDS, ("table",)),
    "a LayerNorm": (Text, WORDS, ("norm",)),
    "everything of a small language model": (Text, WORDS, ("*",)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_dot_products_equal_one_gradient_at_a_time(kind):
    make, data, layers = KINDS[kind]
    model, is_text = seeded(make), "tokens" in data
    loss = sequence_nats if is_text else cross_entropy
    run = Trained(model, task_of(Columns(**data), next_token if is_text else classify))
    config = Influence(curvature=Curvature.IDENTITY, layers=layers, loss=loss, batch_size=4)
    influences = config.prepare(run, LAB)
    asked = {name: tensor[:3].flip(0) for name, tensor in data.items()}
    names = {n for n, _ in model.named_parameters() if n.rpartition(".")[0] in influences.layers}
    assert names

    def rows(batch: Batch) -> Tensor:
        found = oracle.per_example_gradients(model, batch, loss)
        return oracle.flattened({name: g for name, g in found.items() if name in names})

    want = -rows(asked) @ rows(data).T / 9
    assert_close(influences(asked, loss).scores, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_sum_to_the_score_whatever_the_batches(kind):
    make, data, layers = KINDS[kind]
    model, is_text = seeded(make), "tokens" in data
    loss = sequence_nats if is_text else cross_entropy
    run = Trained(model, task_of(Columns(**data), next_token if is_text else classify))
    asked = {name: tensor[:3] for name, tensor in data.items()}
    config = replace(EMPIRICAL, layers=layers, loss=loss)
    one, other = (replace(config, batch_size=size).prepare(run, LAB) for size in (9, 2))
    scores = one(asked, loss).scores
    assert_close(other(asked, loss).scores, scores, **EXACTLY)
    assert_close(sum(one.by_layer(asked, loss).values()), scores, **EXACTLY)
    assert (scores.diagonal() < 0).all()  # a copy of an example lowers its own loss


def test_tokens_of_padded_sequences_sum_to_the_score():
    data = {
        "tokens": WORDS["tokens"],
        "mask": (torch.arange(7) < torch.arange(3, 12)[:, None]).long(),
    }
    run = Trained(seeded(Text), task_of(Columns(**data), next_token))
    influences = replace(EMPIRICAL, layers=("mix",), loss=sequence_nats).prepare(run, LAB)
    scores = influences(data, sequence_nats).scores
    parts = influences.by_token(data, sequence_nats, torch.arange(9))
    assert_close(parts.sum(2), scores, **EXACTLY)
    assert parts[:, 0, 3:].abs().max() == 0  # nothing is predicted from beyond the mask


def test_screening_finds_the_top_of_all_scores_in_float32():
    x, y = normal(3_000, 20).float(), whole_numbers(3, 3_000)
    with Lab().child("init").seeded():
        model = mlp([20, 30, 3])
    optimiser = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    run = Trained(model.eval(), task_of(Columns(x=x, y=y), classify))
    asked = {"x": normal(40, 20, seed="queries").float(), "y": whole_numbers(3, 40, seed="answers")}
    influences = replace(EMPIRICAL, batch_size=512).prepare(run, Lab())
    scores = influences(asked, cross_entropy).scores
    top = influences.top(asked, cross_entropy, 20)
    near = {"rtol": 1e-3, "atol": 1e-4 * float(scores.abs().max())}
    assert_close(top.scores, scores.topk(20).values, **near)
    assert_close(top.worst_scores, scores.topk(20, largest=False).values, **near)
    hits = (top.index[:, :, None] == scores.topk(20).indices[:, None]).any(2).double().mean()
    assert hits > 0.995  # ties within float32's rounding may change places


def test_a_width_equal_to_the_number_of_positions_hides_no_layer():
    """GPT-2 medium: 1,024 wide, 1,024 positions. Only the vocabulary's table marks the output
    embedding.
    """

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.places = nn.Embedding(11, 6), nn.Embedding(6, 6)
            self.up, self.down, self.head = (
                nn.Linear(6, 12),
                nn.Linear(12, 6),
                nn.Linear(6, 11, bias=False),
            )

        def forward(self, tokens: Tensor) -> Tensor:
            h = self.table(tokens) + self.places(torch.arange(tokens.shape[1]).expand_as(tokens))
            return self.head(h + self.down(self.up(h).relu()))

    data = {name: tensor[:, :6] for name, tensor in WORDS.items()}
    run = Trained(seeded(Small), task_of(Columns(**data), next_token))
    assert set(replace(EMPIRICAL, loss=sequence_nats).prepare(run, LAB).layers) == {"up", "down"}


def vectors() -> Trained:
    return Trained(seeded(lambda: flat(True)), task_of(Columns(**VECTORS), classify))


def test_a_model_without_trainable_parameters_is_refused():
    run = vectors()
    run.model.requires_grad_(False)
    with pytest.raises(InvalidConfig, match="no trainable parameter"):
        EMPIRICAL.prepare(run, LAB)


class Idle(nn.Module):
    """One of two layers is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@pytest.mark.parametrize("layers", [("idle",), ("used", "idle")])
def test_a_layer_that_the_loss_does_not_reach_is_refused(layers):
    run = Trained(seeded(Idle), task_of(Columns(**VECTORS), classify))
    with pytest.raises(UnseenError, match=r"idle|does not depend"):
        replace(EMPIRICAL, layers=layers).prepare(run, LAB)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_names_the_layer(value):
    data = {name: tensor.clone() for name, tensor in VECTORS.items()}
    data["x"][7, 2] = value
    run = Trained(seeded(lambda: flat(True)), task_of(Columns(**data), classify))
    with pytest.raises(InvalidData, match=r"layer `[13]`"):
        EMPIRICAL.prepare(run, LAB)


@pytest.mark.parametrize("break_it", ["nan", "mean", "empty"])
def test_queries_that_cannot_be_scored_are_refused(break_it):
    influences, asked = (
        EMPIRICAL.prepare(vectors(), LAB),
        {name: tensor[:3].clone() for name, tensor in VECTORS.items()},
    )
    behaviour = cross_entropy
    if break_it == "nan":
        asked["x"][1, 0] = torch.nan
    elif break_it == "mean":
        behaviour = lambda m, b: correct(m, b).mean()  # noqa: E731
    else:
        asked = {name: tensor[:0] for name, tensor in asked.items()}
    with pytest.raises(UnseenError):
        influences(asked, behaviour)


def test_more_than_there_is_gives_all_there_is():
    top = EMPIRICAL.prepare(vectors(), LAB).top(
        {name: tensor[:2] for name, tensor in VECTORS.items()}, cross_entropy, 50
    )
    assert top.index.shape == (2, 9)
    assert torch.equal(top.index.sort(1).values, torch.arange(9).expand(2, 9))


def test_negative_eigenvalues_are_set_to_zero_and_counted(caplog):
    sums = Covariances()
    sums.add(FactorPair(normal(4, 1, 3), normal(4, 1, 2, seed="g")), None)
    assert sums.right is not None
    sums.right -= 2.0 * torch.eye(3, dtype=torch.float64) * torch.linalg.eigvalsh(sums.right)[1]
    with caplog.at_level(logging.INFO, "unseen.kron"):
        block = sums.basis("broken")
    assert "broken" in caplog.text
    assert " 2 negative" in caplog.text
    assert (block.values >= 0).all()
