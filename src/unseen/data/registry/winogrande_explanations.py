"""Rules of people and GPT-3 for sentences of WinoGrande (Saha et al., 2022, arXiv:2211.07517)."""

from functools import partial

from unseen.data.packing import copy_member
from unseen.data.registered_file import RegisteredFile

PAGE = "https://github.com/swarnaHub/ExplanationHardness"
REPOSITORY = "https://raw.githubusercontent.com/swarnaHub/ExplanationHardness"
VERSIONS = ("60645d0c701b", "HEAD")
CONTENT = {
    "easy_test_100.tsv": (
        19_742,
        "43c2ce9e0ec6df52721b45c948188c483465ee7699f9558c4eef6ed023b86266",
    ),
    "medium_test_100.tsv": (
        19_566,
        "0ef745c45f242c348cc6ae2e015a35c6e516ddefed4415d5096d3948359c3ff4",
    ),
    "hard_test_100.tsv": (
        20_007,
        "4a2ef457ad95d0d82156eca89c5e8967847ddec144d3be591f457f4792e46225",
    ),
    "easy_pool_400.tsv": (
        79_179,
        "87e37305dbd2b4305ddc2ffd3676d3809a6d3a5719b05c87d586e57b0689c59d",
    ),
    "hard_pool_400.tsv": (
        80_460,
        "bba5826af2c91bdda62dd4f78db2fc46f0927f4a89570e8a7bbf815c458d1c88",
    ),
    "easy_gpt_generations.txt": (
        6_948,
        "6f34c59d97ea137253b21946c04261f3b3de6b8292065204a7d3fe0d40e748ca",
    ),
    "medium_gpt_generations.txt": (
        6_806,
        "a2b5eae4944e4bfa9b1cf4f7ac5200755ceed3cdcb7949ed6445f0a01009f7e3",
    ),
    "hard_gpt_generations.txt": (
        7_069,
        "6ab05f4658adf3808791eb1bdf40cb57a09dc386719eb7c0a99a65cb79773a96",
    ),
}


def file_in_repository(name: str) -> str:
    """`easy_test_100.tsv` here is `data/easy/test_100.tsv` there."""
    level, _, rest = name.partition("_")
    return f"data/{level}/{rest}"


FILES = {
    f"winogrande-explanations/{name}": RegisteredFile(
        sha256=sha256,
        size=size,
        licence="MIT",
        page=PAGE,
        origins=tuple(
            (f"{REPOSITORY}/{version}/{file_in_repository(name)}",) for version in VERSIONS
        ),
        pack=partial(copy_member, name=file_in_repository(name).rpartition("/")[2]),
    )
    for name, (size, sha256) in CONTENT.items()
}
