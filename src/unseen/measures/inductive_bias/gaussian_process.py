"""The error on test points of a random function that passes through the training points."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unseen.engine.batches import whole
from unseen.errors import InvalidData, TooBig, UnknownName
from unseen.lab import Lab
from unseen.measures.inductive_bias.quadratic_form import QuadraticForm
from unseen.task import Batch, Task, Use

MOST = 10_000
"""Examples up to which a dense covariance is formed (0.8 GB in float64)."""


@dataclass(frozen=True)
class PosteriorError:
    """n · outputs · mean squared error of a draw from the posterior, over the test points."""

    form: QuadraticForm
    shape: tuple[int, int]
    """Test points and outputs."""

    @property
    def mean(self) -> float:
        """The expected mean squared error."""
        return self.form.slope(0.0) / (self.shape[0] * self.shape[1])


@dataclass(frozen=True)
class GaussianProcess:
    """Functions with covariance `variance` · exp(−‖x − x′‖² / (2 `width`²)), independent for every
    output. `variance` · `jitter` is added to the variance of every training example, and to
    nothing else: functions pass that close to the training targets.
    """

    width: float = 1.0
    variance: float = 1.0
    jitter: float = 1e-6

    def error(
        self,
        x: Float[Tensor, "n d"],
        y: Float[Tensor, "n outputs"],
        test_x: Float[Tensor, "m d"],
        test_y: Float[Tensor, "m outputs"],
    ) -> PosteriorError:
        """The error against `test_y` of functions that pass through (x, y)."""
        mean, covariance = self.posterior(x, y, test_x)
        values, vectors = torch.linalg.eigh(covariance)
        shift = (vectors.T @ (mean - test_y)).square().sum(1)
        freedom = torch.full_like(values, y.shape[1])
        # rounding leaves eigenvalues of −1e-16 where the data leave nothing open
        form = QuadraticForm(values.clamp_min(0).numpy(), freedom.numpy(), shift.numpy())
        return PosteriorError(form, (len(test_y), test_y.shape[1]))

    def posterior(
        self, x: Float[Tensor, "n d"], y: Float[Tensor, "n outputs"], test_x: Float[Tensor, "m d"]
    ) -> tuple[Float[Tensor, "m outputs"], Float[Tensor, "m m"]]:
        """Mean and covariance at the test points, of every output the same covariance."""
        within = self.covariance(x, x)
        within.diagonal().add_(self.variance * self.jitter)
        root, failed = torch.linalg.cholesky_ex(within)
        if failed:
            raise InvalidData(
                f"The covariance of {len(x)} training examples with a jitter of {self.jitter:g} is "
                "not positive definite in float64.",
                why="copies of an input, or inputs much closer than `width`, differ by rounding.",
                fix="raise `jitter` (1e-6 is the default), lower `width`, or drop copies.",
            )
        cross = torch.linalg.solve_triangular(root, self.covariance(x, test_x), upper=False)
        mean = cross.T @ torch.linalg.solve_triangular(root, y, upper=False)
        return mean, self.covariance(test_x, test_x) - cross.T @ cross

    def covariance(self, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """The kernel's values."""
        # not by matrix products: ‖a‖² + ‖b‖² − 2 a·b loses the distance far from the origin
        distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return self.variance * (-distance.square() / (2 * self.width**2)).exp()


def posterior_error(
    process: GaussianProcess, task: Task, split: str, column: str, lab: Lab
) -> PosteriorError:
    """The error of `process` on a split of a task, in float64."""
    parts = [task.of(Use.TRAIN).values(), [task.split(split)]]
    train, test = (
        [_examples(whole(part.data, lab), column) for part in chosen] for chosen in parts
    )
    x, y = (torch.cat([rows[k] for rows in train]) for k in (0, 1))
    test_x, test_y = test[0]
    if max(len(x), len(test_x)) > MOST:
        raise TooBig(
            f"{len(x)} training and {len(test_x)} test examples are more than {MOST:,}.",
            why="the covariance of all of them is decomposed.",
            fix="use a part of the data; the bits belong to a number of training examples anyway.",
        )
    y, test_y = _outputs(y, test_y)
    return process.error(x, y, test_x, test_y)


def _examples(batch: Batch, column: str) -> tuple[Float[Tensor, "n d"], Tensor]:
    """Inputs as rows in float64, and targets as they are."""
    for name in (column, "y"):
        if name not in batch:
            raise UnknownName.near("column of the task", name, batch)
    x = batch[column]
    if not len(x) or not x.is_floating_point() or not torch.isfinite(x).all():
        raise InvalidData(
            f"The {len(x)} inputs `{column}` are not all finite numbers, or there are none.",
            why="the kernel takes distances between them.",
            fix="encode or impute them first.",
        )
    y = batch["y"].cpu()
    if bad := int((~torch.isfinite(y)).sum()):
        raise InvalidData(
            f"{bad} of {y.numel()} targets are NaN or infinite.",
            why="no function passes through them, or comes near them.",
            fix="impute or drop them first.",
        )
    rows = x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
    return rows.double().cpu(), y


def _outputs(y: Tensor, test_y: Tensor) -> tuple[Float[Tensor, "n k"], Float[Tensor, "m k"]]:
    """Targets as columns of numbers; classes one-hot."""
    if y.is_floating_point():
        return y.reshape(len(y), -1).double(), test_y.reshape(len(test_y), -1).double()
    classes = int(torch.cat([y, test_y]).max()) + 1
    return F.one_hot(y.long(), classes).double(), F.one_hot(test_y.long(), classes).double()
