"""Weights of a small token matching network of drawn scenes, shipped with the package."""

from unseen.data.packing import refuse_download
from unseen.data.registered_file import RegisteredFile

FILES = {
    "dense-matcher/matcher.safetensors": RegisteredFile(
        sha256="2ab1577b9c8fb9fc466d60e078b73854a79601ce6d485df8d0b6a50eb86e6f5e",
        size=1_267_116,
        licence="Apache-2.0",
        page="https://github.com/unseen-ml/unseen",
        origins=(),
        pack=refuse_download,
    ),
}
