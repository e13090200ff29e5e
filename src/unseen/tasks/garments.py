"""Fashion-MNIST with few labels and many images without one: real data for what is drawn in
`latent_variables`.
"""

from dataclasses import dataclass

import torch

from unseen.engine.batches import Columns, whole
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.images import Collection, Images
from unseen.tasks.latent_variables import Sizes

TOPS = (0, 2, 3, 4, 6)
"""T-shirt, pullover, dress, coat and shirt; the others are trousers, shoes and bags."""


@dataclass(frozen=True, kw_only=True)
class Garments(Sizes):
    """Is it worn on the upper body? `n` images have the label (1: yes), `unlabelled` none; as rows
    of pixels, pooled to `side` × `side` and standardised over the images of both.
    """

    components: int = 20
    """Of the mixture that is fitted to images without labels: two of a garment."""
    side: int = 7
    collection: Collection = Collection.FASHION_MNIST

    @property
    def dim(self) -> int:
        return self.side**2

    def build(self, lab: Lab) -> Task:
        images = Images(
            self.collection,
            n_train=self.n + self.unlabelled,
            n_test=self.n_evaluate,
            side=self.side,
        ).build(lab)
        train, test = (whole(images.split(name).data, lab) for name in ("train", "test"))
        tops = torch.tensor(TOPS, device=train["y"].device)
        rows = {"train": train["x"].flatten(1), "test": test["x"].flatten(1)}
        labels = {"train": torch.isin(train["y"], tops), "test": torch.isin(test["y"], tops)}
        labelled = Columns(x=rows["train"][: self.n], y=labels["train"][: self.n].long())
        splits = {
            "train": Split(labelled, Use.TRAIN),
            "unlabelled": Split(Columns(x=rows["train"][self.n :]), Use.ADAPT),
            "test": Split(Columns(x=rows["test"], y=labels["test"].long()), Use.EVALUATE),
        }
        return Task(name="garments", axis=Axis.IID, splits=splits, objective=classify)


def example() -> Garments:
    """Of the images that are shipped with the package."""
    collection = Collection.FASHION_MNIST_SMALL
    return Garments(n=30, unlabelled=300, n_evaluate=100, components=6, collection=collection)
