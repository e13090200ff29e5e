"""What one cell finds: the models and their neighbourhoods, and the rows of each part."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import log
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.attributions.explanation.solve import Approximation, solve_explanation
from unseen.engine.batches import whole
from unseen.engine.local.features import FeatureSpec
from unseen.engine.local.neighbourhoods import Gaussian, Parametrization
from unseen.engine.local.perturbed_model import PerturbedModel, build_perturbed_model
from unseen.engine.local.surrogate import (
    Explanation,
    Family,
    GradientSample,
    Loss,
    ValueSample,
    evaluate,
    weights_in,
)
from unseen.engine.loop import Budget, Optimizer
from unseen.lab import Lab
from unseen.measures.faithfulness import Noise, Order, changes
from unseen.methods.early_stopping import EarlyStopping
from unseen.studies.which_explanation.methods import CLASSIC, TIES, Config, instances
from unseen.study import Row
from unseen.task import Batch
from unseen.tasks.sklearn_tables import SklearnDataset, SklearnTable

ADDITIVE = ("C-LIME", "SmoothGrad", "Vanilla Gradients")
BINARY = ("LIME", "KernelSHAP", "Occlusion")


@dataclass(frozen=True)
class Cell:
    config: Config
    table: SklearnDataset
    hidden: int
    seed: int


def output(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """The prediction, or the logit of the second class."""
    return model(batch["x"])[:, 0]


def probability(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    return output(model, batch).sigmoid()


def network(d: int, hidden: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k in range(hidden):
        layers += [nn.Linear(8 if k else d, 8), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(8 if hidden else d, 1))


def train_network(cell: Cell, hidden: int, lab: Lab) -> nn.Module:
    task = SklearnTable(cell.table).build(lab.child("data"))
    with lab.child("init", hidden).seeded():
        model = network(len(task.splits["train"].data[0]["x"]), hidden).to(lab.device, lab.dtype)
    budget = Budget(steps=cell.config.steps, batch_size=64, lr=1e-2, optimizer=Optimizer.ADAM)
    return EarlyStopping(every=20, budget=budget).fit(model, task, lab.child("fit", hidden)).model


def near(
    cell: Cell, model: nn.Module, behaviour: Callable[[nn.Module, Batch], Tensor], lab: Lab
) -> PerturbedModel:
    """The model around the first judged rows; the baseline is 0, the smallest value of each
    feature.
    """
    batch = whole(SklearnTable(cell.table).build(lab.child("data")).splits["test"].data, lab)
    return build_perturbed_model(
        model,
        {name: t[: cell.config.points] for name, t in batch.items()},
        behaviour,
        FeatureSpec(),
        lab,
    )


def lunch(
    at: PerturbedModel, answers: Mapping[str, Explanation], config: Config, lab: Lab
) -> Iterator[Row]:
    """Every explanation on every neighbourhood, drawn anew: the share of the null loss that it
    leaves.
    """
    ratios: list[float] = []
    won = 0
    for place, how in instances(config).items():
        found = evaluate(at, how.neighbourhood, how.loss, lab.child("judge", place))
        left = {name: unexplained_share(at, found, answer, how) for name, answer in answers.items()}
        best = min(left, key=left.__getitem__)
        ties = next((tie for tie in TIES if place in tie), {place})
        won += best in ties
        if (
            left[place] > 1e-9
        ):  # single gradients and removals are exact at home: any ratio to that is infinite
            ratios += [log(left[name] / left[place]) for name in left if name not in ties]
        for name, value in left.items():
            yield {
                "part": "lunch",
                "explanation": name,
                "neighbourhood": place,
                "unexplained": value,
            }
    yield {"part": "columns", "won": won, "n": len(answers), "log_ratio": fmean(ratios)}


def unexplained_share(
    at: PerturbedModel, found: ValueSample | GradientSample, answer: Explanation, how: Approximation
) -> float:
    w = weights_in(at, answer, how.neighbourhood.parametrization)
    return (found.loss(w).sum() / found.null.sum()).item()


def agreement_rows(
    at: PerturbedModel, answers: Mapping[str, Explanation], config: Config, lab: Lab
) -> Iterator[Row]:
    """Cosine and mean absolute distance between each method by its own definition and each
    instance.
    """
    classic = {name: make(at, config, lab.child("classic", name)) for name, make in CLASSIC.items()}
    for name, ours in classic.items():
        for other, answer in answers.items():
            theirs = answer.scores
            cosine = 1 - torch.cosine_similarity(ours, theirs, dim=1).mean().item()
            scale = theirs.abs().mean()
            yield {
                "part": "same",
                "classic": name,
                "instance": other,
                "matched": name == other,
                "cosine": max(0.0, cosine),
                "absolute": ((ours - theirs).abs().mean() / scale).item(),
            }


def tests(
    at: PerturbedModel, answers: Mapping[str, Explanation], config: Config, lab: Lab
) -> Iterator[Row]:
    """Change of f in its standard deviations, averaged over numbers of perturbed features. Credits
    as the method gives them.
    """
    spread = at.at_point.std()
    for name, answer in answers.items():
        for order in Order:
            for noise in Noise:
                ks = sorted({max(1, round(share * at.d)) for share in config.shares})
                moved = [
                    changes(
                        at, answer.scores, k, order, noise, lab.child("perturb", k), config.sigma
                    ).mean()
                    for k in ks
                ]
                yield {
                    "part": "test",
                    "explanation": name,
                    "kind": kind(name),
                    "order": str(order),
                    "noise": str(noise),
                    "change": (torch.stack(moved).mean() / spread).item(),
                }


def kind(name: str) -> str:
    return "additive" if name in ADDITIVE else "binary" if name in BINARY else "gradual"


def recovery(cell: Cell, model: nn.Module, lab: Lab) -> Iterator[Row]:
    """Relative errors on a linear model: of w by additive methods, of w·x₀ and of w by
    multiplicative ones; logistic g.
    """
    weight = model[-1].weight.detach()  # type: ignore[index]
    at = near(cell, model, output, lab)
    for name, how in instances(cell.config).items():
        scores = solve_explanation(at, how, lab.child("recover", name)).scores
        yield {
            "part": "recovery",
            "explanation": name,
            "additive": how.neighbourhood.parametrization is Parametrization.ADDITIVE,
            "error_w": distance(scores, weight.expand_as(scores)),
            "error_wx": distance(scores, weight * at.point),
        }
    likely = near(cell, model, probability, lab)
    noise = Gaussian(cell.config.sigma, min(cell.config.noise, 500))
    for family in Family:
        found = solve_explanation(
            likely, Approximation(noise, Loss.GRADIENT, family), lab.child("logistic")
        )
        yield {
            "part": "logistic",
            "family": str(family),
            "error_w": distance(found.scores, weight.expand_as(found.scores)),
        }


def distance(found: Tensor, true: Tensor) -> float:
    return ((found - true).norm() / true.norm()).item()
