"""Logistic regression with a ridge penalty, for the few inputs that differ most."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

MOST_INPUTS = 20
"""More inputs are screened: with them the rows at hand would be told apart by chance."""
PENALTY = 1.0


@dataclass(frozen=True)
class LogisticFit:
    """σ(intercept + z·slopes), z the chosen inputs in units of their deviation."""

    inputs: Int[np.ndarray, " chosen"]
    centre: Float[np.ndarray, " chosen"]
    spread: Float[np.ndarray, " chosen"]
    coefficients: Float[np.ndarray, " term"]
    """The intercept first."""
    covariance: Float[np.ndarray, "term term"]

    def design(self, x: Float[np.ndarray, "row input"]) -> Float[np.ndarray, "row term"]:
        z = (x[:, self.inputs] - self.centre) / self.spread
        # 5 deviations: beyond what was fitted the line is not believed
        return np.concatenate([np.ones((len(x), 1)), np.clip(z, -5, 5)], 1)

    def __call__(self, x: Float[np.ndarray, "row input"]) -> Float[np.ndarray, " row"]:
        return expit(self.design(x) @ self.coefficients)


def screen(
    x: Float[np.ndarray, "row input"], y: Float[np.ndarray, " row"], most: int = MOST_INPUTS
) -> Int[np.ndarray, " chosen"]:
    """The inputs that correlate most with y, in their order; constant ones never."""
    centred = x - x.mean(0)
    spread = centred.std(0)
    varies = np.flatnonzero(spread > 0)
    strength = np.abs((y - y.mean()) @ centred[:, varies]) / spread[varies]
    return np.sort(varies[np.argsort(-strength, kind="stable")[:most]])


def fit_logistic(
    x: Float[np.ndarray, "row input"],
    y: Float[np.ndarray, " row"],
    weights: Float[np.ndarray, " row"] | None = None,
) -> LogisticFit:
    """Newton's method; the intercept is not penalised. y may lie between 0 and 1."""
    weights = np.ones(len(y)) if weights is None else weights
    inputs = screen(x, y)
    block = x[:, inputs]
    centre, spread = block.mean(0), block.std(0)
    terms = len(inputs) + 1
    start = LogisticFit(inputs, centre, spread, np.zeros(terms), np.zeros((terms, terms)))
    design, penalty = start.design(x), PENALTY * np.eye(terms)
    penalty[0, 0] = 1e-6
    beta = np.zeros(terms)
    for _ in range(50):
        p = expit(design @ beta)
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design + penalty
        move = np.linalg.solve(curvature, design.T @ (weights * (y - p)) - penalty @ beta)
        # a step of at most 3 keeps a nearly separated start from overshooting
        beta = beta + move * min(1.0, 3 / max(float(np.abs(move).max()), 1e-12))
        if np.abs(move).max() < 1e-8:
            break
    return LogisticFit(inputs, centre, spread, beta, np.linalg.inv(curvature))
