"""Nested learners against torch's own autograd and optimizer, and nested markets against flat."""

import math

import pytest
import torch
from torch import nn

from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer, WiringError
from unseen.models.nested.learner import Descent, chain, cost, layer, requesting, supervise
from unseen.models.nested.machine import connect, moore, run, step
from unseen.models.nested.market import market
from unseen.models.nested.wiring import Interface, Space, Symbols, Wiring

CLASSES = Symbols(tuple(range(10)))


def blocks(kind: torch.dtype) -> list[nn.Module]:
    torch.manual_seed(0)
    modules = [
        nn.Sequential(nn.Linear(784, 64), nn.ReLU()),
        nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64), nn.Tanh()),
        nn.Linear(64, 10),
    ]
    return [module.to(kind) for module in modules]


def batches(kind: torch.dtype, steps: int = 100) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [
        {
            "x": torch.randn(32, 784, generator=draw, dtype=torch.float64).to(kind),
            "target": torch.randint(10, (32,), generator=draw),
        }
        for _ in range(steps)
    ]


def descend(modules, stream, loss, **options) -> None:
    """torch's own training, in place."""
    net = nn.Sequential(*modules)
    optimizer = torch.optim.SGD(net.parameters(), **options)
    for batch in stream:
        optimizer.zero_grad()
        loss(net(batch["x"]), batch["target"]).backward()
        optimizer.step()


def weights(state, *path: str) -> dict[str, torch.Tensor]:
    for box in path:
        state = state.boxes[box]
    return state.weights


