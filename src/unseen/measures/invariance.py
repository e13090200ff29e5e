"""Whether one linear head on a representation serves every environment (Parulekar, Shanmugam &
Shakkottai, 2023, arXiv:2205.15196).

With Φ a linear representation, w a head and w_e = (Φ Σ_e Φᵀ)⁻¹ Φ Σ_e^{XY} the best one in
environment e, the gap is the excess risk ρ_e = (w − w_e)ᵀ Φ Σ_e Φᵀ (w − w_e); Φ is ε-invariant on
environments where one w has ρ_e ≤ ε in all of them. The paper's norm may be another one (on w).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Float
from scipy import stats as scipy_stats
from torch import Tensor

from unseen.engine.batches import once, size
from unseen.engine.features import record_features
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Direction, MeasureEntry, Need, Reading, Scope
from unseen.task import Batch, Use


def represent(
    phi: Float[Tensor, "*s k d"], xx: Float[Tensor, "e d d"], xy: Float[Tensor, "e d"]
) -> tuple[Float[Tensor, "*s e k k"], Float[Tensor, "*s e k"]]:
    """Φ Σ_e Φᵀ [s, e, k, k] and Φ Σ_e^{XY} [s, e, k] of every representation and environment;
    refuses a singular one.
    """
    half = phi.flatten(0, -2) @ xx  # one product per environment, not one per representation
    half = half.unflatten(-2, phi.shape[:-1]).movedim(0, -3)
    inside, across = half @ phi[..., None, :, :].mT, (phi @ xy.T).mT
    _refuse_singular(inside)
    return inside, across


def _refuse_singular(inside: Float[Tensor, "*s e k k"]) -> None:
    """By the pivots of Cholesky: what of a row is not determined by those before it."""
    root, failed = torch.linalg.cholesky_ex(inside)
    pivots = root.diagonal(dim1=-2, dim2=-1).square()
    rest = pivots / inside.diagonal(dim1=-2, dim2=-1)
    if bool(failed.any()) or not bool((rest > 1e-12).all()):
        raise InvalidData(
            "Φ Σ Φᵀ is singular in an environment.",
            why="then the best head there is not one but many, and which is compared decides.",
            fix="leave out rows of Φ that others determine, or inputs that are constant there.",
        )


def pooled_heads(
    inside: Float[Tensor, "*s e k k"], across: Float[Tensor, "*s e k"]
) -> Float[Tensor, "*s k"]:
    """The head of least mean risk over the environments, each counting once."""
    return torch.linalg.solve(inside.mean(-3), across.mean(-2))


def excess_risks(
    heads: Float[Tensor, "*s k"],
    inside: Float[Tensor, "*s e k k"],
    across: Float[Tensor, "*s e k"],
) -> Float[Tensor, "*s e"]:
    """ρ_e of every head in every environment."""
    away = heads[..., None, :] - torch.linalg.solve(inside, across)
    return ((inside @ away[..., None])[..., 0] * away).sum(-1)


def invariance_gap(
    phi: Float[Tensor, "*s k d"],
    w: Float[Tensor, "*s k"],
    xx: Float[Tensor, "e d d"],
    xy: Float[Tensor, "e d"],
) -> Float[Tensor, "*s e"]:
    """ρ_e of one representation with its head, or of many on leading axes, in every environment."""
    return excess_risks(w, *represent(phi, xx, xy))


def invariance_failure(
    gaps: Float[Tensor, "*s e"], eps: float, factor: float = 2.0
) -> Float[Tensor, "*s"]:
    """Share of environments whose gap is above `factor` · ε."""
    if not eps > 0:
        raise InvalidConfig(
            f"eps={eps}.", why="a gap is compared with a positive one.", fix="use eps > 0."
        )
    return (gaps > factor * eps).double().mean(-1)


def pac_certificate(n: int, violations: int, eta: float = 0.05) -> float:
    """The failure share that n environments with so many violations leave possible: with
    probability 1 − η over the draw of the environments the true one is not above it
    (Clopper–Pearson, one-sided).

    For a representation and head that were fixed before. With none violated it is 1 − η^(1/n),
    about ln(1/η)/n.
    """
    if not (n >= 1 and 0 <= violations <= n and 0 < eta < 1):
        raise InvalidConfig(
            f"A certificate of {n} environments with {violations} violations at η = {eta}.",
            why="violations are some of the environments, and η is a probability.",
            fix="use n ≥ 1, 0 ≤ violations ≤ n and 0 < η < 1.",
        )
    if violations == n:
        return 1.0
    return float(scipy_stats.beta.ppf(1 - eta, violations + 1, n - violations))


def environments_for_all(
    delta: float, parameters: int, degree: int = 6, eta: float = 0.05
) -> float:
    """Order of magnitude only: environments that certify a failure of at most δ for *every*
    representation and head with so many parameters at once, (VC ln(1/δ) + ln(1/η))/δ.

    The sets {e: ρ_e ≤ ε} are given by polynomials of bounded degree, so VC is about parameters ·
    log₂(degree); constants are 1. With interventions on s nodes of in-degree r the covariances move
    in s (r + 1) numbers, however many inputs there are: use the smaller of the two counts.
    """
    if not (0 < delta < 1 and 0 < eta < 1 and parameters >= 1 and degree >= 2):
        raise InvalidConfig(
            f"δ = {delta}, η = {eta}, {parameters} parameters, degree {degree}.",
            why="shares and probabilities lie between 0 and 1.",
            fix="use 0 < δ, η < 1, at least one parameter and degree ≥ 2.",
        )
    dimension = parameters * log(degree, 2)
    return (dimension * log(1 / delta) + log(1 / eta)) / delta


ENVIRONMENTS = ("site", "domain")
"""Columns that say where an example is from; without them it is the position of its split."""
ROWS_PER_DIRECTION = 10
"""A site's head is fitted to at most one direction per so many of its rows."""


