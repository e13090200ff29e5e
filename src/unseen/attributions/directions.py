"""Directions in a generator's latent space: from marks, from variance, from weights, from labels.

Of marks: what one person sees (Latent Compass: Schwettmann, Strobelt & Martino, 2020,
arXiv:2012.14283; the rule is ours). Of variance: GANSpace (Härkönen et al., 2020,
arXiv:2004.02546). Of weights: SeFa (Shen & Zhou, 2021, arXiv:2007.06600). Of labels: least squares
on an attribute that is known, the upper bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unseen.attribution import Cause, Credits
from unseen.engine.batches import whole
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.generator import Direction
from unseen.task import Batch, PerExample, Use

Marks = Mapping[int, int] | Sequence[int] | Tensor
"""+1 (more), −1 (less) or 0 (none) for rows of h: by row number, or one for every row."""
Array = NDArray[np.float64]


def last_marks(log: Iterable[tuple[int, int]]) -> dict[int, int]:
    """What a log of (sample, mark) comes to: the last mark of a sample counts, 0 takes it away."""
    found: dict[int, int] = {}
    for sample, mark in log:
        found[sample] = mark
    return {sample: mark for sample, mark in sorted(found.items()) if mark}


@dataclass(frozen=True)
class LatentDirection:
    """From *less* to *more*: the weights of a logistic regression on the marked rows.

    L2-regularised with strength 1/`c`, intercept free; w/‖w‖ is the direction. Marks are a set:
    order and repetition change nothing, of equal rows the last mark counts, unmarked rows are not
    negatives. With fewer than `few` marks on a side: the difference of the two means.
    """

    c: float = 0.5
    few: int = 4
    standardise: bool = False
    """For layers, whose coordinates have scales of their own: rows are divided by their deviation
    over all rows of h, and strengths are counted in deviations along the direction.
    """

    def __post_init__(self) -> None:
        if not self.c > 0 or self.few < 1:
            raise InvalidConfig(
                f"LatentDirection(c={self.c}, few={self.few}) is out of range.",
                why="c divides the penalty, and a side has at least one mark.",
                fix="use c > 0 and few ≥ 1.",
            )

    def fit(self, h: Float[Tensor, "n d"], marks: Marks) -> Direction:
        deviations = _deviations(h) if self.standardise else torch.ones(h.shape[1], dtype=h.dtype)
        x, y = marked_rows(h / deviations, marks)
        less, more = int((y < 0).sum()), int((y > 0).sum())
        if not (less and more):
            raise InvalidData(
                "Mark at least one image in each group.",
                why=f"{more} are marked more and {less} less; a direction leads from one group to "
                "the other.",
                fix="mark an image that has more of it, and one that has less.",
            )
        if min(less, more) < self.few:
            weights = x[y > 0].mean(0) - x[y < 0].mean(0)
            offset = -float(weights @ (x[y > 0].mean(0) + x[y < 0].mean(0)) / 2)
        else:
            fits = logistic_fits(x, y[None], np.ones((1, len(y))), self.c)
            weights, offset = fits[0, :-1], float(fits[0, -1])
        return self._direction(h, torch.from_numpy(weights), offset, deviations.double().cpu())

    def _direction(
        self, h: Tensor, weights: Tensor, offset: float, deviations: Tensor
    ) -> Direction:
        """The step that raises the score most, in units of the deviations."""
        step = weights * deviations
        length = float(step.norm())
        if length < 1e-12:
            raise InvalidData(
                "The marked groups do not differ.",
                why="their images have the same latents on average.",
                fix="mark other images.",
            )
        vector = (step / length).to(h)
        scale = float((h @ vector).std()) if self.standardise else 1.0
        return Direction(vector, scale, (weights / deviations).to(h), offset)


def marked_rows(h: Float[Tensor, "n d"], marks: Marks) -> tuple[Array, Array]:
    """The marked rows and their ±1, each row once, in an order that only the rows decide."""
    by_row: dict[bytes, tuple[Array, float]] = {}
    for sample, mark in _by_sample(marks, len(h)).items():
        row = h[sample].detach().cpu().double().numpy()
        if not np.isfinite(row).all():
            raise InvalidData(
                f"Sample {sample} has coordinates that are not finite.",
                why="no direction leads there.",
                fix="leave it out.",
            )
        by_row[row.tobytes()] = (row, float(mark))
    ordered = [by_row[key] for key in sorted(by_row)]
    rows = [row for row, _ in ordered]
    x = np.stack(rows) if rows else np.zeros((0, h.shape[1]))
    return x, np.array([mark for _, mark in ordered])


def _by_sample(marks: Marks, n: int) -> dict[int, int]:
    """Marks by row number, without zeros."""
    if isinstance(marks, Mapping):
        found = {int(sample): int(mark) for sample, mark in marks.items()}
    else:
        if len(marks) != n:
            raise InvalidData(
                f"There are {len(marks)} marks for {n} samples.",
                why="a list of marks has one for every sample, 0 where there is none.",
                fix="give a mapping {sample: mark} for some samples only.",
            )
        found = {row: int(mark) for row, mark in enumerate(marks)}
    for sample, mark in found.items():
        if not 0 <= sample < n or mark not in (-1, 0, 1):
            raise InvalidData(
                f"Mark {mark} of sample {sample} is none.",
                why=f"samples are numbered 0 to {n - 1}, and marks are 1 (more), −1 (less) and 0.",
                fix="correct the mark.",
            )
    return {sample: mark for sample, mark in found.items() if mark}


def _deviations(h: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Standard deviations of the coordinates; 1 for those that never move."""
    deviations = h.std(0) if len(h) > 1 else torch.zeros(h.shape[1], dtype=h.dtype)
    return torch.where(deviations > 1e-8, deviations, torch.ones_like(deviations))


