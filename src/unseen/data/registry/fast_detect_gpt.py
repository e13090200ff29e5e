"""Pairs of a human text and a machine's continuation of its first words, of eight generators
(Bao et al., 2024, arXiv:2310.05130).

The files of one domain share their human texts: split by those, never by rows.
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/baoguangsheng/fast-detect-gpt"
COMMIT = "971b05202bac2bb504d60c0ac0812fea7a8f7c82"
PAIRS = 150
"""Of each file; the larger ones have up to 500."""


def pack(downloads: Sequence[Path]) -> bytes:
    """The first pairs, one text a line."""
    found = json.loads(downloads[0].read_text("utf-8"))
    pairs = {key: found[key][:PAIRS] for key in ("original", "sampled")}
    data = json.dumps(pairs, ensure_ascii=False, indent=0).encode()
    return gzip.compress(data, 9, mtime=0)


CHECKSUMS = {
    "exp_gpt3to4/pubmed_davinci": (
        "bee46261f16aabe16a1409af43065aa33161ecc0da0a219777c35edbd5b7eb78",
        36_270,
    ),
    "exp_gpt3to4/pubmed_gpt-3.5-turbo": (
        "25983c51af53d229c22f49f0fcdd912cc48230729c18415dab1d233e17dba28d",
        32_364,
    ),
    "exp_gpt3to4/pubmed_gpt-4": (
        "31061b54648a5277b4fbcca0342a40abcc7d0cccb87f29c3f69e6712f6896baf",
        34_783,
    ),
    "exp_gpt3to4/writing_davinci": (
        "685644045c25b1442579782a6316dcdc522792882ca377dde5f93cf4dfe3cc4d",
        108_049,
    ),
    "exp_gpt3to4/writing_gpt-3.5-turbo": (
        "8687ad04f9092d7af938564861f9697ea57591169c02d2e16fe0a97f3407e9cc",
        118_459,
    ),
    "exp_gpt3to4/writing_gpt-4": (
        "9e395165adeaeb9d12a82dc7c750a74e1e410f07cc4803475e8a9b44c2936bd8",
        112_276,
    ),
    "exp_gpt3to4/xsum_davinci": (
        "db1e780116d8fad0c4c98ab78f2db81c89c098cfa3e1e8962df653b489ce0a86",
        112_688,
    ),
    "exp_gpt3to4/xsum_gpt-3.5-turbo": (
        "b7de4515c40574b339fd5552c571fd95b742ae52ce793b7d24e93ac035cbcbca",
        128_053,
    ),
    "exp_gpt3to4/xsum_gpt-4": (
        "5a796c7fe0e2d3a1e1e8c5621cbf3bb7e0862391f6d5d5f0a435928079336e6a",
        122_130,
    ),
    "exp_main/squad_gpt-j-6B": (
        "0b18aa2f5110406bbfe638e09e323d40860be3b6ac69d9eab47601b1d3605934",
        114_046,
    ),
    "exp_main/squad_gpt-neo-2.7B": (
        "835b2bdb21581a0c971353a8f526ccbc006347ece06695dc92e3a30bacd1010a",
        113_943,
    ),
    "exp_main/squad_gpt-neox-20b": (
        "7e9f5db56d4dd1a16e14cd8679b2e2bdeaffe8bf5c88e6adf36a62c8411d94ab",
        113_849,
    ),
    "exp_main/squad_gpt2-xl": (
        "8249d4fa758de2aad43fc09614e10e900ef68f502bb1957b5766c83bd7a29583",
        114_893,
    ),
    "exp_main/squad_opt-2.7b": (
        "799ef94ad9d078c1e7c3da6b87a78b3614b229fa88eeec996df82c70c7d8cdc9",
        112_783,
    ),
    "exp_main/writing_gpt-j-6B": (
        "a8d24e397f6d82cc600c6c07e3d7e2ca7bb79a9413f6314cf74755d7cb1da826",
        101_313,
    ),
    "exp_main/writing_gpt-neo-2.7B": (
        "9115f4e728840fd14c708de9723628ad1182eb45beb1b6c3897f1b2c9a9d78c7",
        102_623,
    ),
    "exp_main/writing_gpt-neox-20b": (
        "14bf1827c396ac9a544849917f4fe65a118d29ceca73b1c6f756d62f7c10fd05",
        99_753,
    ),
    "exp_main/writing_gpt2-xl": (
        "5e86159ce58504a187a98d8fe6a7cf32ec86121bdcd97c73e4058599001759ae",
        103_566,
    ),
    "exp_main/writing_opt-2.7b": (
        "072fddb3e86c1651341d3417aaed2f81d585fcd6a053b49fd62bbbf21bc9372a",
        95_936,
    ),
    "exp_main/xsum_gpt-j-6B": (
        "769dcca79c176f47fdad3586fea15db3d551495b17e7c964378ec31d3353fe72",
        110_933,
    ),
    "exp_main/xsum_gpt-neo-2.7B": (
        "df58259ade45c38680ee2be0ddf4a1a91ab5b214d55e1fa4e61616925fec1a60",
        108_954,
    ),
    "exp_main/xsum_gpt-neox-20b": (
        "aa0fcd079caa1605c158b4ceb87e204850f483b8a0f6d9355454f63b4fcdb3c7",
        107_982,
    ),
    "exp_main/xsum_gpt2-xl": (
        "5ab68435ac325679bc56fffa398ad6855ec701ba53cb04d6636dedf52aba78f0",
        110_124,
    ),
    "exp_main/xsum_opt-2.7b": (
        "9bd92f013479c2aecb138a406f1452104794885dd506989ae8ffebd0f45ce873",
        109_399,
    ),
}
"""SHA-256 of the content and bytes of each file, by experiment, domain and generator."""


def address(name: str) -> str:
    """Where the release holds the file."""
    experiment, _, file = name.partition("/")
    return f"{REPOSITORY}/raw/{COMMIT}/{experiment}/data/{file}.raw_data.json"


FILES = {
    f"fast-detect-gpt/{name}.raw_data.json.gz": RegisteredFile(
        sha256=sha256,
        size=size,
        licence="MIT (repository); human texts: SQuAD CC BY-SA 4.0, PubMedQA MIT, XSum and "
        "WritingPrompts with rights not verified, not redistributed",
        page=REPOSITORY,
        origins=((address(name),),),
        pack=pack,
    )
    for name, (sha256, size) in CHECKSUMS.items()
}