@pytest.mark.parametrize(("kind", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_layers_nested_in_a_learner_equal_autograd_after_100_steps(kind, within, momentum):
    first, second, third = blocks(kind)
    descent = Descent(0.05, momentum)
    end = cost(nn.functional.cross_entropy, (10,), CLASSES)
    body = chain(second=layer(second, (64,), descent), third=layer(third, (64,), descent))
    learner = supervise(chain(first=layer(first, (784,), descent), body=body), end)
    stream = batches(kind)
    (*_, (_, state)) = run(learner, stream)
    descend([first, second, third], stream, nn.functional.cross_entropy, lr=0.05, momentum=momentum)
    for module, path in ((first, ("first",)), (second, ("body", "second")),
                         (third, ("body", "third"))):  # fmt: skip
        for name, value in weights(state, "learner", *path).items():
            assert (value - module.get_parameter(name)).abs().max() <= within


def test_values_that_are_passed_back_give_the_same_weights_as_gradients():
    """Requests (Fong, Spivak & Tuyéras) under ½‖y − wanted‖², a layer at a time."""
    first, second, third = blocks(torch.float64)
    descent = Descent(0.01)
    stream = [
        {"x": batch["x"], "wanted": batch["x"][:, :10]} for batch in batches(torch.float64, 5)
    ]
    learner = requesting(
        chain(a=layer(first, (784,), descent), b=layer(second, (64,), descent),
              c=layer(third, (64,), descent))
    )  # fmt: skip
    (*_, (shown, state)) = run(learner, stream)
    assert shown["request"].shape == (32, 784)

    def half_square(y, wanted):
        return (y - wanted).square().sum() / 2

    reference = [{"x": batch["x"], "target": batch["wanted"]} for batch in stream]
    descend([first, second, third], reference, half_square, lr=0.01)
    found = weights(state, "learner", "c")
    assert (found["weight"] - third.weight).abs().max() <= 1e-12


def test_requests_in_series_are_the_request_of_the_series():
    """The wanted output of a layer is what the next one requests."""
    first, second, _ = blocks(torch.float64)
    descent = Descent(0.01)
    machines = [layer(first, (784,), descent), layer(second, (64,), descent)]
    whole = requesting(chain(a=machines[0], b=machines[1]))
    parts = {name: requesting(machine) for name, machine in zip("ab", machines, strict=True)}
    series = connect(
        Wiring(
            {name: part.interface for name, part in parts.items()},
            whole.interface,
            {"a.x": "x", "b.x": "a.y", "b.wanted": "wanted", "a.wanted": "b.request",
             "y": "b.y", "request": "a.request"},
        ),
        parts,
    )  # fmt: skip
    x = batches(torch.float64, 1)[0]["x"]
    inputs = {"x": x, "wanted": x[:, :64]}
    (left, state), (right, other) = (step(m, m.start, inputs) for m in (whole, series))
    assert (left["request"] - right["request"]).abs().max() <= 1e-12
    a, b = weights(state, "learner", "a"), weights(other, "a", "learner")
    assert all((a[name] - b[name]).abs().max() <= 1e-12 for name in a)


def test_nothing_is_changed_in_place_and_a_layer_without_weights_passes_gradients():
    module = nn.Linear(3, 3)
    before = module.weight.clone()
    learner = supervise(
        chain(a=layer(module, (3,), Descent(0.1)), b=layer(nn.ReLU(), (3,), Descent(0.1))),
        cost(nn.functional.mse_loss, (3,), Space((3,))),
    )
    inputs = {"x": torch.ones(2, 3), "target": torch.zeros(2, 3)}
    _, state = step(learner, learner.start, inputs)
    _, once_more = step(learner, learner.start, inputs)
    assert torch.equal(module.weight, before)
    moved = weights(state, "learner", "a")["weight"]
    assert torch.equal(moved, weights(once_more, "learner", "a")["weight"])
    assert not torch.equal(moved, before)


def test_layers_that_do_not_fit_are_refused_before_anything_runs():
    descent = Descent(0.1)
    with pytest.raises(WiringError, match=r"Box `a`, input `dy`.*shape 4, and box `b`.*shape 7"):
        chain(a=layer(nn.Linear(5, 4), (5,), descent), b=layer(nn.Linear(7, 1), (7,), descent))
    with pytest.raises(UnsupportedLayer, match="running_mean"):
        layer(nn.BatchNorm1d(3), (3,), descent)


def expert(*probabilities: float):
    fixed = torch.tensor(probabilities, dtype=torch.float64)
    shows = Interface(outputs={"p": Space((len(probabilities),))})
    return moore(shows, None, lambda _: {"p": fixed}, lambda *_: None)


def trade(top, diagrams, machines, outcomes):
    """Prices of a market whose experts stand in boxes, `diagrams` wiring them."""
    wires = {f"market.{box}": f"{box}.{port}" for box, port in diagrams.items()}
    shared = {f"{box}.outcome": "outcome" for box, port in diagrams.items() if port == "price"}
    outer = Interface({"outcome": top.interface.inputs["outcome"]}, {"price": Space((3,))})
    boxes = machines | {"market": top}
    wiring = Wiring(
        {name: machine.interface for name, machine in boxes.items()},
        outer,
        wires | shared | {"market.outcome": "outcome", "price": "market.price"},
    )
    return connect(wiring, boxes)


def test_a_market_of_markets_is_the_flat_market_and_regrets_at_most_log_k():
    probabilities = {"a": (0.7, 0.2, 0.1), "b": (0.1, 0.8, 0.1), "c": (0.3, 0.3, 0.4)}
    experts = {name: expert(*p) for name, p in probabilities.items()}
    outcomes = torch.randint(3, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    inner = trade(market(("a", "b"), 3, (0.25, 0.75)), {"a": "p", "b": "p"},
                  {name: experts[name] for name in "ab"}, outcomes)  # fmt: skip
    nested = trade(market(("pair", "c"), 3, (0.6, 0.4)), {"pair": "price", "c": "p"},
                   {"pair": inner, "c": experts["c"]}, outcomes)  # fmt: skip
    flat = trade(market("abc", 3, (0.15, 0.45, 0.4)), dict.fromkeys("abc", "p"), experts, outcomes)
    stream = [{"outcome": outcome} for outcome in outcomes]
    loss = 0.0
    for (one, inside), (other, outside), outcome in zip(
        run(nested, stream), run(flat, stream), outcomes, strict=True
    ):
        assert (one["price"] - other["price"]).abs().max() <= 1e-12
        pair, c = inside.boxes["market"]
        a, b = inside.boxes["pair"].boxes["market"]
        flat_wealth = outside.boxes["market"]
        assert (torch.stack([pair * a, pair * b, c]) - flat_wealth).abs().max() <= 1e-12
        assert float(flat_wealth.sum()) == pytest.approx(1, abs=1e-12)
        loss -= math.log(one["price"][outcome])
    best = min(-sum(math.log(p[o]) for o in outcomes) for p in probabilities.values())
    assert loss - best <= -math.log(0.15)
    with pytest.raises(InvalidConfig, match="no distribution over 2 experts"):
        market(("a", "b"), 3, (1.0, 0.0))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_frozen_parameters_stay_and_pass_gradients_on(momentum):
    torch.manual_seed(0)
    modules = [nn.Linear(3, 4).double(), nn.Linear(4, 4).double(), nn.Linear(4, 2).double()]
    modules[0].weight.requires_grad_(False)
    modules[1].requires_grad_(False)
    learner = supervise(
        chain(**{
            name: layer(module, (module.in_features,), Descent(0.1, momentum))
            for name, module in zip("abc", modules, strict=True)
        }),
        cost(nn.functional.mse_loss, (2,), Space((2,))),
    )  # fmt: skip
    draw = torch.Generator().manual_seed(1)
    stream = [
        {name: torch.randn(5, d, generator=draw).double() for name, d in (("x", 3), ("target", 2))}
        for _ in range(5)
    ]
    *_, (_, state) = run(learner, stream)
    descend(modules, stream, nn.functional.mse_loss, lr=0.1, momentum=momentum)
    for name, module in zip("abc", modules, strict=True):
        for key, value in module.named_parameters():
            found = weights(state, "learner", name)[key]
            torch.testing.assert_close(found, value.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("outcome", [-1, 2, 7])
def test_an_outcome_that_the_market_does_not_know_is_refused(outcome):
    top = market(("a", "b"), 2)
    shares = torch.tensor([0.5, 0.5], dtype=torch.float64)
    with pytest.raises(InvalidData, match=f"Outcome {outcome} is none of 0 to 1"):
        step(top, top.start, {"a": shares, "b": shares, "outcome": outcome})


def test_an_outcome_that_no_expert_held_possible_is_refused():
    top = market(("a", "b"), 2)
    sure = torch.tensor([0.0, 1.0], dtype=torch.float64)
    with pytest.raises(InvalidData, match="price of outcome 0 is 0"):
        step(top, top.start, {"a": sure, "b": sure, "outcome": 0})


@pytest.mark.parametrize("shares", [(float("nan"), 0.5), (0.5, float("nan"))])
def test_wealth_that_is_not_a_number_is_refused(shares):
    with pytest.raises(InvalidConfig, match="no distribution over 2 experts"):
        market(("a", "b"), 2, shares)
