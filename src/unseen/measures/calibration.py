"""Calibration: whether predicted probabilities are frequencies.

Expected calibration error and reliability curve (Guo et al., 2017, arXiv:1706.04599), calibration
slope and calibration in the large (Cox, 1958; Van Calster et al., 2019,
doi:10.1186/s12916-019-1466-7).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import expit, logit
from torch import Tensor

from unseen import stats
from unseen.engine.batches import once
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading

Numbers = Float[np.ndarray, " n"]
BLOCK = 1 << 22
"""Entries of one block of resamples (32 MiB)."""


@dataclass(frozen=True)
class CalibrationError:
    """ECE = Σ_b (n_b/n) |mean outcome − mean probability| over `bins` equal-width bins: 0 is
    calibrated, 1 the worst.

    Two classes: the probability of the second class against its frequency. More: the probability of
    the most likely class against how often it is right. `detail` is the reliability curve, [bin,
    (mean probability, mean outcome, n)]. Limits are bootstrap quantiles shifted by the bootstrap's
    own bias, for |·| makes every resample look worse. Even a calibrated model shows a positive ECE
    in finite data: compare with `by_chance`.
    """

    split: str = "train"
    bins: int = 15
    draws: int = 500

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        p, outcome = forecasts(subject, self.split, lab)
        return calibration_error(p, outcome, self.bins, self.draws, lab.child("bootstrap").numpy())


@dataclass(frozen=True)
class CalibrationSlope:
    """a in P(y = 1) = σ(a logit p + b), fitted by maximum likelihood: 1 is calibrated, below 1 is
    overconfident.
    """

    split: str = "train"
    draws: int = 200

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        p, outcome = forecasts(subject, self.split, lab)
        value = recalibration(p, outcome)[0]
        design = np.stack([_log_odds(p), np.ones_like(p)], 1)
        start = np.array([1.0, 0.0])
        return _bootstrap_reading(
            design,
            outcome,
            np.zeros_like(p),
            start,
            value,
            self.draws,
            lab.child("bootstrap").numpy(),
        )


@dataclass(frozen=True)
class CalibrationInTheLarge:
    """b in P(y = 1) = σ(logit p + b), in log odds: 0 is calibrated, above 0 the outcome is commoner
    than predicted.
    """

    split: str = "train"
    draws: int = 200

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        p, outcome = forecasts(subject, self.split, lab)
        value, rng = in_the_large(p, outcome), lab.child("bootstrap").numpy()
        reading = _bootstrap_reading(
            np.ones((p.size, 1)), outcome, _log_odds(p), np.zeros(1), value, self.draws, rng
        )
        return replace(reading, unit="log odds")


@torch.no_grad()
def forecasts(subject: Trained, split: str, lab: Lab) -> tuple[Numbers, Numbers]:
    """Probability and 0/1 outcome of each example: of the second of two classes, else of the most
    likely class.
    """
    model, was_training = subject.model, subject.model.training
    model.eval()
    parts: list[tuple[Tensor, Tensor]] = []
    try:
        for batch in once(subject.task.split(split).data, 1024, lab):
            parts.append((model(batch["x"]).double().cpu(), batch["y"].cpu()))
    finally:
        model.train(was_training)
    logits, y = (torch.cat(column) for column in zip(*parts, strict=True))
    return confidences(logits, y)


def confidences(
    logits: Float[Tensor, "n *classes"], y: Int[Tensor, " n"]
) -> tuple[Numbers, Numbers]:
    """From logits [n], [n, 1] (log odds of y = 1) or [n, classes]."""
    if not torch.isfinite(logits).all():
        raise InvalidData(
            "A logit is not finite.",
            why="it has no probability.",
            fix="look for the input that overflows.",
        )
    if logits.dim() == 1 or logits.shape[1] == 1:
        p, outcome = logits.flatten().sigmoid(), y
    elif logits.shape[1] == 2:
        p, outcome = logits.softmax(1)[:, 1], y
    else:
        p, top = logits.softmax(1).max(1)
        outcome = (top == y).long()
    return p.double().numpy(), outcome.double().numpy()


def refuse_invalid_forecasts(p: Numbers, outcome: Numbers) -> None:
    """Refuses what is no forecast."""
    if p.size == 0 or p.shape != outcome.shape:
        raise InvalidData(
            f"Calibration got {p.size} probabilities and {outcome.size} outcomes.",
            why="it compares them one by one.",
            fix="check that the split is not empty.",
        )
    if not (
        np.isfinite(p).all()
        and (p >= 0).all()
        and (p <= 1).all()
        and np.isin(outcome, (0, 1)).all()
    ):
        raise InvalidData(
            "Calibration got probabilities outside [0, 1] or outcomes other than 0 and 1.",
            why="a frequency compares with a probability only.",
            fix="give probabilities (a softmax or sigmoid), not logits, and classes as 0 and 1.",
        )


def reliability(p: Numbers, outcome: Numbers, bins: int) -> Float[np.ndarray, "bins 3"]:
    """Per bin [k/bins, (k+1)/bins): mean probability, mean outcome, n. Empty bins are rows of
    zeros.
    """
    refuse_invalid_forecasts(p, outcome)
    # p = 1 belongs to the last bin
    place = np.minimum((p * bins).astype(int), bins - 1)
    n = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=w, minlength=bins) for w in (p, outcome)]
    return np.stack([sums[0] / np.maximum(n, 1), sums[1] / np.maximum(n, 1), n.astype(float)], 1)


def expected_calibration_error(p: Numbers, outcome: Numbers, bins: int = 15) -> float:
    """Σ_b (n_b/n) |mean outcome − mean probability|."""
    table = reliability(p, outcome, bins)
    return float((table[:, 2] * np.abs(table[:, 1] - table[:, 0])).sum() / p.size)


def calibration_error(
    p: Numbers, outcome: Numbers, bins: int, draws: int, rng: np.random.Generator
) -> Reading:
    """The ECE with limits, and the reliability curve as `detail`."""
    value = expected_calibration_error(p, outcome, bins)
    table = torch.from_numpy(reliability(p, outcome, bins))
    if p.size < 2:
        return Reading(value, n=p.size, unit="probability", detail=table)
    # n_b (mean outcome − mean probability) of a bin is a sum over its examples: one product per
    # resample
    excess = _in_bins(p, bins) * (outcome - p)[:, None]
    drawn = np.concatenate(
        [np.abs(w @ excess).sum(1) / p.size for w in _counts(p.size, draws, rng)]
    )
    low, high = np.quantile(drawn, [0.5 - stats.LEVEL / 2, 0.5 + stats.LEVEL / 2]) - (
        drawn.mean() - value
    )
    # the shift keeps width and centre; quantiles of a skewed spread may still miss the value by a
    # hair
    return Reading(
        value,
        float(np.clip(low, 0, value)),
        float(np.clip(high, value, 1)),
        p.size,
        "probability",
        detail=table,
    )


def _in_bins(p: Numbers, bins: int) -> np.ndarray:
    """[example, bin]: 1 in the bin of the example's probability."""
    return np.eye(bins)[np.minimum((p * bins).astype(int), bins - 1)]


