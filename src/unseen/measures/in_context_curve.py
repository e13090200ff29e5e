"""What a model learns from the examples in its context: accuracy by their number, nearest neighbour
and ridge regression on the same contexts, and what kind of learner that makes it (Kirsch et al.,
2022, arXiv:2212.04458).
"""

from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.evaluate import outputs
from unseen.engine.in_context import in_context, label_tokens
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.reading import Reading
from unseen.task import Axis, Split, Task, Use


def nearest_neighbour(x: Float[Tensor, "b n d"], y: Int[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """1 where the nearest of the first n − 1 inputs has the label of the last."""
    nearest = torch.cdist(x[:, -1:], x[:, :-1]).argmin(-1)
    return (y.gather(1, nearest)[:, 0] == y[:, -1]).double()


def ridge(
    x: Float[Tensor, "b n d"], y: Int[Tensor, "b n"], classes: int, penalty: float = 1.0
) -> Float[Tensor, " b"]:
    """1 where ridge regression of ±1 labels on the first n − 1 inputs, with an unpenalised
    intercept, gives the last its label.
    """
    x = x.double()
    centre = x[:, :-1].mean(1, keepdim=True)
    given, asked = x[:, :-1] - centre, x[:, -1:] - centre
    target = 2 * torch.nn.functional.one_hot(y[:, :-1].long(), classes).double() - 1
    mean = target.mean(1, keepdim=True)
    gram = given.mT @ given + penalty * torch.eye(x.shape[-1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, given.mT @ (target - mean))
    return ((asked @ weight + mean)[:, 0].argmax(-1) == y[:, -1]).double()


class Regime(StrEnum):
    """What meta-training has led to."""

    FAILS = "fails"
    """Not even training problems with training instances are solved."""
    MEMORISES = "memorises"
    """Training instances of training problems only."""
    IDENTIFIES = "identifies"
    """Training problems, with new instances too: it recognises which problem it is in."""
    LEARNS = "learns"
    """New problems, from the examples in the context."""


def regime(
    instances: float, tasks: float, new: float, gain: float, chance: float, margin: float = 0.15
) -> Regime:
    """The kind of learner by its accuracies at the last position: on seen instances of seen tasks,
    unseen instances of them, and unseen tasks, there with the gain over the first position.
    """
    if new >= chance + margin and gain >= margin:
        return Regime.LEARNS
    if instances < chance + 0.1:
        return Regime.FAILS
    return Regime.IDENTIFIES if tasks >= (instances + chance) / 2 else Regime.MEMORISES


@dataclass(frozen=True)
class InContextCurve:
    """Accuracy at the last position of the contexts of a split; `detail` has it for every position
    (position j has seen j − 1 labels). The interval is over contexts.
    """

    split: str = "unseen tasks"
    classes: int = 5
    batch_size: int = 256

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        columns = self._contexts(subject).columns
        shown = Columns(x=label_tokens(columns["x"], columns["y"], self.classes))
        logits = outputs(subject.model, shown, lab, batch_size=self.batch_size)
        if not torch.isfinite(logits).all():
            raise InvalidData(
                "Logits of the model are not finite.",
                why="of NaN no class is the most likely one.",
                fix="train again with a lower learning rate.",
            )
        hits = (logits.argmax(-1) == columns["y"]).double()
        last = stats.of_scores(hits[:, -1].numpy())
        return Reading(last.value, last.low, last.high, last.n, "fraction", hits.mean(0))

    def references(self, subject: Trained) -> dict[str, Reading]:
        """Nearest neighbour and ridge regression on the same contexts, and chance."""
        columns = self._contexts(subject).columns
        x, y = columns["x"], columns["y"]
        found = {"nearest neighbour": nearest_neighbour(x, y), "ridge": ridge(x, y, self.classes)}
        readings = {name: stats.of_scores(hits.numpy()) for name, hits in found.items()}
        return {**readings, "chance": Reading(1 / self.classes)}

    def _contexts(self, subject: Trained) -> Columns:
        data = subject.task.split(self.split).data
        columns = data.columns if isinstance(data, Columns) else {}
        x, y = columns.get("x"), columns.get("y")
        if x is None or y is None or not is_context(x, y):
            shapes = {name: tuple(column.shape) for name, column in columns.items()}
            raise InvalidData(
                f"Split `{self.split}` holds {shapes}.",
                why="contexts are finite `x` [context, example, input] and `y` [context, example], "
                "two examples or more.",
                fix="use RandomProjections().build_from(x, y, lab).",
            )
        if int(y.min()) < 0:
            raise InvalidData(
                f"The labels of `{self.split}` begin at {int(y.min())}.",
                why="a label is the number of a class, from 0; a masked one has no right answer.",
                fix="number the classes from 0, and leave out contexts with other labels.",
            )
        if int(y.max()) >= self.classes:
            raise InvalidConfig(
                f"classes={self.classes}, and the labels of `{self.split}` reach {int(y.max())}.",
                why="the model is shown one input per class.",
                fix=f"InContextCurve(classes={int(y.max()) + 1}).",
            )
        return data  # type: ignore[return-value]


def is_context(x: Tensor, y: Tensor) -> bool:
    """Whether there are contexts of finite inputs with a label each."""
    fits = x.dim() == 3 and y.shape == x.shape[:2] and y.numel() > 0 and y.shape[1] > 1
    return fits and bool(torch.isfinite(x).all())


def example() -> tuple[InContextCurve, Trained]:
    """An untrained decoder on twenty contexts of two Gaussian classes."""
    generator = Lab().child("contexts").generator()
    y = torch.randint(2, (40, 6), generator=generator)
    x = torch.randn(40, 6, 3, generator=generator) + 2.0 * y[..., None]
    splits = {
        "train": Split(Columns(x=x[:20], y=y[:20]), Use.TRAIN, "a"),
        "unseen tasks": Split(Columns(x=x[20:], y=y[20:]), Use.EVALUATE, "b"),
    }
    task = Task(name="Gaussian contexts", axis=Axis.TASK, splits=splits, objective=in_context(2))
    shape = Decoder(vocabulary=2, inputs=5, tied=False, width=8, layers=1, heads=2, context=8)
    with Lab().child("model").seeded():
        model = Transformer(shape)
    return InContextCurve(classes=2), Trained(model.eval(), task)
