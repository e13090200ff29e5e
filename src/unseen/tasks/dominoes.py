"""Dominoes: a simple image above a harder one, both of which tell the label, or only one of them.

MNIST-Fashion and MNIST-CIFAR dominoes (Shah et al., 2020, arXiv:2006.07710; Pagliardini et al.,
2023, arXiv:2202.04414); unlabelled pairs in which the two halves agree as often as wanted (Benoit
et al., 2024, arXiv:2312.16313).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.digit_sources import area, load_part, sample_rows
from unseen.tasks.images import Collection


@dataclass(frozen=True)
class Dominoes:
    """Which class is the lower image? The upper one shows class c = y in a given share of the
    pairs.

    Splits: `train`, `select` and `same` (EVALUATE) with c = y in a share `agreement`; `unlabelled`
    (ADAPT: `x` and `index` only) in a share `unlabelled_agreement`; `test` (EVALUATE) in half of
    the pairs. These shares are exact up to rounding, within either class, and half of the labels
    are 0. Columns: `x` [channel, 2 side, side], `y`, `cue`, `group` = 2 y + cue, `index` (row of
    the lower image). No image is used twice. The worst of the four groups of `test` shows reliance
    on the upper image.
    """

    top: Collection = Collection.MNIST
    top_classes: tuple[int, int] = (0, 1)
    bottom: Collection = Collection.FASHION_MNIST
    bottom_classes: tuple[int, int] = (4, 3)
    """Coat and dress; of CIFAR-10, automobile and truck are (1, 9)."""
    agreement: float = 1.0
    unlabelled_agreement: float = 0.5
    n: int = 4_000
    n_select: int = 1_000
    n_unlabelled: int = 2_000
    n_same: int = 500
    n_test: int = 1_400
    side: int = 14

    def __post_init__(self) -> None:
        sizes = (self.n, self.n_select, self.n_unlabelled, self.n_same, self.n_test, self.side)
        shares = (self.agreement, self.unlabelled_agreement)
        pairs = (self.top_classes, self.bottom_classes)
        if (
            min(sizes) < 1
            or not all(0 <= share <= 1 for share in shares)
            or any(a == b for a, b in pairs)
        ):
            raise InvalidConfig(
                f"Dominoes(agreement={self.agreement}, "
                f"unlabelled_agreement={self.unlabelled_agreement}, n={self.n}, "
                f"n_select={self.n_select}, n_unlabelled={self.n_unlabelled}, "
                f"n_same={self.n_same}, n_test={self.n_test}, "
                f"side={self.side}, top_classes={self.top_classes}, "
                f"bottom_classes={self.bottom_classes}) is out of range.",
                why="agreements are shares from 0 to 1, every split has pairs, and the two classes "
                "differ.",
                fix="correct the value.",
            )

    def build(self, lab: Lab) -> Task:
        return self.task(self.sample(lab))

    def task(self, drawn: Mapping[str, Columns]) -> Task:
        """The task of these pairs: the unlabelled ones lose their labels."""
        bare = {key: drawn["unlabelled"].columns[key] for key in ("x", "index")}
        splits = {
            "train": Split(drawn["train"], Use.TRAIN),
            "unlabelled": Split(Columns(**bare), Use.ADAPT, "mixture"),
            "select": Split(drawn["select"], Use.SELECT),
            "same": Split(drawn["same"], Use.EVALUATE),
            "test": Split(drawn["test"], Use.EVALUATE, "independent"),
        }
        return Task(
            name=f"{self.top} over {self.bottom}",
            axis=Axis.DOMAIN,
            splits=splits,
            objective=classify,
        )

    def agreements(self, lab: Lab) -> dict[str, float]:
        """The realised share of pairs with c = y in every split, also in the unlabelled one."""
        return agreement_rates(self.sample(lab))

    def sample(self, lab: Lab) -> dict[str, Columns]:
        """The pairs of every split with all their columns; the unlabelled ones have labels here,
        not in the task.
        """
        fitted = {
            "train": (self.n, self.agreement),
            "select": (self.n_select, self.agreement),
            "unlabelled": (
                self.n_unlabelled,
                self.unlabelled_agreement,
            ),  # last: the others do not depend on it
        }
        judged = {"same": (self.n_same, self.agreement), "test": (self.n_test, 0.5)}
        return {
            **self._sample_pairs("train", fitted, lab),
            **self._sample_pairs("test", judged, lab),
        }

    def _sample_pairs(
        self, part: str, asked: Mapping[str, tuple[int, float]], lab: Lab
    ) -> dict[str, Columns]:
        """Pairs from one part of the two collections, for splits of these sizes and agreements."""
        y, cue = [], []
        for name, (n, agreement) in asked.items():
            own = (
                torch.arange(n)[torch.randperm(n, generator=lab.child(name, "labels").generator())]
                % 2
            )
            y.append(own)
            cue.append(own ^ disagreeing(own, agreement, lab.child(name, "cue")))
        labels, cues = torch.cat(y), torch.cat(cue)
        _, top = self._images(self.top, part, self.top_classes, cues, lab.child(part, "top"))
        bottoms, bottom = self._images(
            self.bottom, part, self.bottom_classes, labels, lab.child(part, "bottom")
        )
        whole = Columns(
            x=stack_images(top, bottom), y=labels, cue=cues, group=2 * labels + cues, index=bottoms
        )
        edges = torch.tensor([0, *map(len, y)]).cumsum(0).tolist()
        return {name: whole.subset(slice(edges[k], edges[k + 1])) for k, name in enumerate(asked)}

    def _images(
        self,
        collection: Collection,
        part: str,
        classes: tuple[int, int],
        shown: Int[Tensor, " n"],
        lab: Lab,
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, "n c side side"]]:
        """Rows of the collection that show these classes (0 or 1), each once, and their pixels."""
        held, rows = load_part(collection, part), torch.empty_like(shown)
        for value, label in enumerate(classes):
            rows[shown == value] = sample_rows(
                held, int((shown == value).sum()), lab.child(value), (label,)
            )
        return rows, area(held.pixels(rows), self.side)


def agreement_rates(drawn: Mapping[str, Columns]) -> dict[str, float]:
    """The share of pairs with c = y in every split."""
    return {
        name: (columns.columns["cue"] == columns.columns["y"]).double().mean().item()
        for name, columns in drawn.items()
    }


def disagreeing(y: Int[Tensor, " n"], agreement: float, lab: Lab) -> Int[Tensor, " n"]:
    """1 for round((1 − agreement) · n) rows, evenly within each class; those of a higher agreement
    are among them.
    """
    order = torch.randperm(len(y), generator=lab.generator())
    within = torch.empty(len(y), dtype=torch.float64)
    for value in (0, 1):
        mine = order[y[order] == value]
        within[mine] = (torch.arange(len(mine), dtype=torch.float64) + 0.5) / max(1, len(mine))
    count = round((1 - agreement) * len(y))
    return torch.zeros_like(y).index_fill(0, within.argsort(stable=True)[:count], 1)


def stack_images(
    top: Float[Tensor, "n a h w"], bottom: Float[Tensor, "n b h w"]
) -> Float[Tensor, "n c h2 w"]:
    """One above the other; a grey image above or below a coloured one gets its number of
    channels.
    """
    channels = max(top.shape[1], bottom.shape[1])
    return torch.cat([half.expand(-1, channels, -1, -1) for half in (top, bottom)], 2)


def example() -> Dominoes:
    """Optdigits above the shipped part of Fashion-MNIST."""
    return Dominoes(
        top=Collection.OPTDIGITS,
        bottom=Collection.FASHION_MNIST_SMALL,
        n=120,
        n_select=40,
        n_unlabelled=80,
        n_same=40,
        n_test=40,
        side=8,
    )
