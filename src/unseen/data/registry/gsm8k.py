"""GSM8K: word problems of grade-school mathematics whose solutions mark their calculations (Cobbe
et al., 2021, arXiv:2110.14168), and four published sets of model solutions.
"""

from functools import partial

from unseen.data.packing import gzip_member
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://raw.githubusercontent.com/openai/grade-school-math"
COMMIT = "3101c7d50724"
CONTENT = {
    "train.jsonl": (
        1_338_335,
        "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    ),
    "test.jsonl": (
        241_754,
        "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
    ),
    "example_model_solutions.jsonl": (
        595_222,
        "4bc62db838f8418365d51c627bd66294cbdca9fb7f01519cb13f0dce8c51580b",
    ),
}

FILES = {
    f"gsm8k/{name}.gz": RegisteredFile(
        sha256=sha256,
        size=size,
        licence="MIT",
        page="https://github.com/openai/grade-school-math",
        origins=tuple(
            (f"{REPOSITORY}/{version}/grade_school_math/data/{name}",)
            for version in (COMMIT, "HEAD")
        ),
        pack=partial(gzip_member, name=name),
    )
    for name, (size, sha256) in CONTENT.items()
}
