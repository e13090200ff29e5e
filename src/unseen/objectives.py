"""Ready objectives. Models take `batch["x"]` (or `batch["tokens"]`) and return logits or
predictions.
"""

from math import nan

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unseen.task import Batch, Objective

IGNORED = -100
"""A label that stands for none, as in torch's cross-entropy (`ignore_index`)."""


def cross_entropy(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """−log p(y | x) in nats; `y` holds class indices."""
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def correct(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """1 where the most likely class is `y`; NaN where a logit is NaN, of which argmax would make a
    class.
    """
    logits = model(batch["x"])
    return (
        (logits.argmax(-1) == batch["y"]).to(logits.dtype).masked_fill(logits.isnan().any(-1), nan)
    )


def drawn_classes(model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with `y` drawn from the model's softmax."""
    with torch.no_grad():
        p = model(batch["x"]).softmax(-1)
    # drawn on the CPU: one stream of numbers for every device
    return {
        **batch,
        "y": torch.multinomial(p.float().cpu(), 1, generator=generator).squeeze(1).to(p.device),
    }


def squared_error(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """½ ‖prediction − y‖², the negative log-likelihood of a unit-variance Gaussian up to a
    constant.
    """
    error = model(batch["x"]).flatten(1) - batch["y"].reshape(len(batch["y"]), -1)
    return error.square().sum(1) / 2


def negative_absolute_error(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """−|prediction − y|, averaged over outputs, in the target's unit."""
    return -(model(batch["x"]).flatten(1) - batch["y"].reshape(len(batch["y"]), -1)).abs().mean(1)


def drawn_values(model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with `y` drawn from a unit-variance Gaussian around the prediction."""
    with torch.no_grad():
        centre = model(batch["x"]).reshape(batch["y"].shape)
    noise = torch.randn(centre.shape, generator=generator, dtype=torch.float64)
    return {**batch, "y": centre + noise.to(centre)}


def logistic_loss(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """log(1 + e^(−s f(x))) with s = 2y − 1; `y` is 0 or 1 and the model returns one logit."""
    logit = model(batch["x"]).reshape(len(batch["y"]))
    return F.binary_cross_entropy_with_logits(logit, batch["y"].to(logit.dtype), reduction="none")


def correct_sign(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """1 where the logit's sign agrees with `y`; NaN where the logit is."""
    logit = model(batch["x"]).reshape(len(batch["y"]))
    return ((logit > 0) == (batch["y"] > 0)).to(logit.dtype).masked_fill(logit.isnan(), nan)


def drawn_bits(model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with `y` drawn from the model's Bernoulli distribution."""
    with torch.no_grad():
        p = model(batch["x"]).reshape(len(batch["y"])).sigmoid()
    return {**batch, "y": torch.bernoulli(p.float().cpu(), generator=generator).to(batch["y"])}


def _token_losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Per-position loss, hit and weight; position s predicts token s + 1, weights are `mask`
    (default: all) where the label is not `IGNORED`.
    """
    tokens = batch["tokens"]
    logits = model(tokens)[:, :-1]
    target = batch.get("labels", tokens)[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(
        target.shape
    )
    mask = batch.get("mask")
    weight = (target != IGNORED).to(loss.dtype)
    weight = weight if mask is None else weight * mask[:, 1:].to(loss.dtype)
    return loss, logits.argmax(-1) == target, weight


def mean_token_loss(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """Nats per predicted token, averaged over the tokens with `mask` = 1."""
    loss, _, weight = _token_losses(model, batch)
    return (loss * weight).sum(1) / weight.sum(1).clamp_min(1)


def sequence_log_probability(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """log p(masked tokens | the tokens before them) in nats: the sum over the tokens with `mask` =
    1.
    """
    loss, _, weight = _token_losses(model, batch)
    return -(loss * weight).sum(1)


def all_tokens_right(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """1 where every token with `answer` (else `mask`) = 1 is the most likely one.

    Equal to exact match of greedy decoding: the first wrong argmax is where decoding would leave
    the answer. NaN where a token's loss is.
    """
    batch = {**batch, "mask": batch["answer"]} if "answer" in batch else batch
    loss, hit, weight = _token_losses(model, batch)
    return (hit | (weight == 0)).all(1).to(loss.dtype).masked_fill(loss.isnan().any(1), nan)


def drawn_tokens(model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
    """Targets drawn from the model given the true context, as `labels`; inputs stay as they are."""
    with torch.no_grad():
        p = model(batch["tokens"])[:, :-1].softmax(-1)
    drawn = (
        torch.multinomial(p.flatten(0, 1).float().cpu(), 1, generator=generator)
        .view(p.shape[:2])
        .to(p.device)
    )
    return {**batch, "labels": torch.cat([batch["tokens"][:, :1], drawn], 1)}


classify = Objective(cross_entropy, correct, drawn_classes)
regress = Objective(squared_error, negative_absolute_error, drawn_values)
binary = Objective(logistic_loss, correct_sign, drawn_bits)
next_token = Objective(mean_token_loss, sequence_log_probability, drawn_tokens)
exact_match = Objective(mean_token_loss, all_tokens_right, drawn_tokens)
