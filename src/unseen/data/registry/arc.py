"""ARC, the AI2 Reasoning Challenge of February 2018 with question ids (Clark et al., 2018,
arXiv:1803.05457).
"""

from functools import partial

from unseen.data.packing import gzip_member
from unseen.data.registered_file import RegisteredFile

ARCHIVES = (
    "https://ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1.zip",
    "https://s3-us-west-2.amazonaws.com/ai2-website/data/ARC-V1-Feb2018.zip",
)
CONTENT = {
    "Easy-Train": (
        208_766,
        "c62e5482d8c01f2d5a7f24239ac9db3b12f9e47267c4e3f088c6ffe41d5545ef",
    ),
    "Easy-Dev": (
        54_086,
        "f4364b808a68df6bf500ce1070fb0105d40cacd2391c210deb00ff83ba75d1f4",
    ),
    "Easy-Test": (
        220_838,
        "ce32a0774b4beb1977d2c6b16dda5dd2b24fdc9c7f506882c452678676bd09be",
    ),
    "Challenge-Train": (
        117_728,
        "e02837c53ee86f6d73c259f91c77725c5062ef4531130b7f473a9d9b01118a77",
    ),
    "Challenge-Dev": (
        33_356,
        "55224364abd2477f66a9a57c5cbef109fb71d83019aa5e37aec0e7ab757746ca",
    ),
    "Challenge-Test": (
        126_628,
        "9fa8ffb3e3a1f88cb302d53dd95aae81e39209ad9bcf974376b319d8fd35717c",
    ),
}

FILES = {
    f"arc/ARC-{part}.jsonl.gz": RegisteredFile(
        sha256=sha256,
        size=size,
        licence="CC BY-SA 4.0",
        page="https://allenai.org/data/arc",
        origins=tuple((archive,) for archive in ARCHIVES),
        pack=partial(gzip_member, name=f"ARC-{part}.jsonl"),
    )
    for part, (size, sha256) in CONTENT.items()
}
