"""Hypotheses that agree on labelled and disagree on unlabelled data, of which one is chosen
afterwards.

DivDis: Lee, Yao & Finn (2023, arXiv:2202.03418). D-BAT: Pagliardini et al. (2023,
arXiv:2202.04414). What decides between them: Benoit et al. (2024, arXiv:2312.16313). The unlabelled
data are the ADAPT splits, of which `x` alone is read.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import Dataset

from unseen.engine.batches import Columns, once
from unseen.engine.domain_risks import merge_batches
from unseen.engine.evaluate import per_example
from unseen.engine.features import FixedOutput
from unseen.engine.loop import Budget, Draw
from unseen.engine.prediction_diversity import disagreement, mutual_information, over_pairs
from unseen.engine.toy import toy_subject
from unseen.engine.vectorized.choose import train_many
from unseen.engine.vectorized.steps import VectorizedStep
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.ensemble_model import (
    Committee,
    SingleMember,
    heads_like,
    log_probabilities,
    members_of,
    refuse_inner_layer,
    split_head,
)
from unseen.search_space import LogUniform, Space
from unseen.task import Batch, Objective, Split, Task, Use


def require_unlabelled_data(tasks: Sequence[Task], who: str) -> None:
    """Refuses a task without unlabelled data, and says so once if they are labelled: their labels
    are not read.
    """
    labelled: set[str] = set()
    for task in tasks:
        if not task.of(Use.ADAPT):
            raise InvalidData(
                f"{who} needs unlabelled data, and `{task.name}` has no ADAPT split.",
                why="its hypotheses disagree where no label decides.",
                fix="add inputs without labels: Split(data, Use.ADAPT).",
            )
        splits = task.of(Use.ADAPT).items()
        labelled |= {
            name
            for name, split in splits
            if isinstance(split.data, Columns) and "y" in split.data.columns
        }
    if labelled:
        names = ", ".join(sorted(labelled))
        logging.getLogger("unseen").warning(
            "%s does not read the labels of the unlabelled data (%s).", who, names
        )


def divdis_criterion(
    model: Committee,
    draw: Draw,
    objective: Objective,
    *,
    dependence: Tensor | float,
    prior: Tensor | float,
) -> Tensor:
    """Mean over members of ℓ + λ₁ mean over pairs of I(a; b) + λ₂ mean over members of KL(m̄_u ‖
    m̄_l).

    I is the mutual information on the unlabelled minibatch, m̄ the mean prediction on unlabelled
    and labelled inputs.
    """
    labelled = merge_batches(draw.fit.values())
    here, there = model.member_outputs(labelled["x"]), model.member_outputs(_bare(draw.adapt)["x"])
    losses = torch.stack(
        [objective.loss(FixedOutput(outputs), labelled).mean() for outputs in here]
    )
    log_u = log_probabilities(there)
    p = log_u.exp()
    mean_u, mean_l = p.mean(1), log_probabilities(here).exp().mean(1).detach()
    away = (mean_u * (mean_u.clamp_min(1e-12).log() - mean_l.clamp_min(1e-12).log())).sum(1).mean()
    shared = over_pairs(p, mutual_information).mean() if len(p) > 1 else p.new_zeros(())
    return losses.mean() + dependence * shared + prior * away


def _bare(adapt: Mapping[str, Batch]) -> Batch:
    return merge_batches({"x": batch["x"]} for batch in adapt.values())


@dataclass(frozen=True)
class DivDis:
    """`members` heads on one encoder that fit the labels and are independent of each other on
    unlabelled inputs.

    `dependence` is λ₁, `prior` λ₂ of `divdis_criterion`. The best is an h₂ independent of h₁: the
    semantic rule exactly if it is independent of the spurious one in the unlabelled data. The model
    is a `Committee`; of its members the one with the best score on the SELECT splits speaks (the
    first without such splits): choose better ones with `select_member`.
    """

    members: int = 2
    dependence: float = 10.0
    prior: float = 1.0
    layer: str = ""
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"dependence": LogUniform(0.1, 100), "prior": LogUniform(0.1, 10)}

    def __post_init__(self) -> None:
        if self.members < 1 or not self.dependence >= 0 or not self.prior >= 0:
            raise InvalidConfig(
                f"DivDis(members={self.members}, dependence={self.dependence}, prior={self.prior}) "
                "is out of range.",
                why="there is at least one hypothesis, and both penalties are lowered.",
                fix="correct the value.",
            )

    @property
    def training(self) -> VectorizedStep:
        return VectorizedStep(
            criterion=divdis_criterion,
            settings={"dependence": self.dependence, "prior": self.prior},
        )

    def surgery(self, model: nn.Module, task: Task, lab: Lab) -> Committee:
        """The model's encoder and head, with further heads of fresh weights."""
        model.to(lab.device, lab.dtype)
        refuse_inner_layer(
            model, self.layer, next(once(next(iter(task.of(Use.TRAIN).values())).data, 4, lab))["x"]
        )
        encoder, head = split_head(model, self.layer)
        return Committee(
            heads_like(head, self.members, lab.child("heads"), fresh=True), SingleMember(), encoder
        )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return self.fit_many([model], task, [lab])[0]

    def fit_many(
        self, models: Sequence[nn.Module], task: Task | Sequence[Task], labs: Sequence[Lab]
    ) -> list[Trained]:
        """Several committees at once, on one task or each on its own."""
        tasks = [task] * len(models) if isinstance(task, Task) else task
        require_unlabelled_data(tasks, "DivDis")
        committees = [
            self.surgery(m, own, lab) for m, own, lab in zip(models, tasks, labs, strict=True)
        ]
        found = train_many(committees, tasks, self.training, self.budget, labs)
        return [
            select_by_validation(trained, lab) for trained, lab in zip(found, labs, strict=True)
        ]


