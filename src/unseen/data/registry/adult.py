"""Adult: does a person of the US census of 1994 earn more than 50,000 dollars? (Becker & Kohavi,
1996, doi:10.24432/C5XW20.)"""

from functools import partial

from unseen.data.packing import UCI, gzip_member, uci_origins
from unseen.data.registered_file import CC_BY, RegisteredFile

FILES = {
    "adult/adult.data.gz": RegisteredFile(
        sha256="5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
        size=3_974_305,
        licence=CC_BY,
        page=f"{UCI}/dataset/2",
        origins=uci_origins("adult/adult.data", "2/adult"),
        pack=partial(gzip_member, name="adult.data"),
    ),
    "adult/adult.test.gz": RegisteredFile(
        sha256="72567b94f5c1a6f8501377dd80f93892c3848ff071cf91ba47e00b0785a28074",
        size=2_003_153,
        licence=CC_BY,
        page=f"{UCI}/dataset/2",
        origins=uci_origins("adult/adult.test", "2/adult"),
        # the first line of the release is a comment, `|1x3 Cross validator`
        pack=partial(gzip_member, name="adult.test", skip_lines=1),
    ),
}
