"""What a decoding run is made of: its parts repeated alone, with tensors of the same shapes.

The products of the linear maps are done by every decoder of this shape; attention over the keys
read so far, the cache that grows by one position, normalisation and activation belong to the model,
too. What is left is the way between the operators (Python, masks, positions, the choice of a token)
and memory: a part alone finds its tensors in the cache of the processor.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.models.transformer import Transformer

ROUNDS = 5


def parts_of_decoding(
    model: Transformer, rows: int, prompt: int, new: int, seconds: float
) -> dict[str, float]:
    """Each part's share of these CPU seconds, and the speed of the products as a share of that of a
    large one.
    """
    steps = [prompt] + [1] * (new - 1)
    products = cpu_seconds(lambda: replay_products(model, rows, steps))
    with torch.no_grad():
        rounds = [replay_attention(model, rows, steps) for _ in range(ROUNDS)]
    attention, cache = (median(spent) for spent in zip(*rounds, strict=True))
    pointwise = cpu_seconds(lambda: replay_pointwise(model, rows, steps))
    alone = {
        "products": products,
        "attention": attention,
        "cache": cache,
        "norms_and_activations": pointwise,
    }
    shares = {f"share_of_{name}": value / seconds for name, value in alone.items()}
    shares["share_of_rest"] = 1 - sum(shares.values())
    operations = 2 * rows * sum(steps) * sum(layer.weight.numel() for layer in linear_maps(model))
    shares["products_at_peak"] = operations / peak() / products
    return {name: round(share, 3) for name, share in shares.items()}


def linear_maps(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


def replay_products(model: Transformer, rows: int, steps: list[int]) -> None:
    maps = linear_maps(model)
    inputs = {n: [torch.randn(rows, n, one.in_features) for one in maps] for n in set(steps)}
    for n in steps:
        for one, x in zip(maps, inputs[n], strict=True):
            F.linear(x, one.weight, one.bias)


def replay_attention(model: Transformer, rows: int, steps: list[int]) -> tuple[float, float]:
    """CPU seconds of attention, and of what puts keys and values behind those read before."""
    shape, attention, cache = model.shape, 0.0, 0.0
    queries = {n: torch.randn(rows, n, shape.heads, shape.head_size) for n in set(steps)}
    fresh = {n: torch.randn(rows, n, shape.pairs, shape.head_size) for n in set(steps)}
    pairs: list[tuple[Tensor, Tensor] | None] = [None] * shape.layers
    for n in steps:
        for layer, past in enumerate(pairs):
            begin = time.process_time()
            key = value = fresh[n].transpose(1, 2)
            if past is not None:
                key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
            pairs[layer] = key, value
            grown = time.process_time()
            scores = (queries[n].transpose(1, 2) * shape.head_size**-0.5) @ key.mT
            scores = scores + scores.new_zeros(rows, 1, n, key.shape[2])
            (scores.softmax(-1) @ value).transpose(1, 2).reshape(rows, n, shape.width)
            cache += grown - begin
            attention += time.process_time() - grown
    return attention, cache


def replay_pointwise(model: Transformer, rows: int, steps: list[int]) -> None:
    shape = model.shape
    for n in steps:
        x, inside = torch.zeros(rows, n, shape.width), torch.zeros(rows, n, shape.inside)
        for block in model.blocks:
            x = x + block.attention_norm(x)
            x = x + block.mlp_norm(x)
            F.gelu(inside, approximate="tanh")
        model.norm(x)


@torch.no_grad()
def cpu_seconds(work: Callable[[], object]) -> float:
    """Median CPU seconds."""
    spent = []
    for _ in range(ROUNDS + 1):
        begin = time.process_time()
        work()
        spent.append(time.process_time() - begin)
    return median(spent[1:])


def peak() -> float:
    """Floating-point operations per CPU second of a product of 512 × 512 matrices."""
    a = torch.randn(512, 512)
    return 16 * 512**3 / cpu_seconds(lambda: [a @ a for _ in range(8)])
