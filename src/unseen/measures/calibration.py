"""Calibration: whether predicted probabilities are frequencies.

Expected calibration error and reliability curve (Guo et al., 2017, arXiv:1706.04599), calibration
slope and calibration in the large (Cox, 1958; Van Calster et al., 2019,
doi:10.1186/s12916-019-1466-7). Whether finite data contradict calibrated probabilities: Rao's score
test of intercept 0 and slope 1 beside the error by chance, both by Monte Carlo, so that they hold
their level at every n.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import expit, logit
from torch import Tensor

from unseen import stats
from unseen.engine.batches import once
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Direction, MeasureEntry, Need, Reading, Scope

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
    overconfident. Limits are those of `recalibrate`.
    """

    split: str = "train"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        return recalibrate(*forecasts(subject, self.split, lab)).slope


@dataclass(frozen=True)
class CalibrationInTheLarge:
    """b in P(y = 1) = σ(logit p + b), in log odds: 0 is calibrated, above 0 the outcome is commoner
    than predicted.
    """

    split: str = "train"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        p, outcome = forecasts(subject, self.split, lab)
        value = in_the_large(p, outcome)
        design, x = np.ones((p.size, 1)), _log_odds(p)
        return replace(_profile_interval(design, outcome, x, np.array([value]), 0), unit="log odds")


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


