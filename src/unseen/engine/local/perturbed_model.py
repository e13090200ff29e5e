"""A model around given inputs: its values and gradients at perturbed inputs, all inputs and
perturbations in batches.

Tables and images are perturbed as they are. Tokens are perturbed as embeddings: the layer that
reads them is overruled, so that a token at ξ = 0 is exactly the baseline token, while the targets
of the behaviour stay the given ones.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.engine.batches import to_device
from unseen.engine.local.features import FeatureSpec, is_finite, refuse_mask
from unseen.engine.local.neighbourhoods import (
    LeaveOneOut,
    Neighbourhood,
    Parametrization,
    PointMass,
    Sample,
)
from unseen.errors import InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.task import Batch, PerExample


@dataclass(frozen=True, eq=False)
class PerturbedModel:
    """f at x₀ moved along features: `values` and `gradients` over points × perturbations."""

    model: nn.Module
    behaviour: PerExample
    batch: Batch
    inputs: FeatureSpec
    point: Float[Tensor, "point *shape"]
    """x₀; for tokens their embeddings."""
    base: Float[Tensor, "#point *shape"]
    embedding: nn.Module | None = None
    removed2: Float[Tensor, "point d"] | None = None
    """Squared distances of removed features where they are not Euclidean (tokens: 1 each)."""
    mask: Int[Tensor, " entry"] | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", self._mask())

    def _mask(self) -> Tensor | None:
        shape = self.point.shape[1:]
        if self.inputs.mask is None:
            if self.embedding is None:
                return None
            return torch.arange(shape[0], device=self.point.device).repeat_interleave(shape[1])
        mask = self.inputs.mask.to(self.point.device)
        return (mask if self.embedding is None else mask[:, None].expand(shape)).reshape(-1)

    @property
    def n(self) -> int:
        return len(self.point)

    @cached_property
    def d(self) -> int:
        """The number of features."""
        return prod(self.point.shape[1:]) if self.mask is None else int(self.mask.max()) + 1

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of everything that is summed or solved: at least float32, whatever the model
        computes in.
        """
        return torch.promote_types(self.point.dtype, torch.float32)

    @cached_property
    def difference(self) -> Float[Tensor, "point *shape"]:
        return self.point - self.base

    def direction(self, parametrization: Parametrization) -> Tensor | None:
        """The direction in which each feature moves the input; None: its only entry by one.

        Additive with a mask: the unit vector from the baseline to the input within the feature (a
        change of all its entries at once would leave no one-hot column and no embedding a sense); a
        feature of one entry moves by one.
        """
        if parametrization is Parametrization.MULTIPLICATIVE:
            return self.difference
        if self.mask is None:
            return None
        difference = self.difference.flatten(1)
        alone = torch.bincount(self.mask, minlength=self.d) == 1
        lengths = self.sum_by_feature(difference.square()).sqrt()
        # a feature that equals its baseline has no direction: it never moves
        each = torch.where(lengths > 0, 1 / lengths.clamp_min(1e-30), 0.0).index_select(
            1, self.mask
        )
        return torch.where(alone[self.mask], 1.0, difference * each).view_as(self.difference)

    def sum_by_feature(self, entries: Float[Tensor, "row entry"]) -> Float[Tensor, "row d"]:
        """Sums over the entries of each feature."""
        if self.mask is None:
            return entries
        return entries.new_zeros(len(entries), self.d).index_add_(1, self.mask, entries)

    @cached_property
    def lengths2(self) -> Float[Tensor, "point d"]:
        """How far the input moves, squared, when a feature goes to its baseline."""
        if self.removed2 is not None:
            return self.removed2.to(self.compute_dtype)
        return self.sum_by_feature(self.difference.to(self.compute_dtype).square().flatten(1))

    def sample(self, neighbourhood: Neighbourhood, lab: Lab) -> Sample:
        return neighbourhood.draw(self.lengths2, lab)

    @cached_property
    def at_point(self) -> Float[Tensor, " point"]:
        return self._evaluate(self.point)

    @cached_property
    def at_base(self) -> Float[Tensor, " point"]:
        return self._evaluate(self.base.expand_as(self.point))

    @torch.no_grad()
    def _evaluate(self, points: Tensor) -> Tensor:
        with self._evaluation_mode():
            rows = max(1, self.inputs.chunk // prod(self.point.shape[1:]))
            parts = [slice(i, i + rows) for i in range(0, self.n, rows)]
            y = torch.cat([self._f(points[part], part, 1) for part in parts])
        return self._require_finite(y).to(self.compute_dtype)

    def values_at(
        self, parametrization: Parametrization, xi: Float[Tensor, "point d"]
    ) -> Float[Tensor, " point"]:
        """f at every input moved by its own ξ."""
        xi = xi.to(self.point.dtype)
        entries = (xi if self.mask is None else xi.index_select(1, self.mask)).view_as(self.point)
        direction = self.direction(parametrization)
        start = self.point if parametrization is Parametrization.ADDITIVE else self.base
        return self._evaluate(start + (entries if direction is None else entries * direction))

    @torch.no_grad()
    def values(
        self, neighbourhood: Neighbourhood, xi: Float[Tensor, "n d"]
    ) -> Float[Tensor, "point n"]:
        """f(x_ξ); for `LeaveOneOut` what the removal of the feature costs, f(x₀) − f(x_{1−ξ})."""
        alone = isinstance(neighbourhood, LeaveOneOut)
        found = self.point.new_empty(self.n, len(xi), dtype=self.compute_dtype)
        direction = self.direction(neighbourhood.parametrization)
        with self._evaluation_mode():
            for where, part in self._blocks(len(xi)):
                moved = 1 - xi[part] if alone else xi[part]
                x = self._perturb(neighbourhood.parametrization, direction, where, moved)
                found[where, part] = self._f(x, where, len(moved)).view(-1, len(moved))
        self._require_finite(found)
        return self.at_point[:, None] - found if alone else found

    def gradients(
        self, neighbourhood: Neighbourhood, xi: Float[Tensor, "n d"]
    ) -> Iterator[tuple[slice, slice, Float[Tensor, "point n d"]]]:
        """∇_ξ f(x_ξ), block by block: which points, which draws, the gradients. One backward pass
        for all of a block.
        """
        direction = self.direction(neighbourhood.parametrization)
        with self._evaluation_mode():
            for where, part in self._blocks(len(xi)):
                if isinstance(neighbourhood, PointMass):  # ξ = 0 or 1 moves nothing
                    x = self.point[where].detach().requires_grad_()
                else:
                    x = self._perturb(
                        neighbourhood.parametrization, direction, where, xi[part]
                    ).requires_grad_()
                with torch.enable_grad():
                    y = self._f(x, where, len(xi[part]))
                    self._require_finite(y)
                    g = _gradient(y, x, self.model).view(-1, len(xi[part]), *x.shape[1:])
                g = g.to(self.compute_dtype)
                if direction is not None:
                    g = g * direction[where].unsqueeze(1)
                yield (
                    where,
                    part,
                    self.sum_by_feature(g.flatten(2).flatten(0, 1)).view(*g.shape[:2], -1),
                )

    def _blocks(self, n: int) -> Iterator[tuple[slice, slice]]:
        """Points × draws in forward passes of about `chunk` numbers."""
        rows = max(1, self.inputs.chunk // prod(self.point.shape[1:]))
        if n > rows:
            for i in range(self.n):
                yield from (
                    (slice(i, i + 1), slice(j, min(j + rows, n))) for j in range(0, n, rows)
                )
        elif n:
            points = rows // n
            yield from (
                (slice(i, min(i + points, self.n)), slice(0, n)) for i in range(0, self.n, points)
            )

    def _perturb(
        self, parametrization: Parametrization, direction: Tensor | None, where: slice, xi: Tensor
    ) -> Tensor:
        """The perturbed inputs of a block as rows."""
        xi = xi.to(self.point.dtype)
        entries = (xi if self.mask is None else xi.index_select(1, self.mask)).view(
            -1, *self.point.shape[1:]
        )
        start = (
            self.point
            if parametrization is Parametrization.ADDITIVE
            else self.base.expand_as(self.point)
        )[where].unsqueeze(1)
        moved = (
            start + entries
            if direction is None
            else torch.addcmul(start, entries, direction[where].unsqueeze(1))
        )
        return moved.flatten(0, 1)

    def _f(self, points: Tensor, where: slice, n: int) -> Float[Tensor, " row"]:
        """The behaviour on rows: n perturbations of each of the points."""
        rows = {
            name: t[where] if n == 1 else t[where].repeat_interleave(n, 0)
            for name, t in self.batch.items()
        }
        if self.embedding is None:
            y = self.behaviour(self.model, {**rows, self.inputs.column: points})
        else:
            with _override_output(self.embedding, points):
                y = self.behaviour(self.model, rows)
        if not isinstance(y, Tensor) or y.shape != points.shape[:1]:
            raise InvalidData(
                "The behaviour gave "
                f"{tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__} for "
                f"{len(points)} examples.",
                why="what is explained is one number per example.",
                fix="let behaviour(model, batch) return a tensor [example], for example the logit "
                "of one class.",
            )
        return y

    @staticmethod
    def _require_finite(y: Tensor) -> Tensor:
        if not is_finite(y):
            raise InvalidData(
                "The behaviour is NaN or infinite at a perturbed input.",
                why="no function can be fitted to it.",
                fix="check the model and the baseline; explain a logit rather than a logarithm of "
                "a probability.",
            )
        return y

    @contextlib.contextmanager
    def _evaluation_mode(self) -> Iterator[None]:
        """The model in evaluation mode; its own modes afterwards."""
        training = [module for module in self.model.modules() if module.training]
        try:
            if training:
                self.model.eval()
            yield
        finally:
            for module in training:
                module.training = True


def build_perturbed_model(
    model: nn.Module, queries: Batch, behaviour: PerExample, inputs: FeatureSpec, lab: Lab
) -> PerturbedModel:
    """The model around the queries; refuses what has no explanation."""
    batch = to_device(queries, lab)
    if inputs.column not in batch:
        raise UnknownName.near("column", inputs.column, batch)
    x = batch[inputs.column]
    if len(x) == 0 or x.dim() < 2:
        raise InvalidData(
            f"x0 (`{inputs.column}`) has shape {tuple(x.shape)}.",
            why="explained inputs are [example, …] with at least one example and one feature.",
            fix="give a batch of inputs.",
        )
    if not x.is_floating_point():
        return _build_from_tokens(model, batch, behaviour, inputs)
    if not is_finite(x):
        raise InvalidData(
            f"x0 (`{inputs.column}`) holds {int((~torch.isfinite(x)).sum())} values that are NaN "
            "or infinite.",
            why="everything around them would be, too.",
            fix="impute missing values as the model's training did.",
        )
    refuse_mask(inputs, x.shape[1:])
    base = torch.as_tensor(inputs.baseline).to(x)
    if base.dim() and base.shape not in (x.shape, x.shape[1:]):
        raise InvalidData(
            f"baseline has shape {tuple(base.shape)}, one input {tuple(x.shape[1:])}.",
            why="a removed entry takes the value of the baseline at its place.",
            fix="give a number, or a tensor like one input.",
        )
    if not torch.isfinite(base).all():
        raise InvalidData(
            "baseline is not finite.", "removed features would be NaN.", "give finite numbers."
        )
    base = base.expand(1, *x.shape[1:]) if base.shape != x.shape else base
    return PerturbedModel(model, behaviour, batch, inputs, x.detach(), base)


def _build_from_tokens(
    model: nn.Module, batch: Batch, behaviour: PerExample, inputs: FeatureSpec
) -> PerturbedModel:
    tokens = batch[inputs.column]
    layer = _find_embedding(model, inputs.column, batch, behaviour)
    baseline = inputs.baseline
    if (
        isinstance(baseline, Tensor)
        or int(baseline) != baseline
        or not 0 <= baseline < layer.num_embeddings
    ):
        raise InvalidData(
            f"baseline={baseline if not isinstance(baseline, Tensor) else tuple(baseline.shape)} "
            "for tokens.",
            why=f"removed tokens become one of the {layer.num_embeddings} known tokens.",
            fix="give the number of the padding, unknown or end-of-text token.",
        )
    refuse_mask(inputs, tokens.shape[1:])
    with torch.no_grad():
        point, base = layer(tokens), layer(tokens.new_tensor([int(baseline)]))
    perturbed = PerturbedModel(
        model, behaviour, batch, inputs, point, base.expand(1, *point.shape[1:]), layer
    )
    real = (tokens != int(baseline)).to(point)
    removed = (
        real
        if inputs.mask is None
        else real.new_zeros(len(real), perturbed.d).index_add_(1, inputs.mask.to(real.device), real)
    )
    object.__setattr__(perturbed, "removed2", removed)
    return perturbed


def _find_embedding(model: nn.Module, column: str, batch: Batch, behaviour: PerExample) -> Any:
    """The embedding layer that looks the tokens up: asked with one token repeated, which no numbers
    of positions are.
    """
    found: list[nn.Module] = []
    tokens = batch[column]
    probe = tokens[:1].max().expand(1, *tokens.shape[1:])

    def note(layer: nn.Module, args: tuple, output: Tensor) -> None:
        if args and args[0].shape == probe.shape and torch.equal(args[0], probe):
            found.append(layer)

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Embedding)]
    try:
        with torch.no_grad():
            behaviour(model, {**{name: t[:1] for name, t in batch.items()}, column: probe})
    finally:
        for hook in hooks:
            hook.remove()
    if len({id(layer) for layer in found}) != 1:
        raise InvalidData(
            f"x0 holds integers, and {len(found)} embedding layers of {type(model).__name__} read "
            "them.",
            why="integers have no gradient and nothing between them; tokens are explained through "
            "their nn.Embedding.",
            fix="give floating-point inputs, or a model in which one nn.Embedding looks the tokens "
            "up.",
        )
    return found[0]


@contextlib.contextmanager
def _override_output(layer: nn.Module, points: Tensor) -> Iterator[None]:
    """Inside the block the layer gives `points` whatever it is asked."""
    hook = layer.register_forward_hook(lambda *_: points)
    try:
        yield
    finally:
        hook.remove()


def _gradient(y: Tensor, x: Tensor, model: nn.Module) -> Tensor:
    if y.requires_grad:
        (g,) = torch.autograd.grad(y.sum(), x, allow_unused=True)
        if g is not None:
            return g
    raise UnsupportedLayer(
        f"The behaviour of {type(model).__name__} has no gradient with respect to the input.",
        why="it is constant, detached or not differentiable (an estimator, an argmax).",
        fix="use LIME, KernelSHAP or Occlusion, or explain a differentiable output.",
    )
