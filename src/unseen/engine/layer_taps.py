"""One forward and one backward pass read layer by layer: per-example gradients as factors.

While a layer runs, its own parameters ask for no gradient, so the backward pass computes gradients
of the layers' outputs only: the ordinary weight gradients cost nothing because they are never made.
A parameter that still turns up in the graph was used outside its own layer and has no factors.

Dropout in training mode is allowed: the gradients are those of the masks that were drawn.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.engine.gradient_factors import FullGradient, GradientFactor, sum_factors
from unseen.engine.layers import direct_parameters, forms_of
from unseen.engine.parameters import trainable
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.task import Batch, PerExample

T = TypeVar("T")


class NoFactors(Exception):
    """Parameters whose per-example gradients cannot be read from their layers' inputs and outputs,
    each with the reason.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(dict.fromkeys(reasons.values())))
        self.reasons = reasons


class LayerTaps(Generic[T]):
    """The pass over one batch: `run` gives the values of f, and `by` of each parameter's form.

    `by` is called as soon as the backward pass has a form; then the form is dropped. With
    `copy_views` a layer's output that is a view is copied, so that it may be changed in place.
    A layer that runs on one row is taken for shared by all examples, where `may_be_shared` (its
    default: every parameter) allows it: the row may also be the only example that came this way.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        by: Callable[[str, GradientFactor], T],
        *,
        copy_views: bool = False,
        may_be_shared: Collection[str] | None = None,
    ) -> None:
        self.model, self.parameters, self.by = model, parameters, by
        self.copy_views, self.may_be_shared = copy_views, may_be_shared
        self.begun = False
        """Whether `by` was called: then the pass cannot be run again without counting twice."""
        self.shared: set[str] = set()
        """Parameters of layers that ran once for all examples."""

    def run(self, batch: Batch, f: PerExample) -> tuple[Tensor, dict[str, T]]:
        """(f of each example, reduced forms). Raises `NoFactors` for what it cannot read.

        The model, its mode, `requires_grad` and `.grad` are left as they were, also after an error.
        """
        with frozen(self.model, self.parameters):
            recorder = self._recorder(batch)
            try:
                with torch.enable_grad():
                    with recorder.listening():
                        # the hooks freeze each layer while it runs, so that autograd builds no
                        # parameter gradients
                        values = f(self.model, batch)
                        refuse_aggregate(values, recorder.n)
                        recorder.require_examples(f, batch)
                    harvest = self._harvest(recorder, values)
                reduced = {
                    name: harvest.made[name] if name in harvest.made else harvest.reduce(name)
                    for name in self.parameters
                }
                return values.detach(), reduced
            finally:
                self.shared |= recorder.shared
                recorder.release()

    def _recorder(self, batch: Batch) -> "_Recorder":
        return _Recorder(self.model, batch, self.parameters, self.copy_views, self.may_be_shared)

    def _harvest(self, recorder: "_Recorder", values: Tensor) -> "_Harvest[T]":
        """The forms that the backward pass of the values brings."""
        harvest = _Harvest(recorder, self.parameters, self._reduce)
        harvest.backward(values)
        return harvest

    def _reduce(self, name: str, form: GradientFactor) -> T:
        self.begun = True
        return self.by(name, form)


def refuse_aggregate(values: Any, n: int) -> None:
    """Raises unless there is one number per example."""
    if not isinstance(values, Tensor) or values.shape != (n,):
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InvalidData(
            f"f returned {shape} for a batch of {n} examples; one number per example is needed, "
            f"shape ({n},).",
            why="a loss already averaged or summed over the batch has no per-example gradients.",
            fix="return the loss of each example, for example F.cross_entropy(…, "
            'reduction="none").',
        )


@contextmanager
def frozen(model: nn.Module, but: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Inside the block only these parameters ask for gradients."""
    others = [p for name, p in trainable(model).items() if name not in but]
    try:
        for p in others:
            p.requires_grad_(False)
        yield
    finally:
        for p in others:
            p.requires_grad_(True)


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
                "later"
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
        self.recorder, self.by = recorder, by
        self.parameters = recorder.leaves(parameters)
        # a layer has one of both when its gradient comes
        sides = (parameters, self.parameters)
        self.names = {id(p): name for side in sides for name, p in side.items()}
        self.parts: dict[str, list[GradientFactor]] = {name: [] for name in parameters}
        self.made: dict[str, T] = {}
        # a layer that is called twice delivers its forms twice: a parameter is ready after the last
        self.waiting = Counter(
            self.names[id(p)] for call in recorder.calls for p in recorder.own[call.layer]
        )

    def arrive(self, call: _Call, back: Tensor) -> None:
        try:
            forms = call.forms(back)
        except UnsupportedLayer as error:
            # the backward pass goes on, so that all such layers are found at once
            self.recorder.note(call.layer, error.what.rstrip("."))
            call.x = None
            return
        for own, form in forms.items():
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
        if not values.requires_grad:
            return
        for call in self.recorder.calls:
            call.sink = self.arrive
        # parameters are asked for as well, to notice one that is used behind the hooks' back
        ends = [self.recorder.anchor, *self.parameters.values()]
        grads = torch.autograd.grad(values.sum(), ends, allow_unused=True)
        for name, grad in zip(self.parameters, grads[1:], strict=True):
            if grad is not None:
                self.recorder.reasons[name] = (
                    "parameters are used outside the forward pass of their own layer"
                )
        # calls whose gradient never came although the output depends on them
        silent = {call.node: call for call in self.recorder.calls if call.x is not None}
        for node in _reachable(values.grad_fn) if silent else ():
            if node in silent:
                call = silent[node]
                self.recorder.note(
                    call.layer,
                    f"the output of `{call.name}` depends on a tensor that requires gradients and "
                    "is no parameter",
                )
        self.recorder.raise_reasons()


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
    """Hooks on the layers that own parameters whose gradients are wanted."""

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        parameters: Mapping[str, nn.Parameter],
        copy_views: bool,
        may_be_shared: Collection[str] | None,
    ) -> None:
        self.model, self.n, self.copy_views = model, size(batch), copy_views
        self.may_be_shared = parameters.keys() if may_be_shared is None else may_be_shared
        self.name_of = {id(p): name for name, p in parameters.items()}
        self.reasons: dict[str, str] = {}
        self.shared: set[str] = set()
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

    def leaves(self, parameters: Mapping[str, nn.Parameter]) -> Mapping[str, nn.Parameter]:
        """The tensors that these parameters were in the forward pass."""
        return parameters

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
            self.sizes.append(len(output) if isinstance(output, Tensor) and output.dim() else 0)
            return None
        if not torch.is_grad_enabled():  # nothing flows back from here: the gradient is zero
            return None
        inputs = [value for value in (*args, *kwargs.values()) if value is not None]
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            count = f"{len(inputs)} input{'s' * (len(inputs) != 1)}"
            what = f"has {count} and returns a {type(output).__name__}"
            self.note(layer, f"{self._title(layer)} {what}")
            return None
        return self._record(layer, inputs[0], output)

    def _record(self, layer: nn.Module, x: Tensor, output: Tensor) -> Tensor | None:
        seen = (x.shape[:1], output.shape[:1])
        if seen == ((1,), (1,)) and self.n > 1:  # positions shared by all examples
            if not self._own_names(layer) <= set(self.may_be_shared):
                self.note(layer, f"{self._title(layer)} runs for a single example")
                return None
            self.shared |= self._own_names(layer)
            x = x.expand(self.n, *x.shape[1:])
            output = output.expand(self.n, *output.shape[1:]).clone()
        elif seen != ((self.n,), (self.n,)):
            shapes = f"{list(x.shape)} to {list(output.shape)}"
            self.note(layer, f"{self._title(layer)} maps {shapes} in a batch of {self.n}")
            return None
        # a first axis that comes from the batch, or from a layer behind it, counts examples for
        # sure
        known = (
            seen[0] != (self.n,)
            or x.requires_grad
            or x.untyped_storage().data_ptr() in self.storages
        )
        doubtful = self.n > 1 and (not known or self.n in output.shape[1:-1])
        if self.copy_views and output._is_view():
            output = output.clone()
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

    def require_examples(self, f: PerExample, batch: Batch) -> None:
        """Raises `NoFactors` for layers whose first axis is not the examples.

        It may equal the batch size by accident (sequence first, positions): one example alone shows
        it.
        """
        self.raise_reasons()
        if not any(call.doubtful for call in self.calls):
            return
        self.sizes, self.order = [], 0
        # dropout must not move the caller's generator
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            f(self.model, {name: tensor[:1] for name, tensor in batch.items()})
        for call in self.calls:
            if call.doubtful and self.sizes[call.order] != 1:
                self.note(
                    call.layer,
                    f"{self._title(call.layer)} has a first axis that is not the examples and "
                    "equals the batch size by accident",
                )
        self.raise_reasons()

    def note(self, layer: nn.Module, reason: str) -> None:
        """Why the layer's own parameters have no factors."""
        self.reasons |= dict.fromkeys(self._own_names(layer), reason)

    def raise_reasons(self) -> None:
        if self.reasons:
            raise NoFactors(self.reasons)

    def _own_names(self, layer: nn.Module) -> set[str]:
        return {self.name_of[id(p)] for p in self.own[layer]}

    def _title(self, layer: nn.Module) -> str:
        return f"{type(layer).__name__} `{self.names[layer]}`"
