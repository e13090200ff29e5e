"""One forward and one backward pass read layer by layer: per-example gradients of every trainable parameter, as factors.

While a layer runs, its own parameters ask for no gradient, so the backward pass computes gradients of the layers'
outputs only: the ordinary weight gradients cost nothing because they are never made. A parameter that still turns up in
the graph was used outside its own layer, and is refused.

Dropout in training mode is allowed: the gradients are those of the masks that were drawn.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from unseen.engine.batches import size
from unseen.engine.flat import trainable
from unseen.engine.forms import Form, Whole, merged
from unseen.engine.layers import forms as forms
from unseen.engine.layers import forms_of, own_parameters
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.task import Batch, PerExample


def tap(model: nn.Module, batch: Batch, f: PerExample) -> dict[str, Form]:
    """The gradient of f(model, example) with respect to each trainable parameter, for every example of the batch.

    The model, its mode, `requires_grad` and `.grad` are left as they were, also after an error.
    """
    parameters = trainable(model)
    _refuse_mixing(model)
    recorder = _Recorder(model, batch)
    with torch.enable_grad(), recorder.listening():
        values = f(model, batch)
        _refuse_aggregate(values, recorder.n, parameters)
        backs = recorder.backward(values, parameters)
        recorder.refuse_accidents(f, batch)
    names = {id(p): name for name, p in parameters.items()}
    found: dict[str, list[Form]] = {name: [] for name in parameters}
    for call, back in zip(recorder.calls, backs, strict=True):
        if back is not None:
            for own, form in forms_of(call.layer, call.x, back, call.name).items():
                found[names[id(getattr(call.layer, own))]].append(form)
    return {name: merged(parts) if parts else _none(parameters[name], recorder.n) for name, parts in found.items()}


@dataclass(frozen=True, eq=False)
class _Call:
    """One run of a layer: what it saw, and where in the graph the gradient of its output will arrive."""

    name: str
    layer: nn.Module
    x: Tensor
    version: int
    edge: GradientEdge
    order: int
    doubtful: bool


class _Root(torch.autograd.Function):
    """Starts the graph at the output of a layer without copying it, so that it may still be changed in place."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *back: Tensor) -> tuple[None, None]:
        return None, None


