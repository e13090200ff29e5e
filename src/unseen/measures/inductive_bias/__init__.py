"""How much inductive bias a task demands: the information in "this one generalizes" beyond "this
one fits".

Boopathy, Yue, Hwang, Iyer & Fiete (2024, IJCAI, "Towards Exact Computation of Inductive Bias"):
I(ε) = −log₂ P(test loss ≤ ε | the training data are fitted), over random hypotheses.
`InductiveBias` reads the test losses of hypotheses (`hypotheses.sample_networks` trains them
together); `KernelInductiveBias` computes the same for all functions of a Gaussian process, without
sampling.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite, isnan, log, log2, log10, nan

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.inductive_bias.gaussian_process import GaussianProcess, posterior_error
from unseen.measures.inductive_bias.noncentral import (
    ScaledChi2,
    fit_by_likelihood,
    fit_by_moments,
)
from unseen.reading import Reading
from unseen.task import Task

FEWEST = 8
"""Hypotheses without which no distribution is fitted."""
FEWEST_COUNTED = 20
"""Hypotheses at or below ε from which on their share is a check of the fitted tail."""


class Fit(StrEnum):
    """How the distribution of the losses is fitted."""

    MOMENTS = "moments"
    """Mean, variance and skewness: closed form."""
    LIKELIHOOD = "likelihood"
    """The most likely one: less scatter, a second or two for the interval."""


@dataclass(frozen=True)
class BiasReading(Reading):
    """Bits of inductive bias, with what they rest on."""

    eps: float = nan
    nats: float = nan
    extrapolation: float = 0.0
    """Orders of magnitude between the probability and the smallest one that so many hypotheses can
    show, 1/n. From about 1 on the bits are the fitted distribution's, not the sample's.
    """
    counted: Reading | None = None
    """The bits by counting hypotheses at or below ε, where at least 20 lie there."""
    distribution: ScaledChi2 | None = None
    by_other_fit: float = nan
    """The bits by the fit that was not asked for."""
    unfit: float = 0.0
    """Share of the hypotheses that were left out because they do not fit the training data."""

    @property
    def note(self) -> str:
        """What a reader should know before quoting the number."""
        notes = []
        if self.extrapolation > 0:
            other = "has no likelihood: a loss is 0"
            if not isnan(self.by_other_fit):
                other = f"says {self.by_other_fit:.3g} bits"
            notes.append(
                f"extrapolates {self.extrapolation:.1f} orders of magnitude beyond what {self.n} "
                f"hypotheses show (the other fit {other})"
            )
        if self.unfit:
            notes.append(
                f"{self.unfit:.0%} of the hypotheses do not fit the training data and are left out"
            )
        return "; ".join(notes)

    def __str__(self) -> str:
        return super().__str__() + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True)
class InductiveBias:
    """−log₂ P(loss ≤ ε) under a scaled non-central χ² fitted to the losses of hypotheses.

    The subject is a tensor of test losses, one per hypothesis that fits the training data, or a
    table with `loss` and `training`; then only hypotheses whose training loss is at most `fits`
    count. ε and losses have one unit. The interval is the bootstrap's over hypotheses, given that
    the distribution is of this family: far below all losses that is the larger doubt, and
    `extrapolation` says how far.
    """

    eps: float
    fits: float = inf
    fit: Fit = Fit.MOMENTS
    draws: int = 200

    def __post_init__(self) -> None:
        _refuse_eps(self.eps)

    def __call__(self, subject: Tensor | Mapping[str, Tensor], lab: Lab) -> BiasReading:
        losses, unfit = _select(subject, self.fits)
        distribution = self._distribution(losses)
        interval = self.interval(losses, lab)
        log_probability = distribution.form.log_probability(self.eps)
        return BiasReading(
            _bits(log_probability),
            max(0.0, interval.low),
            interval.high,
            len(losses),
            "bits",
            torch.from_numpy(losses),
            eps=self.eps,
            nats=max(0.0, -log_probability),
            extrapolation=max(0.0, -log_probability / log(10) - log10(len(losses))),
            counted=_count(losses, self.eps),
            distribution=distribution,
            by_other_fit=self._bits_by_other_fit(losses),
            unfit=unfit,
        )

    def interval(self, losses: Float[np.ndarray, " n"], lab: Lab) -> Reading:
        """The bits with the bootstrap's interval over hypotheses."""
        return stats.bootstrap(
            lambda sample: self._bits(self._distribution(sample)),
            losses,
            rng=lab.child("bootstrap").numpy(),
            draws=self.draws,
        )

    def _distribution(self, losses: Float[np.ndarray, " n"]) -> ScaledChi2:
        return (fit_by_moments if self.fit is Fit.MOMENTS else fit_by_likelihood)(losses)

    def _bits_by_other_fit(self, losses: Float[np.ndarray, " n"]) -> float:
        """NaN where a loss of 0 leaves no likelihood."""
        if self.fit is Fit.LIKELIHOOD:
            return self._bits(fit_by_moments(losses))
        return self._bits(fit_by_likelihood(losses)) if losses.min() > 0 else nan

    def _bits(self, distribution: ScaledChi2) -> float:
        return _bits(distribution.form.log_probability(self.eps))


