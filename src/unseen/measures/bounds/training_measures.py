"""Measures of gradients at the end of training and of the way there."""

from collections.abc import Sequence

import numpy as np

from unseen import stats
from unseen.errors import InvalidData
from unseen.measures.bounds.measure import Family, GeneralizationMeasure, Scope
from unseen.measures.bounds.shared_pass import SharedPass
from unseen.method import Trained
from unseen.reading import Reading, Work

WINDOW = 20
"""Steps over which the losses of minibatches are averaged."""


def gradient_noise(p: SharedPass) -> float:
    """E‖g − ḡ‖² over examples, without bias: m (E‖g‖² − ‖ḡ‖²)/(m − 1)."""
    n = p.gradients.n
    return float(p.gradients.norms2.mean()) * (1 - p.gradients.alpha) * n / (n - 1)


def gradient_noise_scale(p: SharedPass) -> float:
    """E‖g − ḡ‖²/‖ḡ‖²: the batch size at which noise and mean gradient are of one size."""
    return gradient_noise(p) / (p.gradients.alpha * float(p.gradients.norms2.mean()))


def fisher_trace(p: SharedPass) -> Reading:
    """E‖g‖² over examples."""
    return stats.mean(p.gradients.norms2.numpy(), within=(0.0, np.inf))


def steps_to_loss(trained: Trained, level: float) -> int:
    """Steps until the training loss was at most `level`.

    The loss of all training examples where it was watched (`curves["train_loss"]` at the steps
    `curves["watched"]`), else the mean over the last twenty minibatches.
    """
    curves = trained.curves
    if "train_loss" in curves and "watched" in curves:
        steps, losses = np.asarray(curves["watched"]), np.asarray(curves["train_loss"])
    elif len(curves.get("loss", ())) >= WINDOW:
        losses = _trailing_mean(curves["loss"])
        steps = np.arange(WINDOW, WINDOW + len(losses))
    else:
        raise InvalidData(
            f"The training losses of {len(curves.get('loss', ()))} steps are known.",
            why=f"the way there is read from at least {WINDOW} of them.",
            fix="train with a method of this library, or give Trained(…, curves={'loss': …}).",
        )
    below = np.flatnonzero(losses <= level)
    if not len(below):
        raise InvalidData(
            f"The lowest training loss is {losses.min():.3g}, above {level:g}.",
            why="the number of steps to it is unknown.",
            fix="train longer.",
        )
    return int(steps[below[0]])


def _trailing_mean(losses: Sequence[float]) -> np.ndarray:
    total = np.cumsum(np.concatenate([[0.0], np.asarray(losses, dtype=np.float64)]))
    return (total[WINDOW:] - total[:-WINDOW]) / WINDOW


GRADIENTS = Work(gradients=3, sweeps=20, copies=12, shared="gradients of single examples")

MEASURES = (
    GeneralizationMeasure(
        "gradient_noise", Family.GRADIENT, "Variance of the loss gradient over training examples: "
        "over the batch size, that of a minibatch's gradient.", gradient_noise, Scope.ALL,
        passes=3, work=GRADIENTS),
    GeneralizationMeasure(
        "gradient_noise_scale", Family.GRADIENT, "The same over the squared mean gradient: the "
        "batch size beyond which larger batches help little.", gradient_noise_scale, Scope.ALL,
        passes=3, work=GRADIENTS),
    GeneralizationMeasure(
        "fisher_trace", Family.GRADIENT, "Mean squared length of the loss gradient of a training "
        "example.", fisher_trace, Scope.ALL, passes=3, work=GRADIENTS),
    GeneralizationMeasure(
        "steps_to_0.1", Family.OPTIMISATION, "Steps until the training loss was 0.1.",
        lambda p: float(steps_to_loss(p.subject, 0.1)), Scope.ALL, unit="steps"),
    GeneralizationMeasure(
        "steps_0.1_to_0.01", Family.OPTIMISATION, "Steps from a training loss of 0.1 to 0.01.",
        lambda p: float(steps_to_loss(p.subject, 0.01) - steps_to_loss(p.subject, 0.1)),
        Scope.ALL, unit="steps"),
)  # fmt: skip
