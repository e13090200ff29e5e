"""How concepts are described by attributes: the channels of a layer, or the columns of a table.

Shi et al. (2023), "On the Complexity of Bayesian Generalization", arXiv:2211.11033. An attribute's
activation on an image is its maximum over positions; a concept is the mean over its images, r_ca.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.data import Dataset

from unseen.engine.batches import once
from unseen.errors import InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.task import Batch

EXCLUSIVE = 1e-12
"""Least share that other concepts have in an attribute: that of an attribute which only one concept
has counts as this."""


def attribute_shares(
    means: Float[Tensor, "concept attribute"],
) -> Float[Tensor, "concept attribute"]:
    """P(a|c) = r_ca / Σ_a r_ca: rows sum to 1."""
    check_means(means)
    return means / means.sum(1, keepdim=True)


def concept_shares(
    means: Float[Tensor, "concept attribute"],
) -> Float[Tensor, "concept attribute"]:
    """P(c|a) = r_ca / Σ_c r_ca: columns sum to 1, those of an attribute that nothing has to 0."""
    check_means(means)
    total = means.sum(0)
    return means / torch.where(total > 0, total, 1)


def representativeness(
    means: Float[Tensor, "concept attribute"],
) -> Float[Tensor, "concept attribute"]:
    """RoA(a, c) = P(a|c) / Σ_{c' ≠ c} P(c'|a) = P(a|c) / (1 − P(c|a)): at least P(a|c), and
    P(a|c) / `EXCLUSIVE` for an attribute that only this concept has.
    """
    if len(means) < 2:
        raise InvalidData(
            "There is one concept only.",
            why="an attribute is representative of a concept against others.",
            fix="give data of at least two classes.",
        )
    shares, of_concept = attribute_shares(means), concept_shares(means)
    # summed over the others: 1 − P(c|a) would lose its digits where a concept has nearly all
    everything = torch.ones(len(means), len(means), dtype=means.dtype, device=means.device)
    others = everything.fill_diagonal_(0) @ of_concept
    return shares / others.clamp_min(EXCLUSIVE)


def check_means(means: Float[Tensor, "concept attribute"]) -> None:
    if not torch.isfinite(means).all() or (means < 0).any():
        raise InvalidData(
            f"Activations reach down to {float(means.min()):.3g}.",
            why="they are read as shares, which are finite and not negative.",
            fix='name a layer behind its ReLU, for example layer="relu", not the convolution.',
        )
    if bool((empty := means.sum(1) <= 0).any()):
        raise InvalidData(
            f"Concept {int(empty.nonzero()[0])} activates no attribute.",
            why="its shares would be 0/0.",
            fix="give more images of it, or a layer nearer to the input.",
        )


def peaks(maps: Float[Tensor, "n attribute *position"]) -> Float[Tensor, "n attribute"]:
    """The maximum of each channel over its positions."""
    return maps.flatten(2).amax(2) if maps.dim() > 2 else maps


def concept_means(
    activations: Float[Tensor, "n attribute"],
    labels: Int[Tensor, " n"],
    concepts: Int[Tensor, " concept"],
) -> Float[Tensor, "concept attribute"]:
    """r_c: the mean over a concept's examples."""
    return torch.stack([activations[labels == c].mean(0) for c in concepts])


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """The named module; for "" the last ReLU."""
    modules = dict(model.named_modules())
    if layer:
        if layer not in modules:
            raise UnknownName.near("layer", layer, filter(None, modules))
        return modules[layer]
    rectified = [module for module in modules.values() if isinstance(module, nn.ReLU)]
    if not rectified:
        raise UnsupportedLayer(
            f"{type(model).__name__} has no module that is a ReLU.",
            why="attributes are activations that are not negative.",
            fix=f'name the layer: layer="…", one of {", ".join(filter(None, modules))}.',
        )
    return rectified[-1]