def miscalibration(
    p: Numbers, outcome: Numbers, bins: int, rng: np.random.Generator, draws: int = 1_999
) -> float:
    """The p-value of "outcomes are drawn from p", against another intercept or slope and against
    any other shape.

    Twice the smaller of two Monte Carlo p-values, whose outcomes are drawn from p itself: Rao's
    score statistic for intercept and slope of the recalibration, which exists where the maximum
    of the likelihood does not, and the calibration error. Exact at every n; with 1,999 draws never
    below 0.001.
    """
    refuse_invalid_forecasts(p, outcome)
    design = np.stack([np.ones_like(p), _log_odds(p)], 1)
    # pinv: where all probabilities are equal only the intercept can be seen
    precision = np.linalg.pinv((design * (p * (1 - p))[:, None]).T @ design)
    cells = _in_bins(p, bins)

    def statistics(excess: np.ndarray) -> np.ndarray:
        score = excess @ design
        return np.stack([((score @ precision) * score).sum(1), np.abs(excess @ cells).sum(1)], 1)

    seen, reached, left = statistics((outcome - p)[None]), np.ones(2), draws
    while left > 0:
        block = min(left, max(1, BLOCK // p.size))
        drawn = statistics((rng.random((block, p.size)) < p) - p)
        # 1e-9: of few distinct outcomes many are equal, up to rounding
        reached += (drawn >= seen * (1 - 1e-9)).sum(0)
        left -= block
    return min(1.0, 2 * float(reached.min()) / (draws + 1))


@dataclass(frozen=True)
class Recalibration:
    """P(y = 1) = σ(slope · logit p + intercept): what turns the outputs into probabilities."""

    intercept: Reading
    slope: Reading


def recalibrate(p: Numbers, outcome: Numbers) -> Recalibration:
    """Intercept and slope with profile-likelihood limits, which hold the truth in 93 to 96 % from
    30 examples on (percentiles of resamples: 85 % there).
    """
    x = _log_odds(p)
    slope, intercept = recalibration(p, outcome)
    design, best = np.stack([x, np.ones_like(x)], 1), np.array([slope, intercept])
    readings = [_profile_interval(design, outcome, np.zeros_like(x), best, k) for k in (0, 1)]
    return Recalibration(slope=readings[0], intercept=replace(readings[1], unit="log odds"))


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
    if _is_separable(x, outcome):
        raise InvalidData(
            "The probabilities separate the outcomes without error.",
            why="the likelihood has no maximum: the slope grows without bound.",
            fix="evaluate on more examples; report the calibration error instead.",
        )
    design, start = np.stack([x, np.ones_like(x)], 1), np.array([1.0, 0.0])
    a, b = _fit_logistic(design, outcome, np.zeros_like(x), start)
    return float(a), float(b)


def in_the_large(p: Numbers, outcome: Numbers) -> float:
    """b that maximises the likelihood of P(y = 1) = σ(logit p + b)."""
    refuse_invalid_forecasts(p, outcome)
    _refuse_one_outcome(outcome)
    x = _log_odds(p)
    return float(_fit_logistic(np.ones((x.size, 1)), outcome, x, np.zeros(1))[0])


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


def _is_separable(x: Numbers, outcome: Numbers) -> bool:
    """Whether x tells the outcomes apart without error."""
    positive, negative = x[outcome == 1], x[outcome == 0]
    return bool(positive.min() >= negative.max() or positive.max() <= negative.min())


def _profile_interval(
    design: np.ndarray, outcome: Numbers, offset: Numbers, best: np.ndarray, k: int
) -> Reading:
    """Coefficient k of a logistic regression with the values that a likelihood-ratio test at 5 %
    does not reject, the other coefficients fitted anew at each.
    """
    others, start = np.delete(design, k, axis=1), np.delete(best, k)
    # χ² with one degree of freedom for large n
    quantile = stats.t_quantile(outcome.size - design.shape[1]) ** 2

    def deviance(value: float) -> float:
        fixed = offset + value * design[:, k]
        rest = _fit_logistic(others, outcome, fixed, start) if start.size else start
        return 2 * _log_loss(fixed + others @ rest, outcome)

    least = deviance(best[k])

    def limit(sign: int) -> float:
        step = 0.1
        while deviance(best[k] + sign * step) - least < quantile:
            step *= 2
            if step > 1e6:  # the likelihood is flat: there is no limit on this side
                return sign * float("inf")
        return float(
            brentq(lambda value: deviance(value) - least - quantile, best[k], best[k] + sign * step)
        )

    return Reading(float(best[k]), limit(-1), limit(1), outcome.size)


def _log_loss(z: Numbers, outcome: Numbers) -> float:
    """−log likelihood of the outcomes at log odds z."""
    return float((np.logaddexp(0, z) - outcome * z).sum())


def _fit_logistic(
    design: np.ndarray, outcome: Numbers, offset: Numbers, start: np.ndarray
) -> np.ndarray:
    """Coefficients of the logistic regression with an offset, by Newton's method.

    A step is halved where the likelihood would fall.
    """
    beta, loss = start, _log_loss(design @ start + offset, outcome)
    for _ in range(100):
        p = expit(design @ beta + offset)
        # 1e-12: keeps the solve defined where p rounds to 0 or 1 everywhere
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-12 * np.eye(beta.size)
        move = np.linalg.solve(curvature, design.T @ (outcome - p))
        new = _log_loss(design @ (beta + move) + offset, outcome)
        while new > loss + 1e-12 and np.abs(move).max() > 1e-10:
            move = move / 2
            new = _log_loss(design @ (beta + move) + offset, outcome)
        beta, loss = beta + move, new
        if np.abs(move).max() < 1e-9:
            break
    return beta


NEEDS = frozenset({Need.CLASSES, Need.PROBABILITIES, Need.INPUTS})
MEASURES = (
    MeasureEntry(
        name="calibration error",
        measure=CalibrationError(),
        meaning="Mean distance between predicted probability and frequency, in 15 bins: above 0 by "
        "chance alone, the more so in few examples.",
        direction=Direction.LOWER,
        family="calibration",
        passes=1,
        interval="examples",
        needs=NEEDS,
        scope=Scope.SITES,
    ),
    MeasureEntry(
        name="calibration slope",
        measure=CalibrationSlope(),
        meaning="By how much log odds have to be stretched: 1 is calibrated, below 1 "
        "overconfident.",
        direction=Direction.NEITHER,
        family="calibration",
        passes=1,
        interval="examples",
        needs=NEEDS,
        scope=Scope.SITES,
    ),
    MeasureEntry(
        name="calibration in the large",
        measure=CalibrationInTheLarge(),
        meaning="By how much log odds have to be shifted: 0 is calibrated, above 0 the outcome is "
        "commoner than predicted.",
        direction=Direction.NEITHER,
        family="calibration",
        passes=1,
        interval="examples",
        needs=NEEDS,
        scope=Scope.SITES,
    ),
)


def example() -> CalibrationError:
    return CalibrationError()
