"""Few-shot dense prediction from folders: pairs, labels of every kind, errors, files."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unseen.data.files import data_folders
from unseen.engine.loop import Budget
from unseen.errors import CorruptFile, InvalidConfig, InvalidData, MissingFile
from unseen.identity.tensors import digest_of
from unseen.lab import Lab
from unseen.measures.segmentation import RMSE
from unseen.methods.few_shot_tuning import Adapt, FewShotTuning
from unseen.models.token_matching import Shape, token_matcher
from unseen.questions.dense import few_shot_answer, write_predictions
from unseen.questions.dense.arms import (
    MatchTokens,
    filter_features,
    learn_constant,
    learn_forest,
    learn_unet,
    position_loss,
)
from unseen.questions.dense.checkpoint import load_matcher, save_matcher, shipped_matcher
from unseen.questions.dense.document import dense_document
from unseen.questions.dense.inputs import DenseData, Kind, read_folders, shrink
from unseen.questions.dense.job import Setting, adapt_to, error_of, spread
from unseen.report.terminal import as_text
from unseen.tasks import ProceduralScenes
from unseen.tasks.procedural_scenes import TRAINING, Label


def broken_chunk() -> bytes:
    """A PNG whose second chunk of pixels has no name."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    content = bytearray(file.getvalue())
    at = content.index(b"IDAT", content.index(b"IDAT") + 4)
    content[at : at + 4] = b"\x08\x03\0\0"
    return bytes(content)


BROKEN_CHUNK = broken_chunk()
SHAPE = Shape(side=16, width=16, heads=2)


def matcher():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return token_matcher(SHAPE, ("a", "b"))


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


def folders(tmp_path: Path, n: int = 6, labelled: int = 4, size: int = 20) -> tuple[Path, Path]:
    """Images whose bright square is the mask."""
    rng = np.random.default_rng(0)
    for k in range(n):
        image = rng.integers(0, 90, (size, size + 4, 3), dtype=np.uint8)
        mask = np.zeros((size, size + 4), dtype=np.uint8)
        top, left = rng.integers(0, size - 8, 2)
        image[top : top + 8, left : left + 8] += 160
        mask[top : top + 8, left : left + 8] = 255
        write(tmp_path / "images" / f"{k:02d}.png", image)
        if k < labelled:
            write(tmp_path / "labels" / f"{k:02d}.png", mask)
    (tmp_path / "labels").mkdir(exist_ok=True)
    return tmp_path / "images", tmp_path / "labels"


def read(tmp_path: Path, **options) -> DenseData:
    return read_folders(tmp_path / "images", tmp_path / "labels", **options)


def test_pairs_are_found_by_name(tmp_path):
    folders(tmp_path)
    data = read(tmp_path)
    assert data.kind is Kind.MASK
    assert data.channels == ("mask",)
    assert [one.name for one in data.labelled] == ["00", "01", "02", "03"]
    assert [one.name for one in data.unlabelled] == ["04", "05"]
    first = data.labelled[0]
    assert first.image.shape == (1, 3, 20, 24)
    assert first.label.shape == (1, 20, 24)
    assert float(first.label.mean()) == pytest.approx(64 / 480)


def test_larger_images_are_averaged_to_the_working_size(tmp_path):
    folders(tmp_path, size=40)
    data = read(tmp_path, side=20)
    assert data.labelled[0].image.shape[-2:] == (20, 22)
    assert data.labelled[0].size == (40, 44)
    assert data.labelled[0].scale == 2
    assert {float(v) for v in data.labelled[0].label.unique()} == {0, 1}
    blocks = torch.arange(16.0).view(1, 4, 4)
    assert torch.equal(shrink(blocks, 2)[0, 0], torch.tensor([2.5, 4.5]))


def test_classes_become_channels_and_255_is_unknown(tmp_path):
    folders(tmp_path, labelled=0)
    for k in range(3):
        label = np.full((20, 24), 2, dtype=np.uint8)
        label[:5], label[5:8] = 7, 255
        write(tmp_path / "labels" / f"{k:02d}.png", label)
    with pytest.raises(InvalidConfig, match="--kind classes"):
        read(tmp_path)
    one = read(tmp_path, kind=Kind.CLASSES).labelled[0]
    assert one.label.shape == (2, 20, 24)
    assert one.known[:, 5:8].sum() == 0
    assert one.known.float().mean() == pytest.approx(17 / 20)
    assert one.label[1, :5].min() == 1
    assert one.label[0, 8:].min() == 1
    assert error_of(one.label, one, Kind.CLASSES) == 0


