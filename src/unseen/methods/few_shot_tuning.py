"""Adaptation of token matching to a new task from a few labelled images (Kim et al., 2023,
arXiv:2303.14969): its biases, and nothing else unless asked for.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import torch
from torch import Tensor, nn

from unseen.engine.batches import Columns, size, whole
from unseen.engine.bias_switch import BiasSwitch
from unseen.engine.dense import check_labels, known_pixels, mirror
from unseen.engine.loop import Budget, Draw, Optimizer, train
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.episodic_training import example as episodic_example
from unseen.methods.episodic_training import half_from_half
from unseen.models.token_matching import FewShotPredictor, TokenMatching
from unseen.task import Batch, Objective, Task, Use

TUNING = Budget(steps=100, batch_size=32, lr=1e-3, optimizer=Optimizer.ADAM)


class Adapt(StrEnum):
    """Which parameters a new task trains."""

    NONE = "none"
    """None: the mean biases of the tasks in training."""
    BIAS = "bias"
    """Its biases, level mixing and shared norms: no other task changes."""
    DECODER = "bias and decoder"
    """Also the decoder, in a copy of the model."""
    ALL = "all"
    """Every weight, in a copy of the model."""


@dataclass(frozen=True)
class FewShotTuning:
    """At every step the labelled images are split at random into support and query.

    The model returned has the labelled images as support, encoded once.
    """

    name: str
    """Of the new task; one that was trained is refused."""
    adapt: Adapt = Adapt.BIAS
    augment: bool = True
    """A single image is shown beside its mirror image; without, it is refused."""
    negated: tuple[bool, ...] = ()
    """Which channels are components along x and change sign in a mirror; empty: none."""
    support: int = 128
    """Most images in the support, evenly spaced: attention looks at every patch of them."""
    budget: Budget = TUNING

    def __post_init__(self) -> None:
        object.__setattr__(self, "adapt", Adapt(self.adapt))
        if self.support < 1:
            raise InvalidConfig(
                f"A support of {self.support} images.", why="it is shown.", fix="at least 1."
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        switch, batch = switch_of(model), self._examples(task, lab)
        if self.adapt in (Adapt.DECODER, Adapt.ALL):
            switch = copy.deepcopy(switch)
        switch.add_task(self.name)  # refuses a task that was trained
        if self.adapt is Adapt.NONE:
            return Trained(self._predictor(switch, batch), task)
        # one image stands twice in a batch, and is mirrored once
        split = Columns(**({n: c.repeat(2, *[1] * (c.dim() - 1)) for n, c in batch.items()}
                           if size(batch) == 1 else batch))  # fmt: skip
        (name, first), *_ = task.of(Use.TRAIN).items()
        few = replace(task, splits={name: replace(first, data=split)})
        negated = torch.tensor(self.negated or [False] * batch["y"].shape[1])
        step = partial(tuning_step, name=self.name, negated=negated, twice=size(batch) == 1)
        with train_only(switch, self._parameters(switch)):
            trained = train(switch, few, step, self.budget, lab)
        return Trained(self._predictor(switch, batch), task, trained.curves, trained.start)

    def share(self, model: nn.Module) -> float:
        """Numbers that are trained for the new task, as a share of those in the network."""
        switch = switch_of(model)
        network = list(switch.module.parameters())
        other = 0
        if self.adapt is Adapt.DECODER:
            assert isinstance(switch.module, TokenMatching)
            other = sum(p.numel() for p in switch.module.decoder.parameters())
        if self.adapt in (Adapt.NONE, Adapt.ALL):
            return float(self.adapt is Adapt.ALL)
        return switch.share() + other / sum(p.numel() for p in network)

    def _parameters(self, switch: BiasSwitch) -> list[nn.Parameter]:
        chosen = switch.parameters_of(self.name)
        network = switch.module
        assert isinstance(network, TokenMatching)
        if self.adapt is Adapt.DECODER:
            chosen += network.decoder.parameters()
        if self.adapt is Adapt.ALL:
            named = dict(network.named_parameters())
            chosen += [p for name, p in named.items() if name not in switch.names]
        return chosen

    def _examples(self, task: Task, lab: Lab) -> Batch:
        """The labelled images, or an error that says what cannot be learned from."""
        split = next(iter(task.of(Use.TRAIN).values()))
        batch = whole(split.data, lab)
        check_labels(batch["x"], batch["y"], batch.get("known"))
        if size(batch) < 2 and not self.augment and self.adapt is not Adapt.NONE:
            raise InvalidData(
                f"`{self.name}` has one labelled image.",
                why="at every step some of them are shown and the others predicted.",
                fix="label a second image, or use augment=True: the image and its mirror image.",
            )
        return batch

    def _predictor(self, switch: BiasSwitch, batch: Batch) -> FewShotPredictor:
        chosen = torch.linspace(0, size(batch) - 1, min(self.support, size(batch))).round().long()
        few = {name: column[chosen] for name, column in batch.items()}
        task = None if self.adapt is Adapt.NONE else self.name
        return FewShotPredictor(switch, task, few["x"], few["y"], known_pixels(few)).eval()


def switch_of(model: nn.Module) -> BiasSwitch:
    """The matching network with its biases, of itself or of a predictor."""
    switch = model.switch if isinstance(model, FewShotPredictor) else model
    if not isinstance(switch, BiasSwitch) or not isinstance(switch.module, TokenMatching):
        raise InvalidConfig(
            f"A {type(model).__name__} has no tokens to match.",
            why="a new task is learned from labelled images that the model sees.",
            fix="use token_matcher() after EpisodicTraining, or the shipped checkpoint.",
        )
    return switch


@contextmanager
def train_only(model: nn.Module, chosen: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside the block these parameters alone require gradients."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.requires_grad_(False)
        for p in chosen:
            p.requires_grad_(True)
        yield
    finally:
        for p, was in before:
            p.requires_grad_(was)
            p.grad = None


def tuning_step(
    model: nn.Module,
    draw: Draw,
    objective: Objective,
    *,
    name: str,
    negated: Tensor,
    twice: bool,
) -> Tensor:
    """Leaves in `.grad` the gradient of the loss on one half of the images, in random order, with
    the other half as support.
    """
    assert isinstance(model, BiasSwitch)
    assert draw.generator is not None
    (batch,) = draw.fit.values()
    images, labels, known = batch["x"], batch["y"], known_pixels(batch)
    if twice:
        seen, other = images[:1], mirror(images[:1], labels[:1], negated)
        images, labels = torch.cat([seen, other[0]]), torch.cat([labels[:1], other[1]])
        known = torch.cat([known[:1], known[:1].flip(-1)])
    order = torch.randperm(len(images), generator=draw.generator)
    with model.use(name) as network:
        assert isinstance(network, TokenMatching)
        loss = half_from_half(network, images[order], labels[order], known[order])
    loss.backward()
    return loss.detach()


def example() -> tuple[FewShotTuning, Trained]:
    """A few steps of adaptation to the stripes of `EpisodicTraining`."""
    _, subject = episodic_example()
    return FewShotTuning("stripes", budget=Budget(steps=3, batch_size=8, lr=1e-3)), subject