class _Recorder:
    """Hooks on the layers that own trainable parameters."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.model, self.n = model, size(batch)
        self.storages = {tensor.untyped_storage().data_ptr() for tensor in batch.values()}
        self.names = {layer: name for name, layer in model.named_modules() if own_parameters(layer)}
        self.own = {layer: list(own_parameters(layer).values()) for layer in self.names}
        self.anchor = torch.zeros((), requires_grad=True)
        self.calls: list[_Call] = []
        self.sizes: list[int] | None = None
        self.order = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        handles: list[Any] = []
        try:
            for layer in self.names:
                handles.append(layer.register_forward_pre_hook(self._enter))
                handles.append(layer.register_forward_hook(self._leave, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for layer in self.names:
                self._ask(layer, True)

    def _ask(self, layer: nn.Module, gradient: bool) -> None:
        for p in self.own[layer]:
            p.requires_grad_(gradient)

    def _enter(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        self._ask(layer, False)

    def _leave(self, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Tensor | None:
        self._ask(layer, True)
        self.order += 1
        if self.sizes is not None:
            self.sizes.append(len(output))
            return None
        if not torch.is_grad_enabled():  # nothing flows back from here: the gradient is zero
            return None
        inputs = [value for value in (*args, *kwargs.values()) if value is not None]
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            raise self._unsupported(
                layer,
                f"has {len(inputs)} inputs and returns a {type(output).__name__}",
                "its gradient is read from one input tensor and one output tensor.",
                "freeze its parameters, or write it with layers of one input and one output.",
            )
        return self._record(layer, inputs[0], output)

    def _record(self, layer: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        seen = (x.shape[:1], output.shape[:1])
        if seen == ((1,), (1,)) and self.n > 1:  # positions shared by all examples
            x = x.expand(self.n, *x.shape[1:])
            output = output.expand(self.n, *output.shape[1:]).clone()
        elif seen != ((self.n,), (self.n,)):
            raise self._unsupported(
                layer,
                f"maps {tuple(x.shape)} to {tuple(output.shape)} in a batch of {self.n}",
                "the first axis must be the examples, or of size 1, to tell whose gradient is whose.",
                "let the layer run on [batch, …] (for positions: [1, …]).",
            )
        known = seen[0] != (self.n,) or x.requires_grad or x.untyped_storage().data_ptr() in self.storages
        doubtful = self.n > 1 and (not known or self.n in output.shape[1:-1])
        if not output.requires_grad:
            output = _Root.apply(x.clone() if output is x else output, self.anchor)
        edge = get_gradient_edge(output)
        self.calls.append(_Call(self.names[layer], layer, x.detach(), x._version, edge, self.order - 1, doubtful))
        return output

    def backward(self, values: Tensor, parameters: Mapping[str, Tensor]) -> list[Tensor | None]:
        """The gradients of Σ f with respect to the recorded outputs; none may reach a parameter directly."""
        edges = [call.edge for call in self.calls]
        ends: list[Any] = [*edges, *parameters.values()]
        grads = torch.autograd.grad(values.sum(), ends, allow_unused=True)
        for name, grad in zip(parameters, grads[len(edges) :], strict=True):
            if grad is not None:
                raise UnsupportedLayer(
                    f"Parameter `{name}` is used outside the forward pass of its own layer.",
                    why="its per-example gradient cannot be read from that layer's input and output.",
                    fix="call the layer instead of reading its weight, or freeze the parameter.",
                )
        for call in self.calls:
            if call.x._version != call.version:
                raise self._unsupported(
                    call.layer,
                    "has an input that was changed in place later",
                    "the gradient needs the input as the layer saw it.",
                    "use the out-of-place operation.",
                )
        return list(grads[: len(edges)])

    def refuse_accidents(self, f: PerExample, batch: Batch) -> None:
        """A first axis may equal the batch size by accident (sequence first, positions): one example alone shows it."""
        if not any(call.doubtful for call in self.calls):
            return
        self.sizes, self.order = [], 0
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            f(self.model, {name: tensor[:1] for name, tensor in batch.items()})
        for call in self.calls:
            if call.doubtful and self.sizes[call.order] != 1:
                raise self._unsupported(
                    call.layer,
                    f"keeps a first axis of {self.sizes[call.order]} when the batch has one example",
                    "its first axis is not the examples, and equals the batch size by accident.",
                    "let the layer run on [batch, …] (for positions: [1, …]).",
                )

    def _unsupported(self, layer: nn.Module, what: str, why: str, fix: str) -> UnsupportedLayer:
        return UnsupportedLayer(f"{type(layer).__name__} `{self.names[layer]}` {what}.", why=why, fix=fix)


def _refuse_mixing(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        by_batch = isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None)
        learning = isinstance(layer, _NormBase) and layer.training and layer.track_running_stats
        if by_batch or learning:
            raise UnsupportedLayer(
                f"{type(layer).__name__} `{name}` is in training mode.",
                why="it mixes the examples of a batch, so a per-example gradient does not exist.",
                fix="call model.eval(), or replace it by GroupNorm or LayerNorm.",
            )


def _refuse_aggregate(values: Any, n: int, parameters: Mapping[str, Tensor]) -> None:
    if not isinstance(values, Tensor) or values.shape != (n,):
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InvalidData(
            f"f returned {shape} for a batch of {n} examples; one number per example is needed, shape ({n},).",
            why="a loss already averaged or summed over the batch has no per-example gradients.",
            fix='return the loss of each example, for example F.cross_entropy(…, reduction="none").',
        )
    if not parameters or not values.requires_grad:
        raise InvalidData(
            "f does not depend on any trainable parameter of the model.",
            why="every gradient would be empty.",
            fix="set requires_grad on the parameters of interest, and do not detach inside f.",
        )


def _none(p: Tensor, n: int) -> Whole:
    """The gradient of a parameter on which f does not depend: zeros that take no memory."""
    return Whole(p.new_zeros(()).expand(n, p.numel()), p.shape)
