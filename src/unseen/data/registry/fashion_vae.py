"""Weights of a small autoencoder of Fashion-MNIST, shipped with the package."""

from unseen.data.packing import refuse_download
from unseen.data.registered_file import RegisteredFile

FILES = {
    "fashion-vae/vae.safetensors": RegisteredFile(
        sha256="cce75e82129796fd98ae5afc4df38d27fd10a234fc8a8a06ec8e2853f48a5df3",
        size=950_424,
        licence="MIT",
        page="https://github.com/zalandoresearch/fashion-mnist",
        origins=(),
        pack=refuse_download,
    ),
}
