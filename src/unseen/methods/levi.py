"""LEVI: a layer-wise ensemble of different views (Roh et al., 2024, arXiv:2402.04644)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unseen.engine.batches import once
from unseen.engine.domain_risks import merge_batches
from unseen.engine.features import FixedOutput
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.trace import record
from unseen.engine.vectorized.steps import VectorizedStep
from unseen.errors import InvalidConfig, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.ensemble_model import MeanLogProbability, Rule
from unseen.models.levi import Layerwise, depths_of, pool_positions
from unseen.models.mlp import mlp
from unseen.task import Objective, Task, Use


def levi_criterion(model: Layerwise, draw: Draw, objective: Objective) -> Tensor:
    """Mean over depths of the mean loss: every depth has its own supervised view."""
    batch = merge_batches(draw.fit.values())
    return torch.stack(
        [
            objective.loss(FixedOutput(outputs), batch).mean()
            for outputs in model.outputs_by_depth(batch["x"])
        ]
    ).mean()


@dataclass(frozen=True)
class LEVI:
    """Joins the given, pre-trained model layer by layer with a small network trained from scratch.

    Each depth's hidden state and the small network's are the input of an adapting layer with
    `hidden` units, which answers by itself; answers are averaged (`rule`; for real-valued targets
    use MeanLogit). The small network has one layer of `small` units on the flattened inputs; it
    should do about as well alone as a large one from scratch (in the study layerwise_views 16 units
    were too few for 1,200 inputs, 64 enough). `frozen`: the pre-trained weights stay.
    """

    depths: tuple[str, ...] = ()
    """Modules of the pre-trained model whose outputs are read; empty: every activation of a plain
    chain.
    """
    hidden: int = 32
    small: int = 16
    frozen: bool = True
    rule: Rule = field(default_factory=MeanLogProbability)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.small < 1:
            raise InvalidConfig(
                f"LEVI(hidden={self.hidden}, small={self.small}) is out of range.",
                why="an adapting layer and the small network have units.",
                fix="set both to at least 1.",
            )

    @property
    def training(self) -> VectorizedStep:
        return VectorizedStep(criterion=levi_criterion)

    @torch.no_grad()
    def surgery(self, model: nn.Module, task: Task, lab: Lab) -> Layerwise:
        """The backbone with adapting layers and a small network of fresh weights, sized by a few
        examples.
        """
        depths = depths_of(model, self.depths)
        x = next(once(next(iter(task.of(Use.TRAIN).values())).data, 2, lab))["x"]
        model.to(lab.device, lab.dtype).eval()
        with record(model, depths) as found:
            outputs = model(x)
        if outputs.dim() != 2:
            raise UnsupportedLayer(
                f"The model's output has shape {tuple(outputs.shape)}.",
                why="an adapting layer gives one vector of outputs per example.",
                fix="give a model with outputs [n, c].",
            )
        with lab.child("levi").seeded():
            small = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), self.small), nn.ReLU())
            widths = [pool_positions(found[name]).shape[1] + self.small for name in depths]
            adapters = [mlp([width, self.hidden, outputs.shape[1]]) for width in widths]
        made = Layerwise(model, small, adapters, depths, ("2",), self.rule, frozen=self.frozen)
        return made.to(lab.device, lab.dtype)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(self.surgery(model, task, lab), task, self.training, self.budget, lab)


def example() -> LEVI:
    return LEVI(budget=Budget(steps=30, batch_size=32, lr=0.01))
