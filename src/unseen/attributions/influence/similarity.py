"""What needs no gradient: the words that two texts share, and the model's own last features.

A score by influence that these already give is no news about the model: print them beside it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unseen.attributions.influence.bm25 import Words, matches
from unseen.engine.features import last_linear
from unseen.task import Batch


def word_scores(queries: Batch, examples: Batch) -> Float[Tensor, "q n"]:
    """The BM25-like score of `bm25`, of every pair."""
    words = Words.of(queries)
    counts = words.counts(examples)
    return matches(counts, words.has, (counts > 0).sum(0).to(counts), len(counts))


@torch.no_grad()
def embed(model: nn.Module, batch: Batch) -> Float[Tensor, "b d"]:
    """The inputs of the last linear layer, of a text averaged over its real positions, with length
    1.
    """
    seen: list[Tensor] = []
    layer = model.get_submodule(last_linear(model))
    handle = layer.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        model(batch["tokens"] if "tokens" in batch else batch["x"])
    finally:
        handle.remove()
    features = seen[-1]
    if features.dim() == 3:
        real = batch.get("attention_mask", torch.ones_like(features[..., 0]))[..., None]
        features = (features * real).sum(1) / real.sum(1).clamp_min(1)
    return F.normalize(features.flatten(1).float(), dim=1)
