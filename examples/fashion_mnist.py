"""A convolutional network on Fashion-MNIST with a tenth of the training labels redrawn:
`unseen audit` should find them.

UNSEEN_DATA=/path/to/data unseen audit examples/fashion_mnist.py:subject
"""

import torch
from torch import Tensor

from unseen import Budget, Lab, Subject
from unseen.models import cnn
from unseen.tasks.images import Collection, Images

CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)


def subject(n_train: int = 6_000, n_test: int = 2_000, steps: int = 800) -> Subject:
    images = Images(
        Collection.FASHION_MNIST, n_train, n_test, n_select=1_000, side=14, label_noise=0.1
    )
    task = images.build(Lab(seed=0))

    def show(split: str, index: int) -> Tensor:
        x = task.splits[split].data[index]["x"][0]
        return (x - x.min()) / (x.max() - x.min())

    return Subject(
        task=task,
        name="CNN",
        model=lambda: cnn((16, 32), len(CLASSES)),
        budget=Budget(steps=steps, batch_size=64, lr=2e-3),
        groups={"class": lambda batch: batch["y"]},
        levels={"class": CLASSES},
        classes=CLASSES,
        show=show,
    )


def flips() -> Tensor:
    """Which training labels are wrong: what the audit does not know."""
    return subject().task.splits["train"].data[torch.arange(6_000)]["wrong"]
