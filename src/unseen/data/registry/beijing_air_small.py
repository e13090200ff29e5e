"""A seventeenth of the hours at twelve stations of Beijing, shipped with the package (Zhang et al.,
2017)."""

from unseen.data.packing import UCI, refuse_download
from unseen.data.registered_file import CC_BY, RegisteredFile

FILES = {
    "beijing-air-small/six_hours.csv.gz": RegisteredFile(
        sha256="3d09deacfa225fbe743f725a7f44a6e5ccb947a186fc2ed3ed51c1af082b9ddf",
        size=84_499,
        licence=CC_BY,
        page=f"{UCI}/dataset/501",
        origins=(),
        pack=refuse_download,
    ),
}