def first_of_each_class(batches: Iterable[Batch], most: int | None) -> Iterator[Batch]:
    """Batches of only the first `most` examples of each value of `y`; all without a number."""
    counts: Counter[int] = Counter()
    for batch in batches:
        keep = []
        for row, label in enumerate(batch["y"].tolist()):
            counts[label] += 1
            if most is None or counts[label] <= most:
                keep.append(row)
        if keep:
            yield {name: value[keep] for name, value in batch.items()}


Change = Callable[[Tensor], Tensor | None]


@contextlib.contextmanager
def _hook(module: nn.Module, change: Change) -> Iterator[None]:
    """Inside the block `change` sees the layer's output and may replace it."""
    handle = module.register_forward_hook(lambda _, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class LayerOutputs:
    """A layer's outputs on all examples, and how the rest of the model answers when attributes are
    left out of them.
    """

    model: nn.Module
    module: nn.Module
    example: Tensor
    maps: Float[Tensor, "n attribute *position"]
    labels: Int[Tensor, " n"]
    logits: Float[Tensor, "n concept"]

    def activations(self) -> Float[Tensor, "n attribute"]:
        return peaks(self.maps)

    def answer(self, mask: Bool[Tensor, " attribute"]) -> Float[Tensor, "n concept"]:
        """Logits where attributes outside of the mask are 0, before any pooling."""
        shape = (1, -1, *(1,) * (self.maps.dim() - 2))
        return self._replay(self.maps * mask.reshape(shape).to(self.maps.dtype))

    def _replay(self, maps: Tensor) -> Tensor:
        """What follows the layer, on these outputs: the layers before see a single example."""
        with _evaluation(self.model), _hook(self.module, lambda output: maps):
            return self.model(self.example)


def layer_outputs(
    model: nn.Module,
    layer: str,
    data: Dataset[Any],
    lab: Lab,
    most: int | None = None,
    batch_size: int = 256,
) -> LayerOutputs:
    """One pass over the first `most` examples of each class. Refuses a model in which something
    goes past the layer: leaving attributes out would not leave them out of the answer.
    """
    maps: list[Tensor]
    logits: list[Tensor]
    labels: list[Tensor]
    module, maps, logits, labels = find_layer(model, layer), [], [], []
    example: Batch = {}
    with _evaluation(model), _hook(module, maps.append):
        for batch in first_of_each_class(once(data, batch_size, lab), most):
            example = example or {name: value[:1] for name, value in batch.items()}
            logits.append(model(batch["x"]))
            labels.append(batch["y"])
    if maps and not isinstance(maps[0], Tensor):
        raise UnsupportedLayer(
            f"Layer `{layer}` answers with a {type(maps[0]).__name__}, not a tensor.",
            why="attributes are the channels of a tensor.",
            fix="name a module inside it that answers with one.",
        )
    if not maps:
        raise InvalidData(
            f"Layer `{layer}` was not called.",
            why="it has no activations.",
            fix="name a layer that every pass calls.",
        )
    inputs, outputs = torch.cat(maps), torch.cat(logits)
    if not (torch.isfinite(inputs).all() and torch.isfinite(outputs).all()):
        raise InvalidData(
            "Activations or answers are not finite.",
            why="nothing can be ranked by them.",
            fix="check the inputs and the weights of the model for NaN.",
        )
    first = example["x"]
    # copies of it for a model that checks the size of its batch
    for prompt in (first, first.expand(len(inputs), *first.shape[1:])):
        found = LayerOutputs(model, module, prompt, inputs, torch.cat(labels), outputs)
        if _follows(found):
            return found
    raise UnsupportedLayer(
        f"The answers do not follow from layer `{layer or 'the last ReLU'}` alone.",
        why="something goes past it, such as a skip connection, or it is called twice.",
        fix="name a layer through which everything goes, such as the end of a block.",
    )


def _follows(found: LayerOutputs) -> bool:
    """Whether the layer's outputs give the answers, whatever the layers before it see."""
    try:
        again = found._replay(found.maps)
    except Exception:  # the user's own model, on a batch of another size than that of its input
        return False
    same_shape = again.shape == found.logits.shape
    return same_shape and torch.allclose(again, found.logits, rtol=1e-3, atol=1e-4)