@dataclass(frozen=True)
class KernelInductiveBias:
    """The bits for the functions of a Gaussian process that pass through the training data, exact
    for these training and test examples.

    Prior covariance `variance` · exp(−‖x − x′‖² / (2 `width`²)), independent outputs; classes are
    coded one-hot. `jitter` · `variance` is added to the variance of the training examples only. ε
    is a mean square over test examples and outputs. Rescaling the targets by c changes the bits
    unless ε and `variance` (with its `jitter`, a share of it) are rescaled by c², too.
    Nothing is sampled, so there is no interval; `by_other_fit` is Lugannani and Rice's
    approximation.
    """

    eps: float
    width: float = 1.0
    variance: float = 1.0
    jitter: float = 1e-6
    split: str = "test"
    column: str = "x"

    def __post_init__(self) -> None:
        _refuse_eps(self.eps)
        for name in ("width", "variance", "jitter"):
            if not 0 < getattr(self, name) < inf:
                raise InvalidConfig(
                    f"KernelInductiveBias got {name}={getattr(self, name)}.",
                    why="the kernel needs a positive number.",
                    fix=f"set {name} > 0.",
                )

    def __call__(self, subject: Task, lab: Lab) -> BiasReading:
        process = GaussianProcess(self.width, self.variance, self.jitter)
        error = posterior_error(process, subject, self.split, self.column, lab)
        n, outputs = error.shape
        x = self.eps * n * outputs
        log_probability = error.form.log_probability(x)
        if not isfinite(log_probability):
            raise InvalidData(
                f"No function of this Gaussian process that fits reaches a loss of {self.eps:g}.",
                why="where the process leaves nothing open its error is fixed, and it is larger "
                f"than that; its mean is {error.mean:.3g}.",
                fix="raise `eps` or `jitter`, or choose another `width`.",
            )
        return BiasReading(
            _bits(log_probability),
            n=n,
            unit="bits",
            eps=self.eps,
            nats=max(0.0, -log_probability),
            by_other_fit=_bits(error.form.approximate_log_probability(x)),
        )


def _bits(log_probability: float) -> float:
    return max(0.0, -log_probability / log(2))


def _select(
    subject: Tensor | Mapping[str, Tensor], fits: float
) -> tuple[Float[np.ndarray, " n"], float]:
    """The losses that count, and the share of hypotheses that does not."""
    if isinstance(subject, Tensor):
        return _usable(_numbers(subject), 0, len(subject)), 0.0
    losses = _numbers(_column(subject, "loss"))
    if fits == inf:
        return _usable(losses, 0, len(losses)), 0.0
    training = _numbers(_column(subject, "training"))
    left = losses[training <= fits]  # a training loss of NaN fits nothing
    unfit = len(losses) - len(left)
    return _usable(left, unfit, len(losses)), unfit / max(1, len(losses))


def _numbers(values: Tensor) -> Float[np.ndarray, " n"]:
    return values.detach().double().cpu().flatten().numpy()


def _column(table: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in table:
        raise UnknownName.near("column of the hypotheses", name, table)
    return table[name]


def _usable(losses: Float[np.ndarray, " n"], unfit: int, n: int) -> Float[np.ndarray, " n"]:
    if len(losses) < FEWEST:
        left_out = f" {unfit} of {n} do not fit the training data." if unfit else ""
        raise InvalidData(
            f"{len(losses)} hypotheses are left.{left_out}",
            why=f"the distribution of their losses is fitted, which needs {FEWEST} of them at "
            "least.",
            fix="train longer, or raise `fits`." if unfit else "sample more hypotheses.",
        )
    bad = int((~np.isfinite(losses)).sum())
    if bad or losses.min() < 0:
        what = f"{bad} of {len(losses)} losses are NaN or infinite."
        raise InvalidData(
            what if bad else f"The smallest loss is {losses.min():g}.",
            why="a scaled non-central χ² describes finite losses of at least 0.",
            fix="leave out hypotheses that diverged, and say how many."
            if bad
            else "use a loss that is 0 where a hypothesis is right, such as the squared error.",
        )
    return losses


def _count(losses: Float[np.ndarray, " n"], eps: float) -> Reading | None:
    """The bits by the share of hypotheses at or below ε, if enough are there."""
    below = int((losses <= eps).sum())
    if below < FEWEST_COUNTED:
        return None
    share = stats.proportion(below, len(losses))
    value, low, high = (-log2(p) for p in (share.value, share.high, share.low))
    return Reading(value, low, high, len(losses), "bits")


def _refuse_eps(eps: float) -> None:
    if not 0 < eps < inf:
        raise InvalidConfig(
            f"Inductive bias got eps={eps}.",
            why="no error is negative, and none is exactly 0 with a positive probability.",
            fix="set the test loss that counts as generalizing, eps > 0, in the losses' unit.",
        )


def example() -> tuple[InductiveBias, Tensor]:
    """Losses of 200 hypotheses; about one in ten reaches 0.3."""
    generator = Lab(seed=0).generator()
    normal = torch.randn(200, 8, generator=generator, dtype=torch.float64)
    return InductiveBias(eps=0.3, draws=50), (normal + 0.5).square().mean(1) / 2
