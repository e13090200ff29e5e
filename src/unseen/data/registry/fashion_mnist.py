"""Fashion-MNIST: 70,000 grey images of clothes in ten classes (Xiao et al., 2017)."""

from unseen.data.packing import idx_files

PAGE = "https://github.com/zalandoresearch/fashion-mnist"

FILES = idx_files(
    "fashion-mnist",
    licence="MIT",
    page=PAGE,
    mirrors=(
        f"{PAGE}/raw/master/data/fashion",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ),
    files={
        "train-images-idx3-ubyte": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            26_421_856,
        ),
        "train-labels-idx1-ubyte": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            29_491,
        ),
        "t10k-images-idx3-ubyte": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            4_422_079,
        ),
        "t10k-labels-idx1-ubyte": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            5_125,
        ),
    },
)
