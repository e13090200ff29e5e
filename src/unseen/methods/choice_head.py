"""A linear head that scores each choice of an item: a conditional logit on fixed features.

Hase et al. (2024), arXiv:2401.06751: the features are the hidden states of a frozen language model
at the end of each choice.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.engine.batches import Columns, whole
from unseen.errors import Divergence, InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Axis, Batch, Objective, Split, Task, Use


class ChoiceHead(nn.Module):
    """x [item, choice, feature] → a score per choice: w · (x − mean) / scale."""

    weight: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, x: Float[Tensor, "b c d"]) -> Float[Tensor, "b c"]:
        return ((x - self.mean) / self.scale) @ self.weight


def choice_scores(model: nn.Module, batch: Batch) -> Float[Tensor, "b c"]:
    """Scores of the choices that an item has; −∞ for the others."""
    return model(batch["x"]).masked_fill(~batch["present"], -torch.inf)


def choice_loss(model: nn.Module, batch: Batch) -> Float[Tensor, " b"]:
    """−log of the right choice's softmax."""
    return nn.functional.cross_entropy(choice_scores(model, batch), batch["y"], reduction="none")


def right_share(model: nn.Module, batch: Batch) -> Float[Tensor, " b"]:
    """1 where the right choice has the highest score; shared where several have it."""
    return share_of_highest(choice_scores(model, batch), batch["y"])


def share_of_highest(scores: Float[Tensor, "b c"], right: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """1 / (number of choices with the highest score) where the right one is among them, else 0."""
    best = scores == scores.amax(1, keepdim=True)
    hit = best.gather(1, right[:, None])[:, 0]
    return hit.to(scores.dtype) / best.sum(1).clamp_min(1)


choose_by_head = Objective(choice_loss, right_share)


@dataclass(frozen=True)
class LinearChoiceHead:
    """Minimises mean −log p(right choice) + penalty · ‖w‖₂ over `ChoiceHead`s, from w = 0.

    The norm itself, as in the paper, not its square. Features are standardised by the training
    items. The task's columns are x [item, choice, feature], present [item, choice] and y.
    """

    penalty: float = 1.0
    steps: int = 100
    """Of L-BFGS at most, on all items at once."""

    def __post_init__(self) -> None:
        if self.penalty < 0 or self.steps < 1:
            raise InvalidConfig(
                f"penalty={self.penalty}, steps={self.steps}.",
                why="a penalty is not negative, and at least one step is made.",
                fix="use penalty=1.0, steps=100.",
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        if not isinstance(model, ChoiceHead):
            raise UnsupportedLayer(
                f"LinearChoiceHead got a {type(model).__name__}.",
                why="it trains one weight per feature of a choice.",
                fix="use ChoiceHead(features).",
            )
        parts = [whole(split.data, lab) for split in task.of(Use.TRAIN).values()]
        batch = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        # float64: L-BFGS stops by differences of losses
        model.double()
        standardise(model, batch["x"].double(), batch["present"])
        self._descend(model, {**batch, "x": batch["x"].double()})
        model.to(lab.device, lab.dtype)
        return Trained(model, task)

    def _descend(self, model: ChoiceHead, batch: Batch) -> None:
        optimizer = torch.optim.LBFGS(
            [model.weight], max_iter=self.steps, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            # the root of a small number more: ‖w‖ has no gradient at w = 0, where we start
            norm = (model.weight.square().sum() + 1e-12).sqrt()
            value = choice_loss(model, batch).mean() + self.penalty * norm
            value.backward()
            return value

        last = optimizer.step(loss)
        if not torch.isfinite(last) or not torch.isfinite(model.weight).all():
            raise Divergence(
                f"The head's loss is {float(last):g}.",
                why="a feature is not finite, or the data are separable and nothing is penalised.",
                fix="use penalty=1.0, and look for features that are NaN.",
            )


def standardise(model: ChoiceHead, x: Float[Tensor, "n c d"], present: Bool[Tensor, "n c"]) -> None:
    """Takes mean and standard deviation over all choices of all items into the head."""
    if not len(x):
        raise InvalidData(
            "The head got no item.", why="nothing can be learned.", fix="give training items."
        )
    rows = x[present]
    model.mean.copy_(rows.mean(0))
    spread = rows.std(0, unbiased=False)
    model.scale.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))


def head_task(train: Columns, evaluate: Columns) -> Task:
    """A task of choices as features."""
    splits = {"train": Split(train, Use.TRAIN), "test": Split(evaluate, Use.EVALUATE)}
    return Task(name="choices", axis=Axis.DIFFICULTY, splits=splits, objective=choose_by_head)


def example() -> tuple[LinearChoiceHead, Trained]:
    """Of three choices the one with the largest first feature is right."""
    x = torch.randn(12, 3, 4, generator=Lab().child("choices").generator())
    columns = {"x": x, "present": torch.ones(12, 3, dtype=torch.bool), "y": x[..., 0].argmax(1)}
    train, test = (Columns(**{k: v[rows] for k, v in columns.items()}) for rows in HALVES)
    return LinearChoiceHead(penalty=0.1), Trained(ChoiceHead(4), head_task(train, test))


HALVES = (slice(0, 8), slice(8, 12))
