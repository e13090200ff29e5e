"""Episodic training of token matching: every step asks for labels of some images from those of
others (Kim et al., 2023, arXiv:2303.14969).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from unseen.engine.batches import Columns, size
from unseen.engine.bias_switch import BiasSwitch
from unseen.engine.dense import check_labels, dense, label_filter, mirror, pixel_loss
from unseen.engine.loop import Budget, Draw, Optimizer, Schedule, erm_step, train
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.token_matching import (
    DenseNetwork,
    FewShotPredictor,
    Shape,
    TokenMatching,
    token_matcher,
)
from unseen.task import Axis, Batch, Objective, Split, Task, Use

PRETRAINING = Budget(steps=400, batch_size=16, lr=1e-3, optimizer=Optimizer.ADAM,
                     schedule=Schedule.COSINE, warmup=50, clip=2.0)  # fmt: skip
EPISODES = Budget(steps=1_000, batch_size=32, lr=1e-3, optimizer=Optimizer.ADAM,
                  schedule=Schedule.COSINE, warmup=50, clip=2.0)  # fmt: skip


@dataclass(frozen=True)
class EpisodicTraining:
    """The batch of a step is dealt to `episodes` tasks (channels of `y`), and half of the images of
    each are the support of the other half.

    First the image encoder learns all channels with a decoder of its own, which stands for a
    pretrained one: from random weights episodes stay on a plateau. The model returned predicts all
    channels from `shots` training images with the mean biases.
    """

    tasks: tuple[str, ...]
    """Names of the channels of `y`; each gets a set of biases."""
    negated: tuple[str, ...] = ()
    """Channels that are components along x: they change sign in a mirror."""
    episodes: int = 4
    augmented: float = 0.5
    """Share of the episodes whose labels go through a random filter, which makes new tasks."""
    pretraining: Budget = PRETRAINING
    budget: Budget = EPISODES
    shots: int = 10

    def __post_init__(self) -> None:
        if self.budget.batch_size < 2 * self.episodes or self.episodes < 1 or self.shots < 1:
            raise InvalidConfig(
                f"{self.budget.batch_size} images for {self.episodes} episodes.",
                why="an episode needs an image to show and one to ask about.",
                fix="batch_size=8 × episodes is usual.",
            )
        if not 0 <= self.augmented <= 1 or not {*self.negated} <= {*self.tasks}:
            raise InvalidConfig(
                f"augmented={self.augmented}, negated={self.negated}.",
                why="the first is a share of the episodes, the second names some of the tasks.",
                fix="augmented=0.5, and names from `tasks`.",
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        if not isinstance(model, BiasSwitch) or not isinstance(model.module, TokenMatching):
            raise InvalidConfig(
                f"Episodes train token matching, not {type(model).__name__}.",
                why="the model must take labelled images beside those that it is asked about.",
                fix="use unseen.models.token_matching.token_matcher().",
            )
        batch = self._examples(task)
        if self.pretraining.steps:
            pretrain_encoder(model.module, task, self.pretraining, lab.child("pretraining"))
        for name in self.tasks:
            model.add_task(name)
        negated = torch.tensor([name in self.negated for name in self.tasks])
        step = partial(
            episode_step,
            tasks=self.tasks,
            negated=negated,
            episodes=self.episodes,
            augmented=self.augmented,
        )
        trained = train(model, task, step, self.budget, lab)
        few = {name: column[: self.shots].to(lab.device) for name, column in batch.items()}
        predictor = FewShotPredictor(model, None, few["x"], few["y"]).eval()
        return Trained(predictor, task, trained.curves, trained.start)

    def _examples(self, task: Task) -> Batch:
        data = next(iter(task.of(Use.TRAIN).values())).data
        if not isinstance(data, Columns) or not {"x", "y"} <= data.columns.keys():
            raise InvalidData(
                f"`{task.name}` has no columns x and y to train on.",
                why="episodes are drawn from images and their dense labels.",
                fix="use a Split of Columns(x=images, y=labels).",
            )
        batch = data.columns
        check_labels(batch["x"], batch["y"], batch.get("known"))
        if batch["y"].shape[1] != len(self.tasks) or len(set(self.tasks)) < len(self.tasks):
            raise InvalidConfig(
                f"{len(self.tasks)} names for {batch['y'].shape[1]} channels.",
                why="every channel of `y` is a task with biases and a name of its own.",
                fix="give `tasks` one name per channel.",
            )
        return batch


def pretrain_encoder(model: TokenMatching, task: Task, budget: Budget, lab: Lab) -> None:
    """Trains the image encoder on all channels at once, with a decoder that is thrown away."""
    channels = next(iter(task.of(Use.TRAIN).values())).data[0]["y"].shape[0]
    with lab.child("init").seeded():
        network = DenseNetwork(model.shape, channels)
    network.image_encoder = model.image_encoder
    train(network, task, erm_step, budget, lab)


def episode_step(
    model: nn.Module,
    draw: Draw,
    objective: Objective,
    *,
    tasks: Sequence[str],
    negated: Tensor,
    episodes: int,
    augmented: float,
) -> Tensor:
    """Leaves in `.grad` the gradient of the mean loss over the episodes of one step."""
    assert isinstance(model, BiasSwitch)
    assert draw.generator is not None
    (batch,) = draw.fit.values()
    channels = torch.randperm(len(tasks), generator=draw.generator)[:episodes].tolist()
    rows = torch.arange(size(batch)).chunk(len(channels))
    losses = []
    for channel, part in zip(channels, rows, strict=True):
        images, labels = batch["x"][part], batch["y"][part, channel][:, None]
        if torch.rand((), generator=draw.generator) < 0.5:
            images, labels = mirror(images, labels, negated[channel][None])
        if torch.rand((), generator=draw.generator) < augmented:
            labels = augment(labels, batch["y"][part], draw.generator)
        with model.use(tasks[channel]) as network:
            assert isinstance(network, TokenMatching)
            loss = half_from_half(network, images, labels) / len(channels)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def augment(labels: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Labels of a new task: half of them mixed with another channel, then a random filter."""
    if torch.rand((), generator=generator) < 0.5:
        other = int(torch.randint(others.shape[1], (), generator=generator))
        share = float(torch.rand((), generator=generator))
        labels = share * labels + (1 - share) * others[:, other][:, None]
    return label_filter(generator)(labels)


