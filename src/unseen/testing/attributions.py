"""The contract of attributions."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unseen.attribution import Attribution, Cause, Credits
from unseen.engine.batches import length, size
from unseen.engine.parameters import state
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, Use
from unseen.testing.contract import (
    check_plug,
    forbid_global_randomness,
    modes_of,
    name_of,
    require,
    same_state,
    scramble_global_rng,
)
from unseen.testing.stand_ins import first, small_subject


def check_attribution(
    attribution: Attribution, trained: Trained | None = None, lab: Lab = Lab()
) -> None:
    """Scores [query, cause], finite; the same lab gives the same scores; the model is left as it
    was; a behaviour that is zero everywhere gets zero credit."""
    check_plug(attribution, "prepare")
    trained = trained or small_subject(lab)
    before, modes = state(trained.model), modes_of(trained.model)
    queries = first(trained.task, Use.EVALUATE, lab, 3)
    loss = trained.task.objective.loss

    def credits(behaviour: Callable[[nn.Module, Batch], Tensor] = loss) -> Credits:
        found = attribution.prepare(trained, lab.child("attribution"))(queries, behaviour)
        require(
            isinstance(found, Credits),
            f"{name_of(attribution)} answered a {type(found).__name__}.",
            "it gives Credits.",
        )
        return found

    with forbid_global_randomness("the attribution"):
        found = credits()
    scores = found.scores
    require(
        scores.dim() == 2 and len(scores) == size(queries) and scores.shape[1] > 0,
        f"{name_of(attribution)} gave scores of shape {tuple(scores.shape)} for {size(queries)} "
        "queries.",
        "scores are [query, cause].",
    )
    require(
        bool(torch.isfinite(scores).all()),
        f"{name_of(attribution)} gave scores that are not finite.",
        "nobody can rank them.",
    )
    labels, n = (
        len(found.labels),
        sum(length(s.data) or 0 for s in trained.task.of(Use.TRAIN).values()),
    )
    require(
        labels in (0, scores.shape[1]),
        f"{labels} labels name {scores.shape[1]} causes.",
        "each cause has one label.",
    )
    if found.cause is Cause.EXAMPLE:
        require(
            scores.shape[1] == n or labels > 0,
            f"{scores.shape[1]} scores for {n} training examples.",
            "unnamed causes are all the training examples, in order.",
        )
    with scramble_global_rng():
        again = credits().scores
    require(
        torch.equal(again, scores),
        f"{name_of(attribution)} gave other scores the second time.",
        "draw from the lab.",
    )
    nothing = credits(lambda model, batch: 0 * loss(model, batch)).scores
    require(
        not nothing.any(),
        f"{name_of(attribution)} credits causes for a behaviour that is always 0.",
        "0 has no causes.",
    )
    require(
        same_state(before, state(trained.model)) and modes == modes_of(trained.model),
        f"{name_of(attribution)} left the model changed (weights, mode, requires_grad, gradients "
        "or hooks).",
        "the next question would be asked of another model.",
    )