@dataclass(frozen=True)
class InvarianceGap:
    """How much more of the target's variance a linear head fitted at a site would explain than one
    fitted at all other sites, on the model's last features; 0 if one head serves all.

    Read from the EVALUATE splits: features are the inputs of the last linear layer, in the
    directions in which they vary most over all sites (one per ten rows of the smallest site); a
    class counts as the number 0 or 1. Every gap has the chance part of both heads taken off, so it
    is 0 on average, not always positive, where the sites do not differ. The value is the mean over
    sites; `detail` is [site, (gap, standard deviation of the gap by chance where sites do not
    differ, rows)]. No interval: these are the sites there are, and Student's t over them holds a
    mean of such squares in 70 % (three sites) to 85 % (ten) of draws.
    """

    layer: str = ""
    """The module whose inputs are the features; empty: the last linear layer."""
    splits: tuple[str, ...] = ()
    """Empty: all EVALUATE splits."""
    batch_size: int = 1024

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        sites = read_sites(subject, self.splits, self.layer, self.batch_size, lab)
        gaps = site_gaps(list(sites.values()))
        table = [
            [gap.value, gap.chance, len(site.y)]
            for gap, site in zip(gaps, sites.values(), strict=True)
        ]
        detail = torch.tensor(table, dtype=torch.float64)
        mean = float(detail[:, 0].mean())
        return Reading(mean, n=len(gaps), unit="share of the target's variance", detail=detail)


@dataclass(frozen=True, eq=False)
class SiteFeatures:
    """Features and targets (numbers, or a column per class) of one site."""

    z: Float[Tensor, "n k"]
    y: Float[Tensor, "n c"]


@dataclass(frozen=True)
class SiteGap:
    """As shares of the target's variance at the site."""

    value: float
    chance: float
    """Standard deviation of the value where the heads differ by chance alone."""


@torch.no_grad()
def read_sites(
    subject: Trained, names: Sequence[str], layer: str, batch_size: int, lab: Lab
) -> dict[str, SiteFeatures]:
    """The features of the evaluated examples by the name of their site."""
    task, model = subject.task, subject.model
    chosen = names or tuple(task.of(Use.EVALUATE))
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    was_training = model.training
    model.eval()
    try:
        for name in chosen:
            split = task.split(name)
            for batch in once(split.data, batch_size, lab):
                with record_features(model, layer) as found:
                    task.objective.loss(model, batch)
                z, y = found[-1].double().cpu(), _targets(batch)
                for label, where in _environments(batch, split.at if split.at else name).items():
                    parts.setdefault(label, []).append((z[where], y[where]))
    finally:
        model.train(was_training)
    classes = _classes([y for part in parts.values() for _, y in part])
    return {
        label: SiteFeatures(
            torch.cat([z for z, _ in part]), _columns(torch.cat([y for _, y in part]), classes)
        )
        for label, part in parts.items()
    }


def _targets(batch: Batch) -> Tensor:
    if "y" not in batch:
        raise InvalidData(
            f"The examples have no target `y` (columns: {', '.join(batch)}).",
            why="a head is fitted to it.",
            fix="measure on splits with targets.",
        )
    return batch["y"].cpu()


def _environments(batch: Batch, at: float | str) -> dict[str, Tensor]:
    for column in ENVIRONMENTS:
        if column in batch:
            codes = batch[column].flatten().cpu()
            return {f"{column} {code}": codes == code for code in codes.unique().tolist()}
    return {str(at): torch.ones(size(batch), dtype=torch.bool)}


def _classes(targets: Sequence[Tensor]) -> Tensor | None:
    """The classes of all sites; None where targets are numbers."""
    if not targets or targets[0].is_floating_point():
        return None
    return torch.cat(list(targets)).unique()


def _columns(y: Tensor, classes: Tensor | None) -> Float[Tensor, "n c"]:
    if classes is None:
        return y.double().reshape(len(y), -1)
    columns = (y.flatten()[:, None] == classes).double()
    return columns[:, 1:] if len(classes) == 2 else columns  # of two classes one says all


