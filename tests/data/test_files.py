"""Data files: the registry is complete, content is what is checked, and failures say what to do."""

import gzip
import http.server
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unseen.data import registry
from unseen.data.files import content_sha256, data_file, data_folders, home
from unseen.data.packing import gzip_member, repack_folder
from unseen.data.registered_file import RegisteredFile
from unseen.data.registry import (
    british_fiction,
    camvid_small,
    cifar10_subset,
    data_sets,
    diabetes_130_hospitals,
    em_membrane_small,
    fast_detect_gpt,
    federalist,
    files_of,
    human_vs_llm,
    instruction_induction,
    keypoints_openfield,
    neiss_infants,
    registered_files,
    reuters_c50_subset,
    reversal_curse,
    usps,
)
from unseen.errors import CorruptFile, MissingFile, UnknownName

REGISTERED = registered_files()
SHIPPED = [name for name in REGISTERED if (data_folders()[0] / name).is_file()]
LOCAL = Path(os.environ.get("UNSEEN_DATA", "/nonexistent"))


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("UNSEEN_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def served(tmp_path):
    """A folder and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_): ...

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def sha(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return content_sha256(tmp_path / name)


def known(sha256, *urls, pack=partial(gzip_member, name="a")):
    return RegisteredFile(
        sha256=sha256,
        size=10,
        licence="MIT",
        page="https://a.org",
        origins=tuple((url,) for url in urls),
        pack=pack,
    )


def test_registry_is_complete():
    for name, entry in REGISTERED.items():
        assert len(entry.sha256) == 64, name
        assert set(entry.sha256) <= set("0123456789abcdef"), name
        assert entry.size > 0, name
        assert entry.licence, name
        assert entry.page.startswith("http"), name
        assert entry.origins or name in SHIPPED, name
        assert all(
            url.startswith(("https://", "http://")) for urls in entry.origins for url in urls
        ), name


@pytest.mark.parametrize("data_set", data_sets())
def test_each_data_set_registers_files_of_its_own_folder(data_set):
    files = files_of(data_set)
    assert files
    assert all(name.startswith(f"{data_set}/") for name in files)


def test_a_file_imports_the_module_of_its_own_data_set_only():
    code = """
import sys
from unseen.data.files import data_file
data_file("optdigits/optdigits.tes.gz")
print([name for name in sys.modules if name.startswith("unseen.data.registry.")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['unseen.data.registry.optdigits']"


def test_a_new_data_set_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "new_plants.py").write_text(
        "from unseen.data.packing import idx_files\n"
        "FILES = idx_files('new-plants', 'MIT', 'https://a.org', (), {'leaves': ('0' * 64, 1)})\n"
    )
    monkeypatch.setattr(registry, "__path__", [*registry.__path__, str(tmp_path)])
    assert "new-plants" in data_sets()
    with pytest.raises(MissingFile, match="new-plants/leaves"):
        data_file("new-plants/leaves.gz")
    sys.modules.pop("unseen.data.registry.new_plants")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_hold_what_the_registry_says(name):
    assert data_file(name) == data_folders()[0] / name


def test_only_open_licences_are_shipped():
    assert {REGISTERED[name].licence for name in SHIPPED} == {"MIT", "CC BY 4.0", "Apache-2.0"}
    for folder in {name.split("/")[0] for name in SHIPPED}:
        assert "Licence:" in (data_folders()[0] / folder / "README.md").read_text()


@pytest.mark.skipif(not LOCAL.is_dir(), reason="UNSEEN_DATA is not set")
@pytest.mark.parametrize("name", [name for name in REGISTERED if name not in SHIPPED])
def test_local_mirror_holds_what_the_registry_says(name, monkeypatch):
    monkeypatch.setenv("UNSEEN_DATA", str(LOCAL))
    if (LOCAL / name).is_file():
        assert data_file(name) == LOCAL / name


@pytest.mark.parametrize("level", [0, 1, 9])
def test_content_checksum_ignores_gzip_level(tmp_path, level):
    data = bytes(range(256)) * 20
    assert sha(tmp_path, "a.gz", gzip.compress(data, level)) == sha(tmp_path, "plain", data)
    assert sha(tmp_path, "b.gz", gzip.compress(data[:-1], level)) != sha(tmp_path, "plain", data)


def zip_of(files, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_content_checksum_of_archives_ignores_order_and_compression_but_not_names(tmp_path):
    one = sha(tmp_path, "a.zip", zip_of({"x": b"1" * 99, "y": b"2"}))
    assert one == sha(
        tmp_path,
        "b.zip",
        zip_of({"__MACOSX/x": b"", "y": b"2", "x": b"1" * 99}, zipfile.ZIP_DEFLATED),
    )
    assert one != sha(tmp_path, "c.zip", zip_of({"x": b"1" * 99, "z": b"2"}))
    assert one != sha(tmp_path, "d.zip", zip_of({"x": b"1" * 99 + b"2", "y": b""}))


def test_content_of_one_file_is_the_same_in_gzip_and_xz(tmp_path):
    data = bytes(range(256)) * 20
    plain = sha(tmp_path, "plain", data)
    assert sha(tmp_path, "a.csv.xz", lzma.compress(data)) == plain
    assert sha(tmp_path, "a.csv.gz", gzip.compress(data)) == plain
    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        sha(tmp_path, "b.csv.xz", lzma.compress(data)[:-9])


def test_every_eighth_record_of_infant_injuries(tmp_path):
    rows = [f"{k},x\n" for k in range(20)]
    whole = "".join(["id,psu\n", *rows]).encode()
    (tmp_path / "infants.csv.zip").write_bytes(zip_of({"infants.csv": whole}))
    packed = neiss_infants.pack([tmp_path / "infants.csv.zip"])
    assert lzma.decompress(packed) == b"id,psu\n0,x\n8,x\n16,x\n"


def members(packed):
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}


def test_novels_are_cut_at_line_ends(tmp_path):
    novel = "".join(f"line {k:06}\r\n" for k in range(20_000))
    files = {"r-1/corpus/A_B.txt": novel.encode(), "r-1/corpus/Richardson_Clarissa.txt": b"x"}
    (tmp_path / "a.zip").write_bytes(zip_of(files | {"r-1/README.md": b"y"}))
    found = members(british_fiction.pack([tmp_path / "a.zip"]))
    lines = found["A_B.txt"].decode().splitlines(keepends=True)
    assert list(found) == ["A_B.txt"]
    assert (lines[0], lines[-1]) == ("line 001667\n", "line 014165\n")


def test_federalist_papers_are_split_with_author_and_heading(tmp_path):
    text = (
        "Gutenberg\n\nFEDERALIST No. 48\n\nOn\nPower\n\n\nMADISON\n\nText é.\n\nPUBLIUS\n\n\n"
        "FEDERALIST No. 49\n\nOn\n\nMADISON\n\nMore.\n\n\nEnd of the Project Gutenberg EBook of"
    )
    (tmp_path / "f.txt").write_text(text, "utf-8")
    lines = gzip.decompress(federalist.pack([tmp_path / "f.txt"])).decode().splitlines()
    assert json.loads(lines[0]) == {
        "number": 48,
        "author_in_source": "MADISON",
        "heading": "On Power",
        "text": "Text é.\n\nPUBLIUS",
        "disputed": False,
    }
    assert json.loads(lines[1])["disputed"]
    assert "é" in lines[0]


def test_reuters_keeps_fifteen_authors(tmp_path):
    base = "r-1/data/ReutersC50/C50test"
    files = {f"{base}/AaronPressman/1.txt": b"1", f"{base}/Another/2.txt": b"2"}
    (tmp_path / "a.zip").write_bytes(zip_of(files))
    found = members(reuters_c50_subset.pack([tmp_path / "a.zip"]))
    assert found == {"C50test/AaronPressman/1.txt": b"1"}


def test_essays_of_two_of_three_topics(tmp_path):
    files = {
        f"r-1/full_texts/{kind}/{topic}.txt": f"{kind}{topic}".encode()
        for kind in ("human", "chatgpt")
        for topic in (2, 3, 11, 20)
    }
    files |= {"r-1/LICENSE": b"l", "r-1/full_texts/questions.txt": b"q"}
    (tmp_path / "a.zip").write_bytes(zip_of(files))
    found = members(human_vs_llm.pack_essays([tmp_path / "a.zip"]))
    assert [n for n in found if "human" in n] == ["human/2.txt", "human/11.txt", "human/20.txt"]
    assert found["chatgpt/11.txt"] == b"chatgpt11"
    assert found["questions.txt"] == b"q"


def test_pairs_are_the_first_of_a_file(tmp_path):
    pairs = {"original": ["é"] * 200, "sampled": [f"m{k}" for k in range(200)]}
    (tmp_path / "p.json").write_text(json.dumps(pairs), "utf-8")
    found = gzip.decompress(fast_detect_gpt.pack([tmp_path / "p.json"])).decode()
    assert found.startswith('{\n"original": [\n"é",\n"é"')
    assert json.loads(found)["sampled"] == pairs["sampled"][:150]


def test_packed_nonsense_is_corrupted(tmp_path):
    for name in ("a.gz", "a.zip", "a.xz", "a.tar.xz"):
        with pytest.raises(CorruptFile, match="cannot be unpacked"):
            sha(tmp_path, name, b"not packed at all")
    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        sha(tmp_path, "b.gz", gzip.compress(b"x" * 1000)[:-9])


def test_download_is_packed_checked_and_kept(served, tmp_path):
    folder, url = served
    (folder / "a").write_bytes(b"comment\n1,2\n")
    entry = known(
        sha(tmp_path, "want", b"head\n1,2\n"),
        f"{url}/a",
        pack=partial(gzip_member, name="a", head=b"head\n", skip_lines=1),
    )
    path = data_file("set/a.gz", {"set/a.gz": entry})
    assert gzip.decompress(path.read_bytes()) == b"head\n1,2\n"
    (folder / "a").unlink()
    assert data_file("set/a.gz", {"set/a.gz": entry}) == path
    assert [p.name for p in path.parent.iterdir()] == ["a.gz"]  # nothing temporary is left


def test_second_address_is_tried_and_zip_member_is_found(served, tmp_path):
    folder, url = served
    (folder / "all.zip").write_bytes(zip_of({"sub/A": b"1", "sub/b": b"2"}))
    entry = known(sha(tmp_path, "want", b"1"), f"{url}/absent", f"{url}/all.zip")
    assert gzip.decompress(data_file("a.gz", {"a.gz": entry}).read_bytes()) == b"1"


def test_wrong_download_is_refused_and_not_kept(served, tmp_path):
    folder, url = served
    (folder / "a").write_bytes(b"other")
    with pytest.raises(CorruptFile, match="expected data"):
        data_file("a.gz", {"a.gz": known("0" * 64, f"{url}/a")})
    assert list((tmp_path / "home" / "data").iterdir()) == []


def test_no_network_says_what_from_where_and_where_to_put_it(tmp_path):
    with pytest.raises(MissingFile) as caught:
        data_file("set/a.gz", {"set/a.gz": known("0" * 64, "http://127.0.0.1:9/a")})
    text = str(caught.value)
    for part in (
        "set/a.gz",
        "http://127.0.0.1:9/a",
        str(tmp_path / "home" / "data" / "set" / "a.gz"),
        "UNSEEN_DATA",
        "MIT",
    ):
        assert part in text


def test_own_folder_comes_first_and_is_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_DATA", str(tmp_path))
    entry = known(sha(tmp_path, "a.gz", gzip.compress(b"right")), "http://127.0.0.1:9/a")
    assert data_file("a.gz", {"a.gz": entry}) == tmp_path / "a.gz"
    sha(tmp_path, "a.gz", gzip.compress(b"wrong, and of another length"))
    with pytest.raises(CorruptFile, match=r"127\.0\.0\.1:9"):
        data_file("a.gz", {"a.gz": entry})


def test_unknown_name_gets_near_matches():
    for name in ("usps/usps.npy", "usp/usps.npz"):
        with pytest.raises(UnknownName, match=r"usps/usps\.npz"):
            data_file(name)


def test_package_without_its_file_says_how_to_repair_it():
    with pytest.raises(MissingFile, match="reinstall"):
        data_file("gone", {"gone": known("0" * 64)})


def test_a_page_in_place_of_the_data_makes_the_next_origin_count(served, tmp_path):
    folder, url = served
    (folder / "a").write_bytes(b"<html>moved</html>")
    (folder / "b").write_bytes(b"1")
    entry = known(sha(tmp_path, "want", b"1"), f"{url}/a", f"{url}/b")
    assert gzip.decompress(data_file("a.gz", {"a.gz": entry}).read_bytes()) == b"1"


def test_a_page_in_place_of_a_table_is_corrupted(served):
    folder, url = served
    (folder / "a").write_bytes(b"<html>moved</html>")
    for pack in (usps.pack, cifar10_subset.pack, reversal_curse.pack):
        entry = RegisteredFile(
            sha256="0" * 64,
            size=1,
            licence="MIT",
            page="https://a.org",
            origins=((f"{url}/a",) * 2,),
            pack=pack,
        )
        with pytest.raises(CorruptFile, match="expected data"):
            data_file("a.npz", {"a.npz": entry})


def test_a_tilde_in_the_folders_of_data_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UNSEEN_HOME", "~/kept")
    monkeypatch.setenv("UNSEEN_DATA", "~/data")
    assert home() == tmp_path / "kept"
    assert data_folders()[1:] == [tmp_path / "data", tmp_path / "kept" / "data"]


def test_home_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "file"))
    with pytest.raises(MissingFile, match="UNSEEN_HOME"):
        data_file("a.gz", {"a.gz": known("0" * 64, "http://127.0.0.1:9/a")})