def test_a_palette_is_read_as_its_indices(tmp_path):
    folders(tmp_path, labelled=0)
    label = Image.fromarray(np.eye(20, 24, dtype=np.uint8) + 3).convert("P")
    label.putpalette([value for k in range(256) for value in (255 - k, k, 7 * k % 256)])
    label.save(tmp_path / "labels" / "00.png")
    assert read(tmp_path, kind=Kind.CLASSES).channels == ("class 3", "class 4")


def test_maps_with_nan_need_to_be_told_so(tmp_path):
    folders(tmp_path, labelled=0)
    values = np.linspace(0, 1, 480).reshape(20, 24)
    values[0, 0] = np.nan
    np.save(tmp_path / "labels" / "00.npy", values)
    with pytest.raises(InvalidData, match="--unknown nan"):
        read(tmp_path)
    one = read(tmp_path, unknown="nan").labelled[0]
    assert not one.known[0, 0, 0]
    assert one.known.sum() == 479
    assert error_of(one.label, one, Kind.MAP) == 0


def test_points_become_heat_maps_and_hidden_ones_are_unknown(tmp_path):
    folders(tmp_path, labelled=0, size=40)
    (tmp_path / "labels" / "00.csv").write_text("name,x,y\nnose,12.5,20.5\ntail,30,8\n")
    (tmp_path / "labels" / "01.csv").write_text("name,x,y\nnose,12,20\n")
    data = read(tmp_path, side=20)
    assert data.kind is Kind.POINTS
    assert data.channels == ("nose", "tail")
    first, second = data.labelled
    row, column = divmod(int(first.label[0].argmax()), 22)
    assert (row, column) == (10, 6)  # half the size
    assert second.known[0].all()
    assert not second.known[1].any()
    moved = torch.roll(first.label, 1, 2)
    assert error_of(moved, first, Kind.POINTS) == pytest.approx(2, abs=0.3)  # pixels of the file


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda p: (p / "images" / "00.png").unlink(), InvalidData, "label without an image"),
        (lambda p: write(p / "labels" / "00.png", 255 * np.eye(9, dtype=np.uint8)), InvalidData,
         "every pixel needs a label"),
        (lambda p: np.save(p / "labels" / "05.npy", np.full((20, 24), 2.0)), InvalidData,
         "values in"),
        (lambda p: (p / "labels" / "05.csv").write_text("name,x,y\na,1,1\n"), InvalidData,
         "one kind"),
        (lambda p: write(p / "labels" / "05.png",
                         np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)),
         InvalidData, "coloured label"),
    ],
)  # fmt: skip
def test_labels_that_fit_no_image_are_refused(tmp_path, change, error, says):
    folders(tmp_path)
    change(tmp_path)
    with pytest.raises(error) as found:
        read(tmp_path, kind=Kind.MAP if says == "values in" else None)
    assert says in str(found.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("01.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40),
        ("01.png", BROKEN_CHUNK),
        ("01.npy", b""),
        ("01.npy", b"PK\x03\x04 no archive"),
        ("01.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'  "),
    ],
)
def test_damaged_label_files_are_named(tmp_path, name, content):
    folders(tmp_path, labelled=0)
    (tmp_path / "labels" / name).write_bytes(content)
    with pytest.raises(CorruptFile, match=name):
        read(tmp_path, kind=Kind.MAP)


def test_an_archive_of_arrays_is_no_label(tmp_path):
    folders(tmp_path, labelled=0)
    with open(tmp_path / "labels" / "00.npy", "wb") as file:
        np.savez(file, np.zeros((20, 24)))
    with pytest.raises(CorruptFile, match="archive"):
        read(tmp_path)


def test_a_grey_image_of_fractions_is_a_map_and_no_mask(tmp_path):
    folders(tmp_path, labelled=0)
    values = np.linspace(0, 1, 480, dtype=np.float32).reshape(20, 24)
    write(tmp_path / "labels" / "00.tif", values)
    data = read(tmp_path)
    assert data.kind is Kind.MAP
    assert torch.allclose(data.labelled[0].label[0], torch.from_numpy(values))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, np.float64])
def test_an_array_of_zeros_and_ones_keeps_its_values(tmp_path, dtype):
    folders(tmp_path, labelled=0)
    values = np.eye(20, 24).astype(dtype)
    np.save(tmp_path / "labels" / "00.npy", values)
    label = read(tmp_path).labelled[0].label
    assert torch.equal(label[0], torch.eye(20, 24))