def logistic_fits(x: Array, y: Array, use: Array, c: float) -> Array:
    """Weights and intercept of many L2-regularised logistic regressions at once, [fit, d + 1].

    Minimises Σ_i use·log(1 + exp(−y(x·w + b))) + ‖w‖²/(2c) for every row of `y` [fit, n] and `use`
    [fit, n] by Newton's method with halved steps: strictly convex in w, so that order of rows and
    the start do not matter.
    """
    mean = x.mean(0)
    # weights lie in the span of the centred rows, which has few dimensions where d is large
    _, size, span = np.linalg.svd(x - mean, full_matrices=False)
    span = span[size > 1e-12 * max(size.max(initial=0.0), 1e-300)]
    design = np.column_stack([(x - mean) @ span.T, np.ones(len(x))])
    # 1e-9 for the intercept: a fold with marks of one kind has no finite one
    penalty = np.diag([1 / c] * len(span) + [1e-9])
    w = np.zeros((len(y), design.shape[1]))

    def objective(w: Array) -> Array:
        margins = y * (w @ design.T)
        return (use * np.logaddexp(0, -margins)).sum(1) + ((w @ penalty) * w).sum(1) / 2

    value = objective(w)
    for _ in range(100):
        p = 1 / (1 + np.exp(np.clip(y * (w @ design.T), -500, 500)))
        gradient = -(use * y * p) @ design + w @ penalty
        curvature = np.einsum("fn,ni,nj->fij", use * p * (1 - p), design, design) + penalty
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        length = np.ones(len(y))
        for _ in range(40):
            new = w - length[:, None] * step
            after = objective(new)
            if (worse := after > value + 1e-12 * (1 + abs(value))).any():
                length[worse] /= 2
            else:
                break
        w, value = new, after
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    weights = w[:, :-1] @ span
    return np.column_stack([weights, w[:, -1] - weights @ mean])


