"""The loss of responses only, from logits at their tokens only, which saves most of the head's
work.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.engine.responses import target_ends, target_mask
from unseen.models.encoder_decoder import EncoderDecoder
from unseen.models.pretrained import CausalLM
from unseen.models.transformer import Transformer
from unseen.task import Batch


def response_loss(model: nn.Module, batch: Batch) -> Float[Tensor, " b"]:
    """−log p(response | prompt) per token, in nats; 0 where nothing is supervised.

    The value of `objectives.mean_token_loss`, from the logits at the response's tokens only and
    without the padding that no row of the batch needs. Labels of prompt tokens are never read.
    """
    return -response_log_likelihood(model, batch) / target_mask(batch)[:, 1:].sum(1).clamp_min(1)


def response_log_likelihood(model: nn.Module, batch: Batch) -> Float[Tensor, " b"]:
    """log p(response | prompt) in nats: the *sum* over the response's tokens."""
    where = target_mask(batch)
    width = max(2, target_ends(where).amax().item())
    tokens, where = batch["tokens"][:, :width], where[:, 1:width]
    target = batch.get("labels", batch["tokens"])[:, 1:width][where]
    logits = logits_at(model, tokens[:, :-1], where)
    # float32: half precision holds log-probabilities to two digits
    wide = logits if logits.dtype is torch.float64 else logits.float()
    losses = F.cross_entropy(wide, target, reduction="none")
    rows = where.nonzero()[:, 0]
    return -losses.new_zeros(len(tokens)).index_add(0, rows, losses)


def logits_at(
    model: nn.Module, tokens: Int[Tensor, "b s"], where: Bool[Tensor, "b s"]
) -> Float[Tensor, "n v"]:
    """The logits at the marked positions, row by row. The head of a `Transformer` or `CausalLM`
    computes no others, that of an `EncoderDecoder` none of the source.
    """
    if isinstance(model, CausalLM):
        # through the head's input: what a model does with its logits afterwards stays as it is
        with _choose_hidden(model.model.get_output_embeddings(), where):
            return model.model(input_ids=tokens, use_cache=False).logits[0]
    if isinstance(model, EncoderDecoder):
        return model.logits_at(tokens, where)
    if isinstance(model, Transformer):
        with _without_head(model) as head:
            hidden = model(tokens)
        return head(hidden[where])
    return model(tokens)[where]


@contextlib.contextmanager
def _choose_hidden(head: nn.Module, where: Bool[Tensor, "b s"]) -> Iterator[None]:
    """Inside the block the head reads the hidden states at the marked positions, as one row."""

    def choose(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][where][None], *inputs[1:])

    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _without_head(model: Transformer) -> Iterator[nn.Module]:
    """Inside the block the model gives its hidden states; the head is given to the caller."""
    head = model.head
    model.head = nn.Identity()  # type: ignore[assignment]
    try:
        yield head
    finally:
        model.head = head


def output_head(model: nn.Module) -> nn.Module | None:
    """The last map of a language model, from hidden states to logits; None of other models."""
    if isinstance(model, CausalLM):
        return model.model.get_output_embeddings()
    return model.head if isinstance(model, Transformer) else None