def _counts(n: int, draws: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each of n rows is in each of `draws` resamples, [draw, row], in blocks that fit the
    memory.
    """
    while draws > 0:
        block = min(draws, max(1, BLOCK // n))
        # an offset per resample, so that one bincount counts them all
        rows = rng.integers(n, size=(block, n)) + n * np.arange(block)[:, None]
        yield np.bincount(rows.ravel(), minlength=block * n).reshape(block, n).astype(float)
        draws -= block


def by_chance(p: Numbers, bins: int, rng: np.random.Generator, draws: int = 200) -> Reading:
    """The ECE that perfectly calibrated forecasts show: outcomes drawn from `p` itself; mean and
    central 95 %.
    """
    refuse_invalid_forecasts(p, np.zeros_like(p))
    cells = _in_bins(p, bins)
    drawn = [np.abs(((rng.random(p.size) < p) - p) @ cells).sum() / p.size for _ in range(draws)]
    low, high = np.quantile(drawn, [0.5 - stats.LEVEL / 2, 0.5 + stats.LEVEL / 2])
    return Reading(float(np.mean(drawn)), float(low), float(high), p.size, "probability")


def recalibration(p: Numbers, outcome: Numbers) -> tuple[float, float]:
    """(a, b) that maximise the likelihood of P(y = 1) = σ(a logit p + b)."""
    refuse_invalid_forecasts(p, outcome)
    x = _log_odds(p)
    if np.ptp(x) < 1e-9:
        raise InvalidData(
            "All probabilities are equal.",
            why="no slope can be seen.",
            fix="use CalibrationInTheLarge.",
        )
    _refuse_one_outcome(outcome)
    if _is_separable(np.ones((1, x.size)), x, outcome).any():
        raise InvalidData(
            "The probabilities separate the outcomes without error.",
            why="the likelihood has no maximum: the slope grows without bound.",
            fix="evaluate on more examples; report the calibration error instead.",
        )
    design, start = np.stack([x, np.ones_like(x)], 1), np.array([1.0, 0.0])
    a, b = _newton(np.ones((1, x.size)), design, outcome, np.zeros_like(x), start)[0]
    return float(a), float(b)


def in_the_large(p: Numbers, outcome: Numbers) -> float:
    """b that maximises the likelihood of P(y = 1) = σ(logit p + b)."""
    refuse_invalid_forecasts(p, outcome)
    _refuse_one_outcome(outcome)
    x = _log_odds(p)
    return float(_newton(np.ones((1, x.size)), np.ones((x.size, 1)), outcome, x, np.zeros(1))[0, 0])


def _log_odds(p: Numbers) -> Numbers:
    return logit(
        p.clip(1e-9, 1 - 1e-9)
    )  # a sigmoid that rounds to 0 or 1 is a large, not an infinite, conviction


def _refuse_one_outcome(outcome: Numbers) -> None:
    if np.ptp(outcome) == 0:
        raise InvalidData(
            f"All {outcome.size} outcomes are {outcome[0]:g}.",
            why="the fit runs to infinity.",
            fix="add examples.",
        )


def _is_separable(weights: np.ndarray, x: Numbers, outcome: Numbers) -> np.ndarray:
    """Per resample: whether x tells the outcomes apart without error, or only one outcome was
    drawn.
    """

    def extremes(of: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = (weights > 0) & (outcome == of)
        return np.where(drawn, x, np.inf).min(1), np.where(drawn, x, -np.inf).max(1)

    (low1, high1), (low0, high0) = extremes(1), extremes(0)
    return (low1 >= high0) | (high1 <= low0)


def _bootstrap_reading(
    design: np.ndarray,
    outcome: Numbers,
    offset: Numbers,
    start: np.ndarray,
    value: float,
    draws: int,
    rng: np.random.Generator,
) -> Reading:
    """`value` with the percentile interval of the first coefficient over resampled rows, all fitted
    at once.

    Resamples without a maximum are drawn again; where most of them are, no honest interval exists.
    """
    found: list[np.ndarray] = []
    # up to three rounds: the first may lose resamples without a maximum
    for _ in range(3):
        for weights in _counts(outcome.size, draws - sum(map(len, found)), rng):
            ends = np.stack([weights @ (outcome == k) for k in (0, 1)])
            exists = (
                (ends > 0).all(0)
                if design.shape[1] == 1
                else ~_is_separable(weights, design[:, 0], outcome)
            )
            if exists.any():
                found.append(_newton(weights[exists], design, outcome, offset, start)[:, 0])
    drawn = np.concatenate([*found, np.zeros(0)])
    if drawn.size < draws // 2 or not drawn.size:
        return Reading(value, n=outcome.size)
    low, high = np.quantile(drawn, [0.5 - stats.LEVEL / 2, 0.5 + stats.LEVEL / 2])
    return Reading(value, float(low), float(high), outcome.size)


def _newton(
    weights: np.ndarray, design: np.ndarray, outcome: Numbers, offset: Numbers, start: np.ndarray
) -> np.ndarray:
    """Logistic regression of every row of weights [draw, example] by Newton's method, [draw,
    coefficient].

    Steps are halved where the likelihood would fall.
    """
    draws, k = len(weights), design.shape[1]
    beta = np.tile(start, (draws, 1))
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)

    def loss(beta: np.ndarray) -> np.ndarray:
        z = beta @ design.T + offset
        return (weights * (np.logaddexp(0, z) - outcome * z)).sum(1)

    here = loss(beta)
    for _ in range(100):
        p = expit(beta @ design.T + offset)
        # 1e-12: keeps the solve defined where p rounds to 0 or 1 everywhere
        curvature = (weights * p * (1 - p) @ squares).reshape(draws, k, k) + 1e-12 * np.eye(k)
        move = np.linalg.solve(curvature, (weights * (outcome - p) @ design)[:, :, None])[:, :, 0]
        there = loss(beta + move)
        while (worse := (there > here + 1e-12) & (np.abs(move).max(1) > 1e-10)).any():
            move[worse] /= 2
            there = loss(beta + move)
        beta, here = beta + move, there
        if np.abs(move).max() < 1e-9:
            break
    return beta


def example() -> CalibrationError:
    return CalibrationError()
