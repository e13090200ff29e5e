"""One half of a domino tells which of ten classes it shows, the other half is any image of the
other collection.

What an encoder learns here, it knows about one half only: pre-training for `tasks/dominoes.py`,
where both halves tell the label (learning algorithms compared by Benoit et al., 2024,
arXiv:2312.16313).
"""

from dataclasses import dataclass
from enum import StrEnum

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.digit_sources import area, load_part, sample_rows
from unseen.tasks.dominoes import stack_images
from unseen.tasks.images import Collection


class Half(StrEnum):
    """A place in a domino."""

    UPPER = "upper"
    LOWER = "lower"


@dataclass(frozen=True)
class DominoHalf:
    """Which of its collection's ten classes is the `half`? The other half is drawn independently.

    Splits `train` (TRAIN) and `test` (EVALUATE). Columns: `x` [channel, 2 side, side], `y`, `index`
    (row of the half asked for).
    """

    half: Half = Half.LOWER
    top: Collection = Collection.MNIST
    bottom: Collection = Collection.FASHION_MNIST
    n: int = 8_000
    n_test: int = 1_000
    side: int = 14

    def __post_init__(self) -> None:
        if min(self.n, self.n_test, self.side) < 1:
            raise InvalidConfig(
                f"DominoHalf(n={self.n}, n_test={self.n_test}, side={self.side}) is out of range.",
                why="every split has pairs, and an image has a pixel.",
                fix="use sizes of at least 1.",
            )

    def build(self, lab: Lab) -> Task:
        splits = {
            "train": Split(self._pairs("train", self.n, lab.child("train")), Use.TRAIN),
            "test": Split(self._pairs("test", self.n_test, lab.child("test")), Use.EVALUATE),
        }
        return Task(
            name=f"{self.half} half of dominoes", axis=Axis.IID, splits=splits, objective=classify
        )

    def _pairs(self, part: str, n: int, lab: Lab) -> Columns:
        held = {Half.UPPER: load_part(self.top, part), Half.LOWER: load_part(self.bottom, part)}
        rows = {half: sample_rows(images, n, lab.child(half)) for half, images in held.items()}
        top, bottom = (area(held[half].pixels(rows[half]), self.side) for half in Half)
        return Columns(
            x=stack_images(top, bottom),
            y=held[self.half].labels[rows[self.half]],
            index=rows[self.half],
        )


def example() -> DominoHalf:
    """The shipped part of Fashion-MNIST below optdigits."""
    return DominoHalf(
        top=Collection.OPTDIGITS, bottom=Collection.FASHION_MNIST_SMALL, n=300, n_test=100, side=8
    )
