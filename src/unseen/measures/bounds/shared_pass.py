"""What all measures of a model read, each quantity computed once: examples, the folded network,
margins, norms of layers, gradient moments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import nan

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import Columns, length, once, size, subset
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.bounds.flatness import Flatness, examples_for_noise
from unseen.measures.bounds.margins import logits_of, margins
from unseen.measures.bounds.path_norm import path_norm
from unseen.measures.bounds.spectral import spectral_norm
from unseen.measures.bounds.weights import (
    CONVOLUTIONS,
    FoldedNetwork,
    Layer,
    fold_batch_norm,
    is_bias,
    linear_maps,
    refuse_computed_weights,
    require_start,
    start_of,
    weight_names,
)
from unseen.measures.coherence import CoherenceResult, coherence
from unseen.measures.sharpness import evaluating
from unseen.method import Trained
from unseen.task import Batch, Use


@dataclass(frozen=True)
class Coverage:
    """The share of the parameters that a measure reads (biases are none), and what it leaves
    out.
    """

    share: float
    left_out: tuple[str, ...] = ()


class SharedPass:
    """One trained model on its training examples, read by many measures.

    `most` examples drawn at random stand for more (`most_noise` where the weights are moved many
    times); `n` is the number of all of them. The model comes back as it was. With `as_published`
    margin and noise are those of public code: |margin| where it is negative, and σ² in place of the
    noise's standard deviation.
    """

    def __init__(
        self,
        subject: Trained,
        lab: Lab,
        *,
        most: int = 10_000,
        most_noise: int = 2_000,
        as_published: bool = False,
    ) -> None:
        self.subject, self.lab, self.most, self.most_noise = subject, lab, most, most_noise
        self.as_published = as_published

    # the examples

    @cached_property
    def n(self) -> int:
        """m, the number of training examples."""
        sizes = [length(split.data) for split in self.subject.task.of(Use.TRAIN).values()]
        return sum(size(batch) for batch in self.batches) if None in sizes else sum(sizes)  # type: ignore[arg-type]

    @cached_property
    def batches(self) -> list[Batch]:
        """At most `most` training examples, drawn at random from every TRAIN split alike."""
        splits = self.subject.task.of(Use.TRAIN)
        share = -(-self.most // len(splits))
        found: list[Batch] = []
        for name, split in splits.items():
            n, data, left = length(split.data), split.data, share
            if n is not None and n > share:
                order = torch.randperm(n, generator=self.lab.child("examples", name).generator())
                data = subset(data, order[:share])
            for batch in once(data, 1_000, self.lab):
                found.append({key: tensor[:left] for key, tensor in batch.items()})
                left -= size(batch)
                if left <= 0:
                    break
        return found

    def _few(self, model: nn.Module) -> Tensor:
        """The outputs for a few examples."""
        batch = {name: tensor[:8] for name, tensor in self.batches[0].items()}
        return logits_of(model, batch, self.subject.task.objective)

    # the weights

    @cached_property
    def network(self) -> FoldedNetwork:
        with evaluating(self.subject.model):
            return fold_batch_norm(self.subject.model, self._few, self.subject.start)

    @cached_property
    def layers(self) -> list[Layer]:
        """The linear maps of the folded network."""
        with evaluating(self.network.model):
            found = linear_maps(self.network, self._few)
        if not found:
            raise InvalidData(
                f"{type(self.subject.model).__name__} has no linear layer or convolution.",
                why="norms of layers are those of their matrices.",
                fix="measure a model with such layers, or read its parameters and margins only.",
            )
        return found

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """All weights with two or more axes, in float64."""
        refuse_computed_weights(self.network.model)
        named = weight_names(self.network.model)
        if not named:
            raise InvalidData(
                f"{type(self.subject.model).__name__} has no parameter with two or more axes.",
                why="norms are taken over weights, without biases and gains.",
                fix="measure a model with linear or convolutional layers.",
            )
        return {name: p.detach().double().cpu() for name, p in named.items()}

    @cached_property
    def differences(self) -> dict[str, Tensor]:
        """w − w⁰ by name."""
        return {
            name: weight - start_of(name, self.network, self._start)
            for name, weight in self.weights.items()
        }

    def _layer_difference(self, layer: Layer) -> Float[Tensor, "out rest"]:
        """W − W⁰ as a matrix."""
        before = start_of(layer.weight_name, self.network, self._start)
        return layer.matrix - before.flatten(1)

    @cached_property
    def _start(self) -> dict[str, Tensor]:
        return require_start(self.subject.start, self.subject.model)

    @cached_property
    def parameter_count(self) -> int:
        """ω: all parameters but biases, BatchNorm folded."""
        return sum(self._sizes.values())

    @cached_property
    def _sizes(self) -> dict[str, int]:
        named = self.network.model.named_parameters()
        return {name: p.numel() for name, p in named if not is_bias(name)}

    # norms of layers

    @cached_property
    def frobenius2(self) -> Float[Tensor, " layer"]:
        """f_i = ‖W_i‖_F²."""
        return self._of_layers(lambda layer: float(layer.weight.double().square().sum()))

    @cached_property
    def spectral2(self) -> Float[Tensor, " layer"]:
        """s_i = ‖W_i‖₂² of the reshaped matrix."""
        return self._of_layers(lambda layer: spectral_norm(layer.matrix).value ** 2)

    @cached_property
    def spectral2_fft(self) -> Float[Tensor, " layer"]:
        """s_i of the circular convolution; a matrix's own."""
        return self._circular(self.spectral2, lambda layer: layer.weight)

    @cached_property
    def distance2(self) -> Float[Tensor, " layer"]:
        """‖W_i − W_i⁰‖_F²."""
        return self._of_layers(lambda layer: float(self._layer_difference(layer).square().sum()))

    @cached_property
    def spectral_distance2(self) -> Float[Tensor, " layer"]:
        """‖W_i − W_i⁰‖₂² of the reshaped matrix."""
        return self._of_layers(
            lambda layer: spectral_norm(self._layer_difference(layer)).value ** 2
        )

    @cached_property
    def spectral_distance2_fft(self) -> Float[Tensor, " layer"]:
        """‖W_i − W_i⁰‖₂² of the circular convolution; a matrix's own."""
        return self._circular(
            self.spectral_distance2,
            lambda layer: self._layer_difference(layer).reshape(layer.weight.shape),
        )

    def _circular(
        self, reshaped2: Float[Tensor, " layer"], weight: Callable[[Layer], Tensor]
    ) -> Float[Tensor, " layer"]:
        """These squared norms, of convolutions those of the circular ones."""
        norms2 = reshaped2.clone()
        for k, layer in enumerate(self.layers):
            if isinstance(layer.module, CONVOLUTIONS):
                norms2[k] = layer.map_norm(weight(layer)) ** 2
        return norms2

    def _of_layers(self, norm: Callable[[Layer], float]) -> Float[Tensor, " layer"]:
        return torch.tensor([norm(layer) for layer in self.layers], dtype=torch.float64)

    # what the function does

    @cached_property
    def margins(self) -> Float[Tensor, " n"]:
        """The margin of every example."""
        objective = self.subject.task.objective
        with evaluating(self.subject.model):
            found = torch.cat([margins(self.subject.model, b, objective) for b in self.batches])
        if not len(found) or not torch.isfinite(found).all():
            raise InvalidData(
                f"{int((~torch.isfinite(found)).sum())} of {len(found)} margins are not finite.",
                why="a quantile of them would say nothing.",
                fix="check the inputs, labels and weights.",
            )
        return found

    @cached_property
    def margin(self) -> float:
        """γ: the tenth percentile of the margins, which must be positive."""
        margin = float(self.margins.quantile(0.1))
        if self.as_published:
            margin = abs(margin)
        if not margin > 0:
            raise InvalidData(
                f"The tenth percentile of the training margins is {margin:.3g}.",
                why="norms are divided by it: more than a tenth of the training examples are "
                "predicted wrongly.",
                fix="train on until more than 90 % of the training examples are right.",
            )
        return margin

    @cached_property
    def path_norm(self) -> float:
        batch = self.batches[0]
        if "x" not in batch or not batch["x"].is_floating_point():
            raise InvalidData(
                "The examples have no numbers `x`.",
                why="the path norm is an output for inputs that are all one.",
                fix="read the spectral or distance measures of this model.",
            )
        with evaluating(self.network.model):
            return path_norm(self.network.model, tuple(batch["x"].shape[1:]))

    @cached_property
    def gradients(self) -> CoherenceResult:
        """Mean and squared norms of the per-example gradients of the loss."""
        columns = {
            key: torch.cat([batch[key] for batch in self.batches]) for key in self.batches[0]
        }
        loss, lab = self.subject.task.objective.loss, self.lab.child("gradients")
        with evaluating(self.subject.model):
            return coherence(self.subject.model, loss, Columns(**columns), lab)

    # what the weights stand

    @cached_property
    def _flatness(self) -> Flatness:
        return Flatness(
            self.network.model,
            examples_for_noise(self.batches, self.most_noise),
            self.subject.task.objective,
            self.lab.child("flatness"),
            as_published=self.as_published,
        )

    @cached_property
    def noise_scale(self) -> float:
        """σ."""
        with evaluating(self.network.model):
            return self._flatness.noise_scale()

    @cached_property
    def relative_noise_scale(self) -> float:
        """σ′."""
        with evaluating(self.network.model):
            return self._flatness.noise_scale(magnitude=True)

    @cached_property
    def box_radius(self) -> float:
        """α."""
        with evaluating(self.network.model):
            return self._flatness.box_radius()

    @cached_property
    def relative_box_radius(self) -> float:
        """α′."""
        with evaluating(self.network.model):
            return self._flatness.box_radius(magnitude=True)

    # how much of the model a measure covers

    @cached_property
    def layer_coverage(self) -> Coverage:
        """Of what reads the matrices of layers."""
        return self._coverage({layer.weight_name for layer in self.layers})

    @cached_property
    def weight_coverage(self) -> Coverage:
        """Of what reads every weight with two or more axes."""
        return self._coverage(set(self.weights))

    @cached_property
    def full_coverage(self) -> Coverage:
        """Of what reads the function itself."""
        return Coverage(1.0)

    def _coverage(self, names: set[str]) -> Coverage:
        left = [name for name in self._sizes if name not in names]
        modules = dict(self.network.model.named_modules())
        words = tuple(
            f"{name} ({type(modules[name.rpartition('.')[0]]).__name__}, {self._sizes[name]:,})"
            for name in left
        )
        lost = sum(self._sizes[name] for name in left)
        return Coverage(1 - lost / self.parameter_count if self.parameter_count else nan, words)