def site_gaps(sites: Sequence[SiteFeatures]) -> list[SiteGap]:
    """The gap of every site, as a share of the target's variance there."""
    if len(sites) < 2:
        raise InvalidData(
            f"The examples come from {len(sites)} site{'' if len(sites) == 1 else 's'}.",
            why="a head of all other sites is compared with one of the site.",
            fix="measure on examples of two or more sites (`site` or `domain` columns, or splits "
            "at several positions).",
        )
    smallest = min(len(site.y) for site in sites)
    most = smallest // ROWS_PER_DIRECTION
    if most < 1:
        raise InvalidData(
            f"The smallest site has {smallest} rows.",
            why=f"a head of its own takes {ROWS_PER_DIRECTION} rows for every direction.",
            fix="leave the site out, or give more of its rows.",
        )
    designs = _designs(sites, most)
    return [_gap(designs, [site.y for site in sites], k) for k in range(len(sites))]


def _designs(sites: Sequence[SiteFeatures], most: int) -> list[Float[Tensor, "n q"]]:
    """An intercept, and the features in the `most` directions of largest variance, each site
    counting once.
    """
    if not all(bool(torch.isfinite(site.z).all()) for site in sites):
        raise InvalidData(
            "Some features are NaN or infinite.",
            why="no head can be fitted to them.",
            fix="look for inputs or weights that are not finite.",
        )
    centre = torch.stack([site.z.mean(0) for site in sites]).mean(0)
    scatter = torch.stack([(s.z - centre).T @ (s.z - centre) / len(s.z) for s in sites]).mean(0)
    values, vectors = torch.linalg.eigh(scatter)
    # a dead unit, or a feature that others determine, is no direction
    strong = (values > 1e-9 * values[-1].clamp_min(1e-300)).nonzero()[:, 0].flip(0)[:most]
    if not len(strong) or not values[-1] > 0:
        raise InvalidData(
            "The features are the same for all examples.",
            why="no head can tell them apart.",
            fix="measure a model that was trained, or another layer.",
        )
    basis = vectors[:, strong]
    return [torch.cat([s.z.new_ones(len(s.z), 1), (s.z - centre) @ basis], 1) for s in sites]


def _gap(designs: Sequence[Tensor], targets: Sequence[Tensor], k: int) -> SiteGap:
    """ρ of the others' head at site k minus what chance alone makes of it, over Var y there.

    Where both heads estimate the same, their difference is N(0, V) and ρ has mean tr(A V) and
    variance 2 tr((A V)²), with A the second moments of the features.
    """
    here, y = designs[k], targets[k]
    others = [j for j in range(len(designs)) if j != k]
    spread = float((y - y.mean(0)).square().mean(0).sum())
    if not spread > 0:
        raise InvalidData(
            f"The target is the same for all {len(y)} rows of a site.",
            why="there is nothing to explain.",
            fix="leave the site out.",
        )
    there, other_y = (
        torch.cat([designs[j] for j in others]),
        torch.cat([targets[j] for j in others]),
    )
    # every other site counts once
    weights = torch.cat(
        [designs[j].new_full((len(designs[j]),), 1 / len(designs[j])) for j in others]
    )
    own, own_error = _fit(here, y, here.new_full((len(here),), 1 / len(here)))
    common, common_error = _fit(there, other_y, weights)
    inside = here.T @ here / len(here)
    away = own - common
    gap = float(torch.einsum("ic,ij,jc->", away, inside, away))
    by_chance = inside @ (own_error + common_error)
    spread_by_chance = float(2 * (by_chance * by_chance.T).sum()) ** 0.5
    return SiteGap((gap - float(by_chance.trace())) / spread, spread_by_chance / spread)


def _fit(
    x: Float[Tensor, "n q"], y: Float[Tensor, "n c"], weights: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "q c"], Float[Tensor, "q q"]]:
    """Weighted least squares, and the covariance of its coefficients summed over targets by the
    sandwich (residuals may differ in size), with n/(n − q) for the fit.
    """
    normal = x.T @ (weights[:, None] * x)
    inverse = torch.linalg.pinv(normal, hermitian=True)
    coefficients = inverse @ (x.T @ (weights[:, None] * y))
    residual2 = (y - x @ coefficients).square().sum(1)
    meat = x.T @ ((weights.square() * residual2)[:, None] * x)
    n, q = x.shape
    return coefficients, inverse @ meat @ inverse * n / max(1, n - q)


MEASURES = (
    MeasureEntry(
        name="invariance gap",
        measure=InvarianceGap(),
        meaning="How much more of the target's variance a linear head fitted at a site explains "
        "than one of all other sites, on the last features; 0: one head serves all.",
        direction=Direction.LOWER,
        family="function",
        passes=1,
        needs=frozenset({Need.MODEL, Need.GRADIENTS}),
        scope=Scope.TASK,
    ),
)


def example() -> InvarianceGap:
    """On the evaluation splits of the contract battery's task."""
    return InvarianceGap()
