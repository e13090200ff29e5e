"""How the per-example gradients of a model can be had, found on a few examples.

Two guards look for gradients that are wrong without an error:

* weights: where no example touches another, the gradient of w_i · f_i is w_i times that of f_i.
  Layers inside a permutation or a mixture of examples break it (by 0.1–0.7; sound ones by
  rounding);
* sums: the per-example gradients add up to autograd's gradient of Σ f, parameter by parameter. A
  layer's output that was overwritten, or read in a way that factors do not know, breaks it.

What has no factors, or wrong ones, is computed of each example alone, which is the definition.
Where f of an example depends on the others of its batch, no such gradient exists, and the model is
refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.engine.example_gradients import (
    buffers_of,
    gradients_by_loop,
    gradients_by_vmap,
    restore,
)
from unseen.engine.gradient_factors import GradientFactor
from unseen.engine.layer_taps import LayerTaps, NoFactors, refuse_aggregate
from unseen.engine.mixing import ReorderedLayers, mixing_error
from unseen.engine.parameters import trainable
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.task import Batch, PerExample
from unseen.text import join_words

FEW = 8
"""Examples on which a model is checked."""
MOST_NAMED = 3
"""Layers and reasons that a sentence names."""
CANCELLATION = 16
"""Rounding errors, in units of the largest gradient's, of a gradient that is zero up to
cancellation (the bias of attention's keys, say).
"""
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class GradientCheck:
    """How the gradients of one model, function and kind of batch are computed, and what the guards
    found.
    """

    factored: tuple[str, ...]
    """Parameters whose gradients are read from layers, in one backward pass."""
    one_by_one: Mapping[str, str]
    """Parameters whose gradients are computed of each example alone, and why."""
    unused: frozenset[str]
    """Parameters that f does not depend on in the checked examples."""
    vectorized: bool
    """Whether single examples are computed all at once (`torch.func.vmap`)."""
    copy_views: bool
    """Whether outputs that are views are copied, because something changes them in place."""
    shared: frozenset[str]
    """Parameters of layers that ran once for all examples; another such layer is not trusted."""
    scaling_error: float
    """Largest relative error of the guard with weights, over the factored parameters."""
    sum_error: float
    """Largest relative error of the guard with sums."""
    is_finite: bool
    """Without finite numbers the guards say nothing."""

    def sentence(self) -> str:
        """What a reader of the numbers should know; empty where all gradients have factors."""
        if not self.one_by_one:
            return ""
        layers = dict.fromkeys(name.rpartition(".")[0] or name for name in self.one_by_one)
        cost = (
            "all at once" if self.vectorized else "with a forward and a backward pass per example"
        )
        count = len(self.one_by_one)
        return (
            f"The gradients of {count} of {count + len(self.factored)} parameters "
            f"({_enumerate([f'`{name}`' for name in layers])}) are computed of each example alone, "
            f"{cost}: exact, but slower, because {reasons_text(self.one_by_one)}."
        )


def reasons_text(reasons: Mapping[str, str]) -> str:
    """The first few reasons, each once."""
    return _enumerate(list(dict.fromkeys(reasons.values())))


def _enumerate(words: Sequence[str]) -> str:
    more = len(words) - MOST_NAMED
    return join_words([*words[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])])


def examine(
    model: nn.Module, batch: Batch, f: PerExample, known: Mapping[str, str]
) -> GradientCheck:
    """Looks at a few examples of the batch; `known` are parameters without factors and why.

    Random generators and, in training mode, buffers are afterwards what they were before.
    """
    before = _Surroundings(model)
    try:
        return _decide(_Examples(model, batch, f, before), known)
    finally:
        before.restore()


def _decide(examples: "_Examples", known: Mapping[str, str]) -> GradientCheck:
    parameters = examples.parameters
    _refuse_mixing(examples)
    reasons = dict(known) | {
        name: f"parameter `{name}` is complex" for name, p in parameters.items() if p.is_complex()
    }
    for name in examples.reordered:
        reasons.setdefault(name, "examples are indexed, and perhaps reordered, before it runs")
    found = _Factoring(examples, reasons, copy_views=False)
    if found.is_wrong:  # an output may have been overwritten
        copied = _Factoring(examples, reasons, copy_views=True)
        found = copied if len(copied.reasons) < len(found.reasons) else found
    one_by_one = found.reasons
    if one_by_one and examples.is_random:  # all gradients from the same draws
        one_by_one = dict.fromkeys(parameters, "the model draws random numbers") | one_by_one
    return GradientCheck(
        factored=tuple(name for name in parameters if name not in one_by_one),
        one_by_one={name: one_by_one[name] for name in parameters if name in one_by_one},
        unused=examples.unused,
        vectorized=bool(one_by_one) and _vectorizes(examples, one_by_one),
        copy_views=found.copy_views,
        shared=frozenset(found.shared),
        scaling_error=found.scaling_error,
        sum_error=found.sum_error,
        is_finite=examples.is_finite,
    )


class _Surroundings:
    """What a forward pass may move: the states of random generators, and buffers in training
    mode.
    """

    def __init__(self, model: nn.Module) -> None:
        devices = {p.device for p in model.parameters()}
        self.devices = [device for device in devices if device.type == "cuda"]
        self.states = self._read()
        self.buffers = buffers_of(model)

    def _read(self) -> list[Tensor]:
        return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self.devices)]

    def drew(self) -> bool:
        """Whether random numbers were drawn since."""
        now = self._read()
        return not all(torch.equal(a, b) for a, b in zip(self.states, now, strict=True))

    def restore(self) -> None:
        torch.set_rng_state(self.states[0])
        for state, device in zip(self.states[1:], self.devices, strict=True):
            torch.cuda.set_rng_state(state, device)
        restore(self.buffers)


class _Examples:
    """A few examples, f of them, and autograd's gradient of its sum."""

    def __init__(
        self, model: nn.Module, batch: Batch, f: PerExample, before: "_Surroundings"
    ) -> None:
        self.model, self.f, self.parameters = model, f, trainable(model)
        self.reset = before.restore
        self.few = self._choose(batch)
        self.n = size(self.few)
        with torch.enable_grad(), ReorderedLayers(model, self.n) as seen:
            values = self.repeat(self.few)
            refuse_aggregate(values, self.n)
            if not self.parameters or not values.requires_grad:
                raise InvalidData(
                    "f does not depend on any trainable parameter of the model.",
                    why="every gradient would be empty.",
                    fix="set requires_grad on the parameters of interest, and do not detach inside "
                    "f.",
                )
            try:
                found = torch.autograd.grad(
                    values.sum(), list(self.parameters.values()), allow_unused=True
                )
            except RuntimeError as error:
                raise self._no_backward_pass(error) from error
        self.drew = before.drew()
        self.reordered = seen.names & self.parameters.keys()
        self.values = values.detach()
        self.unused = frozenset(n for n, g in zip(self.parameters, found, strict=True) if g is None)
        self.total = {
            name: torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g
            for (name, p), g in zip(self.parameters.items(), found, strict=True)
        }

    def _no_backward_pass(self, error: RuntimeError) -> UnsupportedLayer:
        """The error for a function that autograd cannot differentiate, with the layer if known."""
        taps = LayerTaps(self.model, self.parameters, lambda name, form: None)
        try:
            taps.run(self.few, self.f)
            where = ""
        except NoFactors as found:
            where = f" ({reasons_text(found.reasons)})"
        except Exception:  # the error to report is the first one
            where = ""
        return UnsupportedLayer(
            f"The backward pass of f fails{where}.",
            why=f"autograd says: {str(error).splitlines()[0]}",
            fix="use the out-of-place operation; with checkpoints, use_reentrant=False.",
        )

    def _choose(self, batch: Batch) -> Batch:
        """Examples from all over the batch; the whole batch where f works on nothing else."""
        n = size(batch)
        if n <= FEW:
            return batch
        rows = torch.linspace(0, n - 1, FEW).long()
        few = {name: tensor[rows.to(tensor.device)] for name, tensor in batch.items()}
        try:
            with torch.no_grad():
                values = self.f(self.model, few)
        except Exception:  # an error of the user's own is raised again with the whole batch
            return batch
        return batch if isinstance(values, Tensor) and values.shape == (n,) else few

    def repeat(self, batch: Batch, f: PerExample | None = None) -> Tensor:
        """f with the same draws and buffers every time."""
        self.reset()
        return (f or self.f)(self.model, batch)

    @cached_property
    def epsilon(self) -> float:
        """The rounding of the coarsest type in use."""
        device = self.values.device.type
        dtypes = {p.dtype for p in self.parameters.values()} | {self.values.dtype}
        if torch.is_autocast_enabled(device):
            dtypes.add(torch.get_autocast_dtype(device))
        epsilon = max(torch.finfo(dtype).eps for dtype in dtypes)
        # products of tensor cores have ten bits (TF32)
        return max(epsilon, 2**-10) if device == "cuda" and epsilon > 1e-10 else epsilon

    @property
    def tolerance(self) -> float:
        """√ε: up to half of the digits may go to rounding; what the guards look for is larger than
        0.1.
        """
        return self.epsilon**0.5

    @property
    def coarse_tolerance(self) -> float:
        """Beyond it a model is refused: at least that of float32, in which many models compute
        parts whatever their type. (Between the two a gradient is computed of each example alone.)
        """
        return max(self.tolerance, torch.finfo(torch.float32).eps ** 0.5)

    @cached_property
    def is_random(self) -> bool:
        """Whether f draws random numbers, or changes buffers that it reads."""
        if self.drew:
            return True
        if self.alone_if_fixed is None:
            return not self._repeats()
        together = self.values[self.middle : self.middle + 1]
        # a generator of f's own shows in its values only
        return not self.agree(self.alone_if_fixed, together) and not self._repeats()

    def _repeats(self) -> bool:
        self.reset()
        with torch.no_grad():  # the second time with the buffers that the first left
            values = [self.f(self.model, self.few) for _ in range(2)]
        return all(self.agree(value, self.values) for value in values)

    @cached_property
    def is_finite(self) -> bool:
        # a norm reads a gradient once, where `isfinite` writes several of its size
        norms = [torch.linalg.vector_norm(x) for x in (self.values, *self.total.values())]
        return all(bool(torch.isfinite(norm)) for norm in norms)

    def agree(self, a: Tensor, b: Tensor) -> bool:
        """Whether values of f are the same to the tolerance."""
        scale = b.abs().max().clamp_min(torch.finfo(b.dtype).tiny)
        return bool(((a - b).abs() <= self.coarse_tolerance * scale).all())

    @property
    def middle(self) -> int:
        return self.n // 2

    @cached_property
    def alone_if_fixed(self) -> Tensor | None:
        """f of the middle example alone, if f is not random; None where it works on its batch
        only.
        """
        try:
            with torch.no_grad():
                value = self.repeat(
                    {name: t[self.middle : self.middle + 1] for name, t in self.few.items()}
                )
        except Exception:
            return None
        return value if isinstance(value, Tensor) and value.shape == (1,) else None

    @property
    def value_of_one(self) -> Tensor | None:
        """The same; None where f is random."""
        return None if self.is_random else self.alone_if_fixed

    def relative(
        self, distances: Mapping[str, float], norms: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """Distances over Σ ‖g‖, by parameter."""
        scale = {name: norms[name].double().sum().item() for name in distances}
        floor = CANCELLATION * self.tolerance * max(scale.values(), default=0.0)
        return {
            name: distance / max(scale[name] + floor, TINY) for name, distance in distances.items()
        }


def _distances(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    return {
        name: torch.linalg.vector_norm(of - expected[name]).item() for name, of in found.items()
    }


class _Factoring:
    """Which parameters have factors that pass both guards, and why the others do not."""

    def __init__(
        self, examples: _Examples, reasons: Mapping[str, str], *, copy_views: bool
    ) -> None:
        self.examples, self.reasons, self.copy_views = examples, dict(reasons), copy_views
        self.is_wrong = False
        """Whether a guard found something: no layer says by itself that it is wrong."""
        self.scaling_error = self.sum_error = 0.0
        self.shared: set[str] = set()
        while self._drops_some():
            pass

    def _drops_some(self) -> bool:
        names = [name for name in self.examples.parameters if name not in self.reasons]
        if not names:
            return False
        try:
            found = self._pass(names, self.examples.few, self.examples.f, self._norms_and_error)
            wrong = self._by_sums(found) or self._by_weights(names, found.norms())
            self.is_wrong |= bool(wrong)
        except NoFactors as error:
            wrong = dict(error.reasons)
        self.reasons |= wrong
        return bool(wrong)

    def _pass(
        self,
        names: Sequence[str],
        batch: Batch,
        f: PerExample,
        read: "Callable[[str, GradientFactor], tuple[Tensor, float]]",
    ) -> "_Pass":
        parameters = {name: self.examples.parameters[name] for name in names}
        taps = LayerTaps(self.examples.model, parameters, read, copy_views=self.copy_views)
        self.examples.reset()
        try:
            values, found = taps.run(batch, f)
        except NoFactors:
            raise
        except Exception as error:  # f alone works: the taps gave it something that it cannot use
            culprits = taps.shared or set(names)
            said = (str(error).splitlines() or [type(error).__name__])[0]
            reason = f"f fails where layers are read ({said})"
            raise NoFactors(dict.fromkeys(culprits, reason)) from error
        self.shared |= taps.shared
        return _Pass(values, found, taps.shared)

    def _by_sums(self, found: "_Pass") -> dict[str, str]:
        """Parameters whose gradients do not add up."""
        if not self.examples.is_finite:
            return {}
        if not self.examples.agree(found.values, self.examples.values):
            culprits = found.shared or set(found.read)
            return dict.fromkeys(culprits, "f is another number where layers are read")
        distances = {name: distance for name, (_, distance) in found.read.items()}
        errors = self.examples.relative(distances, found.norms())
        self.sum_error = max(errors.values())
        return self._beyond(errors, "factors do not add up to autograd's gradient of the sum")

    def _norms_and_error(self, name: str, form: GradientFactor) -> tuple[Tensor, float]:
        error = self.examples.total[name].neg()
        norms = form.add_sum_and_norms(error).double().sqrt()
        return norms, torch.linalg.vector_norm(error).item()

    def _by_weights(self, names: Sequence[str], norms: Mapping[str, Tensor]) -> dict[str, str]:
        """Parameters whose i-th gradient depends on the weights of other examples."""
        examples, n = self.examples, self.examples.n
        if n < 2 or not examples.is_finite:
            return {}
        weights = torch.linspace(0.5, 2, n).to(examples.values)
        # backwards where nothing else depends on the order: sorting that was idle is so no longer
        order = torch.arange(n, device=weights.device)
        order = order if examples.value_of_one is None else order.flip(0)
        batch = {name: tensor[order.to(tensor.device)] for name, tensor in examples.few.items()}
        second = self._pass(names, batch, lambda model, b: weights * examples.f(model, b), _norms)
        expected = {name: weights * of[order] for name, of in norms.items()}
        errors = examples.relative(_distances(second.norms(), expected), expected)
        self.scaling_error = max(errors.values())
        return self._beyond(errors, "factors belong to other examples than their own")

    def _beyond(self, errors: Mapping[str, float], reason: str) -> dict[str, str]:
        tolerance = self.examples.tolerance
        return {name: reason for name, error in errors.items() if not error <= tolerance}


def _norms(name: str, form: GradientFactor) -> tuple[Tensor, float]:
    return form.norms2().double().sqrt(), 0.0


@dataclass(frozen=True)
class _Pass:
    """f of each example; ‖g‖ of each example and the error of Σ g by parameter; parameters of
    layers that ran once.
    """

    values: Tensor
    read: Mapping[str, tuple[Tensor, float]]
    shared: set[str]

    def norms(self) -> dict[str, Tensor]:
        return {name: norms for name, (norms, _) in self.read.items()}


def _refuse_mixing(examples: _Examples) -> None:
    """Raises where f of an example is another number alone than among others."""
    if examples.n < 2 or not examples.is_finite or examples.value_of_one is None:
        return
    k = examples.middle
    together = examples.values[k : k + 1]
    if not examples.agree(examples.value_of_one, together):
        said = (
            f"f is {float(together):.4g} in the batch and {float(examples.value_of_one):.4g} alone"
        )
        raise mixing_error(examples.model, examples.f, examples.few, k, said)


def _vectorizes(examples: _Examples, one_by_one: Mapping[str, str]) -> bool:
    """Whether gradients of single examples can be had all at once; refuses where they do not add up
    to the batch's.
    """
    if examples.is_random:  # a single example draws other numbers: nothing can be compared
        return False
    if examples.value_of_one is None:
        raise UnsupportedLayer(
            f"Some gradients cannot be read from layers: {reasons_text(one_by_one)}.",
            why="they would be computed of each example alone, and f does not work on one example.",
            fix="let f and the model take the batch size from the batch.",
        )
    wanted = {name: examples.parameters[name] for name in one_by_one}
    examples.reset()
    _, rows = gradients_by_loop(examples.model, examples.few, examples.f, wanted)
    norms = {name: torch.linalg.vector_norm(of.flatten(1), dim=1) for name, of in rows.items()}
    totals = {name: of.sum(0) for name, of in rows.items()}
    if examples.is_finite:
        expected = {name: examples.total[name] for name in wanted}
        errors = examples.relative(_distances(totals, expected), norms)
        worst = max(errors, key=lambda name: errors[name])
        if not errors[worst] <= examples.coarse_tolerance:
            said = (
                f"the gradients of single examples do not add up to the batch's for `{worst}` "
                f"(off by {errors[worst]:.2g})"
            )
            raise mixing_error(examples.model, examples.f, examples.few, examples.middle, said)
    try:
        examples.reset()
        _, at_once = gradients_by_vmap(examples.model, examples.few, examples.f, wanted)
    except Exception:  # this model cannot run so; the loop can
        return False
    errors = examples.relative(_distances(at_once, rows), norms)
    return all(error <= examples.coarse_tolerance for error in errors.values())
