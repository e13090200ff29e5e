"""The procedure of influence on a subject's model: one home for `unseen influence` and the audit,
so that both give the same pair of examples the same number.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from unseen.attributions.influence import Fisher, Influence, sequence_nats
from unseen.attributions.influence.layers import select_layers
from unseen.engine.batches import gather, to_device
from unseen.objectives import cross_entropy, logistic_loss, mean_token_loss
from unseen.subjects.session import Session
from unseen.task import Batch, PerExample

DAMPING = 1.0
"""Of a model trained for few steps. At 1 the estimates agree with retraining as well as at 0.1 or
better: on heart disease a correlation of .69 to .82 against .66 to .75, at four sites.
"""
ROWS = 64
"""Training examples that are scored together."""
MOST = 20_000
"""Examples on which the curvature is fitted: an audit trains much more than that."""
MOST_INPUTS = 2_000
"""Inputs of a linear layer up to which its curvature is fitted unasked: it costs their cube."""
FEW = 20
"""Classes up to which every one of them is visited for the Fisher matrix: no noise of drawn
labels.
"""
DRAWS = 10
"""Labels drawn per example where classes cannot be visited."""


def default_influence() -> Influence:
    """The settings where nobody says anything."""
    return Influence(damping=DAMPING, batch_size=ROWS, most=MOST)


def query_loss(session: Session) -> PerExample:
    """The loss whose Fisher matrix is asked for: a sequence's is the sum over its tokens."""
    loss = session.task.objective.loss
    return sequence_nats if loss is mean_token_loss else loss


def for_session(config: Influence, session: Session, fisher: str = "") -> Influence:
    """The configuration with the session's loss, and the Fisher matrix that was asked for or that
    has the least noise for this kind of data.
    """
    loss = query_loss(session)
    layers = config.layers or _narrow_layers(session.first.model)
    config = replace(config, loss=loss, layers=layers)
    if fisher:
        return replace(config, fisher=Fisher(fisher))
    if loss is logistic_loss or (loss is cross_entropy and _classes(session) <= FEW):
        return replace(config, fisher=Fisher.EXACT)
    if session.task.objective.relabel is None:
        return replace(config, fisher=Fisher.EMPIRICAL)
    return replace(config, fisher=Fisher.SAMPLED, draws=DRAWS)


def _narrow_layers(model: nn.Module) -> tuple[str, ...]:
    """The layers that an influence goes through by default but for those of very many inputs;
    empty, which stands for the default, where that leaves all or none.
    """
    chosen = select_layers(model, ())
    wide = {
        name
        for name in chosen
        if isinstance(layer := model.get_submodule(name), nn.Linear)
        and layer.in_features > MOST_INPUTS
    }
    narrow = tuple(name for name in chosen if name not in wide)
    return narrow if wide else ()


def negative(loss: PerExample) -> PerExample:
    """−loss: the log-likelihood."""

    def likely(model: nn.Module, batch: Batch) -> Tensor:
        return -loss(model, batch)

    return likely


@torch.no_grad()
def _classes(session: Session) -> int:
    split = session.task.splits[session.training_split]
    batch = to_device(gather(split.data, torch.tensor([0])), session.lab)
    return int(session.first.model(batch["x"]).shape[-1])
