"""The few examples on which the guards look at a model, and what a forward pass may move."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.engine.example_gradients import (
    buffers_of,
    restore,
)
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


def reasons_text(reasons: Mapping[str, str]) -> str:
    """The first few reasons, each once."""
    return _enumerate(list(dict.fromkeys(reasons.values())))


def _enumerate(words: Sequence[str]) -> str:
    more = len(words) - MOST_NAMED
    return join_words([*words[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])])


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