@dataclass(frozen=True)
class MarksTest:
    """Whether marks have to do with the latents at all."""

    auc: float
    """Five-fold cross-validated AUC of the score on the marks: 0.5 by chance."""
    p: float
    """Share of permutations of the marks (and the marks themselves) with an AUC as high."""
    n: int


LEAST_MARKS = 5
"""On either side, for a test by cross-validation."""


def check_marks(
    h: Float[Tensor, "n d"],
    marks: Marks,
    lab: Lab,
    permutations: int = 200,
    c: float = 0.5,
    folds: int = 5,
) -> MarksTest:
    """Permutation test of the marks; the statistic is the cross-validated AUC of logistic scores,
    with the same folds for all permutations.
    """
    x, y = marked_rows(h, marks)
    if min((y > 0).sum(), (y < 0).sum()) < LEAST_MARKS:
        raise InvalidData(
            f"Marks of {(y > 0).sum()} and {(y < 0).sum()} images are too few for a test.",
            why="each side is cut into five parts, and every part is foretold from the others.",
            fix=f"mark at least {LEAST_MARKS} images on each side.",
        )
    rng = lab.numpy()
    fold = rng.permutation(len(y)) % folds
    labels = np.stack([y, *(rng.permutation(y) for _ in range(permutations))])
    scores = np.zeros_like(labels)
    for k in range(folds):
        use = np.broadcast_to(fold != k, labels.shape).astype(np.float64)
        fits = logistic_fits(x, labels, use, c)
        scores[:, fold == k] = fits[:, :-1] @ x[fold == k].T + fits[:, -1:]
    areas = _areas(scores, labels)
    p = float((areas >= areas[0] - 1e-12).mean())
    return MarksTest(float(areas[0]), p, len(y))


def _areas(scores: Array, labels: Array) -> Array:
    """AUC of every row: share of (more, less) pairs in the right order, ties half."""
    ahead = np.sign(scores[:, :, None] - scores[:, None, :])
    pairs = (labels[:, :, None] > 0) & (labels[:, None, :] < 0)
    return 0.5 + 0.5 * (ahead * pairs).sum((1, 2)) / pairs.sum((1, 2))


