"""Ways to score training examples, and the networks whose examples they score."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.attributions.influence import Curvature, Fisher, Influence, InfluenceScores
from unseen.engine.batches import whole
from unseen.engine.loop import Budget, Optimizer, Schedule
from unseen.engine.retrain import retrain
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.task import Batch, Task
from unseen.tasks.images import CLASSES, Images
from unseen.tasks.principal_images import PrincipalImages

SGD = Budget(
    optimizer=Optimizer.SGD,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-3,
    schedule=Schedule.COSINE,
    batch_size=100,
)


def margin(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """log p(y)/(1 − p(y)): the logit of the right class against all others together (Park et al.,
    2023).
    """
    logits, y = model(batch["x"]), batch["y"][:, None]
    return logits.gather(1, y).squeeze(1) - logits.scatter(1, y, -torch.inf).logsumexp(1)


@dataclass(frozen=True)
class Strategy:
    """One way to score examples."""

    label: str
    curvature: Curvature | None
    """None: random scores."""
    fisher: Fisher = Fisher.SAMPLED
    many: bool = False
    """Whether labels are drawn as often as the cell says, or once."""
    damping: float = 0.1

    def prepare(self, trained: Trained, draws: int, lab: Lab) -> InfluenceScores:
        assert self.curvature is not None
        draws = draws if self.many else 1
        plug = Influence(self.curvature, self.fisher, draws, self.damping, batch_size=250)
        return plug.prepare(trained, lab.child(self.label))

    def scores(
        self, trained: Trained, queries: Batch, draws: int, lab: Lab
    ) -> Float[Tensor, "query example"]:
        if self.curvature is None:
            shape = len(queries["y"]), len(whole(trained.task.split("train").data, lab)["y"])
            return torch.randn(
                *shape, generator=lab.child(self.label).generator(), dtype=torch.float64
            )
        return self.prepare(trained, draws, lab)(queries, margin).scores.double()


RANDOM, DOT = Strategy("random", None), Strategy("gradient dot", Curvature.IDENTITY)
DIAGONAL = Strategy("diagonal", Curvature.DIAGONAL, Fisher.EXACT)
KFAC, EKFAC = (
    Strategy("K-FAC", Curvature.KFAC, many=True),
    Strategy("EK-FAC", Curvature.EKFAC, many=True),
)
ONE_DRAW = Strategy("EK-FAC, one draw", Curvature.EKFAC)
KFAC_EVERY = Strategy("K-FAC, every class", Curvature.KFAC, Fisher.EXACT)
EVERY_CLASS = Strategy("EK-FAC, every class", Curvature.EKFAC, Fisher.EXACT)
GAUSS_NEWTON = Strategy("exact Gauss–Newton", Curvature.EXACT, Fisher.EXACT)
DAMPED = replace(GAUSS_NEWTON, label="exact Gauss–Newton, λ = mean", damping=1.0)
"""A mean over all parameters is far below that over one layer, most of whose directions matter."""
STRATEGIES = (RANDOM, DOT, DIAGONAL, KFAC, ONE_DRAW, EKFAC, EVERY_CLASS, GAUSS_NEWTON, DAMPED)


@dataclass(frozen=True)
class Setting:
    """Data, network and descent."""

    images: Images
    components: int = 50
    width: int = 64
    budget: Budget = SGD
    epochs: int = 60
    smooth: bool = False
    """tanh instead of ReLU."""

    def task(self, lab: Lab) -> Task:
        return PrincipalImages(self.images, self.components).build(lab.child("data"))

    def model(self) -> nn.Module:
        if self.smooth:
            return nn.Sequential(
                nn.Linear(self.components, self.width), nn.Tanh(), nn.Linear(self.width, CLASSES)
            )
        return mlp([self.components, self.width, CLASSES])

    def steps(self, n: int) -> Budget:
        """The budget of all epochs over n images."""
        return replace(self.budget, steps=self.epochs * max(1, n // self.budget.batch_size))

    def train(self, task: Task, lab: Lab) -> Trained:
        n = self.images.n_train
        everything = torch.ones(1, n, dtype=torch.bool)
        return retrain(self.model, task, everything, self.steps(n), lab.child("fit"))[0][0]