def test_usps_tables_become_arrays_between_0_and_1(tmp_path):
    rows = np.full((3, 257), -1.0)
    rows[:, 0], rows[1, 5], rows[2, 6] = [6, 0, 9], 1.0, 0.5
    paths = []
    for name in ("train", "test"):
        text = io.BytesIO()
        np.savetxt(text, rows, fmt="%.4f")
        paths.append(tmp_path / name)
        paths[-1].write_bytes(gzip.compress(text.getvalue()))
    made = np.load(io.BytesIO(usps.pack(paths)))
    assert made["y_test"].tolist() == [6, 0, 9]
    assert made["x_train"].dtype == np.float32
    assert made["x_train"][1, 4] == 1
    assert made["x_train"][2, 5] == 0.75
    assert made["x_train"].sum() == 1.75


def test_cifar_subset_takes_the_first_of_each_class(tmp_path):
    files = {
        f"repo-1/{use}/{c}/{k:04}.jpg": f"{use}{c}{k}".encode()
        for use in ("train", "test")
        for c in "ab"
        for k in (3, 1, 2)
    }
    path = tmp_path / "a.zip"
    path.write_bytes(zip_of(files | {"repo-1/README.md": b""}))
    made = zipfile.ZipFile(io.BytesIO(cifar10_subset.pack([path], train=2, test=1)))
    assert made.namelist() == ["test/a/0001.jpg", "test/b/0001.jpg"] + [
        f"train/{c}/000{k}.jpg" for c in "ab" for k in (1, 2)
    ]
    assert made.read("train/b/0002.jpg") == b"trainb2"


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_membranes_are_halved_and_ordered_by_number(tmp_path):
    image = np.full((512, 512), 10)
    image[:2, :2] = [[0, 0], [100, 100]]
    label = np.full((512, 512), 255)
    label[:256] = 0
    files = {}
    for k in range(30):
        files[f"unet-1/data/membrane/train/image/{k}.png"] = png(image + k)
        files[f"unet-1/data/membrane/train/label/{k}.png"] = png(label)
    (tmp_path / "a.zip").write_bytes(zip_of(files))
    made = np.load(io.BytesIO(em_membrane_small.pack([tmp_path / "a.zip"])))
    assert made["x"].shape == made["y"].shape == (30, 256, 256)
    assert made["x"][:, 0, 0].tolist() == [50 + k for k in range(30)]
    assert made["x"][11, 0, 1] == 21
    assert made["y"][0, :, 0].tolist() == [0] * 128 + [1] * 128


