"""Sampled answers: several of each prompt, which may hold the beginning of the answer.

Prompts of unequal length are filled up on the left, which changes no probability. Each is read
once where a model can go on from a state several times, and rows that have ended are read no more.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.engine.decode import Reader, Side, evaluating, pad_sequences
from unseen.errors import InvalidConfig

SHRINK = 0.7
"""Rows are dropped when at most this share of them goes on: each drop copies the state."""


@runtime_checkable
class StateReader(Reader, Protocol):
    """A reader whose state can be read on from several times."""

    def read_last(self, tokens: Tensor, real: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits of the last new token only, and the state."""

    def select(self, state: Any, rows: Tensor) -> Any:
        """A new state that holds these rows of `state`, which stays as it was."""


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    length: int,
    generator: torch.Generator,
    *,
    samples: int = 1,
    temperature: float = 1.0,
    stop: int | None = None,
    batch_size: int = 256,
) -> list[list[list[int]]]:
    """For each prompt `samples` answers from softmax(logits / temperature): `length` tokens, or
    fewer up to and without `stop`. The model runs in evaluation mode.
    """
    if not 0 < temperature < math.inf or samples < 1:
        raise InvalidConfig(
            f"{samples} samples were asked for at temperature {temperature:g}.",
            why="logits are divided by the temperature.",
            fix="draw at least one at a positive temperature; for the likeliest answer use greedy.",
        )
    rows = pad_sequences(prompts, [()] * len(prompts), Side.LEFT)
    found: list[list[list[int]]] = []
    with evaluating(model) as (reader, device):
        at_once = max(1, batch_size // samples)
        for tokens, real in zip(
            rows.tokens.to(device).split(at_once), rows.real.to(device).split(at_once), strict=True
        ):
            drawn = _draw(reader, tokens, real, length, samples, temperature, stop, generator)
            answers = [_up_to(row, stop) for row in drawn.tolist()]
            found += [answers[k : k + samples] for k in range(0, len(answers), samples)]
    return found


def _up_to(row: list[int], stop: int | None) -> list[int]:
    return row[: row.index(stop)] if stop is not None and stop in row else row


def _draw(
    reader: Reader,
    tokens: Int[Tensor, "prompt s"],
    real: Bool[Tensor, "prompt s"],
    length: int,
    samples: int,
    temperature: float,
    stop: int | None,
    generator: torch.Generator,
) -> Int[Tensor, "row length"]:
    """Rows are prompts × samples; what follows a `stop` is `stop`."""
    logits, state, real = _read_prompts(reader, tokens, real, samples)
    drawn = torch.full((len(logits), length), 0 if stop is None else stop)
    rows = torch.arange(len(logits))
    for step in range(length):
        chosen = choose_tokens(logits, temperature, generator)
        drawn[rows, step] = chosen
        alive = torch.ones_like(chosen, dtype=torch.bool) if stop is None else chosen != stop
        if step + 1 == length or not bool(alive.any()):
            break
        if isinstance(reader, StateReader) and alive.float().mean() <= SHRINK:
            kept = alive.nonzero()[:, 0]
            rows, chosen = rows[kept], chosen[kept]
            state, real = reader.select(state, kept.to(real.device)), real[kept.to(real.device)]
        real = torch.cat([real, real.new_ones(len(real), 1)], 1)
        logits, state = _read_last(reader, chosen[:, None].to(real.device), real, state)
    return _fill_after(drawn, stop)


def _fill_after(drawn: Int[Tensor, "row length"], stop: int | None) -> Int[Tensor, "row length"]:
    """Rows that had ended were drawn on until they were dropped."""
    if stop is None:
        return drawn
    ended = (drawn == stop).long().cummax(1).values.bool()
    return drawn.masked_fill(ended, stop)


def _read_prompts(
    reader: Reader, tokens: Tensor, real: Tensor, samples: int
) -> tuple[Tensor, Any, Tensor]:
    owner = torch.arange(len(tokens), device=tokens.device).repeat_interleave(samples)
    if not isinstance(reader, StateReader):
        logits, state = _read_last(reader, tokens[owner], real[owner], None)
        return logits, state, real[owner]
    logits, state = reader.read_last(tokens, real, None)
    if samples == 1:
        return logits, state, real
    return logits[owner], reader.select(state, owner), real[owner]


def _read_last(reader: Reader, tokens: Tensor, real: Tensor, state: Any) -> tuple[Tensor, Any]:
    if isinstance(reader, StateReader):
        return reader.read_last(tokens, real, state)
    logits, state = reader.read(tokens, real, state)
    return logits[:, -1], state


def choose_tokens(
    logits: Float[Tensor, "row v"], temperature: float, generator: torch.Generator
) -> Int[Tensor, " row"]:
    """One token per row, by the inverse of the cumulated probabilities: one random number per row,
    drawn on the CPU, so that every device has the same stream.
    """
    p = (logits.float() / temperature).softmax(-1)
    total = p.cumsum(-1, dtype=torch.float64)  # over 50,000 tokens float32 would be off by 1e-4
    drawn = torch.rand(len(logits), 1, generator=generator, dtype=torch.float64).to(total.device)
    # right: a token of probability 0 is never chosen
    chosen = torch.searchsorted(total, drawn * total[:, -1:], right=True)[:, 0]
    return chosen.clamp_max(logits.shape[1] - 1).cpu()
