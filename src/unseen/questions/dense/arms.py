"""What a new dense task can be learned by from a few images: matching, and its baselines."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import RandomForestRegressor
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.bias_switch import BiasSwitch
from unseen.engine.dense import UNet, cut_tiles, dense, join_tiles, pixel_loss
from unseen.engine.loop import Budget, Draw, Optimizer, train
from unseen.lab import Lab
from unseen.methods.few_shot_tuning import Adapt, FewShotTuning
from unseen.models.token_matching import TokenMatching
from unseen.questions.dense.inputs import Sample
from unseen.task import Axis, Batch, Objective, Split, Task, Use

Predict = Callable[[Sample], Float[Tensor, "c y x"]]
"""Channels of an image, in [0, 1]."""
Learn = Callable[[Sequence[Sample], Lab], Predict]
"""From labelled images to predictions."""
PIXELS = 8_000
"""Most pixels that the random forest learns from."""
SCALES = (1.0, 2.0, 4.0)
"""Deviations of the Gaussians behind the filter features, in pixels."""


def labels_of(samples: Sequence[Sample]) -> tuple[list[Tensor], list[Tensor]]:
    labels, known = [], []
    for sample in samples:
        assert sample.label is not None
        assert sample.known is not None
        labels.append(sample.label)
        known.append(sample.known)
    return labels, known


@dataclass(frozen=True)
class MatchTokens:
    """Token matching on tiles of the images, adapted or not."""

    switch: BiasSwitch
    adapt: Adapt = Adapt.BIAS
    budget: Budget = Budget(steps=60, batch_size=16, lr=1e-3, optimizer=Optimizer.ADAM)
    support: int = 96
    """Most tiles of the support; attention looks at every patch of them."""

    def __call__(self, samples: Sequence[Sample], lab: Lab) -> Predict:
        assert isinstance(self.switch.module, TokenMatching)
        side = self.switch.module.shape.side
        labels, known = labels_of(samples)
        tiles = {
            "x": torch.cat([cut_tiles(one.image, side) for one in samples]),
            "y": torch.cat([cut_tiles(one, side) for one in labels]),
            "known": torch.cat([cut_tiles(one.float(), side) for one in known]).bool(),
        }
        tiles = {name: column[_useful(tiles["known"])] for name, column in tiles.items()}
        task = Task(
            name="shots",
            axis=Axis.TASK,
            splits={"train": Split(Columns(**tiles), Use.TRAIN)},
            objective=dense,
        )
        method = FewShotTuning("new task", self.adapt, support=self.support, budget=self.budget)
        model = method.fit(copy.deepcopy(self.switch), task, lab).model

        @torch.no_grad()
        def predict(sample: Sample) -> Tensor:
            height, width = sample.image.shape[-2:]
            parts = cut_tiles(sample.image, side).split(16)
            return join_tiles(torch.cat([model(part) for part in parts]).sigmoid(), height, width)

        return predict


def _useful(known: Tensor) -> Tensor:
    """Tiles with a pixel that is known, or all if there is none."""
    some = known.flatten(1).any(1)
    return some if some.any() else torch.ones_like(some)


def learn_constant(samples: Sequence[Sample], lab: Lab) -> Predict:
    """The mean label at every pixel, or over all pixels where sizes differ."""
    labels, known = labels_of(samples)
    weights = [k.float() for k in known]
    if len({label.shape for label in labels}) == 1:
        total = torch.stack([y * w for y, w in zip(labels, weights, strict=True)]).sum(0)
        mean = total / torch.stack(weights).sum(0).clamp_min(1)
        return lambda sample: _fit_to(mean, sample)
    sums = torch.stack([(y * w).sum((1, 2)) for y, w in zip(labels, weights, strict=True)]).sum(0)
    count = torch.stack([w.sum((1, 2)) for w in weights]).sum(0).clamp_min(1)
    return lambda sample: (sums / count)[:, None, None].expand(-1, *sample.image.shape[-2:])


def _fit_to(mean: Tensor, sample: Sample) -> Tensor:
    size = sample.image.shape[-2:]
    if mean.shape[-2:] == size:
        return mean
    return mean.mean((1, 2), keepdim=True).expand(-1, *size)


def filter_features(image: Float[Tensor, "i 3 y x"]) -> NDArray[np.float32]:
    """[pixel, feature]: colours, and of the brightness at three scales the smoothed value, the
    length of the gradient, the Laplacian and the eigenvalues of the Hessian.
    """
    features = []
    for one in image.numpy():
        features += list(one)
        grey = one.mean(0)
        for sd in SCALES:
            yy, xx, xy = (
                ndimage.gaussian_filter(grey, sd, order=order) for order in ((2, 0), (0, 2), (1, 1))
            )
            middle, spread = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
            slope = ndimage.gaussian_gradient_magnitude(grey, sd)
            smooth = ndimage.gaussian_filter(grey, sd)
            features += [smooth, slope, yy + xx, middle + spread, middle - spread]
    return np.stack([feature.ravel() for feature in features], 1).astype(np.float32)


def learn_forest(samples: Sequence[Sample], lab: Lab) -> Predict:
    """A random forest on filter features of single pixels."""
    labels, known = labels_of(samples)
    x = np.concatenate([filter_features(sample.image) for sample in samples])
    y = np.concatenate([label.flatten(1).T.numpy() for label in labels])
    inside = np.concatenate([k.flatten(1).all(0).numpy() for k in known])
    rows = np.flatnonzero(inside) if inside.any() else np.arange(len(x))
    rng = lab.numpy()
    rows = rng.permutation(rows)[:PIXELS]
    forest = RandomForestRegressor(
        30, min_samples_leaf=5, max_features="sqrt", n_jobs=1, random_state=int(rng.integers(2**31))
    ).fit(x[rows], y[rows] if y.shape[1] > 1 else y[rows, 0])

    def predict(sample: Sample) -> Tensor:
        found = forest.predict(filter_features(sample.image)).reshape(-1, y.shape[1])
        maps = torch.from_numpy(found.T.astype(np.float32))
        return maps.unflatten(1, tuple(sample.image.shape[-2:]))

    return predict


UNET = Budget(steps=100, batch_size=8, lr=3e-3, optimizer=Optimizer.ADAM)


def learn_unet(samples: Sequence[Sample], lab: Lab, budget: Budget = UNET) -> Predict:
    """A small U-Net trained on the shots alone: crops, mirrored at random but for key points."""
    labels, known = labels_of(samples)
    inputs = len(samples[0].image)
    crop = min(48, *(min(one.image.shape[-2:]) for one in samples))
    # key points are not mirrored: left and right would change places
    mirrored = all(one.points is None for one in samples)
    with lab.child("init").seeded():
        model = UNet(3 * inputs, len(labels[0]), width=8)

    def step(model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
        assert draw.generator is not None
        (batch,) = draw.fit.values()
        crops = [_crop(int(k), draw.generator) for k in batch["index"]]
        x, y, k = (torch.stack(part) for part in zip(*crops, strict=True))
        loss = pixel_loss(model(x), y, k).mean() if mirrored else position_loss(model(x), y, k)
        loss.backward()
        return loss.detach()

    def _crop(index: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        image = samples[index].image.flatten(0, 1)
        top, left = (
            int(torch.randint(length - crop + 1, (), generator=generator))
            for length in image.shape[-2:]
        )
        parts = [
            one[..., top : top + crop, left : left + crop]
            for one in (image, labels[index], known[index])
        ]
        if mirrored and torch.rand((), generator=generator) < 0.5:
            parts = [one.flip(-1) for one in parts]
        return parts[0], parts[1], parts[2]

    # as many rows as a batch has, so that few images fill one
    rows = torch.arange(max(len(samples), budget.batch_size)) % len(samples)
    splits = {"train": Split(Columns(index=rows), Use.TRAIN)}
    objective = Objective(loss=_no_loss, score=_no_loss)
    task = Task(name="crops", axis=Axis.TASK, splits=splits, objective=objective)
    train(model, task, step, budget, lab)

    @torch.no_grad()
    def predict(sample: Sample) -> Tensor:
        logits = model(sample.image.flatten(0, 1)[None])[0]
        if mirrored:
            return logits.sigmoid()
        return (logits - logits.amax((1, 2), keepdim=True)).exp()

    return predict


def position_loss(
    logits: Float[Tensor, "n c y x"],
    labels: Float[Tensor, "n c y x"],
    known: Bool[Tensor, "n c y x"],
) -> Float[Tensor, ""]:
    """Cross-entropy of where in the image a point lies, mean over the points that lie there; pixel
    by pixel a map that is nearly empty everywhere would be learned.
    """
    there = known.flatten(2).all(2) & (labels.flatten(2).amax(2) > 0.5)
    where = labels.flatten(2) / labels.flatten(2).sum(2, keepdim=True).clamp_min(1e-6)
    losses = -(where * logits.flatten(2).log_softmax(2)).sum(2)
    return (losses * there).sum() / there.sum().clamp_min(1)


def _no_loss(model: nn.Module, batch: Batch) -> Tensor:
    return torch.zeros(len(batch["index"]))