def test_camvid_takes_frames_evenly_and_their_classes(tmp_path):
    files = {}
    for part, count in {"train": 120, "val": 15, "test": 31}.items():
        for k in range(count):
            files[f"S-1/CamVid/{part}/{k:03}.png"] = png(np.full((360, 480, 3), k))
            files[f"S-1/CamVid/{part}annot/{k:03}.png"] = png(np.full((360, 480), k % 12))
    (tmp_path / "a.zip").write_bytes(zip_of(files))
    made = np.load(io.BytesIO(camvid_small.pack([tmp_path / "a.zip"])))
    assert made["x_train"].shape == (60, 120, 160, 3)
    assert made["names_train"][:3].tolist() == ["000.png", "002.png", "004.png"]
    assert made["y_train"][:3, 0, 0].tolist() == [0, 2, 4]
    assert made["names_test"][-1] == "029.png"


def test_points_of_the_mouse_are_quartered(tmp_path):
    folder = "DLC-1/examples/openfield-Pranav-2018-10-30"
    table = (
        "scorer,P,P\nbodyparts,snout,snout\ncoords,x,y\n"
        "labeled-data/m4s1/img2.png,8,4\nlabeled-data/m4s1/img1.png,20,40\n"
    )
    files = {f"{folder}/labeled-data/m4s1/CollectedData_Pranav.csv": table.encode()}
    for k in (1, 2):
        files[f"{folder}/labeled-data/m4s1/img{k}.png"] = png(np.full((480, 640), 9 * k))
    (tmp_path / "a.zip").write_bytes(zip_of(files))
    made = np.load(io.BytesIO(keypoints_openfield.pack([tmp_path / "a.zip"])))
    assert made["images"].shape == (2, 120, 160)
    assert made["images"][:, 0, 0].tolist() == [9, 18]
    assert made["keypoints"].tolist() == [[[5, 10]], [[2, 1]]]
    assert made["bodyparts"].tolist() == ["snout"]
    assert made["names"].tolist() == ["img1.png", "img2.png"]


