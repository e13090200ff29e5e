"""Digests of tensors: names, types, shapes and values."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def bytes_of(tensor: Tensor) -> memoryview | bytes:
    """The values as bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors, whatever the order of their names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        total.update(bytes_of(tensor))
    return total.hexdigest()
