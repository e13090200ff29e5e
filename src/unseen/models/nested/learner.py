"""Learners: machines whose state is a set of weights and whose wires also carry gradients back.

A layer takes `x` and shows `y`; it takes `dy`, the gradient of some loss with respect to `y`, shows
`dx` = (∂f/∂x)ᵀ dy, and its next weights are a step down (∂f/∂θ)ᵀ dy. Layers in series are
backpropagation. The form of Fong, Spivak & Tuyéras (2019, "Backprop as functor", arXiv:1711.10455)
passes values back instead: a layer is shown the output that is wanted of it and requests another
input. It is a wiring of the first (`requesting`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unseen.errors import UnsupportedLayer
from unseen.models.nested.machine import Machine, Pull, Values, connect, function
from unseen.models.nested.wiring import Interface, Space, Type, Wiring

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Descent:
    """θ ← θ − lr · m with m ← momentum · m + ∇, as `torch.optim.SGD`."""

    lr: float
    momentum: float = 0.0

    def start(self, weights: Weights) -> "LayerState":
        zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
        return LayerState(weights, zeros if self.momentum else {})

    def update(self, state: "LayerState", gradients: Weights) -> "LayerState":
        """One step; weights without a gradient stay."""
        moves = gradients
        if self.momentum:
            moves = {name: self.momentum * state.moves[name] + g for name, g in gradients.items()}
        moved = {
            name: torch.add(state.weights[name], move, alpha=-self.lr)
            for name, move in moves.items()
        }
        return LayerState(
            {**state.weights, **moved}, {**state.moves, **moves} if self.momentum else {}
        )


@dataclass(frozen=True)
class LayerState:
    """The weights of a layer and, with momentum, its running sums of gradients."""

    weights: Weights
    moves: Weights


def layer(module: nn.Module, takes: tuple[int, ...], descent: Descent) -> Machine:
    """A learner whose function is a module's, on inputs of shape `takes`; the module stays as it
    is, its weights are the first state. Parameters that require no gradient are not moved.
    """
    if buffers := [name for name, _ in module.named_buffers()]:
        raise UnsupportedLayer(
            f"{type(module).__name__} keeps {', '.join(buffers)} beside its weights.",
            why="a module that changes itself is no function of its weights and input.",
            fix="use a layer without running statistics, such as LayerNorm or GroupNorm.",
        )
    weights = {name: value.detach().clone() for name, value in module.named_parameters()}
    space, shown = Space(takes), Space(output_shape(module, takes))
    interface = Interface(
        inputs={"x": space, "dy": Space(shown.shape, dual=True)},
        outputs={"y": shown, "dx": Space(space.shape, dual=True)},
        needs={"y": frozenset({"x"}), "dx": frozenset({"x", "dy"})},
    )
    return Machine(
        interface, descent.start(weights), lambda state: _LayerResponse(module, descent, state)
    )


def output_shape(module: nn.Module, takes: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a module's answer to one input, found without computing it."""
    weights = {name: value.to("meta") for name, value in module.named_parameters()}
    kind = next((value.dtype for value in weights.values()), torch.float32)
    with torch.no_grad():
        example = torch.empty(1, *takes, dtype=kind, device="meta")
        return tuple(functional_call(module, weights, example).shape[1:])


class _LayerResponse:
    """One forward pass, when `y` is wanted; one backward pass for weights and, if wanted, `x`."""

    def __init__(self, module: nn.Module, descent: Descent, state: LayerState) -> None:
        self.module, self.descent, self.state = module, descent, state
        self.graph: _Graph | None = None
        self.gradients: Sequence[Tensor] | None = None

    def forward(self, x: Tensor) -> "_Graph":
        if self.graph is None:
            leaf = x.detach().requires_grad_(x.is_floating_point())
            weights = {
                name: value.detach().requires_grad_(self.module.get_parameter(name).requires_grad)
                for name, value in self.state.weights.items()
            }
            with torch.enable_grad():
                self.graph = _Graph(leaf, weights, functional_call(self.module, weights, leaf))
        return self.graph

    def output(self, port: str, pull: Pull) -> Tensor:
        graph = self.forward(pull("x"))
        if port == "y":
            return graph.y.detach()
        leaves = (graph.x, *graph.trainable.values())
        dx, *self.gradients = torch.autograd.grad(graph.y, leaves, pull("dy"), retain_graph=True)
        return dx

    def update(self, inputs: Values) -> LayerState:
        graph = self.forward(inputs["x"])
        if not graph.trainable:
            return self.state
        if self.gradients is None:  # nobody asked for dx: the first layer of a network
            leaves = list(graph.trainable.values())
            self.gradients = torch.autograd.grad(graph.y, leaves, inputs["dy"])
        gradients = dict(zip(graph.trainable, self.gradients, strict=True))
        return self.descent.update(self.state, gradients)