def test_reversal_curse_keeps_the_data_folder_only(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(
        zip_of({"r-1/data/x/a.jsonl": b"1", "r-1/data/x/all.jsonl": b"2", "r-1/src/b.py": b"3"})
    )
    with tarfile.open(fileobj=io.BytesIO(reversal_curse.pack([path]))) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == {"x/a.jsonl": b"1"}


def test_instruction_induction_keeps_the_first_pairs_of_each_file(tmp_path):
    many = {"metadata": {}, "examples": {str(k): {"input": "é"} for k in range(400)}}
    few = json.dumps({"examples": {"1": {}}}).encode()
    files = {
        "r-1/LICENSE": b"1", "r-1/data/raw/induce/a.json": json.dumps(many).encode(),
        "r-1/data/annotations/a.json": few, "r-1/data/induction_input/a.json": few,
    }  # fmt: skip
    path = tmp_path / "a.zip"
    path.write_bytes(zip_of(files))
    with tarfile.open(fileobj=io.BytesIO(instruction_induction.pack([path]))) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}
    assert found.keys() == {"LICENSE", "data/raw/induce/a.json", "data/annotations/a.json"}
    assert found["data/annotations/a.json"] == few
    assert list(json.loads(found["data/raw/induce/a.json"])["examples"]) == [
        str(k) for k in range(300)
    ]


