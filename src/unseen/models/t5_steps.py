"""One token at a time through T5's decoder, without what transformers does around it.

The same numbers: at width 128 and a batch of 32 most of a step of transformers is bookkeeping of
its cache and masks.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class LayerCache:
    """Keys and values of a layer: of the tokens written so far, and of the source."""

    keys: Float[Tensor, "b head target d"]
    values: Float[Tensor, "b head target d"]
    source_keys: Float[Tensor, "b head source d"]
    source_values: Float[Tensor, "b head source d"]

    def select(self, rows: Int[Tensor, " row"]) -> "LayerCache":
        return LayerCache(
            self.keys[rows], self.values[rows], self.source_keys[rows], self.source_values[rows]
        )


@dataclass(frozen=True)
class StepCache:
    """Of all layers, with what every step adds to its scores. A step makes a new one."""

    layers: tuple[LayerCache, ...]
    bias: Float[Tensor, "1 head 1 distance"]
    """Of the keys up to the query, the nearest last."""
    source_mask: Float[Tensor, "b 1 1 source"] | None

    @classmethod
    def of(cls, model: Any, cache: Any, source_real: Bool[Tensor, "b source"]) -> "StepCache":
        """What transformers kept of the first tokens."""
        own_layers, cross_layers = cache.self_attention_cache, cache.cross_attention_cache
        layers = tuple(
            LayerCache(own.keys, own.values, cross.keys, cross.values)
            for own, cross in zip(own_layers.layers, cross_layers.layers, strict=True)
        )
        bias = distance_bias(model, 64)
        return cls(layers, bias, _mask(source_real, bias))

    def select(self, rows: Int[Tensor, " row"]) -> "StepCache":
        layers = tuple(layer.select(rows) for layer in self.layers)
        mask = None if self.source_mask is None else self.source_mask[rows]
        return StepCache(layers, self.bias, mask)


def distance_bias(model: Any, length: int) -> Float[Tensor, "1 head 1 distance"]:
    """What the decoder adds to the scores of `length` keys up to the query."""
    first = model.decoder.block[0].layer[0].SelfAttention
    device = first.relative_attention_bias.weight.device
    bucket = first._relative_position_bucket(
        torch.arange(1 - length, 1, device=device)[None],
        bidirectional=False,
        num_buckets=first.relative_attention_num_buckets,
        max_distance=first.relative_attention_max_distance,
    )
    return first.relative_attention_bias(bucket).permute(2, 0, 1)[None]


def takes_steps(model: Any) -> bool:
    """Whether `step` computes what this model does: T5 with ReLU, evaluated."""
    config = model.config
    return (
        config.model_type == "t5"
        and config.feed_forward_proj == "relu"
        and not model.training
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.is_autocast_enabled("cuda")
    )


def step(
    model: Any, tokens: Int[Tensor, " b"], cache: StepCache, real: Bool[Tensor, "b target"]
) -> tuple[Float[Tensor, "b v"], StepCache]:
    """Logits behind the new tokens, which `real` holds as its last column."""
    length, bias = real.shape[1], cache.bias
    if length > bias.shape[3]:
        bias = distance_bias(model, 2 * length)
    scores = bias[..., -length:]
    mask = _mask(real, bias)
    scores = scores if mask is None else scores + mask
    x, layers = model.shared(tokens), []
    for block, kept in zip(model.decoder.block, cache.layers, strict=True):
        x, found = _layer(block.layer, x, kept, scores, cache.source_mask)
        layers.append(found)
    x = _norm(model.decoder.final_layer_norm, x)
    if model.config.scale_decoder_outputs:
        x = x * model.model_dim**-0.5
    return model.lm_head(x), StepCache(tuple(layers), bias, cache.source_mask)


def _mask(real: Bool[Tensor, "b s"], like: Tensor) -> Tensor | None:
    """Added to scores; None where nothing is padding."""
    if bool(real.all()):
        return None
    lowest = torch.finfo(like.dtype).min
    return like.new_zeros(real.shape).masked_fill(~real, lowest)[:, None, None]


def _layer(
    parts: Any,
    x: Float[Tensor, "b d"],
    kept: LayerCache,
    bias: Tensor,
    source_mask: Tensor | None,
) -> tuple[Float[Tensor, "b d"], LayerCache]:
    own, cross, feed = parts
    attention, normed = own.SelfAttention, _norm(own.layer_norm, x)
    keys = torch.cat([kept.keys, _heads(attention.k(normed), kept.keys)], 2)
    values = torch.cat([kept.values, _heads(attention.v(normed), kept.values)], 2)
    query = _heads(attention.q(normed), keys)
    x = x + attention.o(_attend(query, keys, values, bias))
    attention, normed = cross.EncDecAttention, _norm(cross.layer_norm, x)
    query = _heads(attention.q(normed), keys)
    x = x + attention.o(_attend(query, kept.source_keys, kept.source_values, source_mask))
    dense = feed.DenseReluDense
    x = x + dense.wo(F.relu(dense.wi(_norm(feed.layer_norm, x))))
    return x, LayerCache(keys, values, kept.source_keys, kept.source_values)


def _heads(x: Float[Tensor, "b inner"], like: Tensor) -> Float[Tensor, "b head 1 d"]:
    return x.view(len(x), like.shape[1], 1, like.shape[3])


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """T5 does not scale scores."""
    found = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=1.0)
    return found.flatten(1)


def _norm(layer: Any, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    return F.rms_norm(x, (x.shape[-1],), layer.weight, layer.variance_epsilon)
