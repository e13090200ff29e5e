"""One forward and one backward pass read layer by layer: per-example gradients of every trainable
parameter, as factors.

While a layer runs, its own parameters ask for no gradient, so the backward pass computes gradients
of the layers' outputs only: the ordinary weight gradients cost nothing because they are never made.
A parameter that still turns up in the graph was used outside its own layer, and is refused.

Dropout in training mode is allowed: the gradients are those of the masks that were drawn.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from unseen.engine.batches import size
from unseen.engine.gradient_factors import FullGradient, GradientFactor, sum_factors
from unseen.engine.layers import direct_parameters, forms_of
from unseen.engine.layers import forms as forms
from unseen.engine.parameters import trainable
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.task import Batch, PerExample

T = TypeVar("T")


def tap(model: nn.Module, batch: Batch, f: PerExample) -> dict[str, GradientFactor]:
    """The gradient of f(model, example) with respect to each trainable parameter, for every example
    of the batch.

    The model, its mode, `requires_grad` and `.grad` are left as they were, also after an error.
    """
    return tap_and_reduce(model, batch, f, lambda name, form: form)


def tap_and_reduce(
    model: nn.Module, batch: Batch, f: PerExample, by: Callable[[str, GradientFactor], T]
) -> dict[str, T]:
    """`by` of each parameter's name and form, taken as soon as the backward pass has it; then the
    form is dropped.

    For what is summed over a stream: one layer's factors are in memory at a time, and still in the
    cache.
    """
    parameters = trainable(model)
    _refuse_mixing(model)
    batch = {name: tensor.detach() for name, tensor in batch.items()}
    recorder = _Recorder(model, batch)
    try:
        with torch.enable_grad():
            with recorder.listening():
                # the hooks freeze each layer while it runs, so that autograd builds no parameter
                # gradients
                values = f(model, batch)
                _refuse_aggregate(values, recorder.n, parameters)
                recorder.refuse_accidents(f, batch)
            harvest = _Harvest(recorder, parameters, by)
            harvest.backward(values)
        return {
            name: harvest.made[name] if name in harvest.made else harvest.reduce(name)
            for name in parameters
        }
    finally:
        recorder.release()


@dataclass(eq=False)
class _Call:
    """One run of a layer: what it saw, and the node of the graph at which the gradient of its
    output arrives.
    """

    name: str
    layer: nn.Module
    x: Tensor | None
    version: int
    node: Any
    order: int
    doubtful: bool
    sink: "Callable[[_Call, Tensor], None] | None" = None

    def receive(self, back: Tensor) -> None:
        if self.sink is not None:
            self.sink(self, back)

    def forms(self, back: Tensor) -> dict[str, GradientFactor]:
        """The forms of the layer's own parameters; the input is let go."""
        assert self.x is not None
        if self.x._version != self.version:
            raise UnsupportedLayer(
                f"{type(self.layer).__name__} `{self.name}` has an input that was changed in place "
                "later.",
                why="the gradient needs the input as the layer saw it.",
                fix="use the out-of-place operation.",
            )
        made = forms_of(self.layer, self.x, back, self.name)
        self.x = None
        return made


class _Harvest(Generic[T]):
    """Forms as the backward pass brings them; a parameter is reduced when the last call of its
    layers has come in.
    """

    def __init__(
        self,
        recorder: "_Recorder",
        parameters: Mapping[str, nn.Parameter],
        by: Callable[[str, GradientFactor], T],
    ) -> None:
        self.recorder, self.parameters, self.by = recorder, parameters, by
        self.names = {id(p): name for name, p in parameters.items()}
        self.parts: dict[str, list[GradientFactor]] = {name: [] for name in parameters}
        self.made: dict[str, T] = {}
        # a layer that is called twice delivers its forms twice: a parameter is ready after the last
        self.waiting = Counter(
            self.names[id(p)] for call in recorder.calls for p in recorder.own[call.layer]
        )

    def arrive(self, call: _Call, back: Tensor) -> None:
        for own, form in call.forms(back).items():
            name = self.names[id(getattr(call.layer, own))]
            self.parts[name].append(form)
            self.waiting[name] -= 1
            if not self.waiting[name]:
                self.made[name] = self.reduce(name)

    def reduce(self, name: str) -> T:
        """`by` of the sum of a parameter's forms; without any f does not depend on it, and the
        gradient is zero.
        """
        parts, p = self.parts.pop(name), self.parameters[name]
        zero = p.detach().new_zeros(()).expand(self.recorder.n, p.numel())  # takes no memory
        return self.by(name, sum_factors(parts) if parts else FullGradient(zero, p.shape))

    def backward(self, values: Tensor) -> None:
        """The backward pass of Σ f to the outputs of the first layers; it may reach no parameter
        directly.
        """
        for call in self.recorder.calls:
            call.sink = self.arrive
        # parameters are asked for as well, to notice one that is used behind the hooks' back
        ends = [self.recorder.anchor, *self.parameters.values()]
        grads = torch.autograd.grad(values.sum(), ends, allow_unused=True)
        for name, grad in zip(self.parameters, grads[1:], strict=True):
            if grad is not None:
                raise UnsupportedLayer(
                    f"Parameter `{name}` is used outside the forward pass of its own layer.",
                    why="its per-example gradient cannot be read from that layer's input and "
                    "output.",
                    fix="call the layer instead of reading its weight, or freeze the parameter.",
                )
        # calls whose gradient never came although the output depends on them
        silent = {call.node: call for call in self.recorder.calls if call.x is not None}
        for node in _reachable(values.grad_fn) if silent else ():
            if node in silent:
                raise UnsupportedLayer(
                    f"The output of `{silent[node].name}` depends on a tensor that requires "
                    "gradients and is no parameter.",
                    why="the backward pass of the parameters does not go through it.",
                    fix="detach the tensor that f brings in.",
                )