def test_a_repository_is_repacked_below_a_folder_without_what_is_omitted(tmp_path):
    path = tmp_path / "a.zip"
    files = {"r-1/LICENSE": b"1", "r-1/data/x/a.src": b"2", "r-1/data/x/train.src": b"3"}
    path.write_bytes(zip_of(files | {"r-1/other/b.src": b"4"}))
    packed = repack_folder([path], "data/", omit=("train",), keep="LICENSE")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == {
            "LICENSE": b"1",
            "x/a.src": b"2",
        }


@pytest.mark.parametrize("layout", ["{}", "dataset_diabetes/{}"])
def test_both_layouts_of_the_diabetes_zip_give_the_same_content(tmp_path, layout):
    path = tmp_path / "a.zip"
    files = {"IDs_mapping.csv": b"1", "diabetic_data.csv": b"2"}
    path.write_bytes(
        zip_of(
            {
                layout.format(k if layout != "{}" else k.replace("IDs", "IDS")): v
                for k, v in files.items()
            }
        )
    )
    assert sha(tmp_path, "b.zip", diabetes_130_hospitals.pack([path])) == sha(
        tmp_path, "c.zip", zip_of({f"dataset_diabetes/{k}": v for k, v in files.items()})
    )
    path.write_bytes(zip_of({"diabetic_data.csv": b"2"}))
    with pytest.raises(CorruptFile, match="holds 0 files"):
        diabetes_130_hospitals.pack([path])


