"""What is read from a finished model: how good, how fair in truth, in its own eyes and in those of
another autoencoder.
"""

from collections.abc import Iterator, Sequence
from math import log

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import Columns, whole
from unseen.engine.evaluate import score
from unseen.engine.features import record_features
from unseen.engine.loop import erm_step
from unseen.engine.vectorized.choose import train_many
from unseen.lab import Lab
from unseen.measures.fairness import (
    CounterfactualEffect,
    CounterfactualFlips,
    DemographicParity,
    EqualizedOdds,
    ModelBasedEffect,
    demographic_parity_gap,
)
from unseen.method import Trained
from unseen.methods.cdsae import nats
from unseen.models.mlp import mlp
from unseen.models.sequential_autoencoder import SequentialAutoencoder
from unseen.objectives import classify
from unseen.studies.counterfactual_fairness.arms import FUTURE, HELD_OUT, PRESENT, Arm, Config
from unseen.study import Value
from unseen.task import Split, Task, Use
from unseen.tasks.drifting_fairness import DriftingFairness

COLLAPSED = 0.01
"""Nats below which a group of codes holds nothing."""
LEAST = 1e-4
"""Effects below it (in points) count as this much in ratios."""


def evaluate(trained: Trained, lab: Lab) -> dict[str, Value]:
    """In percent and points, on people of later domains."""
    task = trained.task
    known = whole(task.split(FUTURE).data, lab)
    found: dict[str, Value] = {
        "accuracy": 100 * score(trained.model, task, task.split(FUTURE), lab).value,
        "present": 100 * score(trained.model, task, task.split(PRESENT), lab).value,
        "parity": 100 * DemographicParity(FUTURE)(trained, lab).value,
        "odds": 100 * EqualizedOdds(FUTURE)(trained, lab).value,
    }
    if "fair" in known:
        with torch.no_grad():
            said = trained.model(known["x"]).argmax(1)
        found["fair_accuracy"] = 100 * float((said == known["fair"]).double().mean())
    if "counterfactual" in known:
        found |= effects(trained, "true", "counterfactual", lab)
        found["flips"] = 100 * CounterfactualFlips(FUTURE)(trained, lab).value
        found["true_present"] = 100 * CounterfactualEffect(PRESENT)(trained, lab).value
    if "outside" in known:
        found |= effects(trained, "outside", "outside", lab)
    if isinstance(trained.model, SequentialAutoencoder):
        own = 100 * ModelBasedEffect(FUTURE)(trained, lab).value
        found |= {"own": own, "log_own": log(max(own, LEAST))}
        held = {name: values[0] for name, values in nats(trained.model, task, lab).items()}
        found |= {
            "least_nats": min(held.values()),
            "collapsed": sum(v < COLLAPSED for v in held.values()),
        }
    return found


def effects(trained: Trained, name: str, column: str, lab: Lab) -> dict[str, Value]:
    """The mean effect of a counterfactual in points, and its logarithm for ratios."""
    value = 100 * CounterfactualEffect(FUTURE, column)(trained, lab).value
    return {name: value, f"log_{name}": log(max(value, LEAST))}


def oracles(spec: DriftingFairness, task: Task) -> Iterator[tuple[Arm, dict[str, Value]]]:
    """Rules that know u: the fair one ignores a, the biased one is the best guess of the label from
    u and a.
    """
    own = task.split(FUTURE).data[:]
    merit, pull = spec.merit(own["u"]), spec.pull(own["a"].bool())
    for arm, now, other in ((Arm.FAIR, merit, merit), (Arm.BIASED, merit + pull, merit - pull)):
        said, moved = now > 0, other > 0
        effect = 100 * float((said != moved).double().mean())
        yield (
            arm,
            {
                "accuracy": 100 * float((said == own["y"].bool()).double().mean()),
                "fair_accuracy": 100 * float((said == own["fair"].bool()).double().mean()),
                "true": effect,
                "flips": effect,
                "parity": 100 * demographic_parity_gap(said, own["a"]).value,
            },
        )


@torch.no_grad()
def decision_features(
    model: nn.Module, x: Float[Tensor, "n d"], noise: torch.Generator | None
) -> Float[Tensor, "n h"]:
    """What the answer is made of: semantic codes, their means or (with noise) as in training, or
    the last layer's inputs.
    """
    if isinstance(model, SequentialAutoencoder):
        posterior = model.posterior(x)
        mean = posterior.mean
        drawn = (
            torch.zeros_like(mean)
            if noise is None
            else torch.randn(mean.shape, generator=noise).to(mean)
        )
        return model.semantic(posterior.sample(drawn))
    with record_features(model) as found:
        model(x)
    return found[0]


def telling(
    trained: Sequence[Trained], config: Config, labs: Sequence[Lab], *, sampled: bool = False
) -> list[float]:
    """How often, in percent, networks trained anew tell a of new people from what the answers are
    made of.
    """
    tasks, models = [], []
    for each, lab in zip(trained, labs, strict=True):
        noise = lab.child("noise").generator() if sampled else None
        fitted, held = (
            Columns(
                x=torch.cat(
                    [decision_features(each.model, whole(s.data, lab)["x"], noise) for s in splits]
                ),
                y=torch.cat([whole(s.data, lab)["a"] for s in splits]),
            )
            for splits in (list(each.task.of(Use.TRAIN).values()), [each.task.split(HELD_OUT)])
        )
        mean, deviation = fitted.columns["x"].mean(0), fitted.columns["x"].std(0).clamp_min(1e-6)
        for columns in (fitted, held):
            columns.columns["x"] = (columns.columns["x"] - mean) / deviation
        splits = {"fitted": Split(fitted, Use.TRAIN), HELD_OUT: Split(held, Use.EVALUATE)}
        tasks.append(
            Task(name="whose codes", axis=each.task.axis, splits=splits, objective=classify)
        )
        with lab.child("adversary").seeded():
            models.append(mlp([len(mean), config.width, config.width, 2]))
    found = train_many(
        models, tasks, erm_step, config.probe, [lab.child("adversary") for lab in labs]
    )
    return [
        100 * score(t.model, t.task, t.task.split(HELD_OUT), lab).value
        for t, lab in zip(found, labs, strict=True)
    ]


@torch.no_grad()
def adversary_accuracy(trained: Trained, lab: Lab) -> dict[str, Value]:
    """How often the adversary of the training tells a of new people."""
    model, known = trained.model, whole(trained.task.split(HELD_OUT).data, lab)
    if not isinstance(model, SequentialAutoencoder):
        return {}
    guess = model.discriminator(model.semantic(model.posterior(known["x"]).mean))[:, 0] > 0
    return {"own_adversary": 100 * float((guess == known["a"].bool()).double().mean())}
