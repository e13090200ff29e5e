"""Which layers an influence goes through, and the pairs of their gradients."""

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unseen.engine.factor_pairs import FactorPair, as_rows, layer_biases, pairs_of, real_rows
from unseen.engine.sharded_taps import tap_spread
from unseen.engine.sharding import WholeTensors, is_spread, reshard
from unseen.engine.tap import tap
from unseen.errors import InvalidConfig, TooBig, UnknownName
from unseen.identity.tensors import digest_of
from unseen.task import Batch, PerExample
from unseen.text import join_words

MOST_NAMED = 3
"""Layers that a sentence names."""
SHORT = 256
"""Positions up to which attention is not fused in half precision on a CPU."""
MOST_EXACT = 12_000
"""Parameters up to which the whole curvature matrix is made."""


def select_layers(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the layers whose own trainable parameters count.

    Without patterns: every linear map and convolution but the embedding's counterpart at the output
    (it shares the embedding's weight, or maps to as many outputs as the largest embedding has
    rows), or that one where nothing else is left.
    """
    owners = {
        name: m
        for name, m in model.named_modules()
        if any(p.requires_grad for p in m.parameters(recurse=False))
    }
    if not owners:
        raise InvalidConfig(
            "The model has no trainable parameter.",
            why="influence goes through the parameters that training changes.",
            fix="set requires_grad on them.",
        )
    if patterns:
        found = []
        for pattern in patterns:
            hits = fnmatch.filter(owners, pattern)
            if not hits:
                raise UnknownName.near("layer with trainable parameters like", pattern, owners)
            found += hits
        return tuple(dict.fromkeys(found))
    maps = {name: m for name, m in owners.items() if is_map(m)}
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    shared = {id(t.weight) for t in tables}
    rows = max((t.num_embeddings for t in tables), default=0)  # the vocabulary, not positions
    inner = [
        n
        for n, m in maps.items()
        if id(m.weight) not in shared and getattr(m, "out_features", None) != rows
    ]
    return tuple(inner or maps or owners)


def coverage_sentence(model: nn.Module, layers: Sequence[str]) -> str:
    """Which trainable parameters an influence through these layers leaves out; empty if none."""
    sizes = {
        name: sum(p.numel() for p in layer.parameters(recurse=False) if p.requires_grad)
        for name, layer in model.named_modules()
    }
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    inside = {
        id(p): p.numel()
        for name in layers
        for p in model.get_submodule(name).parameters(recurse=False)
        if p.requires_grad
    }
    left_out = [name for name, size in sizes.items() if size and name not in layers]
    covered = sum(inside.values())
    if covered >= total:
        return ""
    named = [
        f"`{name}`" if name else "the model's own parameters" for name in left_out[:MOST_NAMED]
    ]
    more = len(left_out) - len(named)
    words = join_words([*named, *([f"{more} more"] if more > 0 else [])])
    return (
        f"Influence goes through {covered:,} of {total:,} trainable parameters "
        f"({covered / total:.0%}), those of linear maps and convolutions or of the layers asked "
        f"for; it leaves out {words}."
    )


def is_map(layer: nn.Module) -> bool:
    """Linear maps and convolutions, transformers' `Conv1D` among them."""
    return isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) or type(layer).__name__ == "Conv1D"


@contextmanager
def restrict_gradients(model: nn.Module, layers: Sequence[str]) -> Iterator[None]:
    """Inside the block only these layers' own parameters ask for gradients, and the model is in
    evaluation mode.
    """
    reshard(model)  # whole parameters that a forward pass left are others than the shards
    inside = {id(p) for name in layers for p in model.get_submodule(name).parameters(recurse=False)}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in inside]
    modes = {module: module.training for module in model.modules()}
    try:
        for p in others:
            p.requires_grad_(False)
        model.eval()
        yield
    finally:
        for p in others:
            p.requires_grad_(True)
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def half_precision(batch: Batch) -> Iterator[None]:
    """Inside the block products are in bfloat16, attention over short sequences among them.

    On a CPU the fused backward pass of attention takes a fifth of a small model's time; without it
    the table of all pairs of positions is held.
    """
    device = next(iter(batch.values())).device.type
    length = max((t.shape[1] for t in batch.values() if t.dim() > 1), default=0)
    with torch.autocast(device, torch.bfloat16):
        if device != "cpu" or not 0 < length <= SHORT:
            yield
            return
        before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
        # the name says cuda; the plain attention of every device reads it
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def pairs(
    model: nn.Module, batch: Batch, f: PerExample, is_exact: bool = False, is_half: bool = False
) -> dict[str, FactorPair]:
    """The gradients of f with respect to the tracked layers, by layer; with `is_exact` as rows over
    all parameters.

    With `is_half` the model's own products and the pairs are in bfloat16.
    """
    with half_precision(batch) if is_half else nullcontext():
        forms = (tap_spread if is_spread(model) else tap)(model, batch, f)
    if not is_exact:
        return pairs_of(forms, layer_biases(model), torch.bfloat16 if is_half else None)
    size = sum(form.shape.numel() for form in forms.values())
    if size > MOST_EXACT:
        raise TooBig(
            f"The exact curvature of {size:,} parameters is a matrix of {size * size:,} entries.",
            why=f"it is made for up to {MOST_EXACT:,} parameters.",
            fix="use curvature=Curvature.EKFAC, or fewer layers with layers=(…).",
        )
    place = next(iter(batch.values())).device
    rows = torch.cat([real_rows(form).to(place) for form in forms.values()], 1)
    return {"all": as_rows(rows)}


def digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all parameters and buffers; of a sharded model that
    of the whole one, which all processes ask for together.
    """
    return digest_of(WholeTensors(model.state_dict()))
