"""Ten years of diabetic patients at 130 US hospitals: 101,766 stays (Strack et al., 2014)."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from unseen.data.packing import UCI, read_member, zip_archive
from unseen.data.registered_file import CC_BY, RegisteredFile


def pack(downloads: Sequence[Path]) -> bytes:
    """The two tables in a folder, as in the zip of the release; today's zip of the repository has
    no folder."""
    names = ("IDs_mapping.csv", "diabetic_data.csv")
    tables = {f"dataset_diabetes/{name}": read_member(downloads[0], name) for name in names}
    return zip_archive(tables, zipfile.ZIP_DEFLATED)


FILES = {
    "diabetes-130-hospitals/dataset_diabetes.zip": RegisteredFile(
        sha256="e8da49025c8ebcdb9d4c8a8be0aee6845d926431aca704f793238b246ea52c09",
        size=3_174_799,
        licence=CC_BY,
        page=f"{UCI}/dataset/296",
        origins=(
            (f"{UCI}/static/public/296/diabetes+130-us+hospitals+for+years+1999-2008.zip",),
            (f"{UCI}/ml/machine-learning-databases/00296/dataset_diabetes.zip",),
        ),
        pack=pack,
    ),
}
