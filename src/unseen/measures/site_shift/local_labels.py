"""What labels of a site can do for a model from elsewhere without training it again: recalibration
and a threshold of the site's own.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from unseen import stats
from unseen.errors import InvalidData
from unseen.reading import Reading

PRIOR = 1.0
"""Precision of "the slope is 1" in units of one label of a margin of 1: thirty labels alone would
turn a good slope around.
"""


def recalibrate_margin(
    margin: Float[np.ndarray, " row"],
    labels: Float[np.ndarray, " label"],
    margin_of_labels: Float[np.ndarray, " label"],
) -> Float[np.ndarray, " row"]:
    """Log odds a + b · margin of all rows, a and b by maximum likelihood of the labels with a ridge
    on b − 1; labels of one class move `a` only as far as half a label of the other lets them.
    """
    _refuse_few(labels)
    m = margin_of_labels
    design = np.stack([np.ones_like(m), m], 1)
    # half a label more of each class at the mean margin: with one class there is no maximum else
    centre = np.array([[1.0, m.mean()]])
    design = np.concatenate([design, centre, centre])
    target = np.concatenate([labels, [0.0, 1.0]])
    weights = np.concatenate([np.ones_like(m), [0.5, 0.5]])
    penalty = np.diag([0.0, PRIOR * max(1.0, float((m**2).mean()))])
    start = np.array([0.0, 1.0])

    def cost(beta: Float[np.ndarray, "2"]) -> float:
        z, away = design @ beta, beta - start
        return float(weights @ (np.logaddexp(0, z) - target * z) + away @ penalty @ away / 2)

    beta = start
    for _ in range(50):
        p = expit(design @ beta)
        slope = design.T @ (weights * (target - p)) - penalty @ (beta - start)
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design + penalty
        move = np.linalg.solve(curvature + 1e-9 * np.eye(2), slope)
        # Newton's step overshoots where confident margins are wrong: halved until the cost falls
        while cost(beta + move) > cost(beta) and np.abs(move).max() > 1e-9:
            move = move / 2
        beta = beta + move
        if np.abs(move).max() < 1e-8:
            break
    return beta[0] + beta[1] * margin


def recalibrate_number(
    predicted: Float[np.ndarray, " row"],
    labels: Float[np.ndarray, " label"],
    predicted_of_labels: Float[np.ndarray, " label"],
) -> Float[np.ndarray, " row"]:
    """The same for numbers: a + b · prediction by least squares with a ridge on b − 1."""
    _refuse_few(labels)
    p, residual = predicted_of_labels, labels - predicted_of_labels
    centred = p - p.mean()
    square = float(centred @ centred)
    b = float(centred @ residual) / (square + PRIOR * max(1e-12, float(p.var())))
    return predicted + residual.mean() + b * (predicted - p.mean())


def best_threshold(
    labels: Float[np.ndarray, " label"], margin_of_labels: Float[np.ndarray, " label"]
) -> float:
    """The margin above which the labels are best called 1 (most right answers); of equals the one
    nearest to 0.
    """
    _refuse_few(labels)
    order = np.argsort(margin_of_labels, kind="stable")
    m = margin_of_labels[order]
    edges = np.concatenate([[m[0] - 1], (m[1:] + m[:-1]) / 2, [m[-1] + 1], [0.0]])
    right = ((margin_of_labels > edges[:, None]) == labels).sum(1)
    best = edges[right == right.max()]
    return float(best[np.argmin(np.abs(best))])


def over_draws(changes: Sequence[Reading]) -> Reading:
    """The mean change over draws of labels, evaluated on the rows that each leaves.

    The draws share rows, so their own variance is averaged, not divided; what differs between
    draws is divided by their number.
    """
    values = np.array([change.value for change in changes])
    halves = [
        (change.high - change.low) / 2 / stats.t_quantile(change.freedom) for change in changes
    ]
    between = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    error = sqrt(float(np.mean(np.square(halves))) + between)
    freedom = min(change.freedom for change in changes)
    half, value = stats.t_quantile(freedom) * error, float(values.mean())
    return replace(changes[0], value=value, low=value - half, high=value + half, freedom=freedom)


def _refuse_few(labels: Float[np.ndarray, " label"]) -> None:
    if len(labels) < 2 or not np.isfinite(labels).all():
        raise InvalidData(
            f"{len(labels)} labels of the site were given.",
            why="two numbers are fitted to them.",
            fix="give at least two labels, without NaN.",
        )