def half_from_half(
    network: TokenMatching, images: Tensor, labels: Tensor, known: Tensor | None = None
) -> Tensor:
    """Mean loss on the second half of the images, with the first half as support."""
    half = len(images) // 2
    known = torch.ones_like(labels, dtype=torch.bool) if known is None else known
    tokens = network.encode(images)
    shown = torch.where(known, labels, torch.full_like(labels, -1.0))[:half]
    support = network.match_support([level[:half] for level in tokens], shown)
    logits = network.decode([level[half:] for level in tokens], support)
    return pixel_loss(logits, labels[half:], known[half:]).mean()


def example() -> tuple[EpisodicTraining, Trained]:
    """A few episodes on stripes whose phase and complement are the two tasks."""
    generator = Lab().child("stripes").generator()
    images = torch.rand(64, 3, 16, 16, generator=generator)
    labels = torch.stack([images[:, 0], 1 - images[:, 1]], 1).round()
    data = Columns(x=images[:56], y=labels[:56])
    splits = {
        "train": Split(data, Use.TRAIN, "a"),
        "new": Split(Columns(x=images[56:], y=labels[56:]), Use.EVALUATE, "b"),
    }
    task = Task(name="stripes", axis=Axis.TASK, splits=splits, objective=dense)
    with Lab().child("model").seeded():
        model = token_matcher(Shape(side=16, width=16, heads=2))
    short = Budget(steps=3, batch_size=8, lr=1e-3)
    method = EpisodicTraining(
        tasks=("first", "second"), episodes=2, pretraining=short, budget=short, shots=4
    )
    return method, Trained(model, task)
