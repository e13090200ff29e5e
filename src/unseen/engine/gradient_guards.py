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

import torch
from torch import Tensor, nn

from unseen.engine.example_gradients import (
    gradients_by_loop,
    gradients_by_vmap,
)
from unseen.engine.gradient_factors import GradientFactor
from unseen.engine.guard_examples import (
    _distances,
    _enumerate,
    _Examples,
    _refuse_mixing,
    _Surroundings,
    reasons_text,
)
from unseen.engine.layer_taps import LayerTaps, NoFactors
from unseen.engine.mixing import mixing_error
from unseen.errors import UnsupportedLayer
from unseen.task import Batch, PerExample


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
