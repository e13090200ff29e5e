"""Answers and essays by people and by ChatGPT on the same topics (He et al., 2023,
arXiv:2303.14822; Shijaku & Canhasi, 2023).

One generator. In the answers length alone separates the classes.
"""

import io
import tarfile
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from unseen.data.packing import gzip_member
from unseen.data.registered_file import RegisteredFile

ANSWERS = "https://github.com/xinleihe/MGTBench"
ANSWERS_COMMIT = "3f8cfea4150c53b65cc8f0ad90483f2f4755ba40"
ESSAYS = "https://github.com/rexshijaku/chatgpt-generated-text-detection-corpus"
ESSAYS_COMMIT = "c0eb34cfd5c96cc02f7109a561eb753128cae9e6"


def pack_essays(downloads: Sequence[Path]) -> bytes:
    """tar.xz of two of three topics, with the list of questions and the licence."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(downloads[0]) as archive,
        tarfile.open(fileobj=buffer, mode="w:xz") as out,
    ):
        inside = {member.partition("/")[2]: member for member in archive.namelist()}
        for name in essay_names(list(inside)):
            data = archive.read(inside[name])
            info = tarfile.TarInfo(name.removeprefix("full_texts/"))
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def essay_names(names: Sequence[str]) -> list[str]:
    """Both texts of two of three topics, in the order of the topics' numbers."""
    human = [name for name in names if name.startswith("full_texts/human/") and name[-4:] == ".txt"]
    topics = sorted(int(name.rpartition("/")[2].removesuffix(".txt")) for name in human)
    chosen = [topic for k, topic in enumerate(topics) if k % 3 != 1]
    texts = [f"full_texts/{kind}/{topic}.txt" for kind in ("chatgpt", "human") for topic in chosen]
    return ["LICENSE", *texts, "full_texts/questions.txt"]


CHECKSUMS = {
    "SQuAD1": "1524e01190115bbbb138acfa92053b7b9534e407bb390a8e6d9844308ddc3521",
    "TruthfulQA": "92fbf5555301c7cc8aca8bd607619cc5280304b190891c00205d7bbc042837df",
}
SIZES = {"SQuAD1": 449_043, "TruthfulQA": 202_236}

FILES = {
    **{
        f"human-vs-llm/{name}_chatgpt.csv.gz": RegisteredFile(
            sha256=CHECKSUMS[name],
            size=SIZES[name],
            licence="MIT (repository); SQuAD CC BY-SA 4.0, TruthfulQA Apache-2.0",
            page=ANSWERS,
            origins=((f"{ANSWERS}/raw/{ANSWERS_COMMIT}/datasets/{name}_chatgpt.csv",),),
            pack=partial(gzip_member, name=f"{name}_chatgpt.csv"),
        )
        for name in CHECKSUMS
    },
    "human-vs-llm/essays.tar.xz": RegisteredFile(
        sha256="ebe87373f06ca4cc8452b60422c2936b626b8fa871a6cade1b0596ee77ad09bd",
        size=99_772,
        licence="MIT (repository); rights of the human essays not verified, not redistributed",
        page=ESSAYS,
        origins=((f"{ESSAYS}/archive/{ESSAYS_COMMIT}.zip",),),
        pack=pack_essays,
    ),
}
