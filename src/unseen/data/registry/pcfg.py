"""PCFG SET: nested string edits (Hupkes et al., 2020, arXiv:1908.08351).

The small release with its training part, and the test parts of the large one.
"""

from functools import partial

from unseen.data.packing import repack_folder
from unseen.data.registered_file import NO_LICENCE, RegisteredFile

SMALL = "https://github.com/MathijsMul/pcfg-set"
LARGE = "https://github.com/i-machine-think/am-i-compositional"

FILES = {
    "pcfg/pcfg_10k.tar.xz": RegisteredFile(
        sha256="5b6603a652165d641742a358e5fe3269bd861a32810677a5c59ebffa737fbfb0",
        size=520_000,
        licence=NO_LICENCE,
        page=SMALL,
        origins=((f"{SMALL}/archive/99098bd97150671003de60526d884d7c24949944.zip",),),
        pack=partial(repack_folder, folder="data/pcfg_set/", omit=("100K",)),
    ),
    "pcfg/pcfg_100k_test_sets.tar.xz": RegisteredFile(
        sha256="b915a93dcf677be63110679418e92308869807729c95fc06fc48413233c2e9f2",
        size=2_400_000,
        licence="MIT",
        page=LARGE,
        origins=((f"{LARGE}/archive/4f75bdd78889150dd78e90bbb7ddec840204c159.zip",),),
        pack=partial(repack_folder, folder="data/pcfgset/", omit=("train",), keep="LICENSE"),
    ),
}
