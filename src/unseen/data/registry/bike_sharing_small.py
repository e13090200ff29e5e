"""A fifth of the hours of Bike Sharing, shipped with the package (Fanaee-T & Gama, 2013)."""

from unseen.data.packing import UCI, refuse_download
from unseen.data.registered_file import CC_BY, RegisteredFile

FILES = {
    "bike-sharing-small/hour.csv.gz": RegisteredFile(
        sha256="a586c985bdf6a629372f57ff74e48e31fe1f743792a13dac8a6e0a5bbf843c41",
        size=56_115,
        licence=CC_BY,
        page=f"{UCI}/dataset/275",
        origins=(),
        pack=refuse_download,
    ),
}
