"""Grids of images as one PNG each."""

import struct
import zlib

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def png_grid(images: Float[Tensor, "rows columns c h w"]) -> bytes:
    """Images in [0, 1] beside and below each other, without gaps; grey or colour."""
    rows, columns, channels, height, width = images.shape
    colours = images if channels in (1, 3) else images.mean(2, keepdim=True)
    joined = colours.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, -1)
    pixels = (joined.float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return encode_png(pixels)


def encode_png(pixels: np.ndarray) -> bytes:
    """[height, width, 1 or 3] bytes as PNG."""
    height, width, channels = pixels.shape
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # a filter byte of 0 before each
    lines[:, 1:] = pixels.reshape(height, -1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    kind = 0 if channels == 1 else 2
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    # level 1: a slider waits for it
    body = zlib.compress(lines.tobytes(), 1)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
