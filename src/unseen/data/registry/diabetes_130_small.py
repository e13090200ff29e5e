"""A part of the diabetic patients at 130 US hospitals, shipped with the package (Strack et al.,
2014)."""

from unseen.data.packing import UCI, refuse_download
from unseen.data.registered_file import CC_BY, RegisteredFile

FILES = {
    "diabetes-130-small/diabetic_data.csv.gz": RegisteredFile(
        sha256="dbf3af5fef35348e17660c587593504f82c317b78fff2af6d80c0f84cf5bfc5e",
        size=123_882,
        licence=CC_BY,
        page=f"{UCI}/dataset/296",
        origins=(),
        pack=refuse_download,
    ),
    "diabetes-130-small/IDs_mapping.csv": RegisteredFile(
        sha256="f1bb82b471cb34649352597572c9b1fb00bd27f77b9f5a22a03dc3eb1039749e",
        size=2_547,
        licence=CC_BY,
        page=f"{UCI}/dataset/296",
        origins=(),
        pack=refuse_download,
    ),
}
