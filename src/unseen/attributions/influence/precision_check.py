"""Whether cheaper arithmetic may be used: a few scores in both precisions, and how far they
agree.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from unseen.attributions.influence.preconditioned_queries import LARGE, Precision
from unseen.engine.kron import KroneckerBlock
from unseen.lab import Lab

log = logging.getLogger("unseen.influence")
SURVIVES = 0.9995
"""Rank correlation with full precision at which bfloat16 scores are used."""
SAME = 1e-4
"""Relative error at which mixed scores are used."""


@dataclass(frozen=True)
class Agreement:
    """Between two tables of scores: relative Frobenius error, and rank correlation."""

    error: float
    ranks: float


def agreement(a: Float[Tensor, "q n"], b: Float[Tensor, "q n"]) -> Agreement:
    """Ranks are compared over all queries at once, each row in units of its spread: in a row of 64
    scores a single swap of neighbours would cost as much as the rounding that is to be
    evaluated."""
    error = float((a - b).norm() / a.norm().clamp_min(1e-300))
    spread = a.std(1, keepdim=True)
    rows = spread[:, 0] > 0
    if not rows.any() or a.shape[1] < 3:
        return Agreement(error, 1.0)
    x, y = ((table[rows] / spread[rows]).flatten().cpu() for table in (a, b))
    return Agreement(error, float(spearmanr(x, y).statistic))


def worth_asking(wanted: Precision, blocks: Iterable[KroneckerBlock], device: torch.device) -> bool:
    """Whether `wanted` differs from full precision here, and may be faster."""
    blocks = list(blocks)
    if wanted is Precision.MIXED and not any(
        b.positions == 1 and b.values.numel() >= LARGE for b in blocks
    ):
        return False  # sequences and small layers know no mixture
    is_float32 = all(block.values.dtype == torch.float32 for block in blocks)
    return wanted is not Precision.FULL and is_float32 and is_native(device)


def choose_precision(
    wanted: Precision, full: Float[Tensor, "q n"], cheap: Float[Tensor, "q n"], lab: Lab
) -> Precision:
    """`wanted`, if its scores agree with those in full precision; else full precision, which is
    said.
    """
    found = agreement(full, cheap)
    lab.log(relative_error=found.error, rank_correlation=found.ranks)
    if found.error <= SAME if wanted is Precision.MIXED else found.ranks >= SURVIVES:
        return wanted
    level = (
        logging.INFO if wanted is Precision.MIXED else logging.WARNING
    )  # nobody asked for the default
    log.log(
        level,
        "%s products are not used: relative error %.1e, rank correlation %.5f with full precision.",
        wanted,
        found.error,
        found.ranks,
    )
    return Precision.FULL


def is_native(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