class Newcomer(nn.Module):
    """The hypothesis in training, beside those that are finished and frozen."""

    def __init__(self, own: nn.Module, earlier: Sequence[nn.Module]) -> None:
        super().__init__()
        self.own, self.earlier = own, nn.ModuleList(earlier).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x)


def agreement(p: Float[Tensor, " n"], q: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """−log(p (1 − q) + q (1 − p) + 1e-7): 0 if one is sure of what the other excludes, 16.1 if both
    are sure.
    """
    return -(p * (1 - q) + q * (1 - p) + 1e-7).log()


def dbat_criterion(
    model: Newcomer, draw: Draw, objective: Objective, *, weight: Tensor | float
) -> Tensor:
    """ℓ + α mean over earlier members and unlabelled inputs of `agreement` on the earlier one's
    most likely class.
    """
    labelled = merge_batches(draw.fit.values())
    loss = objective.loss(model, labelled).mean()
    if not len(model.earlier):
        return loss
    x = _bare(draw.adapt)["x"]
    new = log_probabilities(model(x)).exp()
    terms = []
    for member in model.earlier:
        p, top = log_probabilities(member(x)).exp().detach().max(1)
        terms.append(agreement(p, new.gather(1, top[:, None])[:, 0]).mean())
    return loss + weight * torch.stack(terms).mean()


@dataclass(frozen=True)
class DBAT:
    """`members` networks, one after the other: each fits the labels and contradicts the earlier
    ones on unlabelled inputs.

    With h₁ the spurious rule the best is h₂ = not h₁ on the unlabelled data, the semantic rule
    exactly if the two are always opposed there. All begin at the weights given. The model is a
    `Committee`, of which the member with the best score on the SELECT splits speaks (the first
    without such splits): choose better ones with `select_member`.
    """

    members: int = 2
    weight: float = 1.0
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"weight": LogUniform(1e-3, 10)}

    def __post_init__(self) -> None:
        if self.members < 1 or not self.weight >= 0:
            raise InvalidConfig(
                f"DBAT(members={self.members}, weight={self.weight}) is out of range.",
                why="there is at least one hypothesis, and agreement is lowered.",
                fix="set members ≥ 1 and weight ≥ 0.",
            )

    @property
    def training(self) -> VectorizedStep:
        """The step for a `Newcomer`."""
        return VectorizedStep(criterion=dbat_criterion, settings={"weight": self.weight})

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return self.fit_many([model], task, [lab])[0]

    def fit_many(
        self, models: Sequence[nn.Module], task: Task | Sequence[Task], labs: Sequence[Lab]
    ) -> list[Trained]:
        """Several committees at once, on one task or each on its own: member k of all of them is
        trained together.
        """
        tasks = [task] * len(models) if isinstance(task, Task) else task
        require_unlabelled_data(tasks, "D-BAT")
        found: list[list[nn.Module]] = [[] for _ in models]
        curves: list[dict[str, Sequence[float]]] = [{} for _ in models]
        for k in range(self.members):
            newcomers = [
                Newcomer(copy.deepcopy(m), own) for m, own in zip(models, found, strict=True)
            ]
            each = [
                lab.child("member", k) if k else lab for lab in labs
            ]  # the first member is ERM's model
            for i, trained in enumerate(
                train_many(newcomers, tasks, self.training, self.budget, each)
            ):
                found[i].append(newcomers[i].own)
                curves[i][f"loss {k}"] = trained.curves["loss"]
        committees = [Committee(own, SingleMember()).requires_grad_(True).eval() for own in found]
        results = zip(committees, tasks, curves, labs, strict=True)
        return [
            select_by_validation(Trained(c, t, {"loss": own["loss 0"], **own}), lab)
            for c, t, own, lab in results
        ]


def member_scores(trained: Trained, split: Split, lab: Lab) -> list[float]:
    """The mean score of every member on one split."""
    score = trained.task.objective.score
    return [
        float(per_example(m, split.data, score, lab).double().mean())
        for m in members_of(trained.model)
    ]


def select_member(trained: Trained, split: Split, lab: Lab) -> Trained:
    """The committee with the member that scores best on the split as its voice (of equals, the
    first).

    On an evaluation split this is an oracle, which uses labels that nobody has: say so.
    """
    scores = member_scores(trained, split, lab)
    model = copy.deepcopy(trained.model)
    model.rule = SingleMember(scores.index(max(scores)))  # type: ignore[assignment]
    return replace(trained, model=model, curves={**trained.curves, "member score": scores})


def select_by_validation(trained: Trained, lab: Lab) -> Trained:
    """The committee with the member of the best mean score over the SELECT splits as its voice."""
    splits = trained.task.of(Use.SELECT).values()
    if splits:
        each = torch.tensor(
            [member_scores(trained, split, lab) for split in splits], dtype=torch.float64
        ).mean(0)
        trained.model.rule = SingleMember(int(each.argmax()))  # type: ignore[assignment]
    return trained


@torch.no_grad()
def rank_by_disagreement(model: Committee, data: Dataset, n: int, lab: Lab) -> Int[Tensor, " n"]:
    """The examples that are worth a label: with the largest mean disagreement of pairs of members,
    first the largest.
    """
    p = torch.cat(
        [
            log_probabilities(model.member_outputs(batch["x"])).exp().cpu()
            for batch in once(data, 1024, lab)
        ],
        1,
    )
    return over_pairs(p, disagreement).mean(0).argsort(descending=True, stable=True)[:n]


def example() -> tuple[DivDis, Trained]:
    """Thirty steps on a task with unlabelled data."""
    return DivDis(budget=Budget(steps=30, batch_size=32, lr=0.01)), toy_subject()
