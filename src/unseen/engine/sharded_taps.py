"""Per-example gradients of the layers of a model that is spread over processes or devices.

FSDP2 gathers a layer's whole parameters for its forward and its backward pass: there the hooks of
`layer_taps` find them, and V = Σ_s g_s ⊗ a_s needs no parameter at all. Parameters ask for no
gradient while their layer runs, so nothing is reduced over processes. All processes make the same
passes: what one of them has to look at, all look at.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.engine.gradient_check import _code, _signature, _structure
from unseen.engine.gradient_factors import GradientFactor
from unseen.engine.guard_examples import FEW, _Examples
from unseen.engine.layer_taps import (
    LayerTaps,
    NoFactors,
    _Harvest,
    _Recorder,
)
from unseen.engine.layers import direct_parameters
from unseen.engine.mixing import refuse_mixing_layers
from unseen.engine.parameters import trainable
from unseen.engine.sharding import ShardGroups, plain_forwards, reshard
from unseen.errors import UnsupportedLayer
from unseen.task import Batch, PerExample

T = TypeVar("T")


def tap_spread(model: nn.Module, batch: Batch, f: PerExample) -> dict[str, GradientFactor]:
    """`tap` of this process's own batch; all processes that hold shards call it together.

    Every parameter must have factors: there is no other way here. The first batch of each kind is
    compared with autograd, as `gradient_guards` does.
    """
    refuse_mixing_layers(model)
    reshard(model)
    batch = {name: tensor.detach() for name, tensor in batch.items()}
    shared = _check(model, batch, f)
    return _pass(model, batch, f, lambda name, form: form, shared)[1]


def _pass(
    model: nn.Module,
    batch: Batch,
    f: PerExample,
    by: Callable[[str, GradientFactor], T],
    shared: Collection[str] | None,
) -> tuple[Tensor, dict[str, T], set[str]]:
    """(f, reduced forms, parameters of layers that ran once for all examples)."""
    parameters = trainable(model)
    taps = ShardedTaps(model, parameters, by, copy_views=True, may_be_shared=shared)
    try:
        values, found = taps.run(batch, f)
    except NoFactors as error:
        raise UnsupportedLayer(
            f"Some gradients cannot be read from layers: {error}.",
            why="of a model that is spread over processes or devices gradients cannot be computed "
            "of each example alone.",
            fix="choose other layers with layers=(…), or freeze these parameters.",
        ) from error
    return values, found, taps.shared


class ShardedTaps(LayerTaps[T]):
    """`LayerTaps` whose parameters are gathered while their layers run."""

    def _recorder(self, batch: Batch) -> "_ShardedRecorder":
        return _ShardedRecorder(
            self.model, batch, self.parameters, self.copy_views, self.may_be_shared
        )

    def _harvest(self, recorder: _Recorder, values: Tensor) -> _Harvest[T]:
        with plain_forwards(self.model):
            return super()._harvest(recorder, values)


class _ShardedRecorder(_Recorder):
    """Hooks that find a layer's whole parameters: after FSDP's own before a layer runs, and before
    them behind it.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        parameters: Mapping[str, nn.Parameter],
        copy_views: bool,
        may_be_shared: Collection[str] | None,
    ) -> None:
        super().__init__(model, batch, parameters, copy_views, may_be_shared)
        self.attributes = {
            layer: {own: self.name_of[id(p)] for own, p in direct_parameters(layer).items()}
            for layer in self.names
        }
        self.whole: dict[str, Tensor] = {}
        self.groups = ShardGroups.of(model)

    @contextmanager
    def listening(self) -> Iterator[None]:
        handles: list[Any] = []
        try:
            for layer in self.names:
                handles.append(layer.register_forward_pre_hook(self._enter))
                handles.append(
                    layer.register_forward_hook(self._leave, with_kwargs=True, prepend=True)
                )
            yield
        finally:
            for handle in handles:
                handle.remove()
            for layer in self.names:
                self._ask(layer, True)

    def _enter(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        found = {name: getattr(layer, own) for own, name in self.attributes[layer].items()}
        self.own[layer] = [*found.values()]
        self.name_of |= {id(p): name for name, p in found.items()}
        self.whole |= found
        super()._enter(layer, args)

    def release(self) -> None:
        super().release()
        reshard(self.model)

    def leaves(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """The whole parameters of the layers that ran, and zeros that take no memory for others."""
        made: dict[str, Any] = {}
        for name, p in parameters.items():
            if name not in self.whole:
                zero = torch.zeros((), dtype=p.dtype, device=p.device).expand(p.shape)
                made[name] = zero.requires_grad_()
            else:
                made[name] = self.whole[name]
        return made

    def require_examples(self, f: PerExample, batch: Batch) -> None:
        is_doubtful = any(call.doubtful for call in self.calls)
        if self.groups.holds_somewhere(is_doubtful) and not is_doubtful:
            with torch.no_grad():  # another process looks at one example alone
                f(self.model, {name: tensor[:1] for name, tensor in batch.items()})
        super().require_examples(f, batch)


_known: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], frozenset[str]]] = WeakKeyDictionary()
"""By kind of batch, the parameters of layers that ran once for all examples."""


