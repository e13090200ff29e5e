"""Decoders trained from scratch on an algorithmic language: size, first weights, budget."""

from dataclasses import dataclass

from unseen.engine.loop import Budget, Schedule
from unseen.lab import Lab
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.study.trial import untrained_model

COSINE = Budget(
    batch_size=32,
    lr=2e-3,
    betas=(0.9, 0.98),
    schedule=Schedule.COSINE,
    warmup=100,
    clip=1.0,
)
"""The rate rises to 2·10⁻³ and falls with a cosine; a study gives the steps."""


@dataclass(frozen=True)
class DecoderSize:
    """Of a decoder."""

    width: int = 64
    layers: int = 3
    heads: int = 4


def untrained_decoder(
    vocabulary: int, size: DecoderSize, lab: Lab, positions: Positions = Positions.ROTARY
) -> Transformer:
    """A decoder whose first weights depend on the lab alone."""
    shape = Decoder(
        vocabulary=vocabulary,
        width=size.width,
        layers=size.layers,
        heads=size.heads,
        positions=positions,
    )
    return untrained_model(lambda: Transformer(shape), lab)
