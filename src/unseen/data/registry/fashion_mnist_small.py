"""The first images of Fashion-MNIST, shipped with the package (Xiao et al., 2017)."""

from unseen.data.packing import idx_files

FILES = idx_files(
    "fashion-mnist-small",
    licence="MIT",
    page="https://github.com/zalandoresearch/fashion-mnist",
    mirrors=(),
    files={
        "train-images-idx3-ubyte": (
            "79a1615c551b6d706e03d877a3c735317820a37753871211a0be3336f63f8c62",
            645_793,
        ),
        "train-labels-idx1-ubyte": (
            "9b42ff8b31718148cf0fa8113c1ad43e3a26d654e98b6ad5a95f3a43d57e035a",
            780,
        ),
        "t10k-images-idx3-ubyte": (
            "c9bd0ed7148856eb2287d902861921296d6c36d95a5113341a35554343e84123",
            221_100,
        ),
        "t10k-labels-idx1-ubyte": (
            "9f5f7b9143df7bffff73a8bf7d8a53545dbf787f86e5e195c64401d2c6f8f372",
            276,
        ),
    },
)