def _check(model: nn.Module, batch: Batch, f: PerExample) -> frozenset[str]:
    """What is remembered of batches of this kind; else this one is examined, by all processes."""
    known, groups = _known.setdefault(model, {}), ShardGroups.of(model)
    key = (_structure(model), _code(f), _signature(batch))
    if groups.holds_somewhere(key not in known):
        found = _examine(model, batch, f)
        names = [*trainable(model)]
        flags = groups.largest(torch.tensor([int(name in found.shared) for name in names]))
        # an only example shows no layer that is shared; another process's batch does
        shared = frozenset(name for name, flag in zip(names, flags, strict=True) if flag)
        if not found.is_finite:
            return shared  # other weights or data say more
        known[key] = shared
    return known[key]


@dataclass(frozen=True)
class _Finding:
    shared: frozenset[str]
    is_finite: bool


class _FewExamples(_Examples):
    """A few examples and f of them; autograd's gradient is compared as it comes, not held."""

    def __init__(self, model: nn.Module, batch: Batch, f: PerExample) -> None:
        self.model, self.f, self.parameters = model, f, trainable(model)
        self.few = {name: tensor[:FEW] for name, tensor in batch.items()}
        self.n = size(self.few)

    def read(self) -> tuple[dict[str, GradientFactor], frozenset[str]]:
        """Forms of all parameters, and which ran once for all examples."""
        self.values, forms, shared = _pass(
            self.model, self.few, self.f, lambda name, form: form, None
        )
        return forms, frozenset(shared)

    def compare(self, forms: Mapping[str, GradientFactor]) -> dict[str, float]:
        """‖Σ g of the forms − autograd's gradient‖ by parameter; nothing is left in `.grad`."""
        found = {name: float(form.norms2().sum().double().sqrt()) for name, form in forms.items()}
        with (
            WholeGradients(self.model, self.parameters, partial(_compare, forms, found)),
            torch.enable_grad(),
        ):
            self.f(self.model, self.few).sum().backward()
        reshard(self.model)
        return found

    def value_of_middle(self) -> Tensor:
        """f of the middle example alone."""
        with torch.no_grad():
            return self.f(
                self.model, {name: t[self.middle : self.middle + 1] for name, t in self.few.items()}
            )


def _compare(
    forms: Mapping[str, GradientFactor], found: dict[str, float], name: str, gradient: Tensor
) -> None:
    error = gradient.neg()
    forms[name].add_sum_and_norms(error)
    found[name] = float(torch.linalg.vector_norm(error))


class WholeGradients:
    """Inside the block a backward pass hands each whole gradient over, and then drops it."""

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        by: Callable[[str, Tensor], None],
    ) -> None:
        self.by = by
        self.names = {id(p): name for name, p in parameters.items()}
        self.layers = [layer for layer in model.modules() if direct_parameters(layer)]
        self.own = {
            layer: {own: self.names[id(p)] for own, p in direct_parameters(layer).items()}
            for layer in self.layers
        }
        self.handles: list[Any] = []
        self.seen: set[int] = set()

    def __enter__(self) -> None:
        self.handles = [layer.register_forward_pre_hook(self._enter) for layer in self.layers]

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _enter(self, layer: nn.Module, args: tuple[Any, ...]) -> None:
        for own, name in self.own[layer].items():
            p = getattr(layer, own)
            if id(p) not in self.seen:
                self.seen.add(id(p))
                self.handles.append(p.register_post_accumulate_grad_hook(partial(self._take, name)))

    def _take(self, name: str, p: Tensor) -> None:
        assert p.grad is not None
        self.by(name, p.grad)
        p.grad = None  # FSDP reduces nothing where there is nothing


def _examine(model: nn.Module, batch: Batch, f: PerExample) -> _Finding:
    """The same four passes in every process, whatever they show; then it is judged."""
    examples = _FewExamples(model, batch, f)
    forms, shared = examples.read()
    norms = {name: form.norms2().double().sqrt() for name, form in forms.items()}
    distances = examples.compare(forms)
    weights = torch.linspace(0.5, 2, examples.n).to(examples.values)
    backwards = {name: tensor.flip(0) for name, tensor in examples.few.items()}
    _, second, _ = _pass(
        model, backwards, lambda m, b: weights * f(m, b), lambda name, form: form.norms2(), shared
    )
    expected = {name: weights.to(of) * of.flip(0) for name, of in norms.items()}
    alone, reason = examples.value_of_middle(), ""
    if not all(bool(torch.isfinite(x).all()) for x in (examples.values, *norms.values())):
        return _Finding(shared, is_finite=False)
    if not examples.agree(alone, examples.values[examples.middle : examples.middle + 1]):
        reason = "an example's f depends on the other examples of its batch"
    by_weights = {
        name: float(torch.linalg.vector_norm(of.double().sqrt() - expected[name]))
        for name, of in second.items()
    }
    for errors, said in (
        (examples.relative(distances, norms), "do not add up to autograd's gradient of the sum"),
        (examples.relative(by_weights, expected), "belong to other examples than their own"),
    ):
        wrong = [name for name, error in errors.items() if not error <= examples.tolerance]
        if wrong and not reason:
            reason = f"gradients read from layers {said} for `{wrong[0]}`"
    if reason:
        raise UnsupportedLayer(
            f"The model cannot be read layer by layer: {reason}.",
            why="of a model that is spread over processes or devices gradients cannot be computed "
            "of each example alone.",
            fix="choose other layers with layers=(…), or load the model whole in every process.",
        )
    return _Finding(shared, is_finite=True)
