"""Prompts and responses as tokens.

A prompt and its response are tokenised jointly; the prompt's tokens are those on which the joint
text and the prompt alone agree, so a token across the join belongs to the response.
`models/response_loss.py` has the loss of the responses.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.engine.choice_likelihood import join_tokens
from unseen.errors import InvalidConfig, InvalidData
from unseen.objectives import IGNORED, exact_match
from unseen.task import Axis, Batch, Split, Task, Use

log = logging.getLogger("unseen")
Encode = Callable[[str], Sequence[int]]
"""Text to token numbers, without special tokens."""


class Exchange(NamedTuple):
    """What is given, and what has to be written."""

    prompt: str
    response: str


class Tokens(NamedTuple):
    """An exchange as token numbers."""

    prompt: list[int]
    response: list[int]


@dataclass(frozen=True)
class ResponseData:
    """Exchanges as columns `tokens` (filled up on the right with 0) and `mask` (the response)."""

    columns: Columns
    prompts_cut: int
    """Prompts that lost tokens at their start, because the whole did not fit."""
    responses_cut: int
    """Responses that did not fit even alone and lost tokens at their end."""

    @property
    def tokens(self) -> int:
        """Tokens of prompts and responses, without padding."""
        return int(target_ends(self.columns.columns["mask"]).sum())

    @property
    def targets(self) -> int:
        """Tokens that the loss is about."""
        return int(self.columns.columns["mask"].sum())


def encode_exchanges(
    exchanges: Sequence[Exchange],
    encode: Encode,
    length: int,
    end: int | None = None,
    start: Sequence[int] = (),
) -> ResponseData:
    """The exchanges in at most `length` tokens each: the prompt is cut first, at its start, then
    the response at its end.

    `end` closes every response (None: nothing does, as for answers whose likelihood is compared);
    `start` opens every prompt (`CausalLM.start`).
    """
    if length < 2:
        raise InvalidConfig(
            f"Exchanges were to be cut to {length} tokens.",
            why="a token of the prompt and one of the response are the least there is to learn.",
            fix="give length=512, or as much as the model reads.",
        )
    if not exchanges:
        raise InvalidData(
            "There are no exchanges.",
            why="nothing can be learned from nothing.",
            fix="give at least one prompt with its response.",
        )
    rows = [_tokens(k, one, encode, end, start) for k, one in enumerate(exchanges, 1)]
    short = [_cut(row, length) for row in rows]
    width = max(len(row.prompt) + len(row.response) for row in short)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for k, (prompt, response) in enumerate(short):
        size = len(prompt) + len(response)
        tokens[k, :size] = torch.tensor([*prompt, *response])
        mask[k, len(prompt) : size] = True
    cut = list(zip(rows, short, strict=True))
    return ResponseData(
        Columns(tokens=tokens, mask=mask),
        prompts_cut=sum(len(after.prompt) < len(before.prompt) for before, after in cut),
        responses_cut=sum(len(after.response) < len(before.response) for before, after in cut),
    )


def _tokens(
    k: int, exchange: Exchange, encode: Encode, end: int | None, start: Sequence[int]
) -> Tokens:
    joint = join_tokens(encode, exchange.prompt, exchange.response)
    prompt, response = list(joint.tokens[: joint.cut]), list(joint.tokens[joint.cut :])
    if not exchange.response or not response:
        raise InvalidData(
            f"Exchange {k} has an empty response.",
            why="no target token is supervised, so nothing is learned from it.",
            fix="check which field holds the response, or leave the row out.",
        )
    prompt = [*start, *prompt]
    if not prompt:
        raise InvalidData(
            f"Exchange {k} has an empty prompt.",
            why="the first token of the response would be predicted from nothing.",
            fix="write a prompt, or give `start`, the tokens that begin a text.",
        )
    return Tokens(prompt, response if end is None else [*response, end])


def _cut(row: Tokens, length: int) -> Tokens:
    response = row.response[: length - 1]  # a token of the prompt stays: it predicts the first one
    return Tokens(row.prompt[-(length - len(response)) :], response)


def response_task(
    train: ResponseData | Columns,
    evaluate: dict[str, Columns] | None = None,
    *,
    name: str = "responses",
    axis: Axis = Axis.IID,
) -> Task:
    """A task of exchanges: loss per token of the response, score by exact match."""
    data = train.columns if isinstance(train, ResponseData) else train
    splits = {"train": Split(data, Use.TRAIN)}
    splits |= {key: Split(one, Use.EVALUATE, at=key) for key, one in (evaluate or {}).items()}
    return Task(name=name, axis=axis, splits=splits, objective=exact_match)


def refuse_unsupervised(task: Task) -> None:
    """Raises where no token of a TRAIN split is supervised, and warns where some examples have
    none: their gradient is zero, and a trainer would go on with a loss of 0 or NaN.
    """
    for name, split in task.of(Use.TRAIN).items():
        columns = split.data.columns if isinstance(split.data, Columns) else {}
        if not {"tokens", "mask"} <= set(columns):
            raise InvalidData(
                f"The split `{name}` has no columns `tokens` and `mask`.",
                why="the mask says which tokens are the response.",
                fix="make it by unseen.engine.responses.encode_exchanges(…).columns.",
            )
        counts = target_mask(columns)[:, 1:].sum(1)
        without = int((counts == 0).sum())
        if without == len(counts):
            raise InvalidData(
                f"No target token of the split `{name}` is supervised.",
                why="`mask` is False, or the label IGNORED, for every token after the first.",
                fix="mark the tokens of the responses in `mask`; where texts are cut, cut the "
                "prompt and not the response.",
            )
        if without:
            log.warning(
                "%d of %d examples of `%s` have no supervised token and teach nothing.",
                without,
                len(counts),
                name,
            )


def target_mask(batch: Batch) -> Bool[Tensor, "b s"]:
    """The tokens that the loss is about."""
    mask = batch["mask"].bool()
    return mask & (batch["labels"] != IGNORED) if "labels" in batch else mask


def target_ends(where: Bool[Tensor, "b s"]) -> Int[Tensor, " b"]:
    """Tokens up to the last marked one: what follows is padding, or read by no loss."""
    return (where * torch.arange(1, where.shape[1] + 1, device=where.device)).amax(1)


def parts_by_length(batch: Batch, most: int) -> list[Batch]:
    """The batch in parts of similar length, the longest first, each of at most `most` tokens with
    its padding (or one example).
    """
    where = target_mask(batch)
    lengths = target_ends(where)
    order = lengths.argsort(descending=True, stable=True)
    starts = [0]
    sizes = lengths[order].tolist()
    for k, _ in enumerate(sizes):
        if (k - starts[-1] + 1) * sizes[starts[-1]] > most and k > starts[-1]:
            starts.append(k)
    bounds = zip(starts, [*starts[1:], len(sizes)], strict=True)
    return [{name: x[order[a:b]] for name, x in batch.items()} for a, b in bounds]
