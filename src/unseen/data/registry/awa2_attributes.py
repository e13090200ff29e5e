"""Animals with Attributes 2: 50 animals × 85 attributes, without the images (Xian et al., 2019,
arXiv:1707.00600)."""

from functools import partial

from unseen.data.packing import copy_member
from unseen.data.registered_file import NO_LICENCE, RegisteredFile

PAGE = "https://cvml.ista.ac.at/AwA2/"
BASE = f"{PAGE}AwA2-base.zip"
COPY = (
    "https://raw.githubusercontent.com/Stephen-Mayer/20Questions/"
    "5e4ed87f053de0d2992350331189eb51b087e97a"
)


def _text(name: str, sha256: str, size: int) -> dict[str, RegisteredFile]:
    return {
        f"awa2-attributes/{name}": RegisteredFile(
            sha256=sha256,
            size=size,
            licence=NO_LICENCE,
            page=PAGE,
            origins=((BASE,), (f"{COPY}/{name}",)),
            pack=partial(copy_member, name=name),
        )
    }


FILES = {
    **_text("classes.txt", "cab260a8b9837dd77df0a41b45c5ef8591636644aab91cea9e9a7e3f2b968048", 754),
    **_text(
        "predicates.txt", "5a88e84aeeaacd4ff4570d4dd0a944b6f1037b7f380f4da9111d1b16cb22cceb", 1_204
    ),
    **_text(
        "predicate-matrix-binary.txt",
        "c3d057132cea6e69caaf2f8a2e9fe5c30de5024dac6bd4bdc96fa3c2dc229a85",
        8_499,
    ),
}
