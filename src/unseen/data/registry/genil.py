"""GeniL: sentences in nine languages that name an identity and an attribute, labelled as
generalizing or not (Davani et al., 2024, arXiv:2404.05866).

Offensive by design: rates and counts are reported, no sentences.
"""

from functools import partial

from unseen.data.packing import gzip_member
from unseen.data.registered_file import CC_BY, RegisteredFile

COMMIT = "bf3f11ff1191"
ADDRESS = f"https://raw.githubusercontent.com/google-research-datasets/GeniL/{COMMIT}/dataset"
CHECKSUMS = {
    "ar": ("13b48cefd0559ca823d0a0d5e4108d75b88fda76ed4fa6c3b7cfd11c43af5e51", 533_411),
    "bn": ("3f5cf71b187d27c2add540e1a5a564b8badd9e180770d205891728f7717d33d0", 373_852),
    "en": ("b15b3b14be79b6d3f32c3d54f57aa89162863a8af0c52f55e91d37e7b1353777", 1_033_620),
    "es": ("8407b549f9e62137d5a088b56a2ed7c5915e6089fce841e77e8fab18e64470bf", 433_856),
    "fr": ("578d1ac2e17d31d6ec2382fdd1355bbced266086c310713604a7a71b013a48e3", 388_717),
    "hi": ("9d1b5a46dfb0ba3e2d66cd7a8bc8fae4bc6600bcdb5dddc0bf84a2a2c4502fce", 419_650),
    "id": ("79e58904190bbf0e4439a12cc7fad3e8dbab1a35fca96d6f1f304e05eaa88991", 287_909),
    "ms": ("9e678ed9eb5fec8e4abdebfc56f3fba43e011ed071226935bfb9bf41ed4aa6cd", 329_851),
    "pt": ("6033ceb4da662ea7a517f28494165ada538e7747007c6c0ce8316b05f7d89b5d", 384_129),
}
"""SHA-256 of the content and bytes, by language."""

FILES = {
    f"genil/{language}.csv.gz": RegisteredFile(
        sha256=checksum,
        size=size,
        licence=CC_BY,
        page="https://github.com/google-research-datasets/GeniL",
        origins=((f"{ADDRESS}/{language}.csv",),),
        pack=partial(gzip_member, name=f"{language}.csv"),
    )
    for language, (checksum, size) in CHECKSUMS.items()
}