def _reachable(node: Any) -> Iterator[Any]:
    """The nodes of the graph behind a node."""
    seen, stack = set(), [node]
    while stack:
        if (node := stack.pop()) is not None and node not in seen:
            seen.add(node)
            yield node
            stack.extend(step[0] for step in node.next_functions)


class _Root(torch.autograd.Function):
    """Starts the graph at the output of a layer without copying it, so that it may still be changed
    in place.
    """

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
        self.names = {
            layer: name for name, layer in model.named_modules() if direct_parameters(layer)
        }
        self.own = {layer: list(direct_parameters(layer).values()) for layer in self.names}
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

    def release(self) -> None:
        """Lets go of the graph: node → hook → call → node is a circle through C++, which Python
        never collects.
        """
        for call in self.calls:
            call.x = call.node = call.sink = None

    def _ask(self, layer: nn.Module, gradient: bool) -> None:
        for p in self.own[layer]:
            p.requires_grad_(gradient)

    def _enter(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        self._ask(layer, False)

    def _leave(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> Tensor | None:
        self._ask(layer, True)
        self.order += 1
        if self.sizes is not None:
            self.sizes.append(len(output))
            return None
        if not torch.is_grad_enabled():  # nothing flows back from here: the gradient is zero
            return None
        inputs = [value for value in (*args, *kwargs.values()) if value is not None]
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            raise self._unsupported_layer(
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
            raise self._unsupported_layer(
                layer,
                f"maps {tuple(x.shape)} to {tuple(output.shape)} in a batch of {self.n}",
                "the first axis must be the examples, or of size 1, to tell whose gradient is "
                "whose.",
                "let the layer run on [batch, …] (for positions: [1, …]).",
            )
        # a first axis that comes from the batch, or from a layer behind it, counts examples for
        # sure
        known = (
            seen[0] != (self.n,)
            or x.requires_grad
            or x.untyped_storage().data_ptr() in self.storages
        )
        doubtful = self.n > 1 and (not known or self.n in output.shape[1:-1])
        if not output.requires_grad:
            # an identity layer returns its input, which must not be marked as changed
            output = _Root.apply(x.clone() if output is x else output, self.anchor)
        call = _Call(
            self.names[layer],
            layer,
            x.detach(),
            x._version,
            output.grad_fn,
            self.order - 1,
            doubtful,
        )
        output.register_hook(
            call.receive
        )  # on the node, so that it outlives a change of the output in place
        self.calls.append(call)
        return output

    def refuse_accidents(self, f: PerExample, batch: Batch) -> None:
        """A first axis may equal the batch size by accident (sequence first, positions): one
        example alone shows it.
        """
        if not any(call.doubtful for call in self.calls):
            return
        self.sizes, self.order = [], 0
        # dropout must not move the caller's generator
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            f(self.model, {name: tensor[:1] for name, tensor in batch.items()})
        for call in self.calls:
            if call.doubtful and self.sizes[call.order] != 1:
                raise self._unsupported_layer(
                    call.layer,
                    f"keeps a first axis of {self.sizes[call.order]} when the batch has one "
                    "example",
                    "its first axis is not the examples, and equals the batch size by accident.",
                    "let the layer run on [batch, …] (for positions: [1, …]).",
                )

    def _unsupported_layer(
        self, layer: nn.Module, what: str, why: str, fix: str
    ) -> UnsupportedLayer:
        return UnsupportedLayer(
            f"{type(layer).__name__} `{self.names[layer]}` {what}.", why=why, fix=fix
        )


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
            f"f returned {shape} for a batch of {n} examples; one number per example is needed, "
            f"shape ({n},).",
            why="a loss already averaged or summed over the batch has no per-example gradients.",
            fix="return the loss of each example, for example F.cross_entropy(…, "
            'reduction="none").',
        )
    if not parameters or not values.requires_grad:
        raise InvalidData(
            "f does not depend on any trainable parameter of the model.",
            why="every gradient would be empty.",
            fix="set requires_grad on the parameters of interest, and do not detach inside f.",
        )
