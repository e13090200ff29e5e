"""Images as the coordinates on their first principal components: small inputs that a small network
still learns from.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Split, Task, Use
from unseen.tasks.images import Images


@dataclass(frozen=True)
class PrincipalImages:
    """`images` with `x` replaced by its coordinates on the first `components` directions of the
    training images.

    One common scale: coordinates are divided by the root of their mean square over all of the
    fitted ones, so that the first directions stay the larger ones.
    """

    images: Images = Images()
    components: int = 50

    def build(self, lab: Lab) -> Task:
        task = self.images.build(lab)
        columns = {name: _columns(split) for name, split in task.splits.items()}
        fitted = next(columns[name] for name in task.of(Use.TRAIN))["x"].flatten(1).double()
        most = min(len(fitted) - 1, fitted.shape[1])
        if not 1 <= self.components <= most:
            raise InvalidConfig(
                f"{self.components} principal components are asked for.",
                why=f"{len(fitted)} images of {fitted.shape[1]} numbers have at most {most}.",
                fix=f"choose from 1 to {most}.",
            )
        centre = fitted.mean(0)
        directions = principal_directions(fitted - centre, self.components)
        scale = ((fitted - centre) @ directions).square().mean().sqrt()

        def project(split: Split, own: dict[str, Tensor]) -> Split:
            x = (own["x"].flatten(1).double() - centre) @ directions / scale
            return replace(split, data=Columns(**{**own, "x": x.float()}))

        splits = {name: project(split, columns[name]) for name, split in task.splits.items()}
        return replace(task, name=f"{task.name}, {self.components} components", splits=splits)


def principal_directions(x: Float[Tensor, "n d"], k: int) -> Float[Tensor, "d k"]:
    """Orthonormal directions of largest variance of centred rows, each with its largest entry
    positive.

    The sign of an eigenvector is arbitrary; without a rule it would depend on the library.
    """
    vectors = torch.linalg.eigh(x.T @ x).eigenvectors[:, -k:].flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * largest.sign()


def _columns(split: Split) -> dict[str, Tensor]:
    assert isinstance(split.data, Columns)  # `Images` makes them
    return dict(split.data.columns)


def example() -> PrincipalImages:
    return PrincipalImages(Images(n_train=200, n_test=100), components=20)
