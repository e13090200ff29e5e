"""How likely a language model holds each of several continuations of a prompt.

Prompt and continuation are tokenised jointly and cut where their tokens leave those of the prompt
alone: a token across the join belongs to the continuation. What all prompts of a call begin with is
read once, each prompt once, and its continuations go on from the cached keys and values.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.engine.decode import Side, evaluating, pad_sequences, token_log_probabilities
from unseen.errors import InvalidData, UnsupportedLayer

FEWEST_SHARED = 8
"""Tokens that all prompts begin with; fewer are read again with each of them."""
BATCH_TOKENS = {"cpu": 256}
"""More were slower on a CPU (SmolLM2, 24 items: 4.7 s at 256, 6.6 s at 1,024): caches are small."""

CONTEXT_TOKENS = 2
"""Times as many tokens of prompts: only their last ones have logits."""


class Precision(StrEnum):
    """Of the matrix products; sums of log-probabilities are in float32 either way."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"

    def on(self, device: torch.device) -> AbstractContextManager[Any]:
        if self is Precision.FLOAT32:
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)


@runtime_checkable
class BranchReader(Protocol):
    """A model of texts whose state can be read on from several times."""

    @property
    def start(self) -> list[int]:
        """Tokens before every text."""

    @property
    def context(self) -> int | None:
        """Most tokens that it reads; None where there is no such limit."""

    def encode(self, text: str) -> list[int]: ...

    def read_last(self, tokens: Tensor, real: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits of the last new token only, and the state."""

    def read_layers(
        self, tokens: Tensor, real: Tensor, state: Any, layers: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Logits [b s v] and hidden states [b s layer d] of the new tokens."""

    def select(self, state: Any, rows: Tensor) -> Any:
        """A new state that holds these rows of `state`, which stays as it was."""


@dataclass(frozen=True)
class ChoiceLikelihood:
    """Of the continuations of one prompt, in their order."""

    total: Float[Tensor, " choice"]
    """Σ log p of the continuation's tokens, in nats."""
    tokens: Int[Tensor, " choice"]
    bytes: Int[Tensor, " choice"]
    """Of the continuation in UTF-8, with the blank that it may begin with."""
    hidden: Float[Tensor, "choice layer d"] | None = None
    """At the continuation's last token, where layers were named."""

    @property
    def per_token(self) -> Float[Tensor, " choice"]:
        return self.total / self.tokens

    @property
    def per_byte(self) -> Float[Tensor, " choice"]:
        return self.total / self.bytes


@dataclass(frozen=True)
class JoinedTokens:
    """One prompt and one continuation as tokens, of which those from `cut` on are scored."""

    tokens: tuple[int, ...]
    cut: int


@dataclass(frozen=True)
class Branches:
    """The tokens that all continuations of a prompt have before them, and each one's own."""

    context: tuple[int, ...]
    tails: tuple[tuple[int, ...], ...]
    skip: tuple[int, ...]
    """Tokens at the beginning of each tail that belong to the prompt and are not scored."""
    bytes: tuple[int, ...]

    @property
    def width(self) -> int:
        return max(len(tail) for tail in self.tails)


def join_tokens(encode: Callable[[str], Sequence[int]], prompt: str, text: str) -> JoinedTokens:
    """`prompt` and `text` tokenised jointly; the cut is where the tokens of `prompt` alone end or
    differ.
    """
    alone, joint = encode(prompt), encode(prompt + text)
    # at least one token is scored, also where the tokenizer swallows the text
    most = max(0, min(len(alone), len(joint) - 1))
    cut = next((k for k in range(most) if alone[k] != joint[k]), most)
    return JoinedTokens(tuple(joint), cut)


@torch.no_grad()
def choice_likelihoods(
    model: nn.Module,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    precision: Precision = Precision.FLOAT32,
    layers: Sequence[int] = (),
    batch_tokens: int | None = None,
) -> list[ChoiceLikelihood]:
    """The likelihood of each of `choices[k]` as continuation of `prompts[k]`, on the CPU.

    A continuation is taken as it is written: it brings the blank that separates it. In float32 the
    numbers do not depend on which prompts share a batch (to 1e-4); in bfloat16 a token's logit is
    rounded to 1/256 of its size. `layers` asks for hidden states at each continuation's last token:
    0 is the embedding, −1 the last layer. `batch_tokens` are read at a time, padding included.
    """
    with evaluating(model) as (_, device), precision.on(device):
        if not isinstance(model, BranchReader):
            raise UnsupportedLayer(
                f"{type(model).__name__} does not read texts.",
                why="a prompt's tokens are read once, and each continuation goes on from there.",
                fix="use models.pretrained.load_causal(folder), or CausalLM around a transformers "
                "model and its tokenizer.",
            )
        items = _branches(model, prompts, choices)
        found: list[ChoiceLikelihood | None] = [None] * len(items)
        shared = _SharedPrefix.of(model, items, device)
        most = batch_tokens or BATCH_TOKENS.get(device.type, 8192)
        for batch in _batches(items, CONTEXT_TOKENS * most):
            here = [items[k] for k in batch]
            context = _read_contexts(model, here, shared, device)
            read = _read_tails(model, here, context, layers, most)
            for k, one in zip(batch, read, strict=True):
                found[k] = one
    return [_check_number(k, one) for k, one in enumerate(found) if one is not None]


def _check_number(k: int, one: ChoiceLikelihood) -> ChoiceLikelihood:
    if bool(one.total.isnan().any()):
        raise InvalidData(
            f"The likelihood of a continuation of prompt {k} is NaN.",
            why="weights or states of the model are NaN or too large for their precision, and the "
            "first choice would count as the likeliest.",
            fix="look at the run that made the weights, or read the model in float32.",
        )
    return one


def _branches(
    model: BranchReader, prompts: Sequence[str], choices: Sequence[Sequence[str]]
) -> list[Branches]:
    if len(prompts) != len(choices):
        raise InvalidData(
            f"There are {len(prompts)} prompts and {len(choices)} lists of continuations.",
            why="list k continues prompt k.",
            fix="give two lists of equal length.",
        )
    return [
        _branch(model, f"Prompt {k}", prompt, texts)
        for k, (prompt, texts) in enumerate(zip(prompts, choices, strict=True))
    ]


def refuse_unreadable(model: BranchReader, name: str, prompt: str, choices: Sequence[str]) -> None:
    """Raises where the model cannot score these continuations, as those that exceed its context:
    before others are scored for hours.
    """
    _branch(model, name, prompt, choices)


def _branch(model: BranchReader, name: str, prompt: str, texts: Sequence[str]) -> Branches:
    empty = [repr(text) for text in texts if not text.strip()]
    if not texts or empty:
        raise InvalidData(
            f"{name} has " + (f"the continuation {empty[0]}." if empty else "no continuation."),
            why="nothing is predicted, so it has no likelihood.",
            fix="leave it out, or write what should follow.",
        )
    start = model.start
    rows = [join_tokens(model.encode, prompt, text) for text in texts]
    cut = min(row.cut for row in rows)
    context = (*start, *rows[0].tokens[:cut])
    if not context:
        raise _no_context(name, prompt, model.encode(prompt))
    branches = Branches(
        context,
        tails=tuple(row.tokens[cut:] for row in rows),
        skip=tuple(row.cut - cut for row in rows),
        bytes=tuple(len(text.encode()) for text in texts),
    )
    length = len(context) + branches.width
    if model.context is not None and length > model.context:
        raise InvalidData(
            f"{name} and its longest continuation are {length:,} tokens.",
            why=f"the model has {model.context:,} positions.",
            fix="shorten it, or take fewer examples into the prompt.",
        )
    return branches


def _no_context(name: str, prompt: str, tokens: Sequence[int]) -> InvalidData:
    why = "the first token would be predicted from nothing, and the tokenizer has none for the "
    why += "beginning of a text."
    if tokens:
        what = f"{name}, {prompt!r}, is one token with the beginning of a continuation."
        return InvalidData(what, why=why, fix="begin the continuations with a space.")
    what = f"{name}, {prompt!r}, has no token." if prompt else f"{name} is empty."
    return InvalidData(what, why=why, fix="start every prompt with a word.")


def _batches(items: Sequence[Branches], tokens: int) -> Iterator[list[int]]:
    """Items of similar length together, as many as `tokens` allow with padding, at least one."""
    order = sorted(range(len(items)), key=lambda k: len(items[k].context))
    batch: list[int] = []
    for k in order:  # the longest comes last
        if batch and len(items[k].context) * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(k)
    if batch:
        yield batch


@dataclass(frozen=True)
class _SharedPrefix:
    """What all prompts begin with, read once."""

    length: int = 0
    state: Any = None

    @classmethod
    def of(
        cls, model: BranchReader, items: Sequence[Branches], device: torch.device
    ) -> "_SharedPrefix":
        if len(items) < 2:
            return cls()
        first = items[0].context
        # the last token of each prompt is read with the prompt: its logits are needed
        most = min(len(one.context) for one in items) - 1
        length = next(
            (k for k in range(most) if any(one.context[k] != first[k] for one in items)), most
        )
        if length < FEWEST_SHARED:
            return cls()
        tokens = torch.tensor([first[:length]], device=device)
        _, state = model.read_last(tokens, torch.ones_like(tokens, dtype=torch.bool), None)
        return cls(length, state)


@dataclass(frozen=True)
class _ReadContext:
    """Prompts of a batch after they were read."""

    logits: Float[Tensor, "b v"]
    """Of the token behind each prompt."""
    real: Bool[Tensor, "b read"]
    state: Any


def _read_contexts(
    model: BranchReader, items: Sequence[Branches], shared: _SharedPrefix, device: torch.device
) -> _ReadContext:
    rest = pad_sequences(
        [one.context[shared.length :] for one in items], [()] * len(items), Side.LEFT
    )
    before = torch.ones(len(items), shared.length, dtype=torch.bool)
    real = torch.cat([before, rest.real], 1).to(device)
    state = shared.state
    if shared.length:
        state = model.select(state, torch.zeros(len(items), dtype=torch.long, device=device))
    logits, state = model.read_last(rest.tokens.to(device), real, state)
    return _ReadContext(logits, real, state)


def _read_tails(
    model: BranchReader,
    items: Sequence[Branches],
    context: "_ReadContext",
    layers: Sequence[int],
    most: int,
) -> list[ChoiceLikelihood]:
    """The first token of a tail is predicted by the prompt's last one, the others by the tail."""
    device = context.real.device
    counts = [len(one.tails) for one in items]
    owner = torch.repeat_interleave(torch.tensor(counts)).to(device)
    tails = [tail for one in items for tail in one.tails]
    skip = torch.tensor([k for one in items for k in one.skip], device=device)
    first = torch.tensor([tail[0] for tail in tails], device=device)
    steps = token_log_probabilities(context.logits[owner][:, None], first[:, None])[:, 0]
    total = steps.masked_fill(skip > 0, 0)
    hidden: list[Tensor] = [torch.empty(0)] * len(tails)
    # a tail's last token predicts nothing: it is read for its hidden state only
    unread = 0 if layers else 1
    for group in _tail_groups([len(tail) - unread for tail in tails], most):
        rows = pad_sequences([tails[k] for k in group], [()] * len(group), Side.RIGHT)
        tokens, is_token = rows.tokens.to(device), rows.real.to(device)
        reads = tokens[:, : tokens.shape[1] - unread]
        seen = torch.cat([context.real[owner[group]], is_token[:, : reads.shape[1]]], 1)
        state = model.select(context.state, owner[group])
        logits, states = model.read_layers(reads, seen, state, layers)
        steps = token_log_probabilities(logits[:, : tokens.shape[1] - 1], tokens[:, 1:])
        place = torch.arange(1, tokens.shape[1], device=device)
        scored = is_token[:, 1:] & (place >= skip[group][:, None])
        total[group] += steps.masked_fill(~scored, 0).sum(1)
        if layers:
            last = is_token.sum(1) - 1
            for k, state_at_end in zip(group, states[range(len(group)), last], strict=True):
                hidden[k] = state_at_end.float().cpu()
    lengths = torch.tensor([len(tail) for tail in tails]) - skip.cpu()
    parts = zip(items, total.cpu().split(counts), lengths.split(counts), strict=True)
    ends = torch.stack(hidden).split(counts) if layers else [None] * len(items)
    return [
        ChoiceLikelihood(sums, tokens, torch.tensor(one.bytes), end)
        for (one, sums, tokens), end in zip(parts, ends, strict=True)
    ]


def _tail_groups(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Rows with something to read, by length: none twice as long as another of its group, and at
    most so many tokens with padding.
    """
    group: list[int] = []
    for k in sorted(range(len(lengths)), key=lambda k: lengths[k]):
        if not lengths[k]:
            continue
        is_long = bool(group) and lengths[k] > 2 * lengths[group[0]]
        if group and (is_long or lengths[k] * (len(group) + 1) > most):
            yield group
            group = []
        group.append(k)
    if group:
        yield group