def test_a_mask_without_an_outside_is_refused(tmp_path):
    folders(tmp_path, labelled=0)
    write(tmp_path / "labels" / "00.png", 1 + np.eye(20, 24, dtype=np.uint8))
    with pytest.raises(InvalidConfig, match="hold 1 and 2, and no 0"):
        read(tmp_path)


def test_points_outside_the_image_are_refused(tmp_path):
    folders(tmp_path, labelled=0)
    (tmp_path / "labels" / "00.csv").write_text("name,x,y\nnose,50,3\n")
    with pytest.raises(InvalidData, match="outside the image"):
        read(tmp_path)
    (tmp_path / "labels" / "00.csv").write_text("x,y\n5,3\n")
    with pytest.raises(InvalidData, match="name,x,y"):
        read(tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(MissingFile):
        read(tmp_path)


def test_second_images_stand_beside_the_first(tmp_path):
    images, _ = folders(tmp_path)
    data = read(tmp_path, second=images)
    assert data.inputs == 2
    assert torch.equal(*data.labelled[0].image)
    (tmp_path / "few").mkdir()
    with pytest.raises(InvalidData, match="second one"):
        read(tmp_path, second=tmp_path / "few")


@pytest.mark.parametrize(
    "learn",
    [
        learn_constant,
        learn_forest,
        lambda samples, lab: learn_unet(samples, lab, Budget(steps=2, batch_size=2)),
        MatchTokens(matcher(), Adapt.NONE),
        MatchTokens(matcher(), budget=Budget(steps=2, batch_size=4)),
    ],
)
def test_every_arm_predicts_maps_of_the_image_and_repeats_itself(tmp_path, learn):
    folders(tmp_path)
    data = read(tmp_path)
    maps = [learn(data.labelled, Lab(3))(data.unlabelled[0]) for _ in range(2)]
    assert maps[0].shape == (1, 20, 24)
    assert maps[0].min() >= 0
    assert maps[0].max() <= 1
    assert torch.equal(*maps)


def test_the_forest_finds_a_bright_square_and_the_constant_does_not(tmp_path):
    folders(tmp_path, n=8, labelled=8)
    samples = read(tmp_path).labelled
    few, held = samples[:6], samples[7]
    errors = [error_of(learn(few, Lab())(held), held, Kind.MASK)
              for learn in (learn_constant, learn_forest)]  # fmt: skip
    assert errors[1] < 0.3 < errors[0]


def test_the_loss_of_a_point_is_where_it_lies_and_hidden_ones_do_not_count():
    labels = torch.zeros(1, 3, 4, 5)
    labels[0, 0, 2, 1] = 1.0
    labels[0, 1, 0, 0] = 1.0
    known = torch.ones_like(labels, dtype=torch.bool)
    known[0, 1] = False  # hidden; the third lies outside
    logits = torch.zeros(1, 3, 4, 5)
    assert position_loss(logits, labels, known) == pytest.approx(float(np.log(20)))
    logits[0, 1:] = torch.randn(2, 4, 5)
    assert position_loss(logits, labels, known) == pytest.approx(float(np.log(20)))
    logits[0, 0, 2, 1] = 50.0
    assert position_loss(logits, labels, known) == pytest.approx(0.0, abs=1e-6)
    assert position_loss(logits, labels, torch.zeros_like(known)) == 0.0


def test_filter_features_do_not_move_with_the_image():
    image = torch.rand(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    moved = torch.roll(image, (2, 3), (2, 3))
    one, other = (filter_features(x).reshape(30, 30, -1) for x in (image, moved))
    np.testing.assert_allclose(one[13:15, 13:15], other[15:17, 16:18], atol=2e-3)


SETTING = Setting(shots=2, folds=2, steps=2, curve=(1, 2), most=4)


def test_the_answer_has_errors_a_curve_predictions_and_a_page(tmp_path):
    folders(tmp_path)
    data = read(tmp_path)
    save_matcher(tmp_path / "m.safetensors", matcher())
    heard: list[object] = []
    answer = few_shot_answer(data, SETTING, Lab(), heard.append, model=tmp_path / "m.safetensors")
    found = answer.results
    assert heard == [0, 1]
    assert found.evaluated == ["00", "01", "02", "03"]
    assert set(found.errors) == {
        "constant", "random forest", "small U-Net", "matching, not adapted",
        "matching, biases adapted",
    }  # fmt: skip
    assert all(len(values) == 4 for values in found.errors.values())
    assert [*found.curve["matching, biases adapted"]] == [1, 2]
    written = write_predictions(found, tmp_path / "out")
    assert [path.name for path in written] == ["04.png", "05.png"]
    with Image.open(written[0]) as image:
        assert image.size == (24, 20)
    page = answer.report(tmp_path / "r.html").read_text()
    assert "1 − IoU" in page
    assert '"adapted_share"' in answer.json()
    missed = replace(found, errors={**found.errors, found.adapted: [1.0, 0.99, 1.0, 1.0]})
    hit = replace(found, errors={**found.errors, found.adapted: [1.0, 0.5, 1.0, 1.0]})
    for errors, says in ((missed, True), (hit, False)):
        text = as_text(dense_document(errors, "images", shipped=True), width=1_000)
        assert ("finds next to nothing" in text) == says
    adapted = [0.5, 0.6, 0.4, 0.5]
    for forest, says in (
        ([0.1, 0.2, 0.1, 0.1], "Consider that instead"),
        ([0.1, 0.9, 0.4, 0.1], "errs less than adapted matching is undecided"),
        ([0.9, 0.9, 0.9, 0.9], f"The smallest error: {found.adapted}"),
    ):
        errors = {"constant": [1.0] * 4, "random forest": forest, found.adapted: adapted}
        others = {name: [0.95, 1.0, 0.9, 1.0] for name in found.errors if name not in errors}
        page = dense_document(replace(found, errors=others | errors), "images", shipped=True)
        assert says in page.lead
        assert "1.00 of the constant" in page.lead  # equal errors have no interval


def test_more_shots_than_labels_are_refused_with_names(tmp_path):
    folders(tmp_path)
    with pytest.raises(InvalidData, match="04 and 05"):
        adapt_to(read(tmp_path), matcher(), replace(SETTING, shots=9), Lab())
    with pytest.raises(InvalidConfig):
        Setting(shots=0)


def test_images_smaller_than_a_tile_are_refused(tmp_path):
    folders(tmp_path, size=12)
    with pytest.raises(InvalidData, match="tiles of 16"):
        adapt_to(read(tmp_path), matcher(), SETTING, Lab())


def test_a_network_comes_back_from_its_file_and_a_pickle_does_not(tmp_path):
    switch = matcher()
    save_matcher(tmp_path / "m.safetensors", switch)
    again = load_matcher(tmp_path / "m.safetensors")
    assert again.tasks == ["a", "b"]
    assert again.module.shape == SHAPE
    for name, tensor in switch.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    torch.save(switch.state_dict(), tmp_path / "m.pt")
    with pytest.raises(InvalidData, match="pickle"):
        load_matcher(tmp_path / "m.pt")
    from unseen.runs.tensors import save_weights

    save_weights(tmp_path / "other.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(InvalidData, match="no token matching"):
        load_matcher(tmp_path / "other.safetensors")


def test_the_shipped_network_has_the_sizes_of_the_study_and_the_hash_of_its_card():
    switch = shipped_matcher()
    assert switch.module.shape == Shape()
    assert switch.tasks == [str(label) for label in TRAINING]
    card = data_folders()[0] / "dense-matcher" / "README.md"
    assert digest_of(switch.state_dict()) in card.read_text("utf-8")
    assert (card.parent / "matcher.safetensors").stat().st_size < 5_000_000


def test_the_shipped_network_finds_what_is_red_in_new_scenes_from_ten_labels():
    scenes = ProceduralScenes(labels=(Label.RED,), n_train=10, n_test=20).build(Lab(seed=5))
    tuning = FewShotTuning("red of the shots", Adapt.NONE)
    with Lab().child("init").seeded():
        untrained = token_matcher()
    errors = []
    for switch in (shipped_matcher(), untrained):
        tuned = tuning.fit(switch, scenes, Lab())
        errors.append(RMSE("test")(tuned, Lab()).value)
    assert errors[0] < 0.75 * errors[1]


def test_without_a_model_the_shipped_one_is_adapted_and_the_page_says_what_it_saw(tmp_path):
    folders(tmp_path, size=24)
    answer = few_shot_answer(read(tmp_path), replace(SETTING, steps=1), Lab())
    assert "has only ever seen drawn scenes" in answer.report(tmp_path / "r.md").read_text("utf-8")


def test_what_is_learned_from_is_spread_evenly(tmp_path):
    folders(tmp_path, n=9, labelled=9)
    samples = read(tmp_path).labelled
    assert [one.name for one in spread(samples, 3)] == ["00", "04", "08"]
    assert spread(samples, 20) == samples
