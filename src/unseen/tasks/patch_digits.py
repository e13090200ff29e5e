"""Digits among coloured patches that also tell the label: many spurious features instead of one.

MultiColorMNIST (Lin et al., 2024, arXiv:2309.17230, section 4): a digit in the middle, patches on
the border, each in a colour that stands for the label; where it is evaluated, each patch is drawn
anew with some probability.
"""

from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.colored_digits import chance
from unseen.tasks.digit_sources import area, load_part, sample_rows
from unseen.tasks.images import CLASSES, Collection

SIDE, DIGIT, CELL = 20, 14, 2
RING = 4 * (SIDE // CELL - 1)
"""Cells of the border: 36."""


class Visible(StrEnum):
    """How much of the digit is shown."""

    ALL = "all"
    TOP = "top half"
    NOTHING = "nothing"


class Palette(StrEnum):
    """Which colours stand for the classes."""

    OWN = "own"
    """Ten colours for every patch."""
    SHARED = "shared"
    """The same ten for all patches. Every model then uses all patches (they add up), and ensembles
    gain nothing.
    """


@dataclass(frozen=True)
class PatchDigits:
    """Which digit is it? `x` [3, 20, 20] is the digit (14×14, grey) and `n_patches` patches of 2×2
    pixels on the border.

    Fitted (`train`, `select`) and `same` (EVALUATE): an active patch shows the label's colour, but
    for a share `fitted_shift` that is drawn uniformly; a patch that is not active is always drawn.
    Evaluation splits `shift p`: all patches, or those of `evaluated`, show the label but for a
    share p. All evaluation splits have the same digits. Column `colours` holds the class that each
    patch shows.
    """

    collection: Collection = Collection.MNIST
    n_patches: int = 32
    active: tuple[int, ...] | None = None
    """Patches that tell the label where it is fitted; None: all."""
    evaluated: tuple[int, ...] | None = None
    """Patches that tell the label where it is evaluated; None: all."""
    fitted_shift: float = 0.0
    shifts: tuple[float, ...] = (0.7, 0.8, 0.9)
    palette: Palette = Palette.OWN
    visible: Visible = Visible.ALL
    skip: int = 0
    """Fitted digits left to another task of the same lab, for example for pre-training: that one
    has skip = 0.
    """
    n: int = 8_000
    n_select: int = 1_000
    n_test: int = 2_000

    def __post_init__(self) -> None:
        if not 0 <= self.n_patches <= RING:
            raise InvalidConfig(
                f"PatchDigits(n_patches={self.n_patches}) is out of range.",
                why=f"the border has {RING} cells of {CELL}×{CELL} pixels.",
                fix=f"use 0 ≤ n_patches ≤ {RING}.",
            )
        if not all(0 <= p <= 1 for p in (self.fitted_shift, *self.shifts)) or len(
            set(self.shifts)
        ) < len(self.shifts):
            raise InvalidConfig(
                f"PatchDigits(fitted_shift={self.fitted_shift}, shifts={self.shifts}) is out of "
                "range.",
                why="a shift is the probability that a patch is drawn anew, and each names one "
                "split.",
                fix="use distinct shifts from 0 to 1.",
            )
        named = {*(self.active or ()), *(self.evaluated or ())}
        if (
            not named <= set(range(self.n_patches))
            or min(self.n, self.n_select, self.n_test, 1 + self.skip) < 1
        ):
            raise InvalidConfig(
                f"PatchDigits(active={self.active}, evaluated={self.evaluated}, skip={self.skip}, "
                f"n={self.n}, "
                f"n_select={self.n_select}, n_test={self.n_test}) is out of range.",
                why=f"there are patches 0 to {self.n_patches - 1}, and every split has digits.",
                fix="name existing patches; use sizes of at least 1.",
            )

    def build(self, lab: Lab) -> Task:
        fit, test = load_part(self.collection, "train"), load_part(self.collection, "test")
        fitted = sample_rows(fit, self.skip + self.n + self.n_select, lab.child("train"))[
            self.skip :
        ]
        judged = sample_rows(test, self.n_test, lab.child("test"))
        cells = palette(self.n_patches, self.palette, lab.child("palette"))

        def split(
            name: str,
            rows: Int[Tensor, " n"],
            use: Use,
            shift: float,
            active: tuple[int, ...] | None,
        ) -> Split:
            held = test if rows is judged else fit
            y = held.labels[rows]
            shown = self._patch_classes(y, shift, active, lab.child("patches", name))
            x = paint(self._digits(area(held.pixels(rows), DIGIT)), shown, cells)
            at = None if use is not Use.EVALUATE or name == "same" else name
            return Split(Columns(x=x, y=y, index=rows, colours=shown), use, at)

        splits = {
            "train": split("train", fitted[: self.n], Use.TRAIN, self.fitted_shift, self.active),
            "select": split("select", fitted[self.n :], Use.SELECT, self.fitted_shift, self.active),
            "same": split("same", judged, Use.EVALUATE, self.fitted_shift, self.active),
        }
        for shift in self.shifts:
            splits[f"shift {shift:g}"] = split(
                f"shift {shift:g}", judged, Use.EVALUATE, shift, self.evaluated
            )
        return Task(
            name=f"patches on {self.collection}",
            axis=Axis.DOMAIN,
            splits=splits,
            objective=classify,
        )

    def _patch_classes(
        self, y: Int[Tensor, " n"], shift: float, active: tuple[int, ...] | None, lab: Lab
    ) -> Int[Tensor, "n patch"]:
        """The class that each patch shows. A larger shift redraws a superset of the patches, to the
        same colours.
        """
        size = (len(y), self.n_patches)
        redrawn = chance(len(y) * self.n_patches, shift, lab.child("redrawn")).reshape(size)
        if active is not None:
            idle = torch.ones(self.n_patches, dtype=torch.bool).index_fill(
                0, torch.tensor(active, dtype=torch.int64), False
            )
            redrawn = redrawn | idle
        drawn = torch.randint(CLASSES, size, generator=lab.child("colours").generator())
        return torch.where(redrawn, drawn, y[:, None])

    def _digits(self, images: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
        rows = {Visible.ALL: DIGIT, Visible.TOP: DIGIT // 2, Visible.NOTHING: 0}[self.visible]
        return images * (torch.arange(DIGIT) < rows).float()[:, None]


def palette(n_patches: int, kind: Palette, lab: Lab) -> Float[Tensor, "patch class 3"]:
    """Uniform RGB colours."""
    own = torch.rand(n_patches if kind is Palette.OWN else 1, CLASSES, 3, generator=lab.generator())
    return own.expand(n_patches, CLASSES, 3)


def corners(n_patches: int) -> list[tuple[int, int]]:
    """Top left pixel of each patch: clockwise along the border from the top left."""
    last = SIDE - CELL
    steps = range(0, last, CELL)
    ring = [(0, c) for c in steps] + [(r, last) for r in steps]
    ring += [(last, last - c) for c in steps] + [(last - r, 0) for r in steps]
    return ring[:n_patches]


def paint(
    digits: Float[Tensor, "n 1 h w"],
    shown: Int[Tensor, "n patch"],
    cells: Float[Tensor, "patch class 3"],
) -> Float[Tensor, "n 3 side side"]:
    """The digit in the middle, each patch in the colour of the class it shows."""
    x = digits.new_zeros(len(digits), 3, SIDE, SIDE)
    frame = (SIDE - DIGIT) // 2
    x[:, :, frame : frame + DIGIT, frame : frame + DIGIT] = digits
    for k, (row, column) in enumerate(corners(shown.shape[1])):
        x[:, :, row : row + CELL, column : column + CELL] = cells[k][shown[:, k]][:, :, None, None]
    return x


def example() -> PatchDigits:
    return PatchDigits(
        collection=Collection.OPTDIGITS, n=200, n_select=50, n_test=100, shifts=(0.5, 0.9)
    )