@dataclass(frozen=True)
class _Graph:
    """One evaluation of a layer, with the leaves that it can be differentiated by."""

    x: Tensor
    weights: Weights
    y: Tensor

    @property
    def trainable(self) -> Weights:
        """Those that are not frozen."""
        return {name: value for name, value in self.weights.items() if value.requires_grad}


def cost(loss: Callable[[Tensor, Any], Tensor], shape: tuple[int, ...], target: Type) -> Machine:
    """The end of a chain: takes `y` and `target`, shows the `loss` and its gradient `dy`."""

    def gradient(y: Tensor, target: Any) -> Tensor:
        leaf = y.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(loss(leaf, target), leaf)[0]

    interface = Interface(
        inputs={"y": Space(shape), "target": target},
        outputs={"loss": Space(()), "dy": Space(shape, dual=True)},
    )
    return function(interface, loss=lambda y, target: loss(y.detach(), target), dy=gradient)


def chain(**layers: Machine) -> Machine:
    """Learners in series, itself a learner: values go forward, gradients back."""
    names = list(layers)
    first, last = layers[names[0]].interface, layers[names[-1]].interface
    wires = {f"{names[0]}.x": "x", f"{names[-1]}.dy": "dy"}
    wires |= {"y": f"{names[-1]}.y", "dx": f"{names[0]}.dx"}
    for before, after in pairwise(names):
        wires |= {f"{after}.x": f"{before}.y", f"{before}.dy": f"{after}.dx"}
    outer = Interface(
        inputs={"x": first.inputs["x"], "dy": last.inputs["dy"]},
        outputs={"y": last.outputs["y"], "dx": first.outputs["dx"]},
    )
    boxes = {name: machine.interface for name, machine in layers.items()}
    return connect(Wiring(boxes, outer, wires), layers)


def supervise(learner: Machine, end: Machine) -> Machine:
    """A learner and a cost: takes `x` and `target`, shows `y` and the `loss`, and learns."""
    boxes = {"learner": learner.interface, "cost": end.interface}
    outer = Interface(
        inputs={"x": learner.interface.inputs["x"], "target": end.interface.inputs["target"]},
        outputs={"y": learner.interface.outputs["y"], "loss": end.interface.outputs["loss"]},
    )
    wires = {
        "learner.x": "x",
        "cost.y": "learner.y",
        "cost.target": "target",
        "learner.dy": "cost.dy",
        "y": "learner.y",
        "loss": "cost.loss",
    }
    return connect(Wiring(boxes, outer, wires), {"learner": learner, "cost": end})


def requesting(learner: Machine) -> Machine:
    """The form that passes values back, for the loss ½‖y − wanted‖²: takes `x` and `wanted`, shows
    `y` and requests the input x − dx.
    """
    space, shown = learner.interface.inputs["x"], learner.interface.outputs["y"]
    assert isinstance(space, Space)
    assert isinstance(shown, Space)
    error = function(
        Interface({"y": shown, "wanted": shown}, {"dy": Space(shown.shape, dual=True)}),
        dy=lambda y, wanted: y - wanted,
    )
    request = function(
        Interface({"x": space, "dx": Space(space.shape, dual=True)}, {"request": space}),
        request=lambda x, dx: x - dx,
    )
    boxes = {"error": error, "learner": learner, "request": request}
    diagram = Wiring(
        {name: machine.interface for name, machine in boxes.items()},
        Interface({"x": space, "wanted": shown}, {"y": shown, "request": space}),
        {
            "learner.x": "x",
            "error.y": "learner.y",
            "error.wanted": "wanted",
            "learner.dy": "error.dy",
            "request.x": "x",
            "request.dx": "learner.dx",
            "y": "learner.y",
            "request": "request.request",
        },
    )
    return connect(diagram, boxes)
