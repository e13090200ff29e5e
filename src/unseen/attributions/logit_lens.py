"""Where in a model an answer appears: what it would say if it ended after a layer (nostalgebraist,
2020, "interpreting GPT: the logit lens").

The state behind a block takes the place of the last block's output, so that the model's own final
norm and head read it. Behind the last block these are the model's logits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.attribution import Cause, Credits
from unseen.attributions.causal_tracing import example as traced_example
from unseen.engine.trace import Call, list_calls, patch, record, residual_stream, skip
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, PerExample


@torch.no_grad()
def lens_values(
    model: nn.Module, queries: Batch, behaviour: PerExample, modules: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The behaviour of the model cut off after each module, by its name.

    `modules` are names as in `engine/trace.py`, the last of which the head reads (none: the
    blocks). The behaviour may return more than a number per query, as all logits.
    """
    was_training = model.training
    model.eval()
    try:
        names = list(modules) or residual_stream(model)
        one = {name: column[:1] for name, column in queries.items()}
        calls = list_calls(model, names, lambda: behaviour(model, one))
        return dict(_cut_models(model, queries, behaviour, calls))
    finally:
        model.train(was_training)


def _cut_models(
    model: nn.Module, queries: Batch, behaviour: PerExample, calls: Sequence[Call]
) -> Iterator[tuple[str, Tensor]]:
    with record(model, [call.name for call in calls]) as found:
        behaviour(model, queries)
    states = dict(found)
    last = calls[-1]
    for call in calls:
        state = states[call.name]
        # nothing between the state and the head needs to run
        unused = {one.name: state for one in calls[:-1] if one.is_plain}
        replace = skip if last.is_plain else patch
        with skip(model, unused), replace(model, {last.name: state}):
            yield call.name, behaviour(model, queries)


def logit_lens(
    model: nn.Module, tokens: Int[Tensor, "query position"], modules: Sequence[str] = ()
) -> dict[str, Float[Tensor, "query position vocabulary"]]:
    """Logits of the model cut off after each module."""
    return lens_values(model, {"tokens": tokens}, _logits, modules)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch["tokens"])


def token_ranks(
    logits: Float[Tensor, "*shape vocabulary"], token: Int[Tensor, "*shape"]
) -> Int[Tensor, "*shape"]:
    """The place of a token among all: 1 is the most likely. Of equal ones the worst place."""
    chosen = logits.gather(-1, token[..., None])
    return (logits >= chosen).sum(-1)


@dataclass(frozen=True)
class LogitLens:
    """The behaviour of the model cut off after each module. Causes are the modules; the last one's
    credit is the behaviour itself.
    """

    modules: tuple[str, ...] = ()
    """Names; none: the blocks."""

    def prepare(self, trained: Trained, lab: Lab) -> "Lens":
        return Lens(self, trained.model)


@dataclass(frozen=True)
class Lens:
    """The attributor."""

    config: LogitLens
    model: nn.Module

    def __call__(self, queries: Batch, behaviour: PerExample) -> Credits:
        values = lens_values(self.model, queries, behaviour, self.config.modules)
        return Credits(torch.stack(list(values.values()), 1), Cause.COMPONENT, list(values))


def example() -> tuple[LogitLens, Trained]:
    return LogitLens(), traced_example()[1]
