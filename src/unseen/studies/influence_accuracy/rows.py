"""What one cell finds: foretold against retraining, removal and the proximal response, and wrong
labels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import whole
from unseen.engine.evaluate import per_example, score
from unseen.engine.retrain import query_outputs, retrain
from unseen.lab import Lab
from unseen.measures.bregman_response import Proximal
from unseen.measures.datamodeling_score import datamodeling_score, random_subsets
from unseen.measures.leave_one_out import (
    correlation,
    first_order_effects,
    proportionality,
    removal_effects,
    without,
)
from unseen.measures.mislabel_detection import detection, detection_rate
from unseen.studies.influence_accuracy.strategies import (
    DIAGONAL,
    DOT,
    EKFAC,
    EVERY_CLASS,
    GAUSS_NEWTON,
    KFAC_EVERY,
    RANDOM,
    STRATEGIES,
    Setting,
    Strategy,
    margin,
)
from unseen.study import Row, Value
from unseen.task import Batch, Task


@dataclass(frozen=True)
class ScoreCell:
    setting: Setting
    draws: int
    subsets: int
    repeats: int
    asked: int
    removed: int
    seed: int


@dataclass(frozen=True)
class ResponseCell:
    setting: Setting
    copies: float
    seed: int


@dataclass(frozen=True)
class LabelCell:
    setting: Setting
    draws: int
    seed: int


def output_loss(outputs: Float[Tensor, "b c"], batch: Batch) -> Float[Tensor, " b"]:
    return F.cross_entropy(outputs, batch["y"], reduction="none")


def logits(model: nn.Module, batch: Batch) -> Float[Tensor, "b c"]:
    return model(batch["x"])


def score_rows(cell: ScoreCell, lab: Lab) -> Iterator[Row]:
    """Every strategy against the models retrained on halves, and without the most helpful images of
    single queries.
    """
    setting, n = cell.setting, cell.setting.images.n_train
    task = setting.task(lab)
    data = task.split("test").data
    trained, queries = setting.train(task, lab), whole(data, lab)
    kept = random_subsets(n, cell.subsets, lab.child("subsets"))
    again = retrain(
        setting.model, task, kept, setting.steps(n // 2), lab.child("halves"), repeats=cell.repeats
    )
    outputs = query_outputs(again, data, margin, lab).mean(1)
    accuracy = {
        name: score(trained.model, task, task.split(name), lab).value for name in ("train", "test")
    }
    scores = {
        strategy: strategy.scores(trained, queries, cell.draws, lab) for strategy in STRATEGIES
    }
    drops = removal(cell, task, {s: scores[s] for s in (RANDOM, DOT, EKFAC)}, lab)
    for strategy, table in scores.items():
        lds = datamodeling_score(table, kept, outputs)
        row: dict[str, Value] = {
            "part": "score",
            "strategy": strategy.label,
            "seed": cell.seed,
            "lds": lds.value,
            **accuracy,
        }
        yield row | ({"drop": drops[strategy]} if strategy in drops else {})


def removal(
    cell: ScoreCell, task: Task, scores: Mapping[Strategy, Float[Tensor, "query example"]], lab: Lab
) -> dict[Strategy, float]:
    """Mean fall of a query's margin when its `removed` most helpful images are left out of
    training.
    """
    setting, n, asked = cell.setting, cell.setting.images.n_train, torch.arange(cell.asked)
    groups = [row for table in scores.values() for row in table[asked].topk(cell.removed).indices]
    place = lab.child("removal")
    budget = setting.steps(n - cell.removed)
    left = retrain(setting.model, task, without(n, groups), budget, place, repeats=cell.repeats)
    everything = torch.ones(1, n, dtype=torch.bool)
    full = retrain(setting.model, task, everything, setting.steps(n), place, repeats=cell.repeats)
    data = task.split("test").data
    effects = removal_effects(
        query_outputs(left, data, margin, lab), query_outputs(full, data, margin, lab)[0]
    )
    own = effects[asked.repeat(len(scores)), torch.arange(len(groups))].view(len(scores), -1)
    return {strategy: -float(fall) for strategy, fall in zip(scores, own.mean(1), strict=True)}


def response_rows(cell: ResponseCell, lab: Lab) -> Iterator[Row]:
    """Every strategy against the proximal response at the exact matrix's λ, and against
    leave-one-out at λ = weight decay.
    """
    setting, n = cell.setting, cell.setting.images.n_train
    setting = replace(setting, budget=replace(setting.budget, batch_size=n))
    lab = replace(lab, dtype=torch.float64)
    task = setting.task(lab)
    data, queries = whole(task.split("train").data, lab), whole(task.split("test").data, lab)
    trained = setting.train(task, lab)
    damping = GAUSS_NEWTON.prepare(trained, 1, lab).factors.blocks["all"].damping
    every = torch.arange(n)
    responses = Proximal(damping, cell.copies, tolerance=1e-3).responses(
        trained.model, data, every, logits, output_loss, queries, margin
    )
    kept = without(n, every)
    left = retrain(setting.model, task, kept, setting.steps(n - 1), lab.child("fit"))
    full = per_example(trained.model, task.split("test").data, margin, lab)
    effects = removal_effects(query_outputs(left, task.split("test").data, margin, lab), full[None])
    decay = setting.budget.weight_decay / damping * GAUSS_NEWTON.damping
    for strategy in (DOT, DIAGONAL, KFAC_EVERY, EVERY_CLASS, GAUSS_NEWTON):
        near = strategy.scores(trained, queries, 1, lab)
        removing = first_order_effects(
            replace(strategy, damping=decay).scores(trained, queries, 1, lab), kept
        )
        yield {
            "part": "response",
            "strategy": strategy.label,
            "seed": cell.seed,
            "response_r": correlation(near, responses).value,
            "leave_one_out_r": correlation(removing, effects).value,
            **(
                {"slope": proportionality(near, responses).value}
                if strategy is GAUSS_NEWTON
                else {}
            ),
        }


def label_rows(cell: LabelCell, lab: Lab) -> Iterator[Row]:
    """Wrong labels by self-influence and by loss."""
    task = cell.setting.task(lab)
    train = task.split("train").data
    wrong = whole(train, lab)["wrong"]
    trained = cell.setting.train(task, lab)
    suspicions = {"loss": per_example(trained.model, train, task.objective.loss, lab)}
    for strategy in (DOT, EKFAC):
        suspicions[strategy.label] = strategy.prepare(trained, cell.draws, lab).self_influence()
    for label, suspicion in suspicions.items():
        yield {
            "part": "labels",
            "strategy": label,
            "seed": cell.seed,
            "auc": detection(suspicion, wrong).value,
            "found": detection_rate(suspicion, wrong).value,
            "train": score(trained.model, task, task.split("train"), lab).value,
        }