def fix_signs(vectors: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """Each with its largest coordinate positive: eigenvectors have no sign of their own."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0).to(vectors)


@dataclass(frozen=True)
class PCADirections:
    """The directions of most variance of h; `fit` with latents brings them back to z.

    GANSpace: scores u of a layer's activations, then the latent directions v that explain them,
    min ‖z − u v‖² over samples.
    """

    count: int = 8

    def fit(
        self, h: Float[Tensor, "n d"], z: Float[Tensor, "n k"] | None = None
    ) -> Float[Tensor, "m k"]:
        centred = (h - h.mean(0)).double()
        _, sizes, vectors = torch.linalg.svd(centred, full_matrices=False)
        _require_rank(int((sizes > 1e-9 * sizes.max()).sum()), self.count)
        vectors = vectors[: self.count]
        if z is not None:
            scores = centred @ vectors.T
            vectors = torch.linalg.lstsq(scores, (z - z.mean(0)).double()).solution
            vectors = vectors / vectors.norm(dim=1, keepdim=True)
        return fix_signs(vectors).to(h)


@dataclass(frozen=True)
class WeightEigenDirections:
    """SeFa: eigenvectors of AᵀA, A [output, latent] the first affine map after the edit site: the
    directions that move its output most.
    """

    count: int = 8
    normalise: bool = False
    """Scale the weights of every output to length 1 first, as the authors' code does."""

    def fit(self, weight: Float[Tensor, "out k"]) -> Float[Tensor, "m k"]:
        a = weight.detach().double()
        if self.normalise:
            a = a / a.norm(dim=1, keepdim=True).clamp_min(1e-12)
        _require_rank(a.shape[1], self.count)
        vectors = torch.linalg.eigh(a.T @ a).eigenvectors.T.flip(0)[: self.count]
        return fix_signs(vectors).to(weight.dtype)


def _require_rank(rank: int, count: int) -> None:
    if not 1 <= count <= rank:
        raise InvalidConfig(
            f"{count} directions are asked for where {rank} exist.",
            why="the rest would be arbitrary.",
            fix=f"ask for 1 to {rank}.",
        )


def random_directions(count: int, size: int, lab: Lab) -> Float[Tensor, "m d"]:
    """Unit vectors drawn uniformly."""
    vectors = torch.randn(count, size, generator=lab.generator())
    return vectors / vectors.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class SupervisedDirection:
    """Least squares of a known attribute on h: what marks are compared with.

    As an attribution: which coordinates of the input carry a behaviour, to first order over the
    training data. Credit of coordinate j for query q is w_j (x_qj − mean_j).
    """

    split: Use = Use.TRAIN
    ridge: float = 1e-6
    """Times the mean variance of a coordinate."""

    def fit(self, h: Float[Tensor, "n d"], values: Float[Tensor, " n"]) -> Direction:
        weights = self.regress(h, values)
        length = float(weights.norm())
        if length < 1e-12:
            raise InvalidData(
                "The attribute does not change along any coordinate.",
                why="all its values are the same, or unrelated to h.",
                fix="take an attribute that varies over the samples.",
            )
        mean = h.double().mean(0)
        offset = -float(mean @ weights) / length
        return Direction((weights / length).to(h), 1.0, None, offset)

    def regress(self, h: Float[Tensor, "n d"], values: Float[Tensor, " n"]) -> Float[Tensor, " d"]:
        """The weights of least squares with intercept."""
        x, y = (h - h.mean(0)).double(), (values - values.mean()).double()
        if len(h) < 2 or not (torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise InvalidData(
                f"{len(h)} samples, or values that are not finite, give no direction.",
                why="it is fitted by least squares.",
                fix="use more samples, and leave out those that are not finite.",
            )
        gram = x.T @ x
        penalty = self.ridge * gram.diagonal().mean().clamp_min(1e-300)
        return torch.linalg.solve(gram + penalty * torch.eye(len(gram)).to(gram), x.T @ y)

    def prepare(self, trained: Trained, lab: Lab) -> "LatentCredits":
        batches = [whole(split.data, lab) for split in trained.task.of(self.split).values()]
        return LatentCredits(trained, batches, self)


@dataclass(frozen=True)
class LatentCredits:
    """The attributor: one regression per behaviour."""

    trained: Trained
    batches: Sequence[Batch]
    config: SupervisedDirection

    @torch.no_grad()
    def __call__(self, queries: Batch, behaviour: PerExample) -> Credits:
        model = self.trained.model
        was_training = model.training
        model.eval()
        try:
            values = torch.cat([behaviour(model, batch) for batch in self.batches])
        finally:
            model.train(was_training)
        h = torch.cat([batch["x"].flatten(1) for batch in self.batches])
        weights = self.config.regress(h, values).to(h)
        scores = (queries["x"].flatten(1) - h.mean(0)) * weights
        return Credits(scores, Cause.COMPONENT)


def uncertain_board(
    h: Float[Tensor, "n d"],
    direction: Direction,
    candidates: Int[Tensor, " c"],
    size: int,
    lab: Lab,
) -> Int[Tensor, " b"]:
    """Samples to mark next: half those whose score is nearest to 0, half drawn at random from the
    other candidates.
    """
    if not 1 <= size <= len(candidates):
        raise InvalidData(
            f"A board of {size} of {len(candidates)} candidates cannot be filled.",
            why="no image is shown twice on one.",
            fix="ask for a smaller board, or mark fewer images first.",
        )
    order = direction.score(h[candidates]).abs().argsort()
    near, rest = order[: (size + 1) // 2], order[(size + 1) // 2 :]
    drawn = torch.randperm(len(rest), generator=lab.generator())[: size - len(near)]
    return candidates[torch.cat([near, rest[drawn]])]


def example() -> SupervisedDirection:
    return SupervisedDirection()
