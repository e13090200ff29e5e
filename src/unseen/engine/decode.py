"""Greedy decoding with a key-value cache, and the likelihood of given answers, for prompts of
unequal length.

Padding is exact on either side: nobody attends to it and it takes no position, so every number
equals the one of the sequence on its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.errors import InvalidData, UnsupportedLayer


@runtime_checkable
class Reader(Protocol):
    """A model that reads tokens piece by piece.

    `real` marks, for everything read so far and now, what is not padding. The state is the model's
    own; None at first.
    """

    def read(self, tokens: Tensor, real: Tensor, state: Any) -> tuple[Tensor, Any]: ...


class Side(StrEnum):
    """Where short sequences are filled up."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class PaddedSequences:
    """Sequences of unequal length as one matrix."""

    tokens: Int[Tensor, "n s"]
    real: Bool[Tensor, "n s"]
    answer: Bool[Tensor, "n s"]
    """The tokens whose likelihood is asked."""


def pad_sequences(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], side: Side
) -> PaddedSequences:
    """Prompt k followed by answer k as row k; padding holds token 0."""
    if len(prompts) != len(answers) or not prompts:
        raise InvalidData(
            f"There are {len(prompts)} prompts and {len(answers)} answers.",
            why="answer k continues prompt k.",
            fix="give two lists of equal length with at least one entry.",
        )
    empty = next((k for k, prompt in enumerate(prompts) if not len(prompt)), None)
    if empty is not None:
        raise InvalidData(
            f"Prompt {empty} is empty.",
            why="the first token would be predicted from nothing.",
            fix="start every prompt with a token, for example the one for the beginning of a text.",
        )
    width = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    tokens = torch.zeros(len(prompts), width, dtype=torch.long)
    real, asked = torch.zeros(2, len(prompts), width, dtype=torch.bool)
    for k, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        size = len(prompt) + len(answer)
        start = width - size if side is Side.LEFT else 0
        tokens[k, start : start + size] = torch.tensor([*prompt, *answer])
        real[k, start : start + size] = True
        asked[k, start + len(prompt) : start + size] = True
    return PaddedSequences(tokens, real, asked)


@torch.no_grad()
def log_probability(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    side: Side = Side.RIGHT,
    batch_size: int = 256,
) -> Float[Tensor, " n"]:
    """Σ_t log p(y_t | prompt, y_<t) of each answer y in nats, on the CPU. The model runs in
    evaluation mode.
    """
    bare = next((k for k, answer in enumerate(answers) if not len(answer)), None)
    if bare is not None:
        raise InvalidData(
            f"Answer {bare} is empty.",
            why="nothing is predicted, so it has no likelihood.",
            fix="leave it out.",
        )
    rows = pad_sequences(prompts, answers, side)
    with evaluating(model) as (reader, device):
        parts = zip(
            *(x.to(device).split(batch_size) for x in (rows.tokens, rows.real, rows.answer)),
            strict=True,
        )
        return torch.cat(
            [_answer_log_probability(reader, PaddedSequences(*part)).cpu() for part in parts]
        )


def _answer_log_probability(reader: Reader, rows: PaddedSequences) -> Float[Tensor, " n"]:
    logits, _ = reader.read(rows.tokens, rows.real, None)
    steps = token_log_probabilities(logits[:, :-1], rows.tokens[:, 1:])
    return steps.masked_fill(~rows.answer[:, 1:], 0).sum(1)


def token_log_probabilities(
    logits: Float[Tensor, "b s v"], tokens: Int[Tensor, "b s"]
) -> Float[Tensor, "b s"]:
    """log p of each token, at least in float32. Over the last axis: over a transposed one, as
    `cross_entropy` wants it, 49,152 terms are added one after the other, and a sum over ten tokens
    is off by 0.002.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


# not `no_grad`: without counts of versions and views a step of 8 rows takes an eighth less
@torch.inference_mode()
def greedy(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    length: int,
    stop: int | None = None,
    side: Side = Side.LEFT,
    batch_size: int = 256,
) -> list[list[int]]:
    """The most likely token after each prompt, again and again: `length` tokens, or fewer up to and
    without `stop`.
    """
    rows = pad_sequences(prompts, [()] * len(prompts), side)
    with evaluating(model) as (reader, device):
        parts = zip(
            rows.tokens.to(device).split(batch_size),
            rows.real.to(device).split(batch_size),
            strict=True,
        )
        found = [
            row
            for tokens, real in parts
            for row in _greedy_tokens(reader, tokens, real, length, stop).tolist()
        ]
    return [row[: row.index(stop)] if stop is not None and stop in row else row for row in found]


def _greedy_tokens(
    reader: Reader,
    tokens: Int[Tensor, "b s"],
    real: Bool[Tensor, "b s"],
    length: int,
    stop: int | None,
) -> Int[Tensor, "b grown"]:
    last = real.shape[1] - 1 - real.flip(1).long().argmax(1)  # of the real tokens
    logits, state = reader.read(tokens, real, None)
    logits = logits[torch.arange(len(tokens), device=tokens.device), last]
    made: list[Tensor] = []
    done = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    while len(made) < length:
        made.append(logits.argmax(-1))
        done |= made[-1] == stop if stop is not None else False
        if len(made) == length or (stop is not None and bool(done.all())):
            break
        real = torch.cat([real, real.new_ones(len(real), 1)], 1)
        logits, state = reader.read(made[-1][:, None], real, state)
        logits = logits[:, -1]
    return torch.stack(made, 1) if made else tokens.new_zeros(len(tokens), 0)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[tuple[Reader, torch.device]]:
    """The model in evaluation mode, as a reader, and its device; afterwards its mode is as
    before.
    """
    if not isinstance(model, Reader):
        raise UnsupportedLayer(
            f"{type(model).__name__} has no method `read(tokens, real, state)`.",
            why="decoding feeds it token by token and has to tell padding from text.",
            fix="use models.transformer.Transformer, or models.pretrained.CausalLM around a "
            "transformers model.",
        )
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        yield model, device
    finally:
        model.train(was_training)
