"""Folders of images as users have them: tiny copies of each layout, lazy decoding, and layouts that
cannot be used.
"""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from unseen.engine.batches import Columns, whole
from unseen.errors import CorruptFile, InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks import image_folders, waterbirds
from unseen.tasks.domains import validate_on
from unseen.tasks.image_folders import ImageFolders, Layout, Pictures, decode_image, in_memory
from unseen.tasks.waterbirds import GROUPS, Waterbirds

Image = pytest.importorskip("PIL.Image")


def paint(path, colour, size=(7, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def fill(root, domains, classes, n=10, between=()):
    """n images per domain and class (and part), all of different colours."""
    for d, domain in enumerate(domains):
        for c, name in enumerate(classes):
            for p, part in enumerate(between or [""]):
                for k in range(n):
                    paint(
                        root / domain / part / name / f"{part}{k}.png",
                        (20 * d + k, 40 * c + k, 60 * p + k),
                    )
    return root


LAYOUTS = {
    "PACS": (
        Layout.PACS,
        ["art_painting", "cartoon", "photo", "sketch"],
        ["dog", "house"],
        "kfold",
        (),
    ),
    "PACS bare": (
        Layout.PACS,
        ["art_painting", "cartoon", "photo", "sketch"],
        ["dog", "house"],
        "",
        (),
    ),
    "Office-Home": (
        Layout.OFFICE_HOME,
        ["Art", "Clipart", "Product", "Real World"],
        ["Bed", "Fan"],
        "OfficeHome/v1",
        (),
    ),
    "Office-Home _": (
        Layout.OFFICE_HOME,
        ["Art", "Clipart", "Product", "Real_World"],
        ["Bed", "Fan"],
        "",
        (),
    ),
    "office_home_dg": (
        Layout.OFFICE_HOME,
        ["art", "clipart", "product", "real_world"],
        ["Bed", "Fan"],
        "",
        ("train", "val"),
    ),
    "VLCS": (Layout.VLCS, ["Caltech101", "LabelMe", "SUN09", "VOC2007"], ["bird", "car"], "", ()),
    "VLCS parts": (
        Layout.VLCS,
        ["CALTECH", "LABELME", "PASCAL", "SUN"],
        ["0", "1"],
        "VLCS",
        ("train", "crossval", "test"),
    ),
}
CALLED = {
    Layout.PACS: ("art_painting", "cartoon", "photo", "sketch"),
    Layout.OFFICE_HOME: ("Art", "Clipart", "Product", "Real World"),
    Layout.VLCS: ("Caltech101", "LabelMe", "SUN09", "VOC2007"),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_each_layout_is_found_and_one_domain_left_out(tmp_path, case):
    layout, domains, classes, below, between = LAYOUTS[case]
    fill(tmp_path / below, domains, classes, between=between)
    for name in (".DS_Store", "Thumbs.db", "readme.txt", "._0.png"):
        (
            tmp_path / below / domains[0] / (between[0] if between else "") / classes[0] / name
        ).write_bytes(b"no image")
    spec = ImageFolders(tmp_path, layout, held_out=CALLED[layout][2], side=4)
    assert spec.domains() == CALLED[layout]
    assert spec.classes() == tuple(classes)
    task = spec.build(Lab())
    assert {split.at for split in task.of(Use.TRAIN).values()} == set(CALLED[layout]) - {
        CALLED[layout][2]
    }
    assert task.splits["unseen"].at == CALLED[layout][2]
    sizes = {}
    for split in task.splits.values():
        sizes[split.at] = sizes.get(split.at, 0) + len(split.data)
    assert sizes == dict.fromkeys(CALLED[layout], 20 * max(1, len(between)))


def test_the_part_full_of_vlcs_is_the_others_together(tmp_path):
    fill(tmp_path, LAYOUTS["VLCS parts"][1], ["0", "1"], n=4, between=("full", "train", "test"))
    files = ImageFolders(tmp_path, Layout.VLCS).files()
    assert all(
        path.parent.parent.name == "full" for found in files["SUN09"].values() for path in found
    )
    assert len(files["SUN09"]["0"]) == 4


def test_pixels_are_the_file_s_and_are_decoded_when_asked_for(tmp_path):
    fill(tmp_path, ["a", "b"], ["cat", "dog"])
    task = ImageFolders(tmp_path, side=3).build(Lab())
    data = task.splits["train:a"].data
    row = data[2]
    red, green, blue = np.asarray(Image.open(data.paths[2]))[0, 0].tolist()
    assert torch.equal(
        row["x"], torch.tensor([red, green, blue]).float()[:, None, None].expand(3, 3, 3) / 255
    )
    assert data.paths[2].parent.name == ("cat", "dog")[int(row["y"])]
    assert {key: int(row[key]) for key in ("domain",)} == {"domain": 0}
    data.paths[0].unlink()  # nobody has asked for it yet
    assert torch.equal(data[2]["x"], row["x"])
    with pytest.raises(CorruptFile, match=data.paths[0].name):
        data[0]


def test_resizing_averages_over_all_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    small = decode_image(tmp_path / "grey.png", 1)
    assert small.shape == (3, 1, 1)
    weight = (
        1 - np.abs(np.arange(8) + 0.5 - 4) / 8
    )  # a triangle as wide as the reduction on either side
    expected = (pixels * np.outer(weight, weight)).sum() / weight.sum() ** 2
    assert small[0, 0, 0].item() * 255 == pytest.approx(
        expected, abs=1.5
    )  # two roundings to whole grey levels
    same = decode_image(tmp_path / "grey.png", 8)
    assert torch.equal(same[0], torch.from_numpy(pixels).float() / 255)


def test_a_task_in_memory_holds_the_same_batches():
    task = image_folders.example().build(Lab())
    held = in_memory(task)
    for name, split in task.splits.items():
        assert isinstance(split.data, Pictures)
        assert isinstance(held.splits[name].data, Columns)
        one, other = whole(split.data, Lab()), whole(held.splits[name].data, Lab())
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_validating_domain_of_pictures():
    task = image_folders.example().build(Lab())
    inner = validate_on(task, "dark")
    assert len(inner.splits["select:dark"].data) == len(task.splits["train:dark"].data) + len(
        task.splits["select:dark"].data
    )
    assert whole(inner.splits["select:dark"].data, Lab())["domain"].unique().tolist() == [1]


def test_the_order_of_files_on_disk_does_not_matter(tmp_path):
    fill(tmp_path / "one", ["a", "b"], ["cat", "dog"])
    fill(tmp_path / "two", ["b", "a"], ["dog", "cat"])
    for name in ("a", "b"):
        for folder in ("cat", "dog"):
            for path in sorted((tmp_path / "one" / name / folder).iterdir(), reverse=True):
                shutil.copy(path, tmp_path / "two" / name / folder / path.name)
    one, two = (
        whole(ImageFolders(tmp_path / k, side=2).build(Lab()).splits["unseen"].data, Lab())
        for k in ("one", "two")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_bad_layouts_are_refused(tmp_path):
    with pytest.raises(MissingFile, match="no folder"):
        ImageFolders(tmp_path / "absent").build(Lab())
    with pytest.raises(InvalidData, match="holds no folder"):
        ImageFolders(tmp_path).build(Lab())
    paint(tmp_path / "a" / "loose.png", (1, 2, 3))
    with pytest.raises(InvalidData, match="no class folder"):
        ImageFolders(tmp_path).build(Lab())
    fill(tmp_path, ["a", "b"], ["cat", "dog"])
    with pytest.raises(InvalidData, match=r"not laid out like PACS: of art_painting.* it has none"):
        ImageFolders(tmp_path, Layout.PACS).build(Lab())
    fill(tmp_path, ["photo", "sketch"], ["cat", "dog"])
    with pytest.raises(InvalidData, match="it has photo, sketch"):
        ImageFolders(tmp_path, Layout.PACS).build(Lab())
    with pytest.raises(UnknownName, match="photo"):
        ImageFolders(tmp_path, held_out="photos").build(Lab())
    (tmp_path / "a" / "empty").mkdir()
    with pytest.raises(InvalidData, match="without images \\(empty\\)"):
        ImageFolders(tmp_path).build(Lab())
    with pytest.raises(InvalidConfig, match="side"):
        ImageFolders(tmp_path, side=0)


def test_domains_with_other_classes_are_refused(tmp_path):
    fill(tmp_path, ["a", "b"], ["cat", "dog"])
    (tmp_path / "b" / "dog").rename(tmp_path / "b" / "Hund")
    with pytest.raises(InvalidData, match=r"`a` and `b` .* different classes \(Hund, dog\)"):
        ImageFolders(tmp_path).build(Lab())


def test_one_domain_only_is_refused(tmp_path):
    fill(tmp_path, ["a"], ["cat", "dog"])
    with pytest.raises(InvalidData, match="one domain only"):
        ImageFolders(tmp_path).build(Lab())


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    with pytest.raises(CorruptFile, match=r"a\.jpg is not a readable image"):
        decode_image(tmp_path / "a.jpg", 4)


# Waterbirds


@pytest.fixture
def birds(tmp_path):
    root = tmp_path / "waterbird_complete95_forest2water2"
    shutil.copytree(waterbirds.small_copy(), root)
    return root


def table(root, change=None):
    frame = pd.read_csv(root / "metadata.csv")
    if change is not None:
        change(frame).to_csv(root / "metadata.csv", index=False)
    return frame


def test_splits_places_and_groups_are_those_of_the_metadata(birds):
    task = Waterbirds(birds, side=8).build(Lab())
    frame = table(birds)
    assert set(task.splits) == {
        *(f"{k}:{p}" for k in ("train", "select") for p in ("land", "water")),
        *GROUPS,
    }
    for name, split in task.splits.items():
        batch = whole(split.data, Lab())
        rows = frame.iloc[batch["index"].tolist()]
        assert rows.y.tolist() == batch["y"].tolist()
        assert rows.place.tolist() == batch["place"].tolist() == batch["domain"].tolist()
        assert torch.equal(batch["group"], 2 * batch["y"] + batch["place"])
        number = {Use.TRAIN: 0, Use.SELECT: 1, Use.EVALUATE: 2}[split.use]
        assert (rows.split == number).all()
        if name in GROUPS:
            assert batch["group"].unique().tolist() == [GROUPS.index(name)]
    assert sum(len(split.data) for split in task.splits.values()) == len(frame)
    assert set(task.unseen) == set(GROUPS)


def test_complete_correlation_fits_the_large_groups_only(birds):
    full, complete = (Waterbirds(birds, side=8, complete=c).build(Lab()) for c in (False, True))
    for place in ("land", "water"):
        batch = whole(complete.splits[f"train:{place}"].data, Lab())
        assert (batch["y"] == batch["place"]).all()
        assert len(complete.splits[f"train:{place}"].data) < len(full.splits[f"train:{place}"].data)
        assert len(complete.splits[f"select:{place}"].data) == len(
            full.splits[f"select:{place}"].data
        )


def test_unlabelled_images_have_no_label_and_do_not_select(birds):
    task = Waterbirds(birds, side=8, unlabelled=0.5).build(Lab())
    free = whole(task.splits["unlabelled"].data, Lab())
    assert set(free) == {"x", "index"}
    selecting = [
        whole(task.splits[f"select:{p}"].data, Lab())["index"].tolist() for p in ("land", "water")
    ]
    assert not set(free["index"].tolist()) & {row for rows in selecting for row in rows}
    assert len(free["index"]) + sum(map(len, selecting)) == (table(birds).split == 1).sum()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda f: f.drop(columns="place"), InvalidData, "no column place"),
        (lambda f: f.assign(y=2), InvalidData, "Column `y`"),
        (lambda f: f.assign(split=f.split + 1), InvalidData, "Column `split`"),
        (
            lambda f: f.assign(img_filename="gone/" + f.img_filename),
            MissingFile,
            "images of .* are missing",
        ),
        (lambda f: f[f.split < 2], InvalidData, "Split `landbird on land`"),
    ],
)
def test_bad_metadata_are_refused(birds, change, error, says):
    table(birds, change)
    with pytest.raises(error, match=says):
        Waterbirds(birds).build(Lab())


def test_a_folder_without_metadata_is_refused(birds):
    (birds / "metadata.csv").write_bytes(b"")
    with pytest.raises(CorruptFile, match="cannot be read"):
        Waterbirds(birds).build(Lab())
    (birds / "metadata.csv").unlink()
    with pytest.raises(MissingFile, match=r"metadata\.csv"):
        Waterbirds(birds).build(Lab())
    for change in ({"side": 0}, {"unlabelled": 1.0}):
        with pytest.raises(InvalidConfig, match="Waterbirds"):
            replace(waterbirds.example(), **change)
