"""Makes the weights that `unseen compass` ships: a small autoencoder of Fashion-MNIST.

    python examples/fashion_vae.py vae.safetensors

About a minute of one free core. Weights are rounded to half precision, and the package's checksum
is of the rounded ones.
"""

import sys

import torch

from unseen.lab import Lab
from unseen.models.generator import train_vae
from unseen.runs.tensors import save_weights
from unseen.tasks.images import Collection, part

SEED = 0


def main(path: str) -> None:
    source = part(Collection.FASHION_MNIST, "train")
    images = source.pixels(torch.arange(len(source.labels)))
    model = train_vae(images, Lab(SEED).child("fashion-vae"))
    weights = {name: tensor.half() for name, tensor in model.state_dict().items()}
    save_weights(path, weights)
    print(f"{path}: seed {SEED}, decoder {model.generator().digest}")


if __name__ == "__main__":
    main(sys.argv[1])
