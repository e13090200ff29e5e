"""A new dense task from a few labelled images: errors by cross-validation, the curve over shots,
and predictions for the images without a label.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unseen import stats
from unseen.engine.bias_switch import BiasSwitch
from unseen.engine.dense import rmse
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.segmentation import iou, peak
from unseen.methods.few_shot_tuning import Adapt, FewShotTuning
from unseen.models.token_matching import TokenMatching
from unseen.questions.dense.arms import (
    Learn,
    MatchTokens,
    learn_constant,
    learn_forest,
    learn_unet,
)
from unseen.questions.dense.inputs import DenseData, Kind, Sample
from unseen.reading import Reading
from unseen.text import join_words

CONSTANT, FOREST, UNET = "constant", "random forest", "small U-Net"
MATCHING = "matching, not adapted"
QUANTITIES = {
    Kind.MASK: "1 − IoU",
    Kind.CLASSES: "1 − IoU, mean over classes",
    Kind.MAP: "RMSE",
    Kind.POINTS: "distance in pixels",
}


@dataclass(frozen=True)
class Setting:
    """How the question is asked."""

    shots: int = 10
    folds: int = 5
    curve: tuple[int, ...] = (1, 5, 10, 20)
    adapt: Adapt = Adapt.BIAS
    steps: int = 60
    most: int = 40
    """Most labelled images that are predicted in cross-validation, evenly spaced."""
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "adapt", Adapt(self.adapt))
        if self.shots < 1 or self.folds < 2 or self.steps < 1 or self.most < 2:
            raise InvalidConfig(
                f"shots={self.shots}, folds={self.folds}, steps={self.steps}.",
                why="something is learned from at least one image, in at least two folds.",
                fix="for example --shots 10 --folds 5.",
            )


@dataclass(frozen=True)
class DenseResult:
    """Errors of every arm on the labelled images, and maps of the others."""

    data: DenseData
    setting: Setting
    quantity: str
    shots: int
    """Labelled images that were learned from in a fold."""
    errors: Mapping[str, Sequence[float]]
    """Of every evaluated image, in the order of `evaluated`."""
    evaluated: Sequence[str]
    curve: Mapping[str, Mapping[int, Sequence[float]]]
    """By arm and number of shots."""
    predictions: Mapping[str, Float[Tensor, "c y x"]]
    """Of the images without a label, at the size of their files."""
    share: float
    """Numbers that are adapted, as a share of those in the network."""
    examples: Sequence[tuple[str, Tensor, Tensor, Tensor]]
    """Name, image, label and prediction of a few labelled images that were not learned from."""
    adapted: str = ""
    """The arm that makes the predictions."""

    def error(self, arm: str) -> Reading:
        top = 1.0 if self.data.kind in (Kind.MASK, Kind.CLASSES) else inf
        found = stats.mean(np.array(self.errors[arm]), within=(0.0, top))
        # equal errors of a few images say nothing about how others vary
        return found if found.low < found.high else Reading(found.value, n=found.n)

    def difference(self, arm: str, other: str) -> Reading:
        """Of paired images."""
        return stats.difference(self.errors[arm], self.errors[other])


def adapt_to(
    data: DenseData,
    switch: BiasSwitch,
    setting: Setting,
    lab: Lab,
    on_fold: Callable[[object], None] = lambda _: None,
) -> DenseResult:
    """Everything that the command says; `on_fold` hears of every finished fold."""
    refuse_too_few(data, switch, setting)
    arms = {
        CONSTANT: learn_constant,
        FOREST: learn_forest,
        UNET: learn_unet,
        MATCHING: _matcher(switch, Adapt.NONE, setting),
    }
    adapted = MATCHING
    if setting.adapt is not Adapt.NONE:
        adapted = f"matching, {NAMES[setting.adapt]} adapted"
        arms[adapted] = _matcher(switch, setting.adapt, setting)
    errors: dict[str, list[float]] = {arm: [] for arm in arms}
    curve: dict[str, dict[int, list[float]]] = {adapted: {}, MATCHING: {}}
    evaluated: list[str] = []
    examples = []
    folds = list(_folds(data.labelled, setting))
    for k, (pool, held) in enumerate(folds):
        at, few = lab.child("fold", k), spread(pool, setting.shots)
        evaluated += [sample.name for sample in held]
        for arm, learn in arms.items():
            predict = learn(few, at.child(arm))
            maps = [predict(sample) for sample in held]
            found = [error_of(m, s, data.kind) for m, s in zip(maps, held, strict=True)]
            errors[arm] += found
            if arm in curve:
                curve[arm].setdefault(len(few), []).extend(found)
            if arm == adapted:
                examples.append(_example(held[0], maps[0]))
        for shots in setting.curve:
            if shots != len(few) and shots <= len(pool):
                for arm in curve:
                    predict = arms[arm](spread(pool, shots), at.child(arm, shots))
                    found = [error_of(predict(s), s, data.kind) for s in held]
                    curve[arm].setdefault(shots, []).extend(found)
        on_fold(k)
    predictions: dict[str, Tensor] = {}
    if data.unlabelled:
        predict = arms[adapted](spread(data.labelled, setting.shots), lab.child("all"))
        predictions = {s.name: enlarge(predict(s), s) for s in data.unlabelled}
    whole = {
        arm: {n: v for n, v in sorted(by.items()) if len(v) == len(evaluated)}
        for arm, by in curve.items()
    }
    return DenseResult(
        data=data,
        setting=setting,
        quantity=QUANTITIES[data.kind],
        shots=min(setting.shots, min(len(pool) for pool, _ in folds)),
        errors=errors,
        evaluated=evaluated,
        curve=whole,
        predictions=predictions,
        share=FewShotTuning("new task", setting.adapt).share(switch),
        examples=examples[:4],
        adapted=adapted,
    )


NAMES = {Adapt.BIAS: "biases", Adapt.DECODER: "biases and decoder", Adapt.ALL: "all weights"}


def _matcher(switch: BiasSwitch, adapt: Adapt, setting: Setting) -> Learn:
    base = MatchTokens(switch, adapt)
    budget = type(base.budget)(**{**vars(base.budget), "steps": setting.steps})
    return MatchTokens(switch, adapt, budget)


def refuse_too_few(data: DenseData, switch: BiasSwitch, setting: Setting) -> None:
    """Asked for more labels than there are, or images smaller than a tile."""
    assert isinstance(switch.module, TokenMatching)
    shape = switch.module.shape
    labelled = len(data.labelled)
    names = [sample.name for sample in data.unlabelled]
    if labelled < max(setting.shots, 2):
        raise InvalidData(
            f"{labelled} images have a label, and --shots {setting.shots} asks for "
            f"{max(setting.shots, 2)}."
            + (f" Without one: {join_words(names[:5])}." if names else ""),
            why="the error is measured on labelled images that were not learned from.",
            fix="label more images, or ask for fewer shots.",
        )  # fmt: skip
    for sample in (*data.labelled, *data.unlabelled):
        if min(sample.image.shape[-2:]) < shape.side:
            raise InvalidData(
                f"{sample.name} has {sample.size[1]} × {sample.size[0]} pixels.",
                why=f"images are cut into tiles of {shape.side} × {shape.side}.",
                fix="enlarge it, or give a larger --side.",
            )
    if data.inputs > shape.inputs:
        raise InvalidConfig(
            f"{data.inputs} images per input.",
            why=f"the model has positions for {shape.inputs}.",
            fix="leave --second out.",
        )


def _folds(
    labelled: Sequence[Sample], setting: Setting
) -> list[tuple[Sequence[Sample], Sequence[Sample]]]:
    """Blocks of neighbours in the order of file names, each held out in turn: neighbouring frames
    of one film are alike, and must not stand on both sides.
    """
    rows = np.array_split(np.arange(len(labelled)), min(setting.folds, len(labelled)))
    most = max(1, setting.most // len(rows))
    return [
        (
            [sample for k, sample in enumerate(labelled) if k not in set(held.tolist())],
            spread([labelled[int(k)] for k in held], most),
        )
        for held in rows
    ]


def spread(samples: Sequence[Sample], n: int) -> Sequence[Sample]:
    """n of them, evenly spaced."""
    if n >= len(samples):
        return samples
    return [samples[int(k)] for k in np.linspace(0, len(samples) - 1, n).round()]


def error_of(maps: Float[Tensor, "c y x"], sample: Sample, kind: Kind) -> float:
    """Of one image."""
    assert sample.label is not None
    assert sample.known is not None
    maps, label, known = maps[None], sample.label[None], sample.known[None]
    if kind is Kind.POINTS:
        return _distance(maps, sample)
    if kind is Kind.MAP:
        return float(rmse(maps, label, known))
    if kind is Kind.CLASSES:
        best = maps.argmax(1, keepdim=True)
        maps = torch.zeros_like(maps).scatter(1, best, 1.0)
        there = (label * known).flatten(2).amax(2)[0] > 0  # classes of this image
        maps, label, known = maps[:, there], label[:, there], known[:, there]
    return 1 - float(iou(maps, label, known))


def _distance(maps: Float[Tensor, "1 c y x"], sample: Sample) -> float:
    """Mean over the labelled points, in pixels of the file."""
    assert sample.known is not None
    assert sample.label is not None
    there = sample.known.flatten(1).any(1)
    found, truth = peak(maps)[0, there], peak(sample.label[None])[0, there]
    return sample.scale * float((found - truth).norm(dim=1).mean())


def enlarge(maps: Float[Tensor, "c y x"], sample: Sample) -> Float[Tensor, "c height width"]:
    """At the size of the file."""
    return F.interpolate(maps[None], size=sample.size, mode="bilinear")[0].clamp(0, 1)


def _example(sample: Sample, maps: Tensor) -> tuple[str, Tensor, Tensor, Tensor]:
    assert sample.label is not None
    return sample.name, sample.image[0].mean(0), sample.label.amax(0), maps.amax(0)