@pytest.mark.skipif(not (LOCAL / "usps/usps.npz").is_file(), reason="UNSEEN_DATA has no USPS")
def test_usps_packing_reproduces_the_registered_checksum(tmp_path):
    ours = np.load(LOCAL / "usps/usps.npz")
    paths = []
    for part in ("train", "test"):
        values = (
            np.round(ours[f"x_{part}"].astype(np.float64) * 2000) / 1000 - 1
        )  # the tables have three decimals
        text = io.BytesIO()
        np.savetxt(text, np.c_[ours[f"y_{part}"], values], fmt="%.4f")
        paths.append(tmp_path / part)
        paths[-1].write_bytes(text.getvalue())
    assert sha(tmp_path, "made.npz", usps.pack(paths)) == REGISTERED["usps/usps.npz"].sha256


@pytest.mark.skipif(not (LOCAL / "cifar10-subset").is_dir(), reason="UNSEEN_DATA has no CIFAR-10")
def test_cifar_packing_reproduces_the_registered_checksum(tmp_path):
    with zipfile.ZipFile(LOCAL / "cifar10-subset/cifar10_subset_jpeg.zip") as archive:
        files = {f"CIFAR-10-images-d7d0/{name}": archive.read(name) for name in archive.namelist()}
    (tmp_path / "a.zip").write_bytes(zip_of(files))
    made = sha(tmp_path, "b.zip", cifar10_subset.pack([tmp_path / "a.zip"]))
    assert made == REGISTERED["cifar10-subset/cifar10_subset_jpeg.zip"].sha256


def test_a_full_disk_is_named_and_leaves_nothing_behind(served, tmp_path, monkeypatch):
    folder, url = served
    (folder / "a").write_bytes(b"1")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unseen.data.files.os.replace", full)
    with pytest.raises(MissingFile, match="No space left"):
        data_file("a.gz", {"a.gz": known(sha(tmp_path, "want", b"1"), f"{url}/a")})
    assert list((tmp_path / "home" / "data").iterdir()) == []
